package foreign

import (
	"net/netip"

	"github.com/unmasq/unmasq/internal/packet"
)

const (
	masqAgentChain = "IP-MASQ-AGENT"
	masqAgentLocal = `-m comment --comment "ip-masq-agent: local traffic is not subject to MASQUERADE"`
	masqAgentLast  = `-m comment --comment "ip-masq-agent: outbound traffic is subject to MASQUERADE (must be last in chain)"`
	masqAgentJump  = "ip-masq-agent: ensure nat POSTROUTING directs all non-LOCAL destination traffic to our custom IP-MASQ-AGENT chain"
)

// IPMasqAgent is ip-masq-agent: its chain, refilled in one batch every minute,
// and a jump to it which is appended unless it is there and never moved.
func IPMasqAgent() Component {
	jump := []string{"-m", "comment", "--comment", masqAgentJump, "-m", "addrtype", "!", "--dst-type", "LOCAL", "-j", masqAgentChain}
	write := func(n Node, v Variant, f packet.Family) []Step {
		newChain := nat(v, f, "-N", masqAgentChain)
		newChain.MayFail = true
		return []Step{newChain, ensure(v, f, atEnd, "POSTROUTING", jump...), restore(v, f, masqAgentRules(n.Of(f), f)...)}
	}
	return Component{
		Name:    "ip-masq-agent",
		Write:   known(write),
		Restart: known(write),
		Remove: known(func(_ Node, v Variant, f packet.Family) []Step {
			return []Step{
				nat(v, f, append([]string{"-D", "POSTROUTING"}, jump...)...),
				nat(v, f, "-F", masqAgentChain),
				nat(v, f, "-X", masqAgentChain),
			}
		}),
	}
}

func masqAgentRules(a Addresses, f packet.Family) []string {
	local, ranges := "169.254.0.0/16", a.NonMasquerade
	if f == packet.IPv6Family {
		local = "fe80::/10"
	}
	if ranges == nil {
		ranges = privateRanges(f)
	}
	lines := []string{":" + masqAgentChain + " - [0:0]"}
	for _, p := range append([]string{local}, texts(ranges)...) {
		lines = append(lines, "-A "+masqAgentChain+" -d "+p+" "+masqAgentLocal+" -j RETURN")
	}
	return append(lines, "-A "+masqAgentChain+" "+masqAgentLast+" -j MASQUERADE --random-fully")
}

// privateRanges are those of RFC 1918, and of RFC 4193 as people configure it.
func privateRanges(f packet.Family) []netip.Prefix {
	if f == packet.IPv6Family {
		return []netip.Prefix{netip.MustParsePrefix("fd00::/8")}
	}
	return []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
	}
}
