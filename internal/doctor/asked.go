package doctor

import (
	"fmt"
	"slices"
	"strings"
)

// askedRule is a rule of a policy about what a network sends to others.
type askedRule struct {
	name, from string
	to         []string
	action     string
}

func (r askedRule) String() string {
	return fmt.Sprintf(`{name: %s, from: {cidrs: ["%s"]}, to: {cidrs: ["%s"]}, action: %s}`, r.name, r.from, strings.Join(r.to, `", "`), r.action)
}

// keep asks for a rule with which a network's packets keep their source.
func (p *patient) keep(f *Finding, name, from string, to ...string) {
	p.keeps = p.askRule(f, p.keeps, askedRule{name, from, to, "Keep"})
}

// hide asks for a rule, before those that keep, that masquerades them.
func (p *patient) hide(f *Finding, name, from string, to ...string) {
	p.hides = p.askRule(f, p.hides, askedRule{name, from, to, "Masquerade"})
}

// askRule adds to the rules that the checks ask for. All stand in one policy, since a second
// one applied would replace the first.
func (p *patient) askRule(f *Finding, all []askedRule, r askedRule) []askedRule {
	f.keeps = true
	i := slices.IndexFunc(all, func(o askedRule) bool { return o.from == r.from && strings.HasPrefix(o.name, r.name) })
	if i < 0 {
		r.name = fmt.Sprintf("%s-%d", r.name, len(all)+1)
		return append(all, r)
	}
	for _, x := range r.to {
		if !slices.Contains(all[i].to, x) {
			all[i].to = append(all[i].to, x)
		}
	}
	return all
}

// policy is the command that puts the rules in force; words where a policy is in
// force already, which it would replace.
func (p *patient) policy() string {
	rules := slices.Clone(p.remote)
	for _, r := range slices.Concat(p.hides, p.keeps) {
		rules = append(rules, r.String())
	}
	text, before, after := "unmasq apply -f - <<'END'\napiVersion: unmasq.io/v1alpha1\nkind: SourcePolicy\nmetadata: {name: doctor}\nspec:\n", "  ", "END"
	if p.unmasqTable(tableName) != nil {
		text, before, after = "# add to your policy, before its other rules:\n", "#   ", ""
	}
	if p.serviceCIDRs != nil {
		text += before + `facts: {serviceCIDRs: ["` + strings.Join(p.serviceCIDRs, `", "`) + "\"]}\n"
	}
	text += before + "rules:\n"
	for _, rule := range rules {
		text += before + "- " + rule + "\n"
	}
	return strings.TrimSuffix(text+after, "\n")
}
