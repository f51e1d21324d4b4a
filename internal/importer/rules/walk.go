package rules

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/owner"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/policy"
)

// Bounds of what is said as one list.
const (
	mostEntries  = 1000
	mostSteps    = 200_000
	mostDepth    = 100
	mostElements = 1024 // as many as the Kubernetes API takes in a list
)

var errTooMuch = errors.New("the rules branch too much to be said as one ordered list")

// state is a region of packets on their way, with the mark that rules have given them.
type state struct {
	Region
	mark uint32
	// by is the rule that let them go, nil where none did.
	by *step
}

// frame is where in a chain to go on.
type frame struct {
	chain *chain
	at    int
}

// walker follows packets through the chains, whole regions of them at a time.
type walker struct {
	entries  []Entry
	warnings []Warning
	warned   map[Warning]bool
	steps    int
	// marks are those that the rules themselves give.
	marks uint32
	// node has the node's own addresses; nil: not known.
	node []netip.Prefix
	// sets whose elements decided.
	sets []string
}

func (w *walker) warn(s *step, format string, args ...any) {
	warning := Warning{s.refs[0], fmt.Sprintf(format, args...)}
	if !w.warned[warning] {
		w.warned[warning] = true
		w.warnings = append(w.warnings, warning)
	}
}

// walk takes packets from the top of the stack on. full: to the very end, where what
// no rule has decided keeps its source; else to the end of the chain alone. decided:
// nothing of the region is left.
func (w *walker) walk(stack []frame, r state, full bool) (decided bool, err error) {
	if len(stack) > mostDepth {
		return false, errTooMuch
	}
	for {
		top := stack[len(stack)-1]
		next := -1
		for i := top.at; i < len(top.chain.steps) && next < 0; i++ {
			s := &top.chain.steps[i]
			if w.steps++; w.steps > mostSteps || len(w.entries) > mostEntries {
				return false, errTooMuch
			}
			how, err := w.step(s, append(stack[:len(stack)-1:len(stack)-1], frame{top.chain, i + 1}), &r, full)
			switch {
			case err != nil:
				return false, err
			case how == allDecided:
				return true, nil
			case how == allReturn:
				next = i
			}
		}
		if !full {
			return false, nil
		}
		if stack = stack[:len(stack)-1]; len(stack) == 0 {
			w.keep(r)
			return true, nil
		}
	}
}

// outcome of a step for all of a region.
type outcome uint8

const (
	goOn outcome = iota
	allReturn
	allDecided
)

// step asks one rule. rest is the stack after it.
func (w *walker) step(s *step, rest []frame, r *state, full bool) (outcome, error) {
	fits, skips, some := s.cut(*r)
	w.aboutMarks(s)
	if !some || s.act == nothing {
		return goOn, nil
	}
	if len(s.unsaid) > 0 {
		w.doubtful(s, fits.Region)
		return goOn, nil
	}
	w.sets = append(w.sets, s.elements...)
	if s.act == jump {
		w.lost(s)
	}
	for _, skip := range skips {
		if both, some := fits.and(skip); some {
			if _, err := w.walk(rest, state{both, r.mark, s}, true); err != nil {
				return goOn, err
			}
		}
	}
	return w.act(s, rest, r, fits, len(skips) == 0 && r.within(fits.Region), full)
}

// act does what the rule does with the packets that fit it. whole: those are all.
func (w *walker) act(s *step, rest []frame, r *state, fits state, whole, full bool) (how outcome, err error) {
	done := goOn
	if whole {
		done = allDecided
	}
	switch s.act {
	case translate, stop:
		w.decide(s, fits.Region)
		return done, nil
	case accept: // of the base chain; the others are still asked
		fits.by = s
		_, err = w.walk(rest[:1:1], fits, true)
	case goBack:
		if whole {
			r.by = s
			return allReturn, nil
		}
		fits.by = s
		_, err = w.walk(rest[:len(rest)-1:len(rest)-1], fits, true)
	case leap:
		_, err = w.walk(append(rest[:len(rest)-1:len(rest)-1], frame{s.chain, 0}), fits, true)
	case jump:
		decided, err := w.walk(append(rest[:len(rest):len(rest)], frame{s.chain, 0}), fits, false)
		if !decided {
			done = goOn
		}
		return done, err
	case setMark:
		mark := fits.mark&^s.mark.Mask ^ s.mark.Value
		if whole && full {
			r.mark = mark
			return goOn, nil
		}
		fits.mark = mark
		_, err = w.walk(rest, fits, true)
	}
	return done, err
}

