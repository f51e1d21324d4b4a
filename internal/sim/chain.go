package sim

import (
	"fmt"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
)

// verdict of a chain for the packet.
type verdict uint8

const (
	// fallThrough: the chain's end, or RETURN.
	fallThrough verdict = iota
	// accept ends the table.
	accept
	// drop ends the packet; run.verdict says how.
	drop
)

// deepest is how far chains may call each other. The kernel refuses loops; an
// excerpt of a dump could hold one.
const deepest = 128

// evaluate runs a chain of the current table.
func (r *run) evaluate(c *ruleset.Chain, depth int) verdict {
	if depth > deepest {
		r.work += choiceWork
		r.lacks("rules", fmt.Sprintf("chain %s calls itself, or chains call each other more than %d deep", c.Name, deepest))
		r.doubt = true
		return fallThrough
	}
	if len(c.Rules) > shortChain && !r.options.Trace {
		return r.evaluateLong(c, depth)
	}
	for i := range c.Rules {
		if v, done := r.evaluateRule(c, &c.Rules[i], depth); done {
			return v
		}
	}
	return fallThrough
}

// evaluateLong asks only those rules of a long chain that can match.
func (r *run) evaluateLong(c *ruleset.Chain, depth int) verdict {
	candidates := r.node.indexOf(c).candidates(r)
	for {
		i, ok := candidates.next()
		if !ok {
			return fallThrough
		}
		if v, done := r.evaluateRule(c, &c.Rules[i], depth); done {
			return v
		}
	}
}

// evaluateRule asks one rule; done where the chain ends with it.
func (r *run) evaluateRule(c *ruleset.Chain, rule *ruleset.Rule, depth int) (v verdict, done bool) {
	if r.work += 1 + len(rule.Matches); r.spent() {
		return r.giveUp(), true
	}
	if !r.matches(rule) {
		if r.options.Trace {
			r.record(Step{Hook: r.hook.String(), At: RuleRef{r.table, c, rule}, Effect: "no match"})
		}
		return fallThrough, false
	}
	at := RuleRef{r.table, c, rule}
	switch t := rule.Target.(type) {
	case nil:
		return fallThrough, false
	case ruleset.Jump:
		return r.jump(at, t, depth)
	case ruleset.Return:
		r.step(at, "return")
		return fallThrough, true
	case ruleset.Accept:
		r.step(at, "accept")
		return accept, true
	case ruleset.Drop:
		if r.letThrough(at) {
			return accept, true
		}
		r.stop(Dropped, at, "drop")
		return drop, true
	case ruleset.Reject:
		if r.letThrough(at) {
			return accept, true
		}
		r.rejectWith = t.With
		r.stop(Rejected, at, "reject with "+t.With)
		return drop, true
	case ruleset.UnknownTarget:
		return r.unknownTarget(at, t)
	case ruleset.SetMark, ruleset.ConnMark, ruleset.NoTrack, ruleset.Inert:
		r.alter(at, t)
		return fallThrough, false
	}
	return r.translateBy(at, rule.Target)
}

// letThrough asks, of an excerpt's rule that ends the packet, whether a rule
// before it that the excerpt doesn't show accepts the packet.
func (r *run) letThrough(at RuleRef) bool {
	if !r.table.Excerpt {
		return false
	}
	return r.choose("", "rules",
		alternative{why: "only an excerpt was given", when: "a rule that it doesn't show accepts the packet before " + at.Rule.Text},
		alternative{why: "only an excerpt was given", when: "no rule that it doesn't show accepts the packet before " + at.Rule.Text}) == 0
}

// jump runs another chain, or what is left of it in the dump: nothing.
func (r *run) jump(at RuleRef, t ruleset.Jump, depth int) (v verdict, done bool) {
	to := r.table.Chain(t.Chain)
	if to == nil {
		r.lacks("chain "+t.Chain, "it isn't in the dump; it is taken as doing nothing")
		r.doubt = r.doubt || r.table.Name != "nat"
		r.step(at, "jump "+t.Chain+" (not in the dump)")
		return fallThrough, t.Goto
	}
	mark := len(r.steps)
	r.step(at, r.node.jumpTo(to, t.Goto))
	v = r.evaluate(to, depth+1)
	if v == fallThrough && len(r.steps) == mark+1 && !r.options.Trace {
		r.steps = r.steps[:mark] // nothing happened there
	}
	return v, t.Goto || v != fallThrough
}

