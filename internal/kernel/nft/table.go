package nft

import (
	"errors"
	"fmt"
	"log/slog"

	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/plan"
)

// Table is unmasq's table in the network namespace of the thread that opened it.
// It is for one goroutine.
type Table struct {
	conn *conn
	log  *slog.Logger
	// ownership: the kernel knows both flags, and the caller wants them.
	ownership bool

	installed  *plan.Table // what Sync last left in the kernel; nil: not known
	generation int
	litter     bool // an older generation could not be deleted yet
}

// Features are what the kernel was seen to do.
type Features struct {
	// Ownership: table flags owner and persist (Linux 6.9).
	Ownership bool
	// IPsec: the expression `rt ipsec exists` (CONFIG_XFRM).
	IPsec bool
}

// Open opens the socket that will own the table. It fails without CAP_NET_ADMIN.
func Open(log *slog.Logger) (*Table, error) {
	c, err := dial()
	if err != nil {
		return nil, err
	}
	return &Table{conn: c, log: log}, nil
}

// Close gives the socket up, and with it ownership: the table stays in force as
// an orphan where the kernel knows the flag persist.
func (t *Table) Close() error { return t.conn.close() }

// Port is the netlink port id of the socket; events that carry it are our own.
func (t *Table) Port() uint32 { return t.conn.port }

// Owns says whether the table is created and adopted with ownership.
func (t *Table) Owns() bool { return t.ownership }

// OwnedError says that another process owns the table, so that nobody else can
// write it.
type OwnedError struct{ Owner Process }

func (e *OwnedError) Error() string {
	return fmt.Sprintf("table inet %s belongs to %s", plan.TableName, e.Owner)
}

// UseOwnership makes Start and Sync own the table. The caller has probed that
// the kernel can.
func (t *Table) UseOwnership(on bool) { t.ownership = on }

func (t *Table) flags() uint32 {
	if t.ownership {
		return flagOwner | flagPersist
	}
	return 0
}

// Start brings the kernel to want, from whatever stands there: nothing, an
// orphan, a plain table, another layout. No packet is undecided meanwhile if
// the table that stands decided it. The error is an *OwnedError where another
// process owns the table.
func (t *Table) Start(want *plan.Table) error {
	t.installed = nil
	main, err := t.conn.state(plan.TableName)
	if err != nil {
		return err
	}
	if main.Owned() && main.Owner != t.conn.port {
		return &OwnedError{ownerOf(main.Owner)}
	}
	if err = t.start(main, want); err == nil {
		err = t.delete(plan.HandoverName)
	}
	if err != nil {
		t.Forget() // a helper that stays decides before the table: try again
		return t.explain(err)
	}
	return nil
}

func (t *Table) start(main State, want *plan.Table) error {
	if !main.Exists {
		return t.create(want, nil)
	}
	if main.Orphan() && t.ownership {
		if err := t.adopt(); err != nil {
			return err
		}
		main.Flags |= flagOwner
	}
	have, err := t.conn.contents(plan.TableName)
	if err != nil {
		return err
	}
	if main.Flags != t.flags() || !have.layoutKnown() {
		return t.replace(want)
	}
	t.generation = have.generation()
	err = t.exchange(want)
	if err == nil || errors.Is(err, unix.EPERM) {
		return err
	}
	// Whoever changed the table left something that is in the way, such as a
	// chain of our base chain's name at another hook.
	t.log.Warn("replacing the whole table", "because", err)
	return t.replace(want)
}

// Sync brings the kernel from what Start or the last Sync left to want.
func (t *Table) Sync(want *plan.Table) error {
	if t.installed == nil {
		return t.Start(want)
	}
	change, ok := plan.Diff(t.installed, want)
	var err error
	switch {
	case !ok, t.litter: // what is left over may have the names of what comes
		err = t.exchange(want)
	case change.Empty():
	default:
		err = t.change(change)
	}
	if err != nil {
		return t.explain(err)
	}
	t.installed = want
	if t.litter {
		t.sweep(want)
	}
	return nil
}

// explain turns the kernel's refusal into who is in the way.
func (t *Table) explain(err error) error {
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	if s, e := t.conn.state(plan.TableName); e == nil && s.Owned() && s.Owner != t.conn.port {
		return &OwnedError{ownerOf(s.Owner)}
	}
	return needsAdmin(err)
}

