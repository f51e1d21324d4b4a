package owner

import (
	"strings"

	"github.com/unmasq/unmasq/internal/ruleset"
)

func netbirdChain(chain string) bool {
	return hasAnyPrefix(chain, "NETBIRD-RT-", "NETBIRD-ACL-")
}

func netbirdComment(text string) bool { return hasAnyPrefix(text, "netbird-rt-nat", "netbird-rt-fwd") }

// -A POSTROUTING -j NETBIRD-RT-NAT
// -A NETBIRD-RT-NAT -s 100.64.0.0/10 -d 10.9.0.0/16 -m comment --comment netbird-rt-nat-… -j MASQUERADE
func (p place) netbird() Owner {
	o := Owner{Name: Netbird}
	to, _ := jump(p.rule)
	if p.chain.Name == "NETBIRD-RT-NAT" || to == "NETBIRD-RT-NAT" {
		o.Setting = "Masquerade of the network route"
		o.Because = "a route with masquerade leads through this peer"
		o.Change = []string{
			"NetBird dashboard, Network Routes or Networks: turn Masquerade off for the route",
			"an exit node always masquerades: make it a network route 0.0.0.0/0 with Masquerade off",
		}
		o.Trap = "without it the network behind needs a route back to the peers' range"
	}
	return o
}

func tailscaleChain(chain string) bool {
	return chain == "ts-input" || chain == "ts-forward" || chain == "ts-postrouting"
}

// -A POSTROUTING -j ts-postrouting
// -A ts-postrouting -m mark --mark 0x40000/0xff0000 -j MASQUERADE
func (p place) tailscale() Owner {
	o := Owner{Name: Tailscale, Setting: "--netfilter-mode"}
	o.Change = []string{"tailscale set --netfilter-mode=nodivert"}
	if p.table.Name != "nat" {
		return o
	}
	o.Setting = "--snat-subnet-routes"
	o.Change = []string{"tailscale set --snat-subnet-routes=false"}
	o.Trap = "without it the network behind needs a route back to 100.64.0.0/10"
	if !translatesSource(p.rule.Target) {
		return o
	}
	if m, ok := only(p.rule).(ruleset.Mark); !ok || m.Connection || m.Value != 0x40000 && (m.Value != 0x400 || m.Mask != 0xff00) { // the mark can be set
		return alien(Tailscale, p.chain.Name)
	}
	o.Because = "the packet came in from tailscale0: rules of ts-forward marked it"
	return o
}

func istioChain(chain string) bool {
	switch chain {
	case "ISTIO_INBOUND", "ISTIO_IN_REDIRECT", "ISTIO_OUTPUT", "ISTIO_OUTPUT_DNS", "ISTIO_REDIRECT", "ISTIO_DIVERT", "ISTIO_TPROXY",
		"ISTIO_PRERT", "ISTIO_POSTRT", "ISTIO_DROP", "ISTIO_PREROUTING", "ISTIO_POSTROUTING":
		return true
	}
	return false
}

// istioRule: health probes of kubelet to pods of the ambient mesh.
func istioRule(p place) bool { return usesSet(p.rule, "istio-inpod-probes") }

// -A ISTIO_POSTRT -p tcp -m owner --socket-exists -m set --match-set istio-inpod-probes-v4 dst -j SNAT --to-source 169.254.7.127
func (p place) istio() Owner {
	o := Owner{Name: Istio}
	switch to, _ := jump(p.rule); {
	case usesSet(p.rule, "istio-inpod-probes"), p.chain.Name == "POSTROUTING" && to == "ISTIO_POSTRT":
		o.Version = "ambient mesh"
		o.Setting = "HOST_PROBE_SNAT_IP"
		o.Because = "a process of the node, such as kubelet's probe, reaches a pod of the mesh"
		o.Change = []string{"kubectl -n istio-system set env daemonset istio-cni-node HOST_PROBE_SNAT_IP=ADDRESS"}
		o.Trap = "the pods of the mesh tell probes by this address: another source fails them"
	case p.chain.Name == "ISTIO_OUTPUT" || p.chain.Name == "ISTIO_REDIRECT" || to == "ISTIO_OUTPUT":
		o.Version = "a pod's own rules"
		o.Setting = "annotations traffic.sidecar.istio.io/…"
		o.Change = []string{"annotation traffic.sidecar.istio.io/excludeOutboundIPRanges: CIDR on the pod"}
	}
	return o
}

// strongSwanRule is what its script updown writes for a tunnel with leftfirewall=yes.
//
//	-A FORWARD -s 10.1.0.0/16 -d 10.2.0.0/16 -i eth0 -m policy --dir in --pol ipsec --reqid 1 --proto esp -j ACCEPT
func strongSwanRule(p place) bool {
	r := p.rule
	text, ok := extension(r, "policy")
	if !ok || p.table.Name != "filter" || !accepts(r.Target) {
		return false
	}
	a := asked(r) &^ (protocol | matches)
	return (a == source|destination|in || a == source|destination|out) && strings.Contains(text, "--pol ipsec") &&
		strings.Contains(text, "--reqid") && strings.Contains(text, "--proto esp")
}

func (p place) strongSwan() Owner {
	return Owner{
		Name: StrongSwan, Version: "script updown", Setting: "leftfirewall=yes, updown",
		Because: "the packet belongs to an IPsec tunnel",
		Change:  []string{"ipsec.conf: leftfirewall=no; swanctl.conf: no updown for the child, then swanctl --load-conns"},
	}
}
