package rules

import (
	"net/netip"
	"slices"
)

// tidy takes away what decides nothing, and joins what says the same.
func tidy(entries []Entry) []Entry {
	var kept []Entry // from the last to the first
	for _, e := range slices.Backward(entries) {
		if e.translates() || slices.ContainsFunc(kept, func(later Entry) bool { return later.translates() && e.overlaps(later.Region) }) {
			kept = append(kept, e)
		}
	}
	slices.Reverse(kept)
	return joined(sorted(kept))
}

func (e Entry) translates() bool { return e.Action == "Masquerade" || e.Action == "SNAT" }

// sorted puts neighbours that can be in any order, since none translates, by origin:
// more of them can be joined then.
func sorted(entries []Entry) []Entry {
	for i := 0; i < len(entries); {
		j := i
		for j < len(entries) && !entries[j].translates() {
			j++
		}
		slices.SortStableFunc(entries[i:j], func(a, b Entry) int { return a.rank() - b.rank() })
		i = max(j, i+1)
	}
	return entries
}

// rank: the node's own packets are nobody else's, so theirs can come later.
func (e Entry) rank() int {
	if e.Forwarded {
		return 0
	}
	return 1
}

func joined(entries []Entry) (out []Entry) {
	for _, e := range entries {
		if n := len(out); n == 0 || !out[n-1].join(e) {
			out = append(out, e)
		}
	}
	return out
}

// join takes in the next entry where both do the same, and differ in the networks of
// one side at most.
func (e *Entry) join(next Entry) bool {
	same := e.Action == next.Action && e.FullyRandom == next.FullyRandom && e.First == next.First && e.Last == next.Last &&
		(e.Ports == nil) == (next.Ports == nil) && (e.Ports == nil || *e.Ports == *next.Ports) &&
		e.Family == next.Family && e.Forwarded == next.Forwarded && e.Node == next.Node &&
		slices.Equal(e.Out, next.Out) && slices.Equal(e.Region.Ports, next.Region.Ports) && e.Owner() == next.Owner()
	if !same {
		return false
	}
	sources, destinations := e.Source.equal(next.Source), e.Destination.equal(next.Destination)
	switch {
	case sources && len(e.Destination.Except)+len(next.Destination.Except) == 0:
		e.Destination.In = joinPrefixes(e.Destination.In, next.Destination.In)
	case destinations && len(e.Source.Except)+len(next.Source.Except) == 0:
		e.Source.In = joinPrefixes(e.Source.In, next.Source.In)
	case !sources || !destinations:
		return false
	}
	e.Rules = slices.Clone(e.Rules)
	for _, r := range next.Rules {
		if !slices.Contains(e.Rules, r) {
			e.Rules = append(e.Rules, r)
		}
	}
	return true
}

func (a Addresses) equal(b Addresses) bool {
	return slices.Equal(a.In, b.In) && slices.Equal(a.Except, b.Except)
}

func joinPrefixes(a, b []netip.Prefix) []netip.Prefix {
	a = slices.Clone(a)
	for _, p := range b {
		a = addPrefix(a, p)
	}
	return a
}

// Owner of the rule that decided; "" where no rule did.
func (e *Entry) Owner() string {
	if len(e.Rules) == 0 {
		return ""
	}
	return e.Rules[0].Owner
}
