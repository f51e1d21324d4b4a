package sim_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/iptables"
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
	return &snapshot.Host{
		Rules: ruleset.Ruleset{Tables: tables}, IPTables: map[packet.Family]bool{packet.IPv4Family: true},
	}
}

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
		Source: netip.MustParseAddr("10.244.1.20"), SourcePort: 40000, InInterface: "cni0", OutInterface: "eth0",
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
