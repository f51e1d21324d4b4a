package sim

import (
	"strings"
	"sync/atomic"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

// rejectWith is the error's name as iptables has it.
func rejectWith(s nftables.Reject, f packet.Family) string {
	code := s.Code
	if code == "" {
		code = "port-unreachable"
	}
	if s.Type == "tcp reset" {
		return "tcp-reset"
	}
	if f == packet.IPv6Family {
		return map[string]string{
			"port-unreachable": "icmp6-port-unreachable", "no-route": "icmp6-no-route", "admin-prohibited": "icmp6-adm-prohibited",
			"host-unreachable": "icmp6-addr-unreachable", "addr-unreachable": "icmp6-addr-unreachable", "policy-fail": "icmp6-policy-fail", "reject-route": "icmp6-reject-route",
		}[code]
	}
	return map[string]string{
		"port-unreachable": "icmp-port-unreachable", "no-route": "icmp-net-unreachable", "admin-prohibited": "icmp-admin-prohibited",
		"host-unreachable": "icmp-host-unreachable", "net-unreachable": "icmp-net-unreachable", "prot-unreachable": "icmp-proto-unreachable",
		"net-prohibited": "icmp-net-prohibited", "host-prohibited": "icmp-host-prohibited",
	}[code]
}

// wrongReject: an ICMP error of the other family, in a table inet, is never sent.
func (r *run) wrongReject(s nftables.Reject) bool {
	return s.Type == "icmp" && r.family != packet.IPv4Family || s.Type == "icmpv6" && r.family != packet.IPv6Family ||
		s.Type == "tcp reset" && r.protocol != packet.TCP
}

func (t nativeTable) verdict(s nftables.Verdict) statement {
	switch s.Kind {
	case nftables.Jump, nftables.Goto:
		j := t.jump(s)
		return func(r *run, at RuleRef, depth int) (flow, verdict) { return j.take(r, at, depth) }
	case nftables.Continue:
		return nil // as if it weren't there
	case nftables.Return:
		return func(r *run, at RuleRef, depth int) (flow, verdict) {
			if depth > 0 || r.options.Trace {
				r.step(at, "return")
			}
			return ended, fallThrough
		}
	case nftables.Accept:
		return func(r *run, at RuleRef, _ int) (flow, verdict) {
			r.step(at, "accept")
			return ended, accept
		}
	case nftables.Drop:
		return func(r *run, at RuleRef, _ int) (flow, verdict) {
			r.stop(Dropped, at, "drop")
			return ended, drop
		}
	}
	return unknownStatement("queue", "a program decides what happens to a queued packet")
}

// jump to a chain, or goto, made fit to run when first taken.
type jump struct {
	of   *nativeTable
	to   *ruleset.Chain
	made atomic.Pointer[nativeChain]
	kind nftables.VerdictKind
	text string
}

func (t nativeTable) jump(v nftables.Verdict) *jump {
	j := &jump{}
	j.prepare(&t, v)
	return j
}

func (j *jump) prepare(t *nativeTable, v nftables.Verdict) {
	j.of, j.to, j.kind, j.text = t, t.table.Chain(v.Chain), v.Kind, v.Kind.String()+" "+v.Chain
}

// take runs the chain.
func (j *jump) take(r *run, at RuleRef, depth int) (flow, verdict) {
	to := j.made.Load()
	switch {
	case to == nil && j.to == nil:
		_, name, _ := strings.Cut(j.text, " ")
		r.lacks("chain "+name, "it isn't in the dump; it is taken as doing nothing")
		r.doubt = true
		return onward, fallThrough
	case to == nil:
		to = j.of.node.nativeOf(j.of.table, j.to)
		j.made.Store(to)
	}
	mark := len(r.steps)
	r.step(at, j.text)
	v := r.runRules(to, depth+1)
	if v == fallThrough && len(r.steps) == mark+1 && !r.options.Trace {
		r.steps = r.steps[:mark] // nothing happened there
	}
	if v == fallThrough && j.kind == nftables.Jump {
		return mismatch, fallThrough // a verdict ends the rule
	}
	return ended, v
}

// elementVerdict is that of an element of a verdict map: a jump, or another.
type elementVerdict struct {
	jump
	other statement
}

// verdictMap looks a verdict up.
func (t nativeTable) verdictMap(s nftables.VerdictMap) statement {
	index := t.indexOf(s.Key, s.Map, nil)
	find := t.lookupIn(index, s.Key)
	text := "vmap " + nftables.ExprText(s.Key)
	if index != nil {
		index.prepared.Do(func() { index.verdicts = t.verdictsOf(index, text) })
	}
	return func(r *run, at RuleRef, depth int) (flow, verdict) {
		e, state := find(r)
		switch {
		case state == open:
			return unknownStatement(text, "what it holds isn't known")(r, at, depth)
		case state == broken, e == nil:
			return mismatch, fallThrough
		}
		r.found(e)
		v := &index.verdicts[e.Order()]
		switch {
		case v.of != nil:
			return v.take(r, at, depth)
		case v.other != nil:
			return v.other(r, at, depth)
		}
		return onward, fallThrough // continue
	}
}

// verdictsOf are those of all elements, in one piece of memory.
func (t nativeTable) verdictsOf(x *setIndex, text string) []elementVerdict {
	all := make([]elementVerdict, x.index.Len())
	for i := range all {
		v, ok := x.index.Entry(i).Element.Data.(nftables.VerdictValue)
		switch {
		case !ok:
			all[i].other = unknownStatement(text, "its element isn't a verdict")
		case v.Verdict.Kind == nftables.Jump || v.Verdict.Kind == nftables.Goto:
			all[i].prepare(&t, v.Verdict)
		default:
			all[i].other = t.verdict(v.Verdict)
		}
	}
	return all
}
