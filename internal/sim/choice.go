package sim

import (
	"slices"
	"strings"
)

// mostRuns bounds how many combinations of what is open are followed: a service
// with hundreds of endpoints stays exact, a dump that hides most of its rules
// ends as unknown.
const mostRuns = 4096

// alternative is one way that something open can turn out.
type alternative struct {
	// weight is its probability, 0 where there is none to tell.
	weight float64
	// why it is open, and when: what holds if it turns out this way.
	why, when string
}

// choice is a point of a run where the packet's way isn't determined.
type choice struct {
	// key names what is asked, so that it is asked once a run.
	key string
	// what is the word for people.
	what         string
	alternatives []alternative
	taken        int
}

// random says whether dice decide, whose weights are known.
func (c *choice) random() bool { return c.alternatives[0].weight > 0 }

// dice lead one run through its choices. The runs of a question share them: each
// follows the recorded choices and takes the first alternative of every new
// one, until next finds no alternative left. So a run is straight code.
type dice struct {
	budget
	path []choice
	pos  int
	// way is taken at new choices, as far as it goes.
	way Way
	// probing: a chain is tried; a choice that it comes to is only noted.
	probing, chose bool
}

// choose returns the index of the alternative to take.
func (d *dice) choose(key, what string, alternatives ...alternative) int {
	if d.probing {
		d.chose = true
		return 0
	}
	if d.pos == len(d.path) {
		d.work += choiceWork
		// What varies is copied: the caller's slice is its own.
		c := choice{key: key, what: what, alternatives: slices.Clone(alternatives)}
		if d.pos < len(d.way) {
			c.taken = min(int(d.way[d.pos]), len(alternatives)-1)
		}
		d.path = append(d.path, c)
	}
	taken := d.path[d.pos].taken
	d.pos++
	return taken
}

// recall returns how a question of that key was answered earlier in this run.
func (d *dice) recall(key string) (taken int, ok bool) {
	d.work += d.pos / 8
	for i := range d.path[:d.pos] {
		if d.path[i].key == key {
			return d.path[i].taken, true
		}
	}
	return 0, false
}

// combinations of the run's choices, as far as they are known: how many runs
// there will be, at most 64.
func (d *dice) combinations() int {
	n := 1
	for i := range d.path[:d.pos] {
		n = min(n*len(d.path[i].alternatives), 64)
	}
	return n
}

// next prepares the following run; false where all combinations were followed.
func (d *dice) next() bool {
	d.path = d.path[:d.pos]
	for i := len(d.path) - 1; i >= 0; i-- {
		if d.path[i].taken+1 < len(d.path[i].alternatives) {
			d.path[i].taken++
			d.path = d.path[:i+1]
			d.pos = 0
			return true
		}
	}
	return false
}

// leaf is what one run found, with the choices that led there.
type leaf struct {
	path    []choice
	outcome *Outcome
}

// merge turns the leaves of a question, in the order of the runs, into outcomes:
// a choice that makes no difference is dropped, probabilities are added up, and
// what an outcome depends on is noted.
func merge(leaves []leaf) []*Outcome {
	single := make([]*Outcome, len(leaves))
	for i := range leaves {
		single[i] = leaves[i].outcome
	}
	return mergeFrom(leaves, single, 0)
}

// mergeFrom merges by the choices from depth on; single are the leaves' outcomes.
func mergeFrom(leaves []leaf, single []*Outcome, depth int) []*Outcome {
	if len(leaves) == 1 && len(leaves[0].path) <= depth {
		return single
	}
	at := &leaves[0].path[depth]
	groups := make([][]*Outcome, 0, len(at.alternatives))
	for start := 0; start < len(leaves); {
		end := start
		for end < len(leaves) && leaves[end].path[depth].taken == leaves[start].path[depth].taken {
			end++
		}
		groups = append(groups, mergeFrom(leaves[start:end], single[start:end:end], depth+1))
		start = end
	}
	if at.random() {
		return mergeRandom(at, groups)
	}
	return mergeOpen(at, groups)
}

// mergeRandom adds up what dice lead to.
func mergeRandom(at *choice, groups [][]*Outcome) []*Outcome {
	merged := make([]*Outcome, 0, 2*len(groups))
	for i, group := range groups {
		before := merged // a group's own outcomes are distinct
		for _, o := range group {
			o.Probability *= at.alternatives[i].weight
			if j := indexOf(before, o); j >= 0 {
				merged[j].join(o)
				if merged[j].Probability > 0 && o.Probability > 0 {
					merged[j].Probability += o.Probability
				} else {
					merged[j].Probability = 0
				}
			} else {
				merged = append(merged, o)
			}
		}
	}
	return merged
}

