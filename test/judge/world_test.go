package judge_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/sim"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// kind of world. A case's seed chooses one.
type kind struct {
	variants []string
	family   packet.Family
	// random: it has a random situation, not the plain one.
	random bool
}

// kinds of worlds: each choice of variants, in both families, plain and random.
func kinds() (all []kind) {
	for _, variants := range [][]string{{"nft"}, {"legacy"}, {"nft", "legacy"}, {"native"}, {"native", "nft"}} {
		for _, f := range packet.Families {
			all = append(all, kind{variants, f, false}, kind{variants, f, true})
		}
	}
	return all
}

// source of its rulesets, for the report.
func (k kind) source() string {
	names := map[string]string{"nft": "iptables-nft", "legacy": "iptables-legacy", "native": "nftables"}
	var all []string
	for _, v := range k.variants {
		all = append(all, names[v])
	}
	return "random " + strings.Join(all, " + ")
}

// casesPerBlock, with seeds one after the other, share their worlds: to make a
// node takes as long as to judge a ruleset.
const casesPerBlock = 256

// block is the worlds of some cases, made when one needs them. What is random in
// them depends on the block's number alone, so that any seed gets its world again.
type block struct {
	number uint64
	worlds map[int]*world
}

func blockOf(seed uint64) uint64 { return seed / casesPerBlock }

// of returns the world of a case.
func (b *block) of(t *testing.T, seed uint64) *world {
	all := kinds()
	i := rand.New(rand.NewPCG(seed, 1)).IntN(len(all))
	if b.worlds[i] == nil {
		b.worlds[i] = newWorld(t, all[i], rand.New(rand.NewPCG(b.number, 3+uint64(i))))
	}
	return b.worlds[i]
}

// world is a node for random rulesets of one family in some variants.
type world struct {
	*node
	kind
	setKinds []string // that the kernel has
	// multipath: the kernel hashes a flow to one of several next hops, the same
	// each time where no source port makes a difference.
	multipath bool
	made      int
}

func newWorld(t *testing.T, k kind, r *rand.Rand) *world {
	s := plainSituation(k.family)
	if k.random {
		s = randomSituation(r, k.family)
	}
	n := newNode(t, s)
	n.native = slices.Contains(k.variants, "native")
	n.must(t, os.Remove(filepath.Join(n.dir, snapshot.FileNFT))) // it isn't listed for each ruleset
	multipath := slices.ContainsFunc(s.ip, func(line string) bool { return strings.Contains(line, "nexthop") })
	w := &world{node: n, kind: k, setKinds: addRareKinds(n), multipath: multipath}
	// Tables are there from now on: the order of their hooks is the same for the
	// first ruleset as for those that come in its place.
	_, err := w.load(emptyRuleset(k))
	n.must(t, err)
	return w
}

// emptyRuleset has all tables of the variants, without rules.
func emptyRuleset(k kind) *ruleset {
	g := newGenerator(0, k.family)
	r := &ruleset{family: k.family}
	for _, v := range k.variants {
		if v == "native" {
			r.native = []*nativeTable{}
			continue
		}
		for _, name := range tableNames {
			r.tables = append(r.tables, g.makeTable(v, name, 0))
		}
	}
	return r
}

// fresh names of sets, since a kernel may still hold an old one for a while.
func (w *world) fresh(name string) string {
	w.made++
	return fmt.Sprintf("x%d-%s", w.made, strings.TrimLeft(name, "x0123456789-"))
}

type predictor func(packet.Flow) []sim.Outcome

// load puts rules in and reads the host back.
func (w *world) load(r *ruleset) (predictor, error) {
	r.renameSets(w.fresh)
	if err := r.load(w.node); err != nil {
		return nil, err
	}
	host, err := w.read(w.family)
	if err != nil {
		return nil, err
	}
	n := sim.New(host)
	return func(f packet.Flow) []sim.Outcome { return n.Run(question(f), sim.Options{}) }, nil
}

// randomPool are addresses that packets go between, whatever the rules say.
func randomPool(f packet.Family) (pool []netip.Addr) {
	texts := []string{"10.244.1.7", "10.244.1.5", "10.244.2.2", "10.245.1.2", "8.8.8.8", "203.0.113.70", "192.0.2.9", "198.51.100.9", "192.0.2.1", "198.51.100.1", "10.96.0.10",
		"10.66.0.5", "10.66.1.5", "10.66.2.5", "10.9.255.255", "192.0.2.255", "127.0.0.1"}
	if f == packet.IPv6Family {
		texts = []string{"fd00:10:244:1::7", "fd00:10:244:1::5", "fd00:10:245:1::2", "2001:4860::8888", "2001:db8:113::46", "2001:db8::9", "2001:db8:1::9", "2001:db8::1", "fd00:96::a",
			"fd00:66::5", "fd00:66:1::5", "fd00:66:2::5", "::1"}
	}
	for _, a := range texts {
		pool = append(pool, netip.MustParseAddr(a))
	}
	return pool
}
