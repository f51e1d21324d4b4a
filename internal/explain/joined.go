package explain

import (
	"fmt"
	"slices"
)

// joined are the outcomes as a person tells them apart: those that read the same
// and that the same rule decides are one, which happens in any of their cases.
// JSON has them all.
func (t writer) joined(a *Answer) *Answer {
	out := *a
	out.Outcomes = nil
	at := map[string]int{}
	for i := range a.Outcomes {
		o := a.Outcomes[i]
		key := t.sentence(a, &o) + " " + o.DecidedBy.key()
		j, known := at[key]
		if !known || o.Encapsulated != nil || o.Next != nil {
			at[key] = len(out.Outcomes)
			out.Outcomes = append(out.Outcomes, o)
			continue
		}
		out.Outcomes[j].join(&o)
	}
	return &out
}

// key tells deciders apart.
func (d *Decider) key() string {
	if d == nil {
		return ""
	}
	return fmt.Sprint(d.Variant, d.Table, d.Chain, d.Index, d.Rule, d.File)
}

// join takes over what another outcome needs. What only one of the two asks for
// is no condition of both.
func (o *Outcome) join(p *Outcome) {
	o.DependsOn = append(without(o.DependsOn, p.DependsOn), without(p.DependsOn, o.DependsOn)...)
	if o.OutInterface != p.OutInterface {
		o.OutInterface = ""
	}
	if o.InInterface != p.InInterface {
		o.InInterface = ""
	}
	if o.Probability == nil || p.Probability == nil {
		o.Probability = nil
		return
	}
	sum := *o.Probability + *p.Probability
	o.Probability = &sum
}

// without the conditions that others don't have.
func without(own, others []Dependency) []Dependency {
	var all []Dependency
	for _, d := range own {
		if !slices.Contains(others, d) {
			d.Why, d.If = d.reason, ""
		}
		if !slices.Contains(all, d) {
			all = append(all, d)
		}
	}
	return all
}
