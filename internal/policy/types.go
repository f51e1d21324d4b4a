// Package policy is the meaning of SourcePolicy documents: it reads and checks
// them strictly, merges them in their order, and decides flows.
//
//	loaded, err := policy.Load(sources, policy.Options{}) // err says all that is wrong, by file and line
//	decision := policy.Decide(&loaded.Policy, facts, flow)
//
// Decide is the specification. The compiler to nftables (internal/plan) must
// agree with it; tests push real packets through a real kernel to prove it.
// The package is pure: no files, no kernel, no clock.
package policy

import (
	"net/netip"

	"k8s.io/apimachinery/pkg/labels"
)

// Action is what a rule does with the flows that it matches.
type Action string

const (
	// Keep pins the source address by identity NAT.
	Keep Action = "Keep"
	// Masquerade takes the address of the outgoing interface.
	Masquerade Action = "Masquerade"
	// SNAT takes one of the stated addresses.
	SNAT Action = "SNAT"
	// Leave does nothing; other components may translate.
	Leave Action = "Leave"
)

// Policy is every rule in force on a node, in order of evaluation.
type Policy struct {
	Rules []Rule
}

// Rule is one checked rule.
type Rule struct {
	// Document and Name identify the rule; both are valid DNS names.
	Document, Name string
	// Number of the rule in order of evaluation, from 1.
	Number int

	From From
	To   To
	// OutInterfaces: names; a trailing '*' matches any ending. Nil: all.
	OutInterfaces []string

	Action Action
	// FullyRandom source ports, for Masquerade and SNAT.
	FullyRandom bool
	// Ports of Masquerade; the zero value: the kernel's choice.
	Ports PortRange
	// Addresses of SNAT, ranges expanded, in the order stated, without duplicates.
	Addresses []netip.Addr

	OverrideServiceMasquerade bool
}

// ID is "document/name".
func (r *Rule) ID() string { return r.Document + "/" + r.Name }

// From is the source side of a rule.
type From struct {
	// Forwarded: every forwarded packet (from absent, {}, or with only except).
	Forwarded bool
	// PodCIDRs: pods: {}.
	PodCIDRs bool
	// Pods: pods with a selector; nil without.
	Pods *PodSelector
	// Node: packets sent by this host.
	Node   bool
	CIDRs  []netip.Prefix
	Except []netip.Prefix
}

// To is the destination side of a rule.
type To struct {
	// Everywhere: no place is named (to absent, {}, or with only except or ports).
	Everywhere bool
	PodCIDRs   bool
	Nodes      bool
	// Services that the connection was made to; nil without.
	Services *Services
	CIDRs    []netip.Prefix
	Except   []netip.Prefix
	// Ports that the destination port must be among; nil: any protocol, any port.
	Ports []PortMatch
}

// PodSelector selects pods of this node by labels. Neither field is nil.
type PodSelector struct {
	Pod, Namespace labels.Selector
}

// PortRange is First to Last, both included.
type PortRange struct{ First, Last uint16 }

// PortMatch is a protocol (packet.TCP, UDP or SCTP) with a range of ports.
type PortMatch struct {
	Protocol uint8
	PortRange
}

// Mark is a firewall mark compared under a mask: mark & Mask == Value.
type Mark struct{ Value, Mask uint32 }

// Matches says whether a packet's mark carries m. A zero mask matches nothing.
func (m Mark) Matches(mark uint32) bool { return m.Mask != 0 && mark&m.Mask == m.Value }

// Facts are what a policy's words mean on this node, both families together.
type Facts struct {
	// PodCIDRs of the cluster; LocalPodCIDRs of this node.
	PodCIDRs, LocalPodCIDRs []netip.Prefix
	// NodeAddresses of this node; Nodes: InternalIP and ExternalIP of every node.
	NodeAddresses, Nodes []netip.Addr
	// NodeCIDRs are networks of nodes, all of whose addresses count as Nodes.
	NodeCIDRs    []netip.Prefix
	ServiceCIDRs []netip.Prefix
	// ServiceMark and HostPortMark default to 0x4000/0x4000 and 0x2000/0x2000.
	ServiceMark, HostPortMark Mark
	// Pods of this node. PodsKnown: the list is complete, if empty too.
	Pods      []Pod
	PodsKnown bool
	// Services of the cluster, where they are known: nobody asks for them unless a
	// rule needs them (Policy.NeedsServices).
	Services []Service
	// Broadcasts are the broadcast addresses of the node's IPv4 subnets (live).
	Broadcasts []netip.Addr
	// TunnelPorts are the UDP ports of the node's own vxlan, geneve and wireguard
	// links (live), beside the well-known ones in WellKnownTunnelPorts.
	TunnelPorts []uint16
}

// Pod is one pod of this node.
type Pod struct {
	Namespace, Name         string
	Labels, NamespaceLabels labels.Set
	Addresses               []netip.Addr
}

// DefaultServiceMark and DefaultHostPortMark are kube-proxy's and CNI portmap's.
var (
	DefaultServiceMark  = Mark{0x4000, 0x4000}
	DefaultHostPortMark = Mark{0x2000, 0x2000}
)

// WellKnownTunnelPorts are the UDP ports whose packets, sent by the node, are
// taken for a tunnel's: IKE and NAT-T, VXLAN (IANA and Linux), geneve, wireguard.
var WellKnownTunnelPorts = []uint16{500, 4500, 4789, 6081, 8472, 51820, 51821}

// TunnelProtocols are the IP protocols of tunnels' outer packets:
// IPIP, SIT, GRE, ESP, AH.
var TunnelProtocols = []uint8{4, 41, 47, 50, 51}

// Decision is what happens to a flow.
type Decision struct {
	Action Action
	// Address that SNAT takes; the zero Addr otherwise.
	Address netip.Addr
	// Rule that decided; nil: a guard, or no rule matched.
	Rule *Rule
	// Guard that decided; "" if none did.
	Guard Guard
	// ClearServiceMark: the rule takes the service mark off the packet.
	ClearServiceMark bool
}

// Guard names a reason to leave a flow alone before any rule is asked.
type Guard string

// The guards, in their order.
const (
	GuardLoopback     Guard = "loopback"   // to the node itself
	GuardBroadcast    Guard = "broadcast"  // multicast and broadcast
	GuardLinkLocal    Guard = "link-local" // source 127.0.0.0/8, fe80::/10
	GuardHairpin      Guard = "hairpin"    // DNATed back to where it came from
	GuardIPsec        Guard = "ipsec"      // to be encapsulated
	GuardTunnel       Guard = "tunnel"     // a tunnel's outer packet
	GuardServiceMark  Guard = "service-mark"
	GuardHostPortMark Guard = "host-port-mark"
)
