package ruleset

import "testing"

// A chain is found whether it came by Add or not, the first of its name where
// there are two.
func TestChain(t *testing.T) {
	one, two, three := &Chain{Name: "A"}, &Chain{Name: "A"}, &Chain{Name: "B"}
	added := &Table{}
	for _, c := range []*Chain{one, three} {
		added.Add(c)
	}
	twice := &Table{}
	for _, c := range []*Chain{one, two, three} {
		twice.Add(c)
	}
	mixed := &Table{}
	mixed.Add(one)
	mixed.Chains = append(mixed.Chains, three)
	for name, table := range map[string]*Table{
		"added": added, "added twice": twice, "mixed": mixed, "set": {Chains: []*Chain{one, two, three}},
	} {
		if got := table.Chain("A"); got != one {
			t.Errorf("%s: chain A is %p, want %p", name, got, one)
		}
		if got := table.Chain("B"); got != three {
			t.Errorf("%s: chain B is %p, want %p", name, got, three)
		}
		if got := table.Chain("C"); got != nil {
			t.Errorf("%s: chain C is %p, want nil", name, got)
		}
	}
	if got := (&Table{}).Chain("A"); got != nil {
		t.Errorf("empty: chain A is %p, want nil", got)
	}
}
