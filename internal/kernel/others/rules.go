package others

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"reflect"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/conflict"
	"github.com/unmasq/unmasq/internal/plan"
)

// Bounds of what is read: chains that win over a pin are few, and short.
const (
	mostChains = 64
	mostRules  = 4096
)

// Rules reads the rules that may win over a policy: all that a NAT chain at
// postrouting leads to which isn't behind unmasq's, and a chain at prerouting before
// conntrack. The same pointer comes back as long as nothing changed.
func (r *Reader) Rules() (*conflict.Rules, error) {
	generation, err := r.currentGeneration()
	if err != nil {
		return nil, fmt.Errorf("ask for the generation of the rules: %w", err)
	}
	if r.native == nil || generation != r.generation {
		native, err := r.nftables()
		if err != nil {
			return nil, err
		}
		// A change that came meanwhile has made the generation another.
		r.generation, r.native = generation, native
	}
	all := *r.native
	all.Rules = slices.Clone(all.Rules)
	if err := r.legacy(&all); err != nil {
		return nil, err
	}
	if r.rules == nil || !reflect.DeepEqual(all, *r.rules) {
		r.rules = &all
	}
	return r.rules, nil
}

// nftables has generations: nothing is read where nobody changed any rule.
func (r *Reader) nftables() (*conflict.Rules, error) {
	chains, cilium, err := r.chains()
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	w := walk{reader: r, out: &conflict.Rules{}}
	for _, c := range chains {
		w.seen = map[string]bool{}
		w.base = c
		w.chain(c.name, match{source: anyOf(c.family)})
	}
	for _, c := range cilium {
		w.masquerades(c)
	}
	if w.err != nil {
		return nil, fmt.Errorf("list rules: %w", w.err)
	}
	return w.out, nil
}

func (r *Reader) request(typ, flags uint16, family byte, body []byte) ([][]byte, error) {
	header := []byte{family, unix.NFNETLINK_V0, 0, 0} // struct nfgenmsg
	return r.filter.ask(unix.NFNL_SUBSYS_NFTABLES<<8|typ, flags, append(header, body...))
}

const sizeofNfGenMsg = 4

func (r *Reader) currentGeneration() (id uint32, err error) {
	messages, err := r.request(unix.NFT_MSG_GETGEN, 0, unix.AF_UNSPEC, nil)
	for _, m := range messages {
		attributes(m[min(sizeofNfGenMsg, len(m)):], func(d *netlink.AttributeDecoder) {
			if d.Type() == unix.NFTA_GEN_ID {
				id = binary.BigEndian.Uint32(d.Bytes())
			}
		})
	}
	return id, err
}

// chain as the kernel lists it.
type chain struct {
	family           byte
	table, name, typ string
	hook             uint32
	priority         int32
	base             bool
}

// Places of chains that win: hooks (linux/netfilter.h) and conntrack's priority.
const (
	hookPrerouting  = 0
	hookPostrouting = 4
	conntrack       = -200
	ciliumChain     = "CILIUM_POST_nat"
)

// wins over a pin: a NAT chain at unmasq's priority, of which the one that was
// registered last is asked first, or one that conntrack comes behind.
func (c *chain) wins() bool {
	if !c.base || c.table == plan.TableName || c.table == plan.HandoverName {
		return false
	}
	return c.typ == "nat" && c.hook == hookPostrouting && c.priority <= plan.Priority ||
		c.typ != "nat" && c.hook == hookPrerouting && c.priority <= conntrack
}

// chains that win, and those that Cilium masquerades in.
func (r *Reader) chains() (wins, cilium []chain, err error) {
	messages, err := r.request(unix.NFT_MSG_GETCHAIN, unix.NLM_F_DUMP, unix.AF_UNSPEC, nil)
	if err != nil {
		return nil, nil, err
	}
	for _, m := range messages {
		c, ok := chainOf(m)
		switch {
		case ok && c.wins():
			wins = append(wins, c)
		case ok && c.name == ciliumChain:
			cilium = append(cilium, c)
		}
	}
	return wins, cilium, nil
}