func (t *Table) writer(table string, generation int) *writer {
	return &writer{table: table, names: names{generation}}
}

func (t *Table) commit(w *writer) error {
	if w.err != nil {
		return w.err
	}
	return t.conn.send(&w.batch)
}

// whole writes a table in one batch, counters starting at counts.
func (t *Table) whole(table string, flags uint32, want *plan.Table, counts map[string]Count) error {
	w := t.writer(table, 0)
	w.addTable(flags)
	for _, c := range want.Counters {
		w.addCounter(c.Name, counts[c.Name])
	}
	for i := range want.Chains {
		w.addChain(&want.Chains[i])
	}
	for i := range want.Sets {
		w.addSet(&want.Sets[i])
	}
	for i := range want.Chains {
		w.addRules(&want.Chains[i])
	}
	return t.commit(w)
}

func (t *Table) create(want *plan.Table, counts map[string]Count) error {
	if err := t.whole(plan.TableName, t.flags(), want, counts); err != nil {
		return err
	}
	t.installed, t.generation, t.litter = want, 0, false
	return nil
}

// adopt takes an orphan. The kernel wants that in a batch of its own.
func (t *Table) adopt() error {
	w := t.writer(plan.TableName, 0)
	w.addTable(flagOwner | flagPersist)
	if err := t.commit(w); err != nil {
		return fmt.Errorf("adopt the table that an agent left: %w", err)
	}
	t.log.Info("adopted the table that an earlier agent left")
	return nil
}

// replace makes the table anew where its flags or its layout can't be changed.
// The helper decides the same while there is no table: its chain is registered
// later at the same priority, so it is asked first as soon as it is there.
func (t *Table) replace(want *plan.Table) error {
	if err := t.delete(plan.HandoverName); err != nil {
		return err
	}
	if err := t.whole(plan.HandoverName, 0, want, nil); err != nil {
		return fmt.Errorf("create the helper table: %w", err)
	}
	counts, err := t.conn.counts(plan.TableName)
	if err != nil {
		return err
	}
	if err := t.delete(plan.TableName); err != nil {
		return err
	}
	if err := t.create(want, counts); err != nil {
		return err
	}
	return t.delete(plan.HandoverName)
}

// Release turns an owned table into a plain one, which stays when the process
// ends and which every nft program can list and load.
func (t *Table) Release() error {
	if !t.ownership || t.installed == nil {
		return nil
	}
	t.ownership = false
	if err := t.replace(t.installed); err != nil {
		return t.explain(err)
	}
	return nil
}

// Clear deletes everything of unmasq's, and says whether there was anything.
func (t *Table) Clear() (removed bool, err error) {
	t.installed = nil
	for _, table := range []string{plan.TableName, plan.HandoverName} {
		s, err := t.conn.state(table)
		if err != nil {
			return removed, t.explain(err)
		}
		if s.Owned() && s.Owner != t.conn.port {
			return removed, &OwnedError{ownerOf(s.Owner)}
		}
		if err := t.delete(table); err != nil {
			return removed, t.explain(err)
		}
		removed = removed || s.Exists
	}
	return removed, nil
}

