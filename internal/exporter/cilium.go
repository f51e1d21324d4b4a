package exporter

import (
	"slices"
	"strconv"
	"strings"

	"github.com/unmasq/unmasq/internal/cidr"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/policy"
)

// cilium writes Helm values: masquerading in eBPF, which its ip-masq-agent needs, with
// the list. Pods always see each other's addresses there.
func cilium(loaded *policy.Loaded, opts Options) *Result {
	r := newReading(peer{pods: true, implied: func(rule *policy.Rule) bool { return byInterfaces(rule, "cilium_") }}, loaded, opts)
	read := r.read(&loaded.Policy, pods, false)
	l := listOf(read, packet.Families[:])
	if how := r.refined(); how.ports != (policy.PortRange{}) {
		r.lose(nil, "source ports %s can't be told", portsText(how.ports, "-"))
	}
	for _, f := range packet.Families {
		if _, translated := read.split(f); r.among(translated, f) {
			r.lose(nil, "pods' addresses are always kept among pods")
		}
	}
	r.onlyPods(&loaded.Policy)
	v4, v6 := l.translates[packet.IPv4Family], l.translates[packet.IPv6Family]
	t := &text{}
	t.line("enableIPv4Masquerade: %t", v4)
	t.line("enableIPv6Masquerade: %t", v6)
	if v6 {
		t.line("ipv6:\n  enabled: true")
	}
	if v4 || v6 {
		t.line("bpf:\n  masquerade: true\nipMasqAgent:\n  enabled: true\n  config:")
		t.list("    ", "nonMasqueradeCIDRs", l.kept)
		t.line("    masqLinkLocal: %t", l.masqLinkLocal[packet.IPv4Family])
		t.line("    masqLinkLocalIPv6: %t", l.masqLinkLocal[packet.IPv6Family])
	}
	return &Result{[]byte(t.String()), r.losses}
}

// byInterfaces: a rule that leaves alone what goes out by interfaces of that beginning.
func byInterfaces(rule *policy.Rule, prefix string) bool {
	return !translating(rule) && len(rule.OutInterfaces) > 0 &&
		!slices.ContainsFunc(rule.OutInterfaces, func(name string) bool { return !strings.HasPrefix(name, prefix) })
}

// keepsPods: a rule about nothing but what pods see of pods.
func keepsPods(rule *policy.Rule) bool {
	t := &rule.To
	return !translating(rule) && t.PodCIDRs && !t.Everywhere && !t.Nodes && t.Services == nil && len(t.CIDRs) == 0
}

// among says whether some of the ranges are pods'.
func (r *reading) among(rs []cidr.Range, f packet.Family) bool {
	for _, p := range r.podCIDRs {
		own := []cidr.Range{cidr.FromPrefix(p)}
		if packet.Of(p.Addr()) == f && len(cidr.Subtract(own, cidr.Subtract(own, rs))) > 0 {
			return true
		}
	}
	return false
}

func portsText(p policy.PortRange, between string) string {
	return strconv.Itoa(int(p.First)) + between + strconv.Itoa(int(p.Last))
}
