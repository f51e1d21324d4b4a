package nft

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/plan"
)

// Table flags (include/uapi/linux/netfilter/nf_tables.h). A table with both
// refuses other processes while its owner's socket lives and stays when it dies.
const (
	flagOwner   = 0x2 // NFT_TABLE_F_OWNER, Linux 5.12
	flagPersist = 0x4 // NFT_TABLE_F_PERSIST, Linux 6.9
)

// Count is a counter's value.
type Count struct{ Packets, Bytes uint64 }

// State is what the kernel says of a table.
type State struct {
	Exists bool
	Flags  uint32
	// Owner is the netlink port id of the owner's socket; 0: nobody's.
	Owner uint32
}

// Orphan says that the table's owner is gone and that it can be adopted.
func (s State) Orphan() bool { return s.Exists && s.Flags&flagPersist != 0 && s.Flags&flagOwner == 0 }

// Owned says that some process owns the table now.
func (s State) Owned() bool { return s.Exists && s.Owner != 0 }

func (c *conn) state(table string) (State, error) {
	messages, err := c.dump(unix.NFT_MSG_GETTABLE, 0, attrString(nil, unix.NFTA_TABLE_NAME, table))
	if errors.Is(err, unix.ENOENT) {
		return State{}, nil
	}
	if err != nil {
		return State{}, fmt.Errorf("read table %s: %w", table, err)
	}
	const tableOwner = 7 // NFTA_TABLE_OWNER
	s := State{Exists: len(messages) > 0}
	for _, m := range messages {
		for typ, data := range m.attributes() {
			switch typ {
			case unix.NFTA_TABLE_FLAGS:
				s.Flags = u32(data)
			case tableOwner:
				s.Owner = u32(data)
			}
		}
	}
	return s, nil
}

// contents are the names of what stands in a table.
type contents struct {
	chains, sets []string
	objects      []object
}

// object is a counter, or something else with a name that isn't ours.
type object struct {
	name string
	typ  uint32 // NFT_OBJECT_COUNTER, …
}

func (c *conn) contents(table string) (contents, error) {
	var out contents
	for _, kind := range []struct {
		typ                           uint16
		tableAttr, nameAttr, typeAttr uint16 // typeAttr: flags of sets, types of objects
		add                           func(name string, typ uint32)
	}{
		{unix.NFT_MSG_GETCHAIN, unix.NFTA_CHAIN_TABLE, unix.NFTA_CHAIN_NAME, 0, func(name string, _ uint32) {
			out.chains = append(out.chains, name)
		}},
		{unix.NFT_MSG_GETSET, unix.NFTA_SET_TABLE, unix.NFTA_SET_NAME, unix.NFTA_SET_FLAGS, func(name string, flags uint32) {
			if flags&unix.NFT_SET_ANONYMOUS == 0 {
				out.sets = append(out.sets, name)
			}
		}},
		{unix.NFT_MSG_GETOBJ, unix.NFTA_OBJ_TABLE, unix.NFTA_OBJ_NAME, unix.NFTA_OBJ_TYPE, func(name string, typ uint32) {
			out.objects = append(out.objects, object{name, typ})
		}},
	} {
		messages, err := c.dump(kind.typ, unix.NLM_F_DUMP, attrString(nil, kind.tableAttr, table))
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return contents{}, fmt.Errorf("read table %s: %w", table, err)
		}
		for _, m := range messages {
			var in, name string
			var typ uint32
			for attribute, data := range m.attributes() {
				switch attribute {
				case kind.tableAttr:
					in = text(data)
				case kind.nameAttr:
					name = text(data)
				case kind.typeAttr:
					typ = u32(data)
				}
			}
			if in == table && name != "" {
				kind.add(name, typ)
			}
		}
	}
	return out, nil
}

// layout is the version of the table's layout that stands in it; "" for none.
func (s contents) layout() string {
	for _, c := range s.chains {
		if strings.HasPrefix(c, "layout-") {
			return c
		}
	}
	return ""
}