// delete removes a table, if it is there.
func (t *Table) delete(table string) error {
	s, err := t.conn.state(table)
	if err != nil || !s.Exists {
		return err
	}
	w := t.writer(table, 0)
	w.deleteTable()
	if err := t.commit(w); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

// exchange builds want beside what stands, under names of its own, then gives
// the base chain its rules, then deletes what was. Each packet meets one policy
// or the other, whole.
func (t *Table) exchange(want *plan.Table) error {
	t.Forget() // until the end, no difference to what was installed leads anywhere
	next := t.generation + 1
	w := t.writer(plan.TableName, next)
	for _, c := range want.Counters {
		w.addCounter(c.Name, Count{}) // one that stands stays as it is
	}
	for i := range want.Chains {
		if !want.Chains[i].Base {
			w.addChain(&want.Chains[i])
		}
	}
	for i := range want.Sets {
		w.addSet(&want.Sets[i])
	}
	for i := range want.Chains {
		if !want.Chains[i].Base {
			w.addRules(&want.Chains[i])
		}
	}
	t.generation = next // names of a batch that failed half-way are never met again
	if err := t.commit(w); err != nil {
		return err
	}
	w = t.writer(plan.TableName, next)
	w.addChain(&want.Chains[0])
	w.flushChain(plan.BaseChain)
	w.addRules(&want.Chains[0])
	if err := t.commit(w); err != nil {
		t.litter = true
		return err
	}
	t.installed = want
	t.sweep(want)
	return nil
}

// sweep deletes what doesn't belong to the policy in force. Failing that, it is
// tried again after the next change: nothing of it decides about packets.
func (t *Table) sweep(want *plan.Table) {
	have, err := t.conn.contents(plan.TableName)
	if err == nil {
		err = t.commit(t.unwanted(have, want))
	}
	t.litter = err != nil
	if err != nil {
		t.log.Warn("old rules are still in the table", "error", err)
	}
}

func (t *Table) unwanted(have contents, want *plan.Table) *writer {
	w := t.writer(plan.TableName, t.generation)
	keep := map[string]bool{}
	for i := range want.Chains {
		keep["chain "+w.name(want.Chains[i].Name)] = true
	}
	for i := range want.Sets {
		keep["set "+w.name(want.Sets[i].Name)] = true
	}
	for _, c := range want.Counters {
		keep["object "+fmt.Sprint(object{c.Name, unix.NFT_OBJECT_COUNTER})] = true
	}
	var chains []string
	for _, c := range have.chains {
		if !keep["chain "+c] {
			chains = append(chains, c)
			w.flushChain(c)
		}
	}
	for _, s := range have.sets {
		if !keep["set "+s] {
			w.deleteSet(s)
		}
	}
	for _, c := range chains {
		w.deleteChain(c)
	}
	for _, x := range have.objects {
		if !keep["object "+fmt.Sprint(x)] {
			w.deleteObject(x)
		}
	}
	return w
}

// change applies differences: first what no packet meets yet, then in one
// transaction all that packets meet, then deletions of what none meets any more.
// In one batch with the elements that lead to it, a new chain would be empty, and
// the sets of an old one would be, for a packet that is under way.
func (t *Table) change(c *plan.Change) error {
	additions := t.additions(c)
	if err := t.commit(additions); err != nil {
		return err
	}
	if err := t.commit(t.differences(c)); err != nil {
		if additions.count > 0 {
			t.Forget() // the next Sync sweeps the additions away
		}
		return err
	}
	if err := t.commit(t.deletions(c)); err != nil {
		t.litter = true // Sync sweeps
	}
	return nil
}

func (t *Table) additions(c *plan.Change) *writer {
	w := t.writer(plan.TableName, t.generation)
	for _, x := range c.AddCounters {
		w.addCounter(x.Name, Count{})
	}
	for _, x := range c.AddChains {
		w.addChain(x)
	}
	for _, x := range c.AddSets {
		w.addSet(x)
	}
	for _, x := range c.AddChains {
		w.addRules(x)
	}
	return w
}

func (t *Table) differences(c *plan.Change) *writer {
	w := t.writer(plan.TableName, t.generation)
	for _, x := range c.Rewrite {
		w.flushChain(w.name(x.Name))
		w.addRules(x)
	}
	for _, x := range c.Sets {
		w.deleteElements(x.Set, x.Delete)
		w.addElements(x.Set, x.Add)
	}
	return w
}

func (t *Table) deletions(c *plan.Change) *writer {
	w := t.writer(plan.TableName, t.generation)
	for _, x := range c.DeleteChains {
		w.flushChain(w.name(x.Name))
	}
	for _, x := range c.DeleteSets {
		w.deleteSet(w.name(x.Name))
	}
	for _, x := range c.DeleteChains {
		w.deleteChain(w.name(x.Name))
	}
	for _, x := range c.DeleteCounters {
		w.deleteObject(object{x.Name, unix.NFT_OBJECT_COUNTER})
	}
	return w
}

// Forget makes the next Sync look at the kernel and build everything anew: the
// table isn't what the last one left.
func (t *Table) Forget() { t.installed = nil }