// chainOf a message; of families without NAT there is none.
func chainOf(data []byte) (c chain, ok bool) {
	if len(data) < sizeofNfGenMsg {
		return c, false
	}
	c.family = data[0]
	switch c.family {
	case unix.NFPROTO_IPV4, unix.NFPROTO_IPV6, unix.NFPROTO_INET:
	default:
		return c, false
	}
	attributes(data[sizeofNfGenMsg:], func(d *netlink.AttributeDecoder) {
		switch d.Type() {
		case unix.NFTA_CHAIN_TABLE:
			c.table = d.String()
		case unix.NFTA_CHAIN_NAME:
			c.name = d.String()
		case unix.NFTA_CHAIN_TYPE:
			c.typ = d.String()
		case unix.NFTA_CHAIN_HOOK:
			c.base = true
			attributes(d.Bytes(), func(d *netlink.AttributeDecoder) {
				switch d.Type() {
				case unix.NFTA_HOOK_HOOKNUM:
					c.hook = binary.BigEndian.Uint32(d.Bytes())
				case unix.NFTA_HOOK_PRIORITY:
					c.priority = int32(binary.BigEndian.Uint32(d.Bytes()))
				}
			})
		}
	})
	return c, true
}

// walk goes through the rules that a base chain leads to.
type walk struct {
	reader *Reader
	base   chain
	seen   map[string]bool // chains, from this base chain
	chains int
	rules  int
	out    *conflict.Rules
	err    error
}

// chain's rules, under what the rules ask that lead there.
func (w *walk) chain(name string, asked match) {
	if w.err != nil || w.seen[name] {
		return
	}
	if w.chains++; w.chains > mostChains || w.rules > mostRules {
		w.out.Cut = true
		return
	}
	w.seen[name] = true
	var taken []netip.Prefix // from the rules to come
	messages, err := w.list(w.base, name)
	if w.err = err; err != nil {
		return
	}
	for _, m := range messages {
		if w.rules++; w.rules > mostRules {
			w.out.Cut = true
			return
		}
		x := ruleOf(m, asked)
		if x.chain != name {
			continue
		}
		if x.effect != "" {
			w.out.Rules = append(w.out.Rules, w.found(x, taken))
		}
		if x.jump != "" {
			w.chain(x.jump, x.match)
		}
		if x.takes() {
			taken = append(slices.Clip(taken), x.source)
		}
	}
}

func (w *walk) list(c chain, name string) ([][]byte, error) {
	e := netlink.NewAttributeEncoder()
	e.String(unix.NFTA_RULE_TABLE, c.table)
	e.String(unix.NFTA_RULE_CHAIN, name)
	body, err := e.Encode()
	if err != nil {
		return nil, err
	}
	return w.reader.request(unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP, c.family, body)
}

func (w *walk) found(x rule, except []netip.Prefix) conflict.Rule {
	return conflict.Rule{
		Family: familyName(w.base.family), Table: w.base.table, Chain: x.chain, Comment: x.comment,
		Hook: map[uint32]string{hookPrerouting: "prerouting", hookPostrouting: "postrouting"}[w.base.hook], Priority: int(w.base.priority),
		Effect: x.effect, Source: x.source, Destination: x.destination, Protocol: x.protocol, Port: x.port, More: x.more, Except: except,
	}
}

// masquerades looks for Cilium's rule by its comment, whatever iptables version
// wrote it: in the comment match's data, or in the rule's own.
func (w *walk) masquerades(c chain) {
	messages, err := w.list(c, c.name)
	if err != nil {
		w.err = err
		return
	}
	for _, m := range messages {
		if bytes.Contains(m, []byte(conflict.CiliumMasquerade)) {
			w.out.CiliumMasquerades = true
		}
	}
}

func familyName(family byte) string {
	switch family {
	case unix.NFPROTO_IPV4:
		return "ip"
	case unix.NFPROTO_IPV6:
		return "ip6"
	}
	return "inet"
}
