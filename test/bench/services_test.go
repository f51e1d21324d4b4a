package bench

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/plan"
	"github.com/unmasq/unmasq/internal/policy"
	"github.com/unmasq/unmasq/internal/policy/policytest"
)

// translated sends what is for services on to a pod elsewhere, at no cost that depends
// on their number.
const translated = "table ip services {\n chain prerouting {\n type nat hook prerouting priority dstnat;\n ip daddr 10.96.0.0/12 dnat to 203.0.113.9\n }\n}\n"

// shop are n services with two ports and a node port each, every fourth with an address
// of a load balancer; each fifth has ports of its own.
func shop(n int) []policy.Service {
	out := make([]policy.Service, n)
	for i := range out {
		port := 80
		if i%5 == 0 {
			port = 1000 + i%4000
		}
		out[i] = policy.Service{Namespace: "shop", Name: fmt.Sprint("s", i), Labels: labels.Set{"app": "shop"}, ClusterIPs: []netip.Addr{serviceIP(i)},
			Ports: []policy.ServicePort{{Protocol: packet.UDP, Port: 4242, NodePort: uint16(30000 + i%2768)}, {Protocol: packet.TCP, Port: uint16(port)}}}
		if i%4 == 0 {
			out[i].LoadBalancerIPs = []netip.Addr{netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)})}
		}
	}
	return out
}

func serviceIP(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}) }

// toServices are addresses of n services.
func toServices(n int) []netip.Addr {
	out := make([]netip.Addr, 4096)
	for i := range out {
		out[i] = serviceIP(i * n / len(out))
	}
	return out
}

func servicePolicy(s policy.Services) *policy.Policy {
	return &policy.Policy{Rules: []policy.Rule{{Document: "bench", Name: "services", Number: 1, From: policy.From{Forwarded: true}, To: policy.To{Services: &s}, Action: policy.Masquerade, FullyRandom: true}}}
}

var (
	byLabel = policy.Services{Selector: &policy.ServiceSelector{Service: labels.SelectorFromSet(labels.Set{"app": "shop"}), Namespace: labels.Everything()}, Backends: policy.RemoteBackends}
	byCIDR  = policy.Services{Backends: policy.RemoteBackends}
)

func serviceTable(n int, s policy.Services) *plan.Table {
	f := facts()
	f.Services, f.ServiceCIDRs = shop(n), policytest.Prefixes("10.96.0.0/12")
	return plan.Compile(servicePolicy(s), f, plan.Options{})
}

// What a new flow to a service costs that a policy masquerades.
func BenchmarkNewFlowService(b *testing.B) {
	install := func(n int, s policy.Services) func(testing.TB, *netns.NS) {
		return func(b testing.TB, ns *netns.NS) {
			load("nft", "-f", "-", translated)(b, ns)
			if err := openTable(b, ns).Start(serviceTable(n, s)); err != nil {
				b.Fatal(err)
			}
		}
	}
	contestants := []contestant{{"one bare masquerade rule", toServices(10), 0, func(b testing.TB, ns *netns.NS) {
		load("nft", "-f", "-", translated)(b, ns)
		load("nft", "-f", "-", "table ip bare {\n chain postrouting {\n type nat hook postrouting priority 100;\n oifname eth0 masquerade fully-random\n }\n}\n")(b, ns)
	}}}
	for _, n := range []int{10, 1000, 10000} {
		contestants = append(contestants, contestant{fmt.Sprintf("unmasq %d services by label", n), toServices(n), 0, install(n, byLabel)})
	}
	compare(b, append(contestants, contestant{"unmasq all services by their CIDR", toServices(10000), 0, install(0, byCIDR)}))
}

// What it takes to install a policy for 10,000 services, and to follow one more.
func BenchmarkSyncServices(b *testing.B) {
	const n = 10000
	var compile, install, again []time.Duration
	for range syncRounds {
		ns := netnstest.Test(b, "sync")
		start := time.Now()
		table := serviceTable(n, byLabel)
		compile = append(compile, time.Since(start))
		kernel := openTable(b, ns)
		start = time.Now()
		if err := kernel.Start(table); err != nil {
			b.Fatal(err)
		}
		install = append(install, time.Since(start))
		more := serviceTable(n+1, byLabel)
		start = time.Now()
		if err := kernel.Sync(more); err != nil {
			b.Fatal(err)
		}
		again = append(again, time.Since(start))
	}
	report("%6d services: compile %6.1f ms, install %6.1f ms; one more %6.1f ms", n, ms(median(compile)), ms(median(install)), ms(median(again)))
	b.ReportMetric(0, "ns/op")
}
