package nft

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/plan"
	"github.com/unmasq/unmasq/internal/policy"
)

// alternating is a policy of two rules with many destinations each, so that each
// element of the map names a chain; the longest names that documents and rules can have.
func alternating(destinations int) *policy.Policy {
	rule := func(n int, letter string, action policy.Action) policy.Rule {
		return policy.Rule{
			Document: strings.Repeat("d", 253), Name: strings.Repeat(letter, 63), Number: n,
			From: policy.From{PodCIDRs: true}, Action: action,
		}
	}
	p := &policy.Policy{Rules: []policy.Rule{rule(1, "a", policy.Keep), rule(2, "b", policy.Masquerade)}}
	for i := range destinations {
		for _, text := range []string{"20.%d.%d.0/25", "2001:db8:%x:%x::/64"} {
			to := &p.Rules[i%2].To
			to.CIDRs = append(to.CIDRs, netip.MustParsePrefix(fmt.Sprintf(text, i>>8, i&255)))
		}
	}
	return p
}

// A message's list of elements has a limit in bytes, which the kernel doesn't
// complain of: it takes what it can read of the rest.
func TestLongNamesLoseNoElement(t *testing.T) {
	_, facts := everything()
	for _, tt := range []struct {
		name     string
		hashFrom int
	}{{"tree", 1 << 20}, {"hash", 1}} {
		t.Run(tt.name, func(t *testing.T) {
			want := plan.Compile(alternating(1000), facts, plan.Options{HashFrom: tt.hashFrom})
			byNetlink, byText := netnstest.Test(t, "netlink"), netnstest.Test(t, "text")
			if err := open(t, byNetlink).Start(want); err != nil {
				t.Fatal(err)
			}
			if _, err := byText.Run(rendered(t, want), "nft", "-f", "-"); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(list(t, byText, plan.TableName), list(t, byNetlink, plan.TableName)); diff != "" {
				t.Errorf("-render +netlink\n%.2000s", diff)
			}
		})
	}
}
