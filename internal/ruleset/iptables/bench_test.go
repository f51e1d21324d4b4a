package iptables_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/ruleset/iptables"
	"github.com/unmasq/unmasq/internal/ruleset/rulesettest"
)

// BenchmarkReadSave reads the rules of 10,000 services with 3 endpoints each, on
// one core as in a container that has one. live-B is what stays: text and tables.
func BenchmarkReadSave(b *testing.B) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	text := rulesettest.KubeProxy(10_000, 3)
	const rules = 110_000
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for b.Loop() {
		tables, problems := iptables.ReadSave(text, iptables.Options{FirstLine: 1})
		if len(tables) != 3 || len(problems) != 0 {
			b.Fatal(len(tables), problems)
		}
		b.StopTimer()
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.StartTimer()
		runtime.KeepAlive(tables)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/rules, "ns/rule")
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)+float64(len(text)), "live-B")
}

// BenchmarkReadList reads a listing of 400 KB.
func BenchmarkReadList(b *testing.B) {
	text := listing(3000)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if tables, problems := iptables.ReadList(text, iptables.Options{FirstLine: 1}); len(tables) != 1 || len(problems) != 0 {
			b.Fatal(len(tables), problems)
		}
	}
}

// listing is iptables -L -n -v of a firewall with so many rules.
func listing(rules int) string {
	var b strings.Builder
	b.WriteString("Chain INPUT (policy ACCEPT 0 packets, 0 bytes)\n pkts bytes target     prot opt in     out     source               destination\n")
	b.WriteString("\nChain FORWARD (policy DROP 0 packets, 0 bytes)\n pkts bytes target     prot opt in     out     source               destination\n")
	for i := range rules {
		fmt.Fprintf(&b, "%5d %5dK ACCEPT     tcp  --  eth0   *       10.0.%d.%d             0.0.0.0/0            /* customer %d */ tcp dpt:%d ctstate NEW\n",
			i, i, i>>8, i&255, i, 1024+i)
	}
	b.WriteString("\nChain OUTPUT (policy ACCEPT 0 packets, 0 bytes)\n pkts bytes target     prot opt in     out     source               destination\n")
	return b.String()
}