// generation is the highest whose names stand in the table.
func (s contents) generation() int {
	highest := 0
	for _, list := range [][]string{s.chains, s.sets} {
		for _, name := range list {
			highest = max(highest, generationOf(name))
		}
	}
	return highest
}

func generationOf(name string) int {
	i := strings.LastIndex(name, ".g")
	if i < 0 {
		return 0
	}
	n, err := strconv.Atoi(name[i+2:])
	if err != nil || n < 0 || strconv.Itoa(n) != name[i+2:] {
		return 0
	}
	return n
}

// counts reads the table's named counters.
func (c *conn) counts(table string) (map[string]Count, error) {
	messages, err := c.dump(unix.NFT_MSG_GETOBJ, unix.NLM_F_DUMP, attrString(nil, unix.NFTA_OBJ_TABLE, table))
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read counters of table %s: %w", table, err)
	}
	out := map[string]Count{}
	for _, m := range messages {
		var in, name string
		var kind uint32
		var count Count
		for typ, data := range m.attributes() {
			switch typ {
			case unix.NFTA_OBJ_TABLE:
				in = text(data)
			case unix.NFTA_OBJ_NAME:
				name = text(data)
			case unix.NFTA_OBJ_TYPE:
				kind = u32(data)
			case unix.NFTA_OBJ_DATA:
				for t, d := range attrs(data) {
					switch t {
					case unix.NFTA_COUNTER_BYTES:
						count.Bytes = u64(d)
					case unix.NFTA_COUNTER_PACKETS:
						count.Packets = u64(d)
					}
				}
			}
		}
		if in == table && kind == unix.NFT_OBJECT_COUNTER {
			out[name] = count
		}
	}
	return out, nil
}

// Comment is a rule's comment and, where the rule counts, its counter.
type Comment struct {
	Chain, Counter, Text string
}

// comments reads the comments of a table's rules, in order within each chain,
// with chain names without their generation.
func (c *conn) comments(table string) ([]Comment, error) {
	messages, err := c.dump(unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP, attrString(nil, unix.NFTA_RULE_TABLE, table))
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read rules of table %s: %w", table, err)
	}
	var out []Comment
	for _, m := range messages {
		var in string
		var r Comment
		for typ, data := range m.attributes() {
			switch typ {
			case unix.NFTA_RULE_TABLE:
				in = text(data)
			case unix.NFTA_RULE_CHAIN:
				r.Chain = strings.TrimSuffix(text(data), names{generationOf(text(data))}.name(""))
			case unix.NFTA_RULE_EXPRESSIONS:
				r.Counter = counterOf(data)
			case unix.NFTA_RULE_USERDATA:
				r.Text = commentOf(data)
			}
		}
		if in == table && r.Text != "" {
			out = append(out, r)
		}
	}
	return out, nil
}

// counterOf finds the named counter among a rule's expressions.
func counterOf(expressions []byte) string {
	for _, e := range attrs(expressions) {
		var name, counter string
		for typ, data := range attrs(e) {
			switch typ {
			case unix.NFTA_EXPR_NAME:
				name = text(data)
			case unix.NFTA_EXPR_DATA:
				for t, d := range attrs(data) {
					if t == unix.NFTA_OBJREF_IMM_NAME {
						counter = text(d)
					}
				}
			}
		}
		if name == "objref" {
			return counter
		}
	}
	return ""
}

func commentOf(userdata []byte) string {
	for len(userdata) >= 2 {
		typ, n := userdata[0], int(userdata[1])
		if 2+n > len(userdata) {
			return ""
		}
		if typ == udataComment {
			return text(userdata[2 : 2+n])
		}
		userdata = userdata[2+n:]
	}
	return ""
}

// layoutKnown says that rules can be exchanged under the base chain that stands.
func (s contents) layoutKnown() bool { return s.layout() == plan.Layout }
