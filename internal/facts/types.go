// Package facts joins what an operator states about a node with what its cluster
// says and what was discovered on it, and says of each fact where it came from. It
// is pure: internal/discover asks the kernel, internal/cluster makes sense of the
// Kubernetes API, internal/policy says what facts mean.
//
//	inForce, lines, outside := facts.Merge(stated, cluster, discovered)
package facts

import (
	"net/netip"

	"github.com/unmasq/unmasq/internal/policy"
)

// Fact is one line of `unmasq status`.
type Fact struct {
	// Name as in a document's spec.facts, e.g. podCIDRs.
	Name string
	// Values as a document would state them; nil: none known.
	Values []string
	// Origin: "stated in policy.yaml:12", "discovered: bridge docker0 (docker)",
	// "default: localPodCIDRs".
	Origin string
}

// Found is a discovered value with the place that showed it, e.g.
// "interface eth0" or "CNI network cbr0 in /etc/cni/net.d/10-flannel.conflist".
type Found[T any] struct {
	Value  T
	Origin string
}

// Discovered is what a node shows of itself. The order of values doesn't
// matter, and values may repeat with different origins.
type Discovered struct {
	NodeAddresses []Found[netip.Addr]
	// Broadcasts are the broadcast addresses of the node's IPv4 subnets.
	Broadcasts []Found[netip.Addr]
	// TunnelPorts are the UDP ports of the node's tunnel links.
	TunnelPorts []Found[uint16]
	// LocalPodCIDRs are masked.
	LocalPodCIDRs []Found[netip.Prefix]
}

// Cluster is what a Kubernetes cluster says of itself and of this node. Empty
// lists are not known, but for the pods, all of which are known.
type Cluster struct {
	// PodCIDRs of all nodes, LocalPodCIDRs of this one.
	PodCIDRs, LocalPodCIDRs []Found[netip.Prefix]
	ServiceCIDRs            []Found[netip.Prefix]
	// Nodes are addresses, NodeCIDRs networks of nodes.
	Nodes     []Found[netip.Addr]
	NodeCIDRs []Found[netip.Prefix]
	// Pods of this node that have addresses of their own.
	Pods []policy.Pod
	// Services of the cluster, where ServicesKnown.
	Services      []policy.Service
	ServicesKnown bool
}
