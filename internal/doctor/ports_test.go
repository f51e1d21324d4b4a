package doctor

import (
	"testing"

	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
	"github.com/unmasq/unmasq/internal/sim"
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
