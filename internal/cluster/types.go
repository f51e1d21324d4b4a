// Package cluster makes sense of what a Kubernetes cluster says of one node: the
// objects that its agent watches, joined with the network plugins' results, become
// a View: whose address is whose, what policies there are, what the words of them
// mean. It is pure; internal/kube speaks to the API server.
//
//	view := cluster.Join(cluster.Input{Objects: objects, Results: found.Results, Stated: flags})
package cluster

import (
	"net/netip"

	"github.com/unmasq/unmasq/internal/cni/results"
	"github.com/unmasq/unmasq/internal/facts"
	"github.com/unmasq/unmasq/internal/policy"
)

// Objects of the API, with nothing in them but what is used here. The order in
// their lists doesn't matter. They are what is kept for a start without the API.
type Objects struct {
	// Node of the agent; nil: the API has none of that name.
	Node       *Node       `json:"node,omitempty"`
	Pods       []Pod       `json:"pods,omitempty"`
	Namespaces []Namespace `json:"namespaces,omitempty"`
	Policies   []Policy    `json:"policies,omitempty"`
	// ServiceCIDRs of the cluster (networking.k8s.io), where the API has them.
	ServiceCIDRs []ServiceCIDR `json:"serviceCIDRs,omitempty"`
	// Nodes of the cluster, where all are watched.
	Nodes []Node `json:"nodes,omitempty"`
	// Services of the cluster, where a policy needs them; ServicesKnown: all are here.
	Services      []Service `json:"services,omitempty"`
	ServicesKnown bool      `json:"servicesKnown,omitempty"`
}

// Node is a v1 Node.
type Node struct {
	Name   string            `json:"name"`
	UID    string            `json:"uid,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
	// Addresses: its InternalIPs and ExternalIPs.
	Addresses []netip.Addr   `json:"addresses,omitempty"`
	PodCIDRs  []netip.Prefix `json:"podCIDRs,omitempty"`
	// Paused: annotation unmasq.io/pause: "true".
	Paused bool `json:"paused,omitempty"`
}

// PauseAnnotation of a Node, when "true", empties its table at once.
const PauseAnnotation = "unmasq.io/pause"

// Pod is a v1 Pod of this node.
type Pod struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
	// StaticUID is what a static pod's network plugins know it by, which isn't its
	// object's; else "".
	StaticUID string            `json:"staticUID,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	Addresses []netip.Addr      `json:"addresses,omitempty"`
	// HostNetwork: it has the node's addresses, and counts as the node.
	HostNetwork bool `json:"hostNetwork,omitempty"`
	// Ended: Succeeded or Failed. A pod that is being deleted has its addresses still.
	Ended bool `json:"ended,omitempty"`
	// Created in seconds since 1970, by the API server's clock.
	Created int64 `json:"created"`
}

// Namespace is a v1 Namespace.
type Namespace struct {
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels,omitempty"`
}

// Policy is a SourcePolicy.
type Policy struct {
	Name       string        `json:"name"`
	UID        string        `json:"uid,omitempty"`
	Generation int64         `json:"generation,omitempty"`
	Source     policy.Source `json:"source"`
}

// ServiceCIDR is a networking.k8s.io ServiceCIDR.
type ServiceCIDR struct {
	Name  string         `json:"name"`
	CIDRs []netip.Prefix `json:"cidrs"`
}

// Service is a v1 Service: what connections to it are made to.
type Service struct {
	Namespace string            `json:"namespace"`
	Name      string            `json:"name"`
	Labels    map[string]string `json:"labels,omitempty"`
	// NoAddress is as policy.Service has it.
	NoAddress       string               `json:"noAddress,omitempty"`
	ClusterIPs      []netip.Addr         `json:"clusterIPs,omitempty"`
	ExternalIPs     []netip.Addr         `json:"externalIPs,omitempty"`
	LoadBalancerIPs []netip.Addr         `json:"loadBalancerIPs,omitempty"`
	Ports           []policy.ServicePort `json:"ports,omitempty"`
	// LocalOnly: externalTrafficPolicy Local.
	LocalOnly bool `json:"localOnly,omitempty"`
}

// Stated is what an operator says once of the cluster, to every agent.
type Stated struct {
	PodCIDRs, NodeCIDRs, ServiceCIDRs []netip.Prefix
	// AllNodes: Objects has all nodes, and they are what nobody stated.
	AllNodes bool
}

// Input of Join.
type Input struct {
	Objects
	Stated Stated
	// Before is View's.
	Before []Policy
	// Results of network plugins, the oldest first. NoResults says why they aren't
	// known; "": they are.
	Results   []results.Result
	NoResults string
	// NoServices is View's.
	NoServices string
	// Released are the Keys of results that were there and are no more: what the API
	// says of their pods' addresses is of the past.
	Released map[string]bool
}

// View is what the cluster says of this node. It is never changed.
type View struct {
	// NodeName and NodeUID; both "" where the API doesn't know the node.
	NodeName, NodeUID string
	NodeLabels        map[string]string
	Facts             facts.Cluster
	// NoNodes is why nobody knows the cluster's nodes; "": they are known.
	NoNodes string
	// NoServices is why services aren't known that were asked for; "": they are, or
	// will be in a moment, or nobody asks for them. Facts tell which.
	NoServices string
	// Policies by name.
	Policies []Policy
	// Before has what an agent enforced that ran here before, by name: it stands in
	// for what of Policies is refused now. It never changes.
	Before []Policy
	Paused bool
	// NoResults says why pods' addresses come from the API alone, which tells them
	// after a pod's first packets; "": they don't.
	NoResults string
}
