package loss_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/kernel/nft"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/plan"
	"github.com/unmasq/unmasq/internal/policy"
	"github.com/unmasq/unmasq/internal/policy/policytest"
	"github.com/unmasq/unmasq/internal/rig"
)

var podCIDRs = policytest.Prefixes("10.244.0.0/16", "fd00:10:244::/48")

// foreignSNAT takes an address of its own, so that an undecided packet is told
// from a masqueraded one.
const foreignSNAT = `table inet foreign {
	chain postrouting {
		type nat hook postrouting priority 100;
		snat ip to 192.0.2.222
		snat ip6 to 2001:db8::222
	}
}
`

var (
	undecided4 = netip.MustParseAddr("192.0.2.222")
	undecided6 = netip.MustParseAddr("2001:db8::222")
)

// version is one of two that take turns.
type version struct {
	policy policy.Policy
	facts  policy.Facts
	// tags that rules keep from one to the other; nil: named by their numbers.
	tags map[string]int
}

// compile has hashes for as few as this many destinations of one length.
func (v *version) compile(hashFrom int) *plan.Table {
	return plan.Compile(&v.policy, &v.facts, plan.Options{HashFrom: hashFrom, Tags: v.tags})
}

// source is what a flow shall leave with.
func (v *version) source(f packet.Flow) netip.Addr {
	switch d := policy.Decide(&v.policy, &v.facts, f); d.Action {
	case policy.Keep:
		return f.Source
	case policy.Masquerade:
		return rig.AddressOf(f.OutInterface, f.Source.Is6())
	case policy.SNAT:
		return d.Address
	}
	if f.Source.Is6() {
		return undecided6
	}
	return undecided4
}

// rules numbers rules and gives them names.
func rules(rs ...policy.Rule) policy.Policy {
	for i := range rs {
		rs[i].Document, rs[i].Number = "loss", i+1
		if rs[i].Name == "" {
			rs[i].Name = fmt.Sprintf("rule-%d", i+1)
		}
	}
	return policy.Policy{Rules: rs}
}

var pods = policy.From{PodCIDRs: true}

func to(texts ...string) policy.To { return policy.To{CIDRs: policytest.Prefixes(texts...)} }

func keepTo(to policy.To) policy.Rule { return policy.Rule{From: pods, To: to, Action: policy.Keep} }

func masqueradeTo(to policy.To) policy.Rule {
	return policy.Rule{From: pods, To: to, Action: policy.Masquerade}
}

func snatTo(to policy.To) policy.Rule {
	return policy.Rule{From: pods, To: to, Action: policy.SNAT, Addresses: policytest.Addrs("192.0.2.77", "2001:db8::77")}
}

var everywhere = policy.To{Everywhere: true}

