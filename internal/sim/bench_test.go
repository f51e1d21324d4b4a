package sim_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/route"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/iptables"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
	"github.com/unmasq/unmasq/internal/ruleset/rulesettest"
	"github.com/unmasq/unmasq/internal/sim"
	"github.com/unmasq/unmasq/internal/snapshot"
)

const services = 10_000

func read(b *testing.B, text string) *snapshot.Host {
	tables, problems := iptables.ReadSave(text, iptables.Options{File: "iptables-save.txt", FirstLine: 1, Family: packet.IPv4Family})
	if len(problems) > 0 {
		b.Fatal(problems[0])
	}
	h := &snapshot.Host{
		Rules: ruleset.Ruleset{Tables: tables}, IPTables: map[packet.Family]bool{packet.IPv4Family: true},
		Sysctls: map[string]string{"net.ipv4.ip_forward": "1"},
	}
	h.Network.ReadText(route.Addresses, addresses, 1, packet.IPv4Family)
	h.Network.ReadText(route.Routes, routes, 1, packet.IPv4Family)
	h.Network.Complete()
	return h
}

const addresses = `1: lo    inet 127.0.0.1/8 scope host lo
2: eth0    inet 192.0.2.11/24 brd 192.0.2.255 scope global eth0
3: cni0    inet 10.244.0.1/24 brd 10.244.0.255 scope global cni0
`

const routes = `default via 192.0.2.1 dev eth0
10.244.0.0/24 dev cni0 proto kernel scope link src 10.244.0.1
10.244.0.0/16 via 192.0.2.12 dev eth0
192.0.2.0/24 dev eth0 proto kernel scope link src 192.0.2.11
`

// BenchmarkFirstAnswer: from the text of kube-proxy's rules to one answer.
func BenchmarkFirstAnswer(b *testing.B) {
	text, all := rulesettest.KubeProxy(services, 3), rulesettest.Services(services, 3)
	b.SetBytes(int64(len(text)))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for b.Loop() {
		n := sim.New(read(b, text))
		if got := n.Run(toService(all[7]), sim.Options{}); len(got) != 3 {
			b.Fatalf("%d outcomes: %+v", len(got), got)
		}
		runtime.ReadMemStats(&after)
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "MB-heap")
}

func toService(to rulesettest.Service) sim.Question {
	return sim.Question{
		Source: netip.MustParseAddr("10.244.0.250"), SourcePort: 40000,
		Destination: to.ClusterIP, DestinationPort: rulesettest.Port, Protocol: packet.TCP,
	}
}

// BenchmarkAnswer: answers from the parsed state, beside the same ones with
// every rule walked, as the kernel does.
func BenchmarkAnswer(b *testing.B) {
	text, all := rulesettest.KubeProxy(services, 3), rulesettest.Services(services, 3)
	n := sim.New(read(b, text))
	for _, walk := range []bool{false, true} {
		b.Run(fmt.Sprintf("walk=%t", walk), func(b *testing.B) {
			i := 0
			for b.Loop() {
				i++
				if got := n.Run(toService(all[i*7919%services]), sim.Options{Trace: walk}); len(got) != 3 {
					b.Fatalf("%d outcomes", len(got))
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "answers/s")
		})
	}
}

// readNative reads what nft prints: its text, or its JSON.
func readNative(b *testing.B, text string) *snapshot.Host {
	read := nftables.ReadText
	if strings.HasPrefix(text, "{") {
		read = nftables.ReadJSON
	}
	rules, problems := read(text, 1)
	if len(problems) > 0 {
		b.Fatal(problems[0])
	}
	h := &snapshot.Host{IPTables: map[packet.Family]bool{packet.IPv4Family: true}, NFTGiven: true, Sysctls: map[string]string{"net.ipv4.ip_forward": "1"}}
	for _, t := range rules.Tables {
		h.Rules.Tables = append(h.Rules.Tables, ruleset.FromNative(t))
	}
	h.Network.ReadText(route.Addresses, addresses, 1, packet.IPv4Family)
	h.Network.ReadText(route.Routes, routes, 1, packet.IPv4Family)
	h.Network.Complete()
	return h
}

// BenchmarkFirstNativeAnswer: from the text of kube-proxy's native tables to one answer.
func BenchmarkFirstNativeAnswer(b *testing.B) {
	text, all := rulesettest.KubeProxyNFT(services, 3), rulesettest.Services(services, 3)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		n := sim.New(readNative(b, text))
		if got := n.Run(toService(all[7]), sim.Options{}); len(got) != 3 {
			b.Fatalf("%d outcomes: %+v", len(got), got)
		}
	}
}

// BenchmarkNativeAnswer: answers from the parsed state, asked by one goroutine, and
// by one on each core.
func BenchmarkNativeAnswer(b *testing.B) {
	text, all := rulesettest.KubeProxyNFT(services, 3), rulesettest.Services(services, 3)
	n := sim.New(readNative(b, text))
	for i := range all { // chains are made fit to run when first asked
		n.Run(toService(all[i]), sim.Options{})
	}
	var asked atomic.Int64
	ask := func() {
		if got := n.Run(toService(all[asked.Add(1)*7919%services]), sim.Options{}); len(got) != 3 {
			b.Errorf("%d outcomes", len(got))
		}
	}
	b.Run("one core", func(b *testing.B) {
		for b.Loop() {
			ask()
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "answers/s")
	})
	b.Run("all cores", func(b *testing.B) {
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				ask()
			}
		})
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "answers/s")
	})
}

// BenchmarkFirewall: from the text of a firewall of 400 KB to one answer.
func BenchmarkFirewall(b *testing.B) {
	text := firewall()
	b.SetBytes(int64(len(text)))
	q := sim.Question{
		Source: netip.MustParseAddr("10.244.0.250"), SourcePort: 40000, Destination: netip.MustParseAddr("198.51.100.7"), DestinationPort: 443,
		Protocol: packet.TCP,
	}
	for b.Loop() {
		if got := sim.New(read(b, text)).Run(q, sim.Options{}); len(got) != 1 || got[0].Verdict != sim.Dropped {
			b.Fatalf("%+v", got)
		}
	}
}

// firewall has 4,400 rules for hosts and ports, in twenty chains, and drops the rest.
func firewall() string {
	var s strings.Builder
	s.WriteString("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n")
	for zone := range 20 {
		fmt.Fprintf(&s, ":zone-%d - [0:0]\n-A FORWARD -s 10.%d.0.0/16 -j zone-%d\n", zone, 240+zone%10, zone)
	}
	for i := range 4400 {
		fmt.Fprintf(&s, "-A zone-%d -d 203.0.%d.%d/32 -p tcp -m conntrack --ctstate NEW -m tcp --dport %d -j ACCEPT\n", i%20, i>>8, i&255, 1024+i)
	}
	s.WriteString("COMMIT\n")
	return s.String()
}