// mergeOpen joins what something unknown leads to. An outcome that comes about
// whatever it is doesn't depend on it.
func mergeOpen(at *choice, groups [][]*Outcome) []*Outcome {
	var merged []*Outcome
	var in [][]int // per outcome, the groups that have it
	for i, group := range groups {
		before := merged
		for _, o := range group {
			j := indexOf(before, o)
			if j < 0 {
				merged, in = append(merged, o), append(in, []int{i})
				continue
			}
			merged[j].join(o)
			if merged[j].Probability != o.Probability {
				merged[j].Probability = 0
			}
			if in[j][len(in[j])-1] != i {
				in[j] = append(in[j], i)
			}
		}
	}
	for j := range merged {
		if len(in[j]) == len(at.alternatives) {
			continue // also where the sum over groups differs: the probability is 0 then
		}
		merged[j].Probability = 0
		var when []string
		for _, i := range in[j] {
			when = append(when, at.alternatives[i].when)
		}
		merged[j].depend(Dependency{at.what, at.alternatives[0].why, strings.Join(when, " or ")})
		if at.key == protocolKey && len(in[j]) == 1 {
			merged[j].Protocol = anyProtocols[in[j][0]]
		}
	}
	return merged
}

// depend adds a condition, of which nobody reads hundreds.
func (o *Outcome) depend(d Dependency) {
	switch n := len(o.DependsOn); {
	case n > mostConditions:
		return
	case n == mostConditions:
		d = Dependency{What: "rules", Why: "more is open than is listed"}
	}
	o.DependsOn = appendDependency(o.DependsOn, d)
}

func indexOf(outcomes []*Outcome, o *Outcome) int {
	return slices.IndexFunc(outcomes, func(have *Outcome) bool { return have.same(o) })
}

// same says whether the peer, and the person who asks, sees the same.
func (o *Outcome) same(p *Outcome) bool {
	return o.Verdict == p.Verdict && o.Source == p.Source && o.SourceKind == p.SourceKind && o.samePort(p) &&
		o.Destination == p.Destination && o.DestinationPort == p.DestinationPort && o.RejectWith == p.RejectWith &&
		sameDecider(o.DecidedBy, p.DecidedBy) && o.sameWay(p)
}

// samePort: where the question names no protocol, those without ports agree
// with those that have some.
func (o *Outcome) samePort(p *Outcome) bool {
	if o.Protocol == 0 && p.Protocol == 0 && !(o.SourcePort.Last > 0 && p.SourcePort.Last > 0) {
		return true
	}
	return o.SourcePort == p.SourcePort
}

// sameWay compares where the packet leaves, where both know.
func (o *Outcome) sameWay(p *Outcome) bool {
	if o.ToNode != p.ToNode {
		// Without addresses, that the destination might be the node's is said once.
		return o.OutInterface == "" && p.OutInterface == ""
	}
	if (o.Encapsulated == nil) != (p.Encapsulated == nil) {
		return false
	}
	return o.OutInterface == p.OutInterface || o.outAssumed && p.outAssumed
}

func sameDecider(a, b *Decider) bool {
	if a == nil || b == nil {
		return a == b
	}
	if a.Rule != nil && b.Rule != nil {
		return *a.Rule == *b.Rule
	}
	return a.Rule == b.Rule && a.Connection == b.Connection && a.Route == b.Route && a.Text == b.Text
}

// join adds a second way to the same end. A condition stays where both ways
// have it; the shorter way is shown.
func (o *Outcome) join(p *Outcome) {
	depends, probability := joinDependencies(o.DependsOn, p.DependsOn), o.Probability
	out := o.OutInterface
	if out != p.OutInterface {
		out = ""
	}
	if len(p.Steps) < len(o.Steps) {
		*o = *p
	}
	o.DependsOn, o.Probability, o.OutInterface = depends, probability, out
}

func joinDependencies(a, b []Dependency) []Dependency {
	if slices.Equal(a, b) {
		return a
	}
	var all []Dependency
	for _, list := range [2][]Dependency{a, b} {
		for _, d := range list {
			if !slices.Contains(a, d) || !slices.Contains(b, d) {
				d.If = ""
			}
			all = appendDependency(all, d)
		}
	}
	return all
}

func appendDependency(list []Dependency, d Dependency) []Dependency {
	if slices.Contains(list, d) {
		return list
	}
	return append(slices.Clip(list), d)
}
