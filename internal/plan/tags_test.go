package plan

import (
	"fmt"
	"net/netip"
	"testing"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/unmasq/unmasq/internal/policy"
)

// With tags, one policy more or less among many, and another action of one, are
// changes by differences; by numbers all behind it would be another.
func TestTagsKeepNames(t *testing.T) {
	const pods, rules = 20, 60
	facts := &policy.Facts{PodsKnown: true, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	for i := range pods {
		facts.Pods = append(facts.Pods, policy.Pod{Namespace: "default", Name: fmt.Sprint(i), Labels: labels.Set{"app": fmt.Sprint(i)},
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})}})
	}
	tags := map[string]int{}
	compile := func(without int, actions map[int]policy.Action, tags map[string]int) *Table {
		p := &policy.Policy{}
		for i := range rules {
			r := policy.Rule{Document: fmt.Sprintf("p%02d", i), Name: "out", Number: len(p.Rules) + 1, Action: policy.Keep,
				From: policy.From{Pods: &policy.PodSelector{Pod: labels.SelectorFromSet(labels.Set{"app": fmt.Sprint(i % pods)}), Namespace: labels.Everything()}},
				To:   policy.To{CIDRs: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(i)}), 24)}}}
			if a, ok := actions[i]; ok {
				r.Action = a
			}
			if i != without {
				p.Rules = append(p.Rules, r)
			}
			if tags != nil {
				tags[r.ID()] = i + 1
			}
		}
		return Compile(p, facts, Options{Tags: tags})
	}
	all := compile(-1, nil, tags)
	for _, tt := range []struct {
		name  string
		table *Table
		most  int // things that change
	}{
		{"the first is gone", compile(0, nil, tags), 12},
		{"one in the middle is gone", compile(rules/2, nil, tags), 12},
		{"another action", compile(-1, map[int]policy.Action{3: policy.Leave}, tags), 3},
	} {
		for _, way := range []struct {
			name     string
			old, new *Table
		}{{"there", all, tt.table}, {"back", tt.table, all}} {
			t.Run(tt.name+" "+way.name, func(t *testing.T) {
				c, ok := Diff(way.old, way.new)
				if n := len(c.AddChains) + len(c.DeleteChains) + len(c.Rewrite) + len(c.AddSets) + len(c.DeleteSets) + len(c.Sets); !ok || n > tt.most {
					t.Errorf("by differences %t, %d things change, want at most %d: %+v", ok, n, tt.most, c)
				}
			})
		}
	}
	if _, ok := Diff(compile(-1, nil, nil), compile(0, nil, nil)); ok {
		t.Error("by numbers it's a difference too: what are tags for?")
	}
}