// decide that packets are translated.
func (w *walker) decide(s *step, r Region) {
	w.lost(s)
	e := s.entry
	if s.act == stop {
		e.Action = policy.Leave
	}
	e.Region, e.Rules = r, s.refs
	w.add(e)
}

// lost says what of a rule can't be said though it is followed.
func (w *walker) lost(s *step) {
	for _, loss := range s.losses {
		w.warn(s, "%s", loss)
	}
}

// keep is for packets that no rule translated. What the node sends itself is left
// alone: others' rules for it, such as istio's, are to go on.
func (w *walker) keep(r state) {
	e := Entry{Region: r.Region, Action: policy.Keep}
	if r.by != nil {
		e.Rules = r.by.refs
	}
	if node := r.Region; r.Node {
		if node.Forwarded = false; w.node != nil {
			node.Source = node.Source.and(Addresses{In: w.node})
		}
		w.add(Entry{Region: node, Action: policy.Leave, Rules: e.Rules})
	}
	if e.Node = false; e.Forwarded {
		w.add(e)
	}
}

// add an entry, unless another decides about all of it before.
func (w *walker) add(e Entry) {
	if e.empty() || e.guarded() {
		return
	}
	for i := range w.entries {
		if e.within(w.entries[i].Region) {
			return
		}
	}
	w.entries = append(w.entries, e)
}

// guarded: policies leave all of it alone, whatever their rules say.
func (r Region) guarded() bool {
	sources, destinations := "127.0.0.0/8", "224.0.0.0/4"
	if r.Family == packet.IPv6Family {
		sources, destinations = "fe80::/10", "ff00::/8"
	}
	within := func(a Addresses, p string) bool {
		return a.within(Addresses{In: []netip.Prefix{netip.MustParsePrefix(p)}})
	}
	return within(r.Source, sources) || within(r.Destination, destinations)
}

// doubtful: which packets the rule takes can't be said. It translates none of them
// then, and those that it may let go are left alone.
func (w *walker) doubtful(s *step, fits Region) {
	what := strings.Join(slices.Compact(slices.Clone(s.unsaid)), ", ")
	switch {
	case s.act == translate && s.refs[0].Owner == owner.KubeProxy: // services are left to it
	case s.act == translate:
		w.warn(s, "is left out: a policy can't ask for %s", what)
	case s.act == jump && s.chain != nil:
		w.warn(s, "is left out with chain %s, and what that may let go is left alone: a policy can't ask for %s", s.chain.name, what)
		w.leave(s.chain, state{Region: fits}, 0)
	default:
		w.warn(s, "a policy can't ask for %s: what it may concern is left alone, whatever later rules say", what)
		w.add(Entry{Region: fits, Action: policy.Leave, Rules: s.refs})
	}
}

// leave alone what a chain may accept.
func (w *walker) leave(c *chain, r state, depth int) {
	for i := range c.steps {
		s := &c.steps[i]
		if w.steps++; w.steps > mostSteps || depth > mostDepth {
			return // walk says so
		}
		fits, _, some := s.cut(r)
		switch {
		case !some:
		case s.act == accept || s.act == stop:
			w.add(Entry{Region: fits.Region, Action: policy.Leave, Rules: s.refs})
		case (s.act == jump || s.act == leap) && s.chain != nil:
			w.leave(s.chain, fits, depth+1)
		}
	}
}

// aboutMarks: packets come without a mark, but for those that policies leave alone.
func (w *walker) aboutMarks(s *step) {
	for _, m := range s.marks {
		if s.act != nothing && !m.ofGuards() && m.mask&^w.marks != 0 {
			w.warn(s, "a policy can't ask for marks: packets with mark %#x/%#x are taken for ones without", m.value, m.mask)
		}
	}
}
