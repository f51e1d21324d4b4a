package bench

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/nft"
	"github.com/unmasq/unmasq/internal/plan"
	"github.com/unmasq/unmasq/internal/policy"
	"github.com/unmasq/unmasq/internal/policy/policytest"
)

// rounds of alternating runs, and new flows in each.
const (
	rounds        = 11
	flowsPerRound = 8192
)

// contestant is a ruleset whose cost is measured.
type contestant struct {
	name    string
	targets []netip.Addr
	// baseline is the place of the contestant that this one is held against.
	baseline int
	install  func(testing.TB, *netns.NS)
}

// cidrs are n disjoint /28s, none of them next to another.
func cidrs(n int) []netip.Prefix {
	out := make([]netip.Prefix, n)
	for i := range out {
		v := uint32(100)<<24 + uint32(i)<<5
		out[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}), 28)
	}
	return out
}

// within picks addresses spread over the prefixes.
func within(prefixes []netip.Prefix) []netip.Addr {
	out := make([]netip.Addr, 4096)
	for i := range out {
		out[i] = prefixes[i*len(prefixes)/len(out)].Addr().Next()
	}
	return out
}

// beyond are addresses that no prefix of cidrs holds.
func beyond() []netip.Addr {
	out := make([]netip.Addr, 4096)
	for i := range out {
		out[i] = netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)})
	}
	return out
}

func facts() *policy.Facts {
	return &policy.Facts{
		PodCIDRs: policytest.Prefixes("10.244.0.0/16"), LocalPodCIDRs: policytest.Prefixes("10.244.1.0/24"),
		NodeAddresses: policytest.Addrs("192.0.2.1"), Broadcasts: policytest.Addrs("192.0.2.255", "10.244.255.255"),
		ServiceMark: policy.DefaultServiceMark, HostPortMark: policy.DefaultHostPortMark,
	}
}

// keepList keeps the listed destinations and masquerades the rest.
func keepList(list []netip.Prefix) *policy.Policy {
	pods := policy.From{PodCIDRs: true}
	return &policy.Policy{Rules: []policy.Rule{
		{Document: "bench", Name: "keep", Number: 1, From: pods, To: policy.To{CIDRs: list}, Action: policy.Keep},
		{Document: "bench", Name: "rest", Number: 2, From: pods, To: policy.To{Everywhere: true}, Action: policy.Masquerade, FullyRandom: true},
	}}
}

// manyRules are n rules that differ by destination, then the rest.
func manyRules(n int) *policy.Policy {
	p := keepList(nil)
	rest := p.Rules[1]
	p.Rules = nil
	for i, c := range cidrs(n) {
		action := policy.Keep
		if i%3 == 2 {
			action = policy.Leave
		}
		p.Rules = append(p.Rules, policy.Rule{Document: "bench", Name: fmt.Sprintf("r%d", i), Number: i + 1,
			From: policy.From{PodCIDRs: true}, To: policy.To{CIDRs: []netip.Prefix{c}}, Action: action})
	}
	rest.Number = n + 1
	p.Rules = append(p.Rules, rest)
	return p
}

func unmasq(p *policy.Policy) func(testing.TB, *netns.NS) {
	return func(b testing.TB, ns *netns.NS) {
		b.Helper()
		table := openTable(b, ns)
		if err := table.Start(plan.Compile(p, facts(), plan.Options{})); err != nil {
			b.Fatal(err)
		}
	}
}

func openTable(b testing.TB, ns *netns.NS) *nft.Table {
	b.Helper()
	var table *nft.Table
	if err := ns.Do(func() (err error) { table, err = nft.Open(slog.New(slog.DiscardHandler)); return err }); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { table.Close() })
	return table
}

// bare is one rule in a native table at unmasq's place.
func bare(rule string) func(testing.TB, *netns.NS) {
	return load("nft", "-f", "-", "table ip bare {\n chain postrouting {\n type nat hook postrouting priority 100;\n oifname eth0 ip saddr 10.244.0.0/16 "+rule+"\n }\n}\n")
}

