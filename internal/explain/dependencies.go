package explain

import (
	"fmt"
	"slices"
	"strings"
)

// dependencies lists what the answer depends on: each thing once, with the
// outcomes that it concerns. The conditions stand with the outcomes.
func (t writer) dependencies(a *Answer) {
	all := dependencyRows(a.Outcomes[:shown(a.Outcomes)])
	if len(all) == 0 {
		return
	}
	t.section("depends on")
	t.table(func(row func(...string)) {
		for _, d := range all {
			row("  "+d.what, d.text(shown(a.Outcomes)))
		}
	})
}

// dependencyRow is one thing that isn't given.
type dependencyRow struct {
	what, why string
	// items of a list that why has a place for, see plurals.
	items  []string
	plural *plural
	// outcomes that it concerns.
	outcomes []int
}

func dependencyRows(outcomes []Outcome) []*dependencyRow {
	var all []*dependencyRow
	for i := range outcomes {
		for _, d := range outcomes[i].dependencies("") {
			items, kind := list(d.reason)
			j := slices.IndexFunc(all, func(r *dependencyRow) bool {
				return r.what == d.What && r.plural == kind && (kind != nil || r.why == d.reason)
			})
			if j < 0 {
				j = len(all)
				all = append(all, &dependencyRow{what: d.What, why: d.reason, plural: kind})
			}
			all[j].add(i+1, items)
		}
	}
	return all
}

func (r *dependencyRow) add(outcome int, items []string) {
	for _, item := range items {
		if !slices.Contains(r.items, item) {
			r.items = append(r.items, item)
		}
	}
	if !slices.Contains(r.outcomes, outcome) {
		r.outcomes = append(r.outcomes, outcome)
	}
}

// text of the row, where that many outcomes are shown.
func (r *dependencyRow) text(outcomes int) string {
	why := r.why
	if r.plural != nil {
		why = r.plural.text(r.items)
	}
	if len(r.outcomes) < outcomes {
		why = strings.TrimSpace(why + " (" + outcomeNumbers(r.outcomes) + ")")
	}
	return why
}

// plural is a sentence with a list in it, alone and for several.
type plural struct{ before, after, afterMany string }

var (
	notTheNodes = plural{"none were given; ", " is taken as not being the node's", " are taken as not being the node's"}
	notGiven    = plural{"not in the dump, taken as empty: ", "", ""}
)

// list returns the items of a sentence that takes several.
func list(why string) ([]string, *plural) {
	for _, p := range [...]*plural{&notTheNodes, &notGiven} {
		rest, begins := strings.CutPrefix(why, p.before)
		if items, ends := strings.CutSuffix(rest, p.after); begins && ends {
			return strings.Split(items, ", "), p
		}
	}
	return nil, nil
}

func (p *plural) text(items []string) string {
	if len(items) == 1 {
		return p.before + items[0] + p.after
	}
	return p.before + strings.Join(items, ", ") + p.afterMany
}

// conditions of an outcome; none where it comes about in any case.
func (o *Outcome) conditions() []string {
	var all []string
	for _, d := range o.dependencies("") {
		if d.If != "" && !slices.Contains(all, d.condition()) {
			all = append(all, d.condition())
		}
	}
	return all
}

// condition names what "it" is: away from its reason it stands alone.
func (d Dependency) condition() string {
	when := strings.Join(strings.Fields(d.If), " ")
	for said, alone := range map[string]string{
		"the rule has none, or these: ": "the interfaces that the listing hides fit: ",
		"the rule has others: ":         "the interfaces that the listing hides don't fit: ",
	} {
		if rule, ok := strings.CutPrefix(when, said); ok {
			return alone + rule
		}
	}
	when = strings.Replace(when, "rule that it doesn't show", "rule that the excerpt doesn't show", 1)
	if rest, ok := strings.CutPrefix(when, "it "); ok {
		return d.What + " " + rest
	}
	if start, ok := strings.CutSuffix(when, " in it"); ok {
		return start + " in " + d.What
	}
	return when
}

// dependencies of an outcome, of its outer packet, and of what becomes of it on
// other nodes.
func (o *Outcome) dependencies(where string) []Dependency {
	var all []Dependency
	for _, d := range o.DependsOn {
		d.Why, d.reason = d.Why+where, d.reason+where
		all = append(all, d)
	}
	if c := o.Encapsulated; c != nil {
		for i := range c.Outcomes {
			all = append(all, c.Outcomes[i].dependencies(where+", for the outer packet")...)
		}
	}
	if n := o.Next; n != nil {
		for i := range n.Outcomes {
			all = append(all, n.Outcomes[i].dependencies(", on node "+n.Node)...)
		}
	}
	return all
}

// outcomeNumbers writes 1, 2, 3 and 5 as "outcomes 1-3, 5".
func outcomeNumbers(numbers []int) string {
	if len(numbers) == 1 {
		return fmt.Sprintf("outcome %d", numbers[0])
	}
	var parts []string
	for i := 0; i < len(numbers); {
		j := i
		for j+1 < len(numbers) && numbers[j+1] == numbers[j]+1 {
			j++
		}
		part := fmt.Sprint(numbers[i])
		if j > i {
			part = fmt.Sprintf("%d-%d", numbers[i], numbers[j])
		}
		parts = append(parts, part)
		i = j + 1
	}
	return "outcomes " + strings.Join(parts, ", ")
}

// hidesNAT: rules that are missing may be such.
func hidesNAT(missing string) bool {
	return missing == "table nat" || missing == "chain POSTROUTING of table nat" || strings.HasPrefix(missing, "the tables of ") || strings.HasPrefix(missing, "all other tables ")
}

// unread says whether NAT rules that weren't given keep the source from being told.
func (o *Outcome) unread() bool {
	return slices.ContainsFunc(o.DependsOn, func(d Dependency) bool {
		items, kind := list(d.reason)
		return kind == &notGiven && slices.ContainsFunc(items, hidesNAT)
	})
}
