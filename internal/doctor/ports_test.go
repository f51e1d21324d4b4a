package doctor

import (
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
	"github.com/unmasq/unmasq/internal/sim"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// TestRulesAnew: rules of nft without their ports, and with random ones.
func TestRulesAnew(t *testing.T) {
	for _, c := range []struct{ rule, ports, random string }{
		{"ip saddr 10.244.1.0/24 masquerade", "ip saddr 10.244.1.0/24 masquerade", "ip saddr 10.244.1.0/24 masquerade fully-random"},
		{"meta l4proto udp masquerade to :1024-2047", "meta l4proto udp masquerade", "meta l4proto udp masquerade to :1024-2047 fully-random"},
		{"masquerade to :1024-2047 persistent", "masquerade persistent", "masquerade to :1024-2047 fully-random persistent"},
		{"tcp dport 80 snat to 192.0.2.7:1024-2047", "tcp dport 80 snat to 192.0.2.7", "tcp dport 80 snat to 192.0.2.7:1024-2047 fully-random"},
		{"tcp dport 80 snat ip6 to [2001:db8::7]:1024-2047", "tcp dport 80 snat ip6 to [2001:db8::7]", "tcp dport 80 snat ip6 to [2001:db8::7]:1024-2047 fully-random"},
		{"snat ip6 to 2001:db8::7-2001:db8::9", "snat ip6 to 2001:db8::7-2001:db8::9", "snat ip6 to 2001:db8::7-2001:db8::9 fully-random"},
	} {
		rule := &ruleset.Rule{Text: c.rule, Native: &nftables.Rule{}}
		if got := withoutPorts(rule); got != c.ports {
			t.Errorf("%s without ports: %s", c.rule, got)
		}
		if got := randomly(sim.RuleRef{Table: &ruleset.Table{Native: &nftables.Table{}}, Rule: rule}); got != c.random {
			t.Errorf("%s with random ones: %s", c.rule, got)
		}
	}
}

// TestRulesAnewByHand: where a dump doesn't tell how a command would name the rule, no
// command is made up.
func TestRulesAnewByHand(t *testing.T) {
	listed := sim.RuleRef{
		Table: &ruleset.Table{Name: "nat"}, Chain: &ruleset.Chain{Name: "POSTROUTING"},
		Rule: &ruleset.Rule{Text: "0 0 MASQUERADE all -- * eth0 10.244.1.0/24 0.0.0.0/0", Index: 3},
	}
	native := sim.RuleRef{
		Table: ruleset.FromNative(&nftables.Table{Family: "ip", Name: "own"}), Chain: &ruleset.Chain{Name: "out"},
		Rule: &ruleset.Rule{Text: "masquerade", Native: &nftables.Rule{}},
	}
	p := newPatient(Node{Host: &snapshot.Host{}})
	for _, at := range []sim.RuleRef{listed, native} {
		if got := p.anew(at, randomly(at), "with random ports"); !strings.HasPrefix(got, "# write the rule anew with random ports: ") || strings.Contains(got, "\n") {
			t.Errorf("%s", got)
		}
	}
}
