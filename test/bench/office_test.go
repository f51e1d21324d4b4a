package bench

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/lab"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/plan"
	"github.com/unmasq/unmasq/internal/policy"
	"github.com/unmasq/unmasq/internal/policy/policytest"
)

// officeBench makes nodes as node1 of the lab's office.
type officeBench struct{ scenario *lab.Scenario }

// proxy loads what kube-proxy wrote, and then, where named, a policy of the scenario,
// for the clients that a path has.
func (o officeBench) proxy(k lab.KubeProxy, file string) func(testing.TB, *netns.NS) {
	return func(b testing.TB, ns *netns.NS) {
		b.Helper()
		for _, r := range o.scenario.KubeProxy(k) {
			if r.On != "node1" {
				continue
			}
			if err := foreign.Run(b.Context(), foreign.In(ns), r.Component.Write(r.Node, foreign.NFT, packet.IPv4Family)); err != nil {
				b.Fatal(err)
			}
		}
		if file == "" {
			return
		}
		text, err := o.scenario.PolicyText(file)
		if err != nil {
			b.Fatal(err)
		}
		loaded, err := policy.Load([]policy.Source{{Name: file, Content: []byte(strings.ReplaceAll(text, "192.168.200.0/24", "10.244.0.0/16"))}}, policy.Options{})
		if err != nil {
			b.Fatal(err)
		}
		f := facts()
		f.PodCIDRs, f.LocalPodCIDRs, f.ServiceCIDRs = policytest.Prefixes("10.20.0.0/16"), policytest.Prefixes("10.20.1.0/24"), policytest.Prefixes("10.96.0.0/16")
		if err := openTable(b, ns).Start(plan.Compile(&loaded.Policy, f, plan.Options{})); err != nil {
			b.Fatal(err)
		}
	}
}

// What a new connection of an office's client to a service costs the node, by its
// backend: kube-proxy alone, with masqueradeAll, and with either policy. The time is
// the CPU's: a second by it is the connections that one core takes.
func BenchmarkOffice(b *testing.B) {
	s, _, err := lab.Find("office")
	if err != nil {
		b.Fatal(err)
	}
	o := officeBench{s}
	to := func(service string) []netip.Addr {
		x, err := s.Service(service)
		if err != nil {
			b.Fatal(err)
		}
		return []netip.Addr{x.Address(packet.IPv4Family)}
	}
	for _, native := range []bool{false, true} {
		mode := map[bool]string{false: "iptables", true: "nftables"}[native]
		alone, all, cidr := lab.KubeProxy{Native: native}, lab.KubeProxy{Native: native, MasqueradeAll: true}, lab.KubeProxy{Native: native, ClusterCIDR: true}
		b.Run(mode, func(b *testing.B) {
			compareAt(b, s.Services[0].Port, []contestant{
				{mode + " alone: nobody hidden", to("local"), 0, o.proxy(alone, "")},
				{mode + " masqueradeAll: all hidden", to("local"), 0, o.proxy(all, "")},
				{mode + " Remote policy, local pod: kept", to("local"), 0, o.proxy(alone, "masquerade-remote.yaml")},
				{mode + " Remote policy, remote pod: hidden", to("remote"), 0, o.proxy(alone, "masquerade-remote.yaml")},
				{mode + " clusterCIDR: all hidden", to("local"), 0, o.proxy(cidr, "")},
				{mode + " Local policy, local pod: kept", to("local"), 0, o.proxy(cidr, "keep-local.yaml")},
				{mode + " Local policy, remote pod: hidden", to("remote"), 0, o.proxy(cidr, "keep-local.yaml")},
			})
		})
	}
}