// Changes from one policy to another and back, as small as they come: a packet
// that goes through while one is made must not see half of it. Flows go from
// 10.244.1.0/24 to 198.18.7.0/24, port 53.
func TestTurns(t *testing.T) {
	facts := policy.Facts{PodCIDRs: podCIDRs}
	const never = 1 << 20
	other, rest := keepTo(to("100.64.1.0/24")), masqueradeTo(everywhere)
	third := snatTo(to("100.64.3.0/24"))
	pool := snatTo(to("198.18.7.0/24"))
	pool.Addresses = policytest.Addrs("192.0.2.77", "192.0.2.78", "192.0.2.79")
	other.Name, third.Name, rest.Name, pool.Name = "other", "third", "rest", "pool"
	second := func(texts ...string) policy.Rule { // with sources, and so lookups, of its own
		return policy.Rule{From: policy.From{CIDRs: podCIDRs[:1]}, To: to(texts...), Action: policy.Keep}
	}
	onPort := func(p uint16, text string) policy.Rule {
		r := keepTo(to(text))
		r.To.Ports = []policy.PortMatch{{Protocol: packet.UDP, PortRange: policy.PortRange{First: p, Last: p}}}
		return r
	}
	first, others := append(many(0), "198.18.7.0/24"), many(1)
	tests := []struct {
		name     string
		a, b     policy.Policy
		hashFrom int
	}{
		{"one interval", rules(keepTo(to("100.64.1.0/24", "198.18.7.0/24")), rest), rules(keepTo(to("100.64.1.0/24")), rest), never},
		{"one key of a hash", rules(keepTo(to("100.64.1.0/24", "198.18.7.0/24")), rest), rules(keepTo(to("100.64.1.0/24")), rest), 1},
		{"an interval's verdict", rules(keepTo(to("198.18.7.0/24")), snatTo(to("100.64.1.0/24"))), rules(keepTo(to("100.64.1.0/24")), snatTo(to("198.18.7.0/24"))), never},
		{"a hash key's verdict", rules(keepTo(to("198.18.7.0/24", "100.64.1.0/24")), snatTo(to("100.64.2.0/24"))), rules(keepTo(to("100.64.1.0/24")), snatTo(to("198.18.7.0/24", "100.64.2.0/24"))), 1},
		{"a rule more, with a chain of its own", rules(other, third, rest), rules(other, snatTo(to("198.18.7.0/24")), third, rest), never},
		{"a rule more, in a hash", rules(other, third, rest), rules(other, snatTo(to("198.18.7.0/24")), third, rest), 1},
		{"a rule less, with a pool of addresses", rules(other, pool, third, rest), rules(other, third, rest), never},
		{"from ranges to a hash", rules(keepTo(to("198.18.7.0/25", "198.18.7.128/25", "100.64.1.0/24", "100.64.2.0/24", "100.64.3.0/24"))), rules(keepTo(to("198.18.7.0/24", "100.64.1.0/24", "100.64.2.0/24", "100.64.3.0/24"))), 3},
		{"from one lookup to another", rules(keepTo(to("198.18.7.0/24", "100.64.1.0/24")), second("100.64.2.0/24")), rules(keepTo(to("100.64.1.0/24")), second("198.18.7.0/24", "100.64.2.0/24")), never},
		{"destinations and ports at once", rules(onPort(443, "198.18.7.0/24"), rest), rules(onPort(53, "100.64.1.0/24"), rest), never},
		{"another action", rules(keepTo(everywhere)), rules(snatTo(everywhere)), never},
		{"thousands of intervals", rules(keepTo(to(first...)), rest), rules(keepTo(to(others...)), rest), never},
		{"thousands of keys of a hash", rules(keepTo(to(first...)), rest), rules(keepTo(to(others...)), rest), 1},
		{"thousands of intervals, in another lookup", rules(keepTo(to(first...)), rest), rules(snatTo(to("198.18.7.0/24")), second(others...), rest), never},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := rig.New(t)
			r.NFT(t, foreignSNAT)
			var flows []packet.Flow
			for i := range 250 {
				flows = append(flows, packet.Flow{Source: netip.AddrFrom4([4]byte{10, 244, 1, byte(2 + i)}),
					Destination: netip.AddrFrom4([4]byte{198, 18, 7, byte(i)}), Protocol: packet.UDP, DestinationPort: 53, OutInterface: rig.Eth0})
			}
			table := open(t, r, true)
			turns := &turns{a: version{tt.a, facts, nil}, b: version{tt.b, facts, nil}, flows: flows, hashFrom: tt.hashFrom}
			report, times := turns.run(t, r, table, 1500*time.Millisecond)
			noneWrong(t, report, "old and new in turn, %d times", times)
		})
	}
}

// turns are two versions in turn, under a load of some flows.
type turns struct {
	a, b     version
	flows    []packet.Flow
	hashFrom int
	// port of the first packets: those of an earlier run are still known to the
	// kernel as connections.
	port uint64
}

func (x *turns) run(t *testing.T, r *rig.Rig, table *nft.Table, d time.Duration) (rig.Report, int) {
	t.Helper()
	tables := [2]*plan.Table{x.a.compile(x.hashFrom), x.b.compile(x.hashFrom)}
	var allowed [][2]netip.Addr
	for _, f := range x.flows {
		allowed = append(allowed, [2]netip.Addr{x.a.source(f), x.b.source(f)})
	}
	if err := table.Sync(tables[0]); err != nil {
		t.Fatal(err)
	}
	n := uint64(len(x.flows))
	traffic := rig.Traffic{
		Flow: func(i uint64) packet.Flow {
			f := x.flows[i%n]
			f.SourcePort = uint16(1024 + (x.port+i/n)%60000)
			return f
		},
		Check: func(i uint64, s rig.Seen) string {
			if ok := allowed[i%n]; s.Source == ok[0] || s.Source == ok[1] {
				return ""
			}
			f := x.flows[i%n]
			return fmt.Sprintf("%s → %s came out as %s, want %v", f.Source, f.Destination, s.Source, allowed[i%n])
		},
	}
	times := 0
	report := underLoad(t, r, traffic, func() {
		times = during(d, func(n int) {
			if err := table.Sync(tables[(n+1)%2]); err != nil {
				t.Fatal(err)
			}
		})
	})
	return report, times
}
