package guards_test

import (
	"fmt"
	"net/netip"
	"regexp"
	"testing"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/plan"
	"github.com/unmasq/unmasq/internal/policy"
	"github.com/unmasq/unmasq/internal/policy/policytest"
	"github.com/unmasq/unmasq/internal/rig"
)

// marker marks packets to 203.0.113.0/24 and 2001:db8:113::/48 as a component
// would, masquerades what is marked in the chain where components do, and
// remembers the mark with which packets leave, behind all NAT.
const marker = `table inet marker {
	set left { type mark; flags dynamic; }
	chain set-marks {
		type filter hook prerouting priority mangle;
		ip daddr 203.0.113.0/24 meta mark set %[1]d
		ip6 daddr 2001:db8:113::/48 meta mark set %[1]d
	}
	chain hide {
		type nat hook postrouting priority srcnat;
		meta mark & %[2]d != 0 masquerade
	}
	chain last {
		type filter hook postrouting priority 200;
		oif "eth1" meta l4proto tcp add @left { meta mark }
	}
}
`

const (
	serviceBit  = 0x4000
	hostPortBit = 0x2000
	ownBit      = 0x80
	// otherBit is somebody else's, and must stay.
	otherBit = 0x1
)

// override is one packet from vpn with a mark, and what must become of it.
type override struct {
	name string
	// mark of the packet, beside otherBit.
	mark  uint32
	rules []policy.Rule
	// serviceMark where it isn't the default.
	serviceMark policy.Mark
	// want: kept, masqueraded, stated.
	want string
	// left of the mark.
	left uint32
}

// Rules that override the marks decide about marked packets and take the service
// mark off. Others leave them to who marked them.
func overrides() []override {
	plain := func(a policy.Action) policy.Rule {
		return policy.Rule{From: policy.From{CIDRs: policytest.Prefixes("172.30.0.0/16", "fd00:172:30::/48")}, To: policy.To{Everywhere: true},
			Action: a, Addresses: []netip.Addr{stated, stated6}}
	}
	over := func(a policy.Action) policy.Rule { return overriding(plain(a)) }
	others := over(policy.Keep)
	others.From.CIDRs = policytest.Prefixes("172.31.0.0/16", "fd00:172:31::/48")
	list := func(rules ...policy.Rule) []policy.Rule { return rules }
	return []override{
		{name: "Keep", mark: serviceBit, rules: list(over(policy.Keep)), want: "kept"},
		{name: "SNAT", mark: serviceBit, rules: list(over(policy.SNAT)), want: "stated"},
		{name: "Masquerade", mark: serviceBit, rules: list(over(policy.Masquerade)), want: "masqueraded"},
		{name: "Leave, and nobody finds a mark", mark: serviceBit, rules: list(over(policy.Leave)), want: "kept"},
		{name: "no override", mark: serviceBit, rules: list(plain(policy.Keep)), want: "masqueraded", left: serviceBit},
		{name: "override for others", mark: serviceBit, rules: list(others), want: "masqueraded", left: serviceBit},
		{name: "rules without override are passed over", mark: serviceBit, rules: list(plain(policy.Keep), over(policy.SNAT)), want: "stated"},
		{name: "the first that matches and overrides", mark: serviceBit, rules: list(others, over(policy.Keep), over(policy.SNAT)), want: "kept"},
		{name: "hostPort mark, Keep", mark: hostPortBit, rules: list(over(policy.Keep)), want: "kept", left: hostPortBit},
		{name: "hostPort mark, SNAT", mark: hostPortBit, rules: list(over(policy.SNAT)), want: "stated", left: hostPortBit},
		{name: "hostPort mark, Leave", mark: hostPortBit, rules: list(over(policy.Leave)), want: "masqueraded", left: hostPortBit},
		{name: "hostPort mark, no override", mark: hostPortBit, rules: list(plain(policy.Keep)), want: "masqueraded", left: hostPortBit},
		{name: "both marks", mark: serviceBit | hostPortBit, rules: list(over(policy.Keep)), want: "kept", left: hostPortBit},
		{name: "another service mark", mark: ownBit, serviceMark: policy.Mark{Value: ownBit, Mask: ownBit},
			rules: list(over(policy.Keep)), want: "kept"},
		{name: "another service mark, no override", mark: ownBit, serviceMark: policy.Mark{Value: ownBit, Mask: ownBit},
			rules: list(plain(policy.Keep)), want: "masqueraded", left: ownBit},
		{name: "a mark that nobody stated", mark: ownBit, rules: list(plain(policy.Keep)), want: "kept", left: ownBit},
		{name: "no mark", rules: list(plain(policy.SNAT), over(policy.Keep)), want: "stated"},
		{name: "no mark, override", rules: list(over(policy.SNAT)), want: "stated"},
	}
}

func TestOverride(t *testing.T) {
	connections := 0
	for _, o := range overrides() {
		for _, f := range packet.Families {
			connections++
			t.Run(o.name+" "+f.String(), func(t *testing.T) { o.check(t, f) })
		}
	}
	t.Logf("checked: %d connections with marks", connections)
}

func (o *override) check(t *testing.T, f packet.Family) {
	t.Helper()
	flow := packet.Flow{Source: choose(f, vpn, vpn6), Destination: choose(f, addr("203.0.113.5"), addr("2001:db8:113::5")),
		Protocol: packet.TCP, SourcePort: 40000, DestinationPort: 443,
		InInterface: rig.Bridge, OutInterface: rig.Eth1, Mark: o.mark | otherBit}
	want := map[string]netip.Addr{"kept": flow.Source, "stated": choose(f, stated, stated6),
		"masqueraded": rig.AddressOf(rig.Eth1, f == packet.IPv6Family)}[o.want]
	left := o.left | otherBit
	facts := facts()
	if o.serviceMark.Mask != 0 {
		facts.ServiceMark = o.serviceMark
	}
	p := &policy.Policy{Rules: o.rules}
	for i := range p.Rules {
		p.Rules[i].Document, p.Rules[i].Name, p.Rules[i].Number = "guards", fmt.Sprint("rule", i), i+1
	}

	decided := flow.Mark
	if policy.Decide(p, facts, flow).ClearServiceMark {
		decided &^= facts.ServiceMark.Mask
	}
	if decided != left {
		t.Errorf("Decide leaves mark %#x, want %#x", decided, left)
	}
	r := rig.New(t)
	r.NFT(t, fmt.Sprintf(marker, flow.Mark, o.mark))
	sync(t, openTable(t, r), plan.Compile(p, facts, plan.Options{}))
	seen, err := r.Send(flow)
	if err != nil {
		t.Fatal(err)
	}
	if seen.Source != want {
		t.Errorf("the source is %s, want %s (%s)", seen.Source, want, o.want)
	}
	marks := r.Run(t, "", "nft", "list", "set", "inet", "marker", "left")
	if found := regexp.MustCompile(`0x[0-9a-f]{8}`).FindAllString(marks, -1); len(found) != 1 || found[0] != fmt.Sprintf("%#08x", left) {
		t.Errorf("packets leave with mark %v, want %#08x", found, left)
	}
}
