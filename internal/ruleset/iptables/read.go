// Package iptables reads what the iptables programs print into the model of
// package ruleset: iptables-save and ip6tables-save, iptables -S, iptables -L in
// all its layouts, and excerpts of them as they stand in tickets: lines without a
// table header, listings of one chain, rules that a grep let through.
//
// It is a reader of dumps: it doesn't recognise what kind of text it is given
// (package snapshot does), and no rule is judged or run here. What it doesn't
// understand of a rule is an Unknown with its text in that rule; a line that it
// doesn't understand is a [Problem].
//
//	tables, problems := iptables.ReadSave(text, iptables.Options{File: "iptables-save.txt", FirstLine: 1})
package iptables

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/lines"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
)

// Options say what is known of a text beforehand.
type Options struct {
	// File is its name, for people.
	File string
	// FirstLine is the number of its first line in File, from 1.
	FirstLine int
	// Family of its rules where the text doesn't say; 0 where not known. It is
	// then found from addresses, and IPv4 where nothing tells.
	Family packet.Family
	// Variant where the text doesn't say.
	Variant ruleset.Variant
}

// Problem is a line that wasn't understood, wholly or in part, or one that says
// that something is missing.
type Problem struct {
	// Line of the file; 0 for all of it.
	Line int
	// Text of the line, cut where it is very long.
	Text string
	Why  string
}

// Bounds of a whole text, several times what the largest nodes have. What goes
// beyond is counted in one last problem.
const (
	maxRules    = 1 << 20
	maxChains   = 1 << 19
	maxProblems = 10_000
	// maxMoved rules are moved by -I, which costs the length of the chain each time.
	maxMoved = 4 << 20
)

// ReadSave reads iptables-save, ip6tables-save, iptables -S, and excerpts of
// them. Rule.Text and names are substrings of text.
func ReadSave(text string, o Options) (tables []*ruleset.Table, problems []Problem) {
	r := &reader{options: o}
	for number, line := range lines.Of(text, o.FirstLine) {
		r.number, r.line = number, line
		r.saveLine()
	}
	if text != "" && !strings.HasSuffix(text, "\n") && !strings.HasSuffix(text, "\r") {
		r.cutOff()
	}
	return r.finish()
}

// ReadList reads iptables -L, of one table or of several, whole or in part.
func ReadList(text string, o Options) (tables []*ruleset.Table, problems []Problem) {
	r := &reader{options: o}
	r.listing = true
	for number, line := range lines.Of(text, o.FirstLine) {
		r.number, r.line = number, line
		r.listLine()
	}
	return r.finish()
}

// reader holds what was read of a text so far.
type reader struct {
	options Options
	// number and line being read, without blanks around it.
	number int
	line   string

	dumps []*dump
	// dump is the one that lines belong to, nil where a new one must begin.
	dump *dump
	// origin of the next dump, and whether it continues the one before.
	origin    origin
	continued bool
	problems  []Problem
	// dropped problems, over the bound. skipped lines: what they would have added
	// is over the bounds.
	dropped, skipped int
	// chains, rules and moved are counted for the bounds; a rule of several
	// matches counts as so many.
	chains, rules, moved int

	spec spec
	// scratch are the rules of the chain being read: a chain's are nearly always
	// together, so that its slice is made once.
	scratch []ruleset.Rule
	owner   *ruleset.Chain

	// layout of the listing being read (ReadList).
	layout  layout
	listing bool
}

// problem notes something about the current line.
func (r *reader) problem(why string) { r.problemAt(r.number, r.line, why) }

func (r *reader) problemAt(number int, text, why string) {
	const long = 200
	if len(r.problems) == maxProblems {
		r.dropped++
		return
	}
	r.problems = append(r.problems, Problem{Line: number, Text: text[:min(len(text), long)], Why: why})
}

// full says that no more rules or chains are taken.
func (r *reader) full() bool {
	if r.rules < maxRules && r.chains < maxChains {
		return false
	}
	r.skipped++
	return true
}

// begin starts a new dump: what follows was printed by another program, or by
// the same one for another table.
func (r *reader) begin(from origin) {
	r.flush()
	r.dump = nil
	r.origin, r.continued = from, false
}

// resume starts a new dump that nothing but the order of lines tells from the one before.
func (r *reader) resume() {
	r.begin(r.dump.rest())
	r.continued = true
}

// current is the dump that lines belong to.
func (r *reader) current() *dump {
	if r.dump == nil {
		r.dump = &dump{origin: r.origin, line: r.number, continued: r.continued}
		r.dumps = append(r.dumps, r.dump)
	}
	return r.dump
}

// flush gives the rules that were collected to their chain.
func (r *reader) flush() {
	if r.owner != nil {
		r.owner.Rules = append(r.owner.Rules, r.scratch...)
	}
	r.scratch, r.owner = r.scratch[:0], nil
}

// finish makes the tables of what was read.
func (r *reader) finish() ([]*ruleset.Table, []Problem) {
	r.flush()
	tables := r.merge()
	slices.SortStableFunc(r.problems, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
	if r.skipped > 0 {
		r.problemAt(0, "", fmt.Sprintf("%d lines more than the %d rules or %d chains that are read", r.skipped, maxRules, maxChains))
	}
	if r.dropped > 0 {
		r.problems = append(r.problems, Problem{Why: fmt.Sprintf("%d more lines are not understood", r.dropped)})
	}
	return tables, r.problems
}
