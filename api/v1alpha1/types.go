// Package v1alpha1 holds the SourcePolicy document: one schema for files,
// standard input and the Kubernetes API. It is data only; what a policy means
// is internal/policy's.
//
// A whole document:
//
//	apiVersion: unmasq.io/v1alpha1
//	kind: SourcePolicy
//	metadata: {name: default}
//	spec:
//	  rules:
//	  - name: inside
//	    from: {pods: {}}
//	    to: {cidrs: [10.0.0.0/8]}
//	    action: Keep
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// APIVersion and Kind name the document in its first two fields.
	APIVersion = "unmasq.io/v1alpha1"
	Kind       = "SourcePolicy"

	// DefaultOrder is the order of a policy that states none.
	DefaultOrder = 100
)

// SourcePolicy is an ordered list of rules that say with which source address
// connections leave a node. Policies are merged by spec.order, then by name;
// the first rule that matches a connection's first packet decides.
type SourcePolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec SourcePolicySpec `json:"spec"`
}

// SourcePolicySpec is the body of a SourcePolicy.
type SourcePolicySpec struct {
	// Order sorts policies, lower first; equal orders sort by name. Default 100.
	Order *int32 `json:"order,omitempty"`
	// Mode is Enforce, the default and only value.
	Mode string `json:"mode,omitempty"`
	// NodeSelector limits the policy to nodes with these labels; absent or empty: every node.
	NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty"`
	// Facts state what the words of the policies mean on this node; for files and
	// standard input only, each field once over all documents.
	Facts *Facts `json:"facts,omitempty"`
	// Rules in order of evaluation.
	Rules []Rule `json:"rules,omitempty"`
}

// Rule decides for the flows that From, To and OutInterfaces all match.
type Rule struct {
	// Name is a DNS label, unique in the document. Default: rule-N, N counted from 1.
	Name string `json:"name,omitempty"`
	// From absent or empty: every forwarded packet, never the node's own.
	From *From `json:"from,omitempty"`
	// To absent or empty: everywhere.
	To *To `json:"to,omitempty"`
	// OutInterfaces the packet may leave by; a trailing + or * matches any ending. Absent: all.
	OutInterfaces []string `json:"outInterfaces,omitempty"`
	// Action is Keep, Masquerade, SNAT or Leave.
	Action string `json:"action"`
	// Masquerade refines action Masquerade.
	Masquerade *Masquerade `json:"masquerade,omitempty"`
	// SNAT is required by action SNAT and allowed with no other.
	SNAT *SNAT `json:"snat,omitempty"`
	// OverrideServiceMasquerade lets the rule decide packets that carry the service
	// mark or the hostPort mark too, and clears the service mark.
	OverrideServiceMasquerade bool `json:"overrideServiceMasquerade,omitempty"`
}

// From says whose packets a rule sees. Pods, CIDRs and Node are alternatives.
type From struct {
	// Pods: {} is every address in podCIDRs; with a selector, this node's pods that it selects.
	Pods *PodPeer `json:"pods,omitempty"`
	// CIDRs of source addresses of forwarded packets.
	CIDRs []string `json:"cidrs,omitempty"`
	// Except takes addresses out of all alternatives.
	Except []string `json:"except,omitempty"`
	// Node: {} is the packets that this host sends itself, host-network pods included.
	Node *Empty `json:"node,omitempty"`
}

// To says where packets of a rule go, seen as they leave: after DNAT. CIDRs,
// Pods, Nodes and Services are alternatives; Ports must match too.
type To struct {
	CIDRs  []string `json:"cidrs,omitempty"`
	Except []string `json:"except,omitempty"`
	// Pods: {} is every address in podCIDRs.
	Pods *Empty `json:"pods,omitempty"`
	// Nodes: {} is the InternalIP and ExternalIP of every node.
	Nodes *Empty `json:"nodes,omitempty"`
	// Services: flows whose destination before DNAT was a Service.
	Services *Services `json:"services,omitempty"`
	Ports    []Port    `json:"ports,omitempty"`
}

// PodPeer selects pods. Both selectors must match where both are given.
type PodPeer struct {
	PodSelector       *metav1.LabelSelector `json:"podSelector,omitempty"`
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`
}

// Empty is the value {}: a place named without further choice.
type Empty struct{}

// Services selects service traffic by where its backend is: Any (default), Local or Remote.
type Services struct {
	Backends string `json:"backends,omitempty"`
}

// Port is a destination port or range of ports.
type Port struct {
	// Protocol is TCP (default), UDP or SCTP.
	Protocol string `json:"protocol,omitempty"`
	// Port from 1 to 65535; absent: all ports of the protocol.
	Port *int32 `json:"port,omitempty"`
	// EndPort is the last port of a range that starts at Port.
	EndPort *int32 `json:"endPort,omitempty"`
}

// Masquerade refines how a source port is chosen.
type Masquerade struct {
	// FullyRandom picks source ports at random (NF_NAT_RANGE_PROTO_RANDOM_FULLY).
	FullyRandom bool `json:"fullyRandom,omitempty"`
	// Ports is the range of source ports, "FIRST-LAST"; TCP, UDP and SCTP only.
	Ports string `json:"ports,omitempty"`
}

// SNAT states source addresses. A source keeps one address, chosen by a hash of the source.
type SNAT struct {
	// Addresses are single addresses or ranges "FIRST-LAST", of either family.
	Addresses []string `json:"addresses"`
	// FullyRandom picks source ports at random.
	FullyRandom bool `json:"fullyRandom,omitempty"`
}

// Facts say what the words of policies mean on a node.
type Facts struct {
	// PodCIDRs of the whole cluster. Default on a plain host: LocalPodCIDRs.
	PodCIDRs []string `json:"podCIDRs,omitempty"`
	// LocalPodCIDRs of this node. Default: discovered from bridges and CNI configuration.
	LocalPodCIDRs []string `json:"localPodCIDRs,omitempty"`
	// NodeAddresses of this node. Default: discovered from interfaces.
	NodeAddresses []string `json:"nodeAddresses,omitempty"`
	// Nodes are the InternalIPs and ExternalIPs of every node. Default: NodeAddresses.
	Nodes []string `json:"nodes,omitempty"`
	// ServiceCIDRs are the ranges of ClusterIPs.
	ServiceCIDRs []string `json:"serviceCIDRs,omitempty"`
	// ServiceMark is kube-proxy's mark "VALUE/MASK". Default 0x4000/0x4000.
	ServiceMark string `json:"serviceMark,omitempty"`
	// HostPortMark is CNI portmap's mark "VALUE/MASK". Default 0x2000/0x2000.
	HostPortMark string `json:"hostPortMark,omitempty"`
	// Pods on this node, for selectors.
	Pods []Pod `json:"pods,omitempty"`
}

// Pod is one pod of this node.
type Pod struct {
	Namespace string            `json:"namespace"`
	Name      string            `json:"name"`
	Labels    map[string]string `json:"labels,omitempty"`
	// NamespaceLabels are the labels of the pod's namespace;
	// kubernetes.io/metadata.name is always among them.
	NamespaceLabels map[string]string `json:"namespaceLabels,omitempty"`
	Addresses       []string          `json:"addresses"`
}
