package sim

import (
	"fmt"
	"slices"

	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

// flow is where a rule goes on after a statement.
type flow uint8

const (
	// onward: the next statement.
	onward flow = iota
	// mismatch: the next rule (NFT_BREAK).
	mismatch
	// ended: the chain ends with the verdict in nativeRun.
	ended
)

// statement is one of a native rule, made fit to run.
type statement func(r *run, at RuleRef, depth int) (flow, verdict)

// nativeChain is a chain whose rules are made fit to run when it is first asked.
type nativeChain struct {
	chain *ruleset.Chain
	rules []nativeRule
	// Rules and statements of short chains lie beside it: there may be tens of
	// thousands, and to look at one is to wait for memory.
	fewRules      [2]nativeRule
	fewStatements [6]statement
}

type nativeRule struct {
	of         *ruleset.Rule
	statements []statement
}

// nativeTable holds what its chains share.
type nativeTable struct {
	node  *Node
	table *ruleset.Table
}

// nativeOf is the chain made fit to run.
func (n *Node) nativeOf(t *ruleset.Table, c *ruleset.Chain) *nativeChain {
	if made, ok := n.natives.Load(c); ok {
		return made.(*nativeChain)
	}
	of := nativeTable{n, t}
	made := &nativeChain{chain: c}
	if made.rules = made.fewRules[:0]; len(c.Rules) > len(made.fewRules) {
		made.rules = make([]nativeRule, 0, len(c.Rules))
	}
	room := made.fewStatements[:0]
	for i := range c.Rules {
		begin := len(room)
		room = of.compile(room, c.Rules[i].Native)
		made.rules = append(made.rules, nativeRule{&c.Rules[i], slices.Clip(room[begin:])})
	}
	n.natives.Store(c, made)
	return made
}

// runRules runs a chain of a native table: nf_tables_core.c, nft_do_chain.
func (r *run) runRules(made *nativeChain, depth int) verdict {
	if depth > deepest {
		r.lacks("rules", fmt.Sprintf("chain %s calls itself, or chains call each other more than %d deep", made.chain.Name, deepest))
		r.doubt = true
		return fallThrough
	}
	for i := range made.rules {
		rule := &made.rules[i]
		if r.work += 1 + len(rule.statements); r.spent() {
			return r.giveUp()
		}
		if v, done := r.runRule(rule.statements, RuleRef{r.table, made.chain, rule.of}, depth); done {
			return v
		}
	}
	return fallThrough
}

func (r *run) runRule(statements []statement, at RuleRef, depth int) (v verdict, done bool) {
	found, begun := len(r.elements), len(r.steps)
	r.elementsAt, r.translation = found, nil
	for _, s := range statements {
		switch f, v := s(r, at, depth); f {
		case ended:
			return v, true
		case mismatch:
			if len(r.steps) == begun {
				r.elements = r.elements[:found] // no step holds what came after
			}
			if r.options.Trace && !acted(r.steps[begun:], at) {
				r.record(Step{Hook: r.hook.String(), At: at, Effect: "no match"})
			}
			return fallThrough, false
		}
	}
	return fallThrough, false
}

// acted says whether a rule that was left has done something before: jumped to a
// chain that came back.
func acted(steps []Step, at RuleRef) bool {
	return slices.ContainsFunc(steps, func(s Step) bool { return s.Matched && s.At == at })
}

// compile appends a rule's statements, made fit to run.
func (t nativeTable) compile(all []statement, rule *nftables.Rule) []statement {
	for _, s := range rule.Statements {
		if made := t.shared(s); made != nil {
			all = append(all, made)
		}
	}
	return all
}

// sharedKey is a statement of a table.
type sharedKey struct {
	table *ruleset.Table
	text  string
}

// shared makes a statement fit to run, one for all rules of the table that have
// the same: many tables say a few things many times.
func (t nativeTable) shared(s nftables.Statement) statement {
	switch s := s.(type) {
	case nftables.Verdict:
	case nftables.Match:
		if _, ok := s.Right.(nftables.SetLiteral); ok {
			return t.statement(s)
		}
	default:
		return t.statement(s)
	}
	key := sharedKey{t.table, nftables.StatementText(s)}
	if made, ok := t.node.natives.Load(key); ok {
		return made.(statement)
	}
	made := t.statement(s)
	t.node.natives.Store(key, made)
	return made
}

// statement makes one fit to run; nil where it does nothing.
func (t nativeTable) statement(s nftables.Statement) statement {
	switch s := s.(type) {
	case nftables.Match:
		return t.match(s)
	case nftables.Verdict:
		return t.verdict(s)
	case nftables.VerdictMap:
		return t.verdictMap(s)
	case nftables.Assign:
		return t.assign(s)
	case nftables.NAT:
		return t.nat(s)
	case nftables.Reject:
		return func(r *run, at RuleRef, _ int) (flow, verdict) {
			if r.wrongReject(s) {
				return mismatch, fallThrough
			}
			with := rejectWith(s, r.family)
			r.rejectWith = with
			r.stop(Rejected, at, "reject with "+with)
			return ended, drop
		}
	case nftables.NoTrack:
		return func(r *run, at RuleRef, _ int) (flow, verdict) {
			r.alter(at, ruleset.NoTrack{})
			return onward, fallThrough
		}
	case nftables.Stateful:
		return assumed("state", "what "+s.Name+" counts isn't in a dump ("+s.Text+")")
	case nftables.SetUpdate:
		for _, inner := range s.Statements {
			if state, ok := inner.(nftables.Stateful); ok {
				return assumed("state", "what "+state.Name+" counts isn't in a dump ("+state.Text+")")
			}
		}
		return nil
	case nftables.Inert:
		return nil
	case nftables.XT:
		switch {
		case s.Kind == "match" && s.Name == "comment":
			return nil // it asks for nothing
		case s.Kind == "match":
			return assumed("match "+s.Name, "nft doesn't show the parameters of iptables' extensions; give iptables-save")
		}
		return unknownStatement(s.Name, "nft doesn't show the parameters of iptables' extensions; give iptables-save")
	case nftables.UnknownStatement:
		if s.Name == "flow add" {
			return flowAdd(s.Why)
		}
		why := s.Why
		if why == "" {
			why = "not understood: " + s.Text
		}
		return unknownStatement(s.Name, why)
	}
	panic(fmt.Sprintf("no case for statement %T", s))
}

func assumed(what, why string) statement {
	return func(r *run, _ RuleRef, _ int) (flow, verdict) {
		if r.assume("", what, why, true) {
			return onward, fallThrough
		}
		return mismatch, fallThrough
	}
}

// flowAdd: of a connection that isn't confirmed yet it ends the rule, as a comparison
// would that doesn't hold (net/netfilter/nft_flow_offload.c).
func flowAdd(why string) statement {
	known := assumed("state", why)
	return func(r *run, at RuleRef, depth int) (flow, verdict) {
		if r.connection == nil {
			return mismatch, fallThrough
		}
		return known(r, at, depth)
	}
}

// unknownStatement may do anything, or nothing.
func unknownStatement(name, why string) statement {
	return func(r *run, at RuleRef, _ int) (flow, verdict) {
		if v, done := r.unknownTarget(at, ruleset.UnknownTarget{Name: name, Why: why}); done {
			return ended, v
		}
		return onward, fallThrough
	}
}

// assign is "meta mark set" and the like.
func (t nativeTable) assign(s nftables.Assign) statement {
	switch key := s.Key.(type) {
	case nftables.Meta:
		if key.Key == "mark" {
			return t.assignMark(s, func(r *run, at RuleRef, v uint32) {
				r.mark = v
				r.step(at, fmt.Sprintf("mark %#x", v))
			})
		}
		if slices.Contains([]string{"nftrace", "priority", "pkttype", "secmark", "broute"}, key.Key) {
			return nil
		}
	case nftables.CT:
		if key.Key == "mark" {
			return t.assignMark(s, func(r *run, at RuleRef, v uint32) {
				if r.tracked && !r.noTrack {
					r.connMark = v
					r.step(at, fmt.Sprintf("connection mark %#x", v))
				}
			})
		}
		if key.Key != "zone" {
			return nil // helper, label, event, timeout, expectation
		}
	case nftables.Payload:
		if !slices.Contains([]string{"saddr", "daddr", "sport", "dport", "protocol", "nexthdr"}, key.Field) {
			rewritten := key.Protocol == "ip" && key.Field == "dscp" || key.Protocol == "ip6" && slices.Contains([]string{"dscp", "hoplimit", "flowlabel"}, key.Field)
			return func(r *run, _ RuleRef, _ int) (flow, verdict) {
				r.rewritten = r.rewritten || rewritten
				return onward, fallThrough
			}
		}
	}
	return unknownStatement(nftables.StatementText(s), "what it writes into the packet isn't followed")
}

// assignMark gives a mark the value; where that isn't known, later rules that
// ask for a mark are asked both ways.
func (t nativeTable) assignMark(s nftables.Assign, set func(*run, RuleRef, uint32)) statement {
	types, _ := t.table.Native.TypeOf(s.Key)
	value := t.data(s.Value, types)
	text := nftables.ExprText(s.Value)
	return func(r *run, at RuleRef, _ int) (flow, verdict) {
		v, state := value(r)
		switch {
		case state == broken:
			return mismatch, fallThrough
		case state == open || len(v) != 1:
			r.lacks("mark", "what "+text+" is isn't known")
			r.markOpen = true
			return onward, fallThrough
		}
		set(r, at, number(v[0].First))
		return onward, fallThrough
	}
}

// number of a value of up to four bytes.
func number(v nftables.Value) uint32 {
	n := uint32(0)
	for i := range len(v) {
		n = n<<8 | uint32(v[i])
	}
	return n
}