// jumpTo is the word for it, made once for each chain.
func (n *Node) jumpTo(c *ruleset.Chain, isGoto bool) string {
	if isGoto {
		return "goto " + c.Name
	}
	if text, ok := n.jumps.Load(c); ok {
		return text.(string)
	}
	text, _ := n.jumps.LoadOrStore(c, "jump "+c.Name)
	return text.(string)
}

// unknownTarget follows both: that it did nothing, and that it decided.
func (r *run) unknownTarget(at RuleRef, t ruleset.UnknownTarget) (v verdict, done bool) {
	why := t.Why
	if why == "" {
		why = "what it does isn't known"
	}
	if r.choose("", "target "+t.Name, alternative{why: why, when: "it lets the packet go on"}, alternative{why: why, when: "it decides"}) == 0 {
		r.step(at, t.Name+" (not understood)")
		return fallThrough, false
	}
	r.step(at, t.Name+" (not understood)")
	r.decider = &Decider{Rule: &at}
	if r.table.Name == "nat" {
		r.sourceKnown, r.kind = false, SourceUnknown
		r.boundDest, r.boundSource = true, true
		return accept, true
	}
	r.verdict, r.kind, r.sourceKnown = VerdictUnknown, SourceUnknown, false
	return drop, true
}

// alter does what changes the packet's marks and lets it go on.
func (r *run) alter(at RuleRef, target ruleset.Target) {
	switch t := target.(type) {
	case ruleset.SetMark:
		r.mark = r.mark&^t.Mask ^ t.Value
		r.step(at, fmt.Sprintf("mark %#x", r.mark))
	case ruleset.ConnMark:
		r.setConnMark(t)
		r.step(at, fmt.Sprintf("connection mark %#x, mark %#x", r.connMark, r.mark))
	case ruleset.NoTrack:
		if !r.tracked {
			r.noTrack = true
			r.step(at, "no connection tracking, so no NAT")
		}
	case ruleset.Inert:
		r.rewritten = r.rewritten || r.rewrites(t)
		if r.options.Trace {
			r.step(at, t.Name)
		}
	}
}

// rewrites says whether the target changes a field of the IP header that the
// kernel compares after mangle OUTPUT (ipt_mangle_out, ip6t_mangle_out): the
// type of service, and IPv6's hop limit. Packets are taken to have those that
// sockets have: 0 and 64.
func (r *run) rewrites(t ruleset.Inert) bool {
	value := strings.Fields(t.Text)
	if len(value) == 0 {
		return false
	}
	last, _, _ := strings.Cut(value[len(value)-1], "/")
	switch t.Name {
	case "TOS", "DSCP":
		return !slices.Contains([]string{"0", "0x0", "0x00", "CS0", "Normal-Service"}, last) && !slices.Contains(value, "--and-tos")
	case "HL":
		return r.family == packet.IPv6Family && last != "64"
	}
	return false
}

func (r *run) setConnMark(t ruleset.ConnMark) {
	if !r.tracked || r.noTrack {
		return
	}
	switch t.Operation {
	case ruleset.ConnMarkSet:
		r.connMark = r.connMark&^t.Mask ^ t.Value
	case ruleset.ConnMarkSave:
		r.connMark = r.connMark&^t.ConnMask ^ r.mark&t.PacketMask
	case ruleset.ConnMarkRestore:
		r.mark = r.mark&^t.PacketMask ^ r.connMark&t.ConnMask
	}
}

// translateBy does NAT.
func (r *run) translateBy(at RuleRef, target ruleset.Target) (v verdict, done bool) {
	switch t := target.(type) {
	case ruleset.Masquerade:
		return r.masquerade(at, t), true
	case ruleset.SNAT:
		return r.snat(at, t), true
	case ruleset.DNAT:
		return r.dnat(at, t), true
	case ruleset.Redirect:
		return r.redirect(at, t), true
	case ruleset.NetMap:
		return r.netmap(at, t), true
	}
	panic(fmt.Sprintf("no case for target %T", target))
}