// returnList is ip-masq-agent's chain: a RETURN for each CIDR, then MASQUERADE.
func returnList(program string, list []netip.Prefix) func(testing.TB, *netns.NS) {
	var s strings.Builder
	s.WriteString("*nat\n:IP-MASQ-AGENT - [0:0]\n-A POSTROUTING -m addrtype ! --dst-type LOCAL -j IP-MASQ-AGENT\n")
	for _, c := range list {
		fmt.Fprintf(&s, "-A IP-MASQ-AGENT -d %s -j RETURN\n", c)
	}
	s.WriteString("-A IP-MASQ-AGENT -j MASQUERADE --random-fully\nCOMMIT\n")
	return load(program, "--noflush", "", s.String())
}

func load(program, arg1, arg2, stdin string) func(testing.TB, *netns.NS) {
	return func(b testing.TB, ns *netns.NS) {
		b.Helper()
		args := []string{arg1}
		if arg2 != "" {
			args = append(args, arg2)
		}
		if out, err := ns.Run(stdin, program, args...); err != nil {
			b.Fatal(out, err)
		}
	}
}

// compare lets contestants take turns and reports the median of each one's ratio
// to its baseline.
func compare(b *testing.B, contestants []contestant) { compareAt(b, 4242, contestants) }

// compareAt does so with flows to a certain port.
func compareAt(b *testing.B, port uint16, contestants []contestant) {
	var paths []*path
	for _, c := range contestants {
		p := newPath(b, c.name, c.targets)
		p.port = port
		c.install(b, p.node)
		paths = append(paths, p)
	}
	cost := make([][]time.Duration, len(paths))
	ratio := make([][]float64, len(paths))
	b.ResetTimer()
	for round := range rounds + 1 {
		for i, p := range paths {
			took, err := p.send(flowsPerRound)
			if err != nil {
				b.Fatal(err)
			}
			p.forget(b)
			if round == 0 {
				continue // warms caches
			}
			cost[i] = append(cost[i], took)
			ratio[i] = append(ratio[i], float64(took)/float64(cost[contestants[i].baseline][round-1]))
		}
	}
	b.ReportMetric(0, "ns/op")
	for i, c := range contestants {
		report("%-44s %6d ns a new flow   %.2f ×", c.name, median(cost[i]).Nanoseconds(), median(ratio[i]))
		b.ReportMetric(median(ratio[i]), strings.ReplaceAll(c.name, " ", "-")+"-x")
	}
}

// report prints a line at once; b.Log would cut the list short.
func report(format string, args ...any) { fmt.Printf("    "+format+"\n", args...) }

func median[T float64 | time.Duration](values []T) T {
	sorted := slices.Clone(values)
	slices.Sort(sorted)
	return sorted[len(sorted)/2]
}

// What a new flow costs that the list does not name: it is masqueraded.
func BenchmarkNewFlowMasquerade(b *testing.B) {
	contestants := []contestant{{"one bare masquerade rule", beyond(), 0, bare("masquerade fully-random")}}
	for _, n := range []int{10, 1000, 20000, 100000} {
		contestants = append(contestants, contestant{fmt.Sprintf("unmasq %d CIDRs", n), beyond(), 0, unmasq(keepList(cidrs(n)))})
	}
	for _, n := range []int{10, 1000, 5000} {
		for _, program := range []string{"iptables-legacy-restore", "iptables-nft-restore"} {
			contestants = append(contestants, contestant{fmt.Sprintf("%s %d RETURNs", strings.TrimSuffix(program, "-restore"), n), beyond(), 0, returnList(program, cidrs(n))})
		}
	}
	compare(b, contestants)
}

// What a new flow costs that the list names: it is kept.
func BenchmarkNewFlowKeep(b *testing.B) {
	var contestants []contestant
	for _, n := range []int{10, 1000, 20000, 100000} {
		baseline, targets := len(contestants), within(cidrs(n))
		contestants = append(contestants,
			contestant{fmt.Sprintf("one bare identity snat rule, to %d CIDRs", n), targets, baseline, bare("snat to ip saddr")},
			contestant{fmt.Sprintf("unmasq %d CIDRs", n), targets, baseline, unmasq(keepList(cidrs(n)))})
	}
	compare(b, contestants)
}

// Rules that differ by destination share one lookup.
func BenchmarkRules(b *testing.B) {
	compare(b, []contestant{
		{"unmasq 1 rule", beyond(), 0, unmasq(manyRules(1))},
		{"unmasq 500 rules", beyond(), 0, unmasq(manyRules(500))},
	})
}
