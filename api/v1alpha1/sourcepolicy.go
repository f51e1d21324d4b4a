package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// DefaultOrder is the order of a policy that states none.
const DefaultOrder = 100

// SourcePolicy is an ordered list of rules that say with which source address
// connections leave a node. Policies are merged by spec.order, then by name;
// the first rule that matches a connection's first packet decides.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=spol,categories=unmasq
// +kubebuilder:printcolumn:name="Order",type=integer,JSONPath=`.spec.order`,description="Lower first, then by name"
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.spec.mode`,priority=1
// +kubebuilder:printcolumn:name="Generation",type=integer,JSONPath=`.metadata.generation`,description="Counts changes; a NodeReport says which one is in force on its node"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type SourcePolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec SourcePolicySpec `json:"spec"`
}

// SourcePolicyList is several policies.
//
// +kubebuilder:object:root=true
type SourcePolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []SourcePolicy `json:"items"`
}

// SourcePolicySpec is the body of a SourcePolicy.
//
// +kubebuilder:validation:XValidation:rule="size(dyn(self)) == [has(self.order), has(self.mode), has(self.nodeSelector), has(self.rules)].filter(x, x).size()",message="has a field without a value (null); expected a value, {} where any is meant, or leave the field out",reason=FieldValueRequired
type SourcePolicySpec struct {
	// Order sorts policies, lower first; equal orders sort by name.
	//
	// +optional
	// +kubebuilder:default=100
	// +kubebuilder:validation:Minimum=-2147483648
	// +kubebuilder:validation:Maximum=2147483647
	Order *int32 `json:"order,omitempty"`
	// Mode is Enforce, the default and only value.
	//
	// +optional
	// +kubebuilder:default=Enforce
	// +kubebuilder:validation:Enum=Enforce
	Mode string `json:"mode,omitempty"`
	// NodeSelector limits the policy to nodes with these labels; absent or empty: every node.
	//
	// +optional
	// +nullable
	NodeSelector *LabelSelector `json:"nodeSelector,omitempty"`
	// Rules in order of evaluation.
	//
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=128
	// +kubebuilder:validation:XValidation:rule="self.all(r, !has(r.name) || self.exists_one(o, has(o.name) && o.name == r.name))",message="two rules have one name; expected another",messageExpression="'\"%s\" is the name of two rules; expected another'.format([self.filter(r, has(r.name) && !self.exists_one(o, has(o.name) && o.name == r.name))[0].name])",reason=FieldValueDuplicate
	// +kubebuilder:validation:XValidation:rule="self.all(r, !has(r.name) || !r.name.matches('^rule-[1-9][0-9]{0,2}$') || int(r.name.substring(5)) > size(self) || has(self[int(r.name.substring(5)) - 1].name))",message="a rule has the name rule-N that the Nth rule, which states none, has by default; expected another",reason=FieldValueDuplicate
	Rules []Rule `json:"rules,omitempty"`
}

// Rule decides for the flows that From, To and OutInterfaces all match.
//
// +kubebuilder:validation:XValidation:rule="self.action != 'SNAT' || has(self.snat)",message="missing; action SNAT needs snat.addresses",fieldPath=".snat",reason=FieldValueRequired
// +kubebuilder:validation:XValidation:rule="self.action == 'SNAT' || !has(self.snat)",messageExpression="'not expected with action ' + self.action + '; it belongs to action SNAT'",fieldPath=".snat",reason=FieldValueForbidden
// +kubebuilder:validation:XValidation:rule="self.action == 'Masquerade' || !has(self.masquerade)",messageExpression="'not expected with action ' + self.action + '; it refines action Masquerade'",fieldPath=".masquerade",reason=FieldValueForbidden
// +kubebuilder:validation:XValidation:rule="size(dyn(self)) == [has(self.name), has(self.from), has(self.to), has(self.outInterfaces), has(self.action), has(self.masquerade), has(self.snat), has(self.overrideServiceMasquerade)].filter(x, x).size()",message="has a field without a value (null); expected a value, {} where any is meant, or leave the field out",reason=FieldValueRequired
type Rule struct {
	// Name is a DNS label, unique in the document. Default: rule-N, N counted from 1.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",messageExpression="'%s is not a DNS label; expected lower case letters, digits and -, a letter or digit at each end, at most 63 characters'.format([strings.quote(self)])"
	Name string `json:"name,omitempty"`
	// From absent or empty: every forwarded packet, never the node's own.
	//
	// +optional
	// +nullable
	From *From `json:"from,omitempty"`
	// To absent or empty: everywhere.
	//
	// +optional
	// +nullable
	To *To `json:"to,omitempty"`
	// OutInterfaces the packet may leave by; a trailing + or * matches any ending. Absent: all.
	//
	// +optional
	// +nullable
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=128
	OutInterfaces []InterfaceName `json:"outInterfaces,omitempty"`
	// Action is Keep (the source address stays, whoever else would translate it),
	// Masquerade (the address of the outgoing interface), SNAT (an address of
	// snat.addresses) or Leave (nothing is done; others may).
	//
	// +required
	// +kubebuilder:validation:Enum=Keep;Masquerade;SNAT;Leave
	// +kubebuilder:validation:MaxLength=16
	Action string `json:"action"`
	// Masquerade refines action Masquerade.
	//
	// +optional
	Masquerade *Masquerade `json:"masquerade,omitempty"`
	// SNAT is required by action SNAT and allowed with no other.
	//
	// +optional
	SNAT *SNAT `json:"snat,omitempty"`
	// OverrideServiceMasquerade lets the rule decide packets that carry the service
	// mark or the hostPort mark too, and clears the service mark.
	//
	// +optional
	OverrideServiceMasquerade bool `json:"overrideServiceMasquerade,omitempty"`
}

// From says whose packets a rule sees. Pods, CIDRs and Node are alternatives.
//
// +kubebuilder:validation:XValidation:rule="size(dyn(self)) == [has(self.pods), has(self.cidrs), has(self.except), has(self.node)].filter(x, x).size()",message="has a field without a value (null); expected a value, {} where any is meant, or leave the field out",reason=FieldValueRequired
type From struct {
	// Pods: {} is every address in podCIDRs; with a selector, this node's pods that it selects.
	//
	// +optional
	// +nullable
	Pods *PodPeer `json:"pods,omitempty"`
	// CIDRs of source addresses of forwarded packets.
	//
	// +optional
	// +nullable
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=1024
	CIDRs []CIDR `json:"cidrs,omitempty"`
	// Except takes addresses out of all alternatives.
	//
	// +optional
	// +nullable
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=1024
	Except []CIDR `json:"except,omitempty"`
	// Node: {} is the packets that this host sends itself, host-network pods included.
	//
	// +optional
	// +nullable
	Node *Empty `json:"node,omitempty"`
}

// To says where packets of a rule go, seen as they leave: after DNAT. CIDRs,
// Pods, Nodes and Services are alternatives; Ports must match too.
//
// +kubebuilder:validation:XValidation:rule="size(dyn(self)) == [has(self.cidrs), has(self.except), has(self.pods), has(self.nodes), has(self.services), has(self.ports)].filter(x, x).size()",message="has a field without a value (null); expected a value, {} where any is meant, or leave the field out",reason=FieldValueRequired
type To struct {
	// CIDRs of destinations.
	//
	// +optional
	// +nullable
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=1024
	CIDRs []CIDR `json:"cidrs,omitempty"`
	// Except takes addresses out of all alternatives.
	//
	// +optional
	// +nullable
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=1024
	Except []CIDR `json:"except,omitempty"`
	// Pods: {} is every address in podCIDRs.
	//
	// +optional
	// +nullable
	Pods *Empty `json:"pods,omitempty"`
	// Nodes: {} is the InternalIP and ExternalIP of every node.
	//
	// +optional
	// +nullable
	Nodes *Empty `json:"nodes,omitempty"`
	// Services: connections that were made to a Service; {} is every ClusterIP.
	//
	// +optional
	// +nullable
	Services *Services `json:"services,omitempty"`
	// Ports of destinations; absent: all ports, and protocols without ports too.
	//
	// +optional
	// +nullable
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=128
	Ports []Port `json:"ports,omitempty"`
}

// PodPeer selects pods. Both selectors must match where both are given.
//
// +kubebuilder:validation:XValidation:rule="size(dyn(self)) == [has(self.podSelector), has(self.namespaceSelector)].filter(x, x).size()",message="has a field without a value (null); expected a value, {} where any is meant, or leave the field out",reason=FieldValueRequired
type PodPeer struct {
	// PodSelector asks for labels of pods.
	//
	// +optional
	// +nullable
	PodSelector *LabelSelector `json:"podSelector,omitempty"`
	// NamespaceSelector asks for labels of the pods' namespaces.
	//
	// +optional
	// +nullable
	NamespaceSelector *LabelSelector `json:"namespaceSelector,omitempty"`
}

// Empty is the value {}: a place named without further choice.
type Empty struct{}

// Services selects connections by what they were made to: their destination before
// DNAT. Names, selectors and CIDRs are alternatives; without any of them every
// service is meant. Ports, Backends and Via must match too.
//
// +kubebuilder:validation:XValidation:rule="!has(self.cidrs) || !has(self.via) || self.via == 'ClusterIP'",messageExpression="'%s is not expected with cidrs, which are networks of ClusterIPs; expected ClusterIP, or leave the field out'.format([strings.quote(self.via)])",fieldPath=".via"
// +kubebuilder:validation:XValidation:rule="size(dyn(self)) == [has(self.names), has(self.serviceSelector), has(self.namespaceSelector), has(self.cidrs), has(self.ports), has(self.backends), has(self.via)].filter(x, x).size()",message="has a field without a value (null); expected a value, {} where any is meant, or leave the field out",reason=FieldValueRequired
type Services struct {
	// Names of Services: NAMESPACE/NAME.
	//
	// +optional
	// +nullable
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=1024
	Names []ServiceName `json:"names,omitempty"`
	// ServiceSelector asks for labels of Services.
	//
	// +optional
	// +nullable
	ServiceSelector *LabelSelector `json:"serviceSelector,omitempty"`
	// NamespaceSelector asks for labels of the Services' namespaces.
	//
	// +optional
	// +nullable
	NamespaceSelector *LabelSelector `json:"namespaceSelector,omitempty"`
	// CIDRs of ClusterIPs.
	//
	// +optional
	// +nullable
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	CIDRs []CIDR `json:"cidrs,omitempty"`
	// Ports of Services that connections are made to; a node port may be meant by its
	// own number too. Absent: all.
	//
	// +optional
	// +nullable
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=128
	Ports []Port `json:"ports,omitempty"`
	// Backends: Any (default), Local (a pod of this node) or Remote (whatever isn't
	// known to be one).
	//
	// +optional
	// +kubebuilder:default=Any
	// +kubebuilder:validation:Enum=Any;Local;Remote
	Backends string `json:"backends,omitempty"`
	// Via is the kind of address that connections are made to: ClusterIP, NodePort,
	// LoadBalancer or ExternalIP. Absent: any kind that Names and selectors have; else
	// ClusterIPs.
	//
	// +optional
	// +kubebuilder:validation:Enum=ClusterIP;NodePort;LoadBalancer;ExternalIP
	// +kubebuilder:validation:MaxLength=16
	Via string `json:"via,omitempty"`
}

// Port is a destination port or range of ports.
//
// +kubebuilder:validation:XValidation:rule="!has(self.endPort) || has(self.port)",message="has no port before it; expected port, the first of the range",fieldPath=".endPort"
// +kubebuilder:validation:XValidation:rule="!has(self.endPort) || !has(self.port) || self.port <= self.endPort",messageExpression="'%d is lower than port; expected %d or higher'.format([self.endPort, self.port])",fieldPath=".endPort"
// +kubebuilder:validation:XValidation:rule="size(dyn(self)) == [has(self.protocol), has(self.port), has(self.endPort)].filter(x, x).size()",message="has a field without a value (null); expected a value, {} where any is meant, or leave the field out",reason=FieldValueRequired
type Port struct {
	// Protocol is TCP (default), UDP or SCTP.
	//
	// +optional
	// +kubebuilder:default=TCP
	// +kubebuilder:validation:Enum=TCP;UDP;SCTP
	Protocol string `json:"protocol,omitempty"`
	// Port from 1 to 65535; absent: all ports of the protocol.
	//
	// +optional
	// +nullable
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port *int32 `json:"port,omitempty"`
	// EndPort is the last port of a range that starts at Port.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	EndPort *int32 `json:"endPort,omitempty"`
}

// Masquerade refines how a source port is chosen.
type Masquerade struct {
	// FullyRandom picks source ports at random (NF_NAT_RANGE_PROTO_RANDOM_FULLY).
	//
	// +optional
	FullyRandom bool `json:"fullyRandom,omitempty"`
	// Ports is the range of source ports, "FIRST-LAST"; TCP, UDP and SCTP only.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:XValidation:rule="self.matches('^[0-9]{1,5}(-[0-9]{1,5})?$') && int(self.split('-')[0]) >= 1 && int(self.split('-')[size(self.split('-')) - 1]) <= 65535 && int(self.split('-')[0]) <= int(self.split('-')[size(self.split('-')) - 1])",messageExpression="'%s is not a range of ports; expected FIRST-LAST within 1 to 65535, such as 1024-29999'.format([strings.quote(self)])"
	Ports string `json:"ports,omitempty"`
}

// SNAT states source addresses. A source keeps one address, chosen by a hash of the source.
type SNAT struct {
	// Addresses are single addresses or ranges "FIRST-LAST", of either family, at
	// most 1024 addresses of each.
	//
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:XValidation:rule="self.map(a, a.contains(':') ? 0 : !a.contains('-') ? 1 : isIP(a.substring(0, a.indexOf('-'))) && isIP(a.substring(a.indexOf('-') + 1)) ? 1 + (int(a.replace('-', '.').split('.')[6]) - int(a.replace('-', '.').split('.')[2])) * 256 + int(a.replace('-', '.').split('.')[7]) - int(a.replace('-', '.').split('.')[3]) : 0).sum() <= 1024",message="makes more than 1024 IPv4 addresses in this rule; expected fewer"
	// +kubebuilder:validation:XValidation:rule="self.map(a, !a.contains(':') ? 0 : !a.contains('-') ? 1 : isIP(a.substring(0, a.indexOf('-'))) && isIP(a.substring(a.indexOf('-') + 1)) && !a.contains('.') ? 1 + int(double('0x0' + a.substring(a.indexOf('-') + 1).substring(a.substring(a.indexOf('-') + 1).lastIndexOf(':') + 1) + 'p0')) - int(double('0x0' + a.substring(0, a.indexOf('-')).substring(a.substring(0, a.indexOf('-')).lastIndexOf(':') + 1) + 'p0')) : 0).sum() <= 1024",message="makes more than 1024 IPv6 addresses in this rule; expected fewer"
	Addresses []AddressRange `json:"addresses,omitempty"`
	// FullyRandom picks source ports at random.
	//
	// +optional
	FullyRandom bool `json:"fullyRandom,omitempty"`
}
