package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// NodeReport says what unmasq does on the node of the same name. That node's agent
// writes it, only when something in it changes; nobody else may (deploy/base). It
// has no counters of packets or connections: those are metrics. It belongs to its
// Node and goes with it.
//
// It has no status subresource: nothing in it is anybody's wish, so that one
// request writes all of it.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=nrep,categories=unmasq
// +kubebuilder:printcolumn:name="Enforced",type=string,JSONPath=`.status.conditions[?(@.type=="Enforced")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Enforced")].reason`
// +kubebuilder:printcolumn:name="Degraded",type=string,JSONPath=`.status.conditions[?(@.type=="Degraded")].status`
// +kubebuilder:printcolumn:name="Conflict",type=string,JSONPath=`.status.conditions[?(@.type=="Conflict")].status`
// +kubebuilder:printcolumn:name="Policies",type=integer,JSONPath=`.status.totals.policies`,description="Policies in force"
// +kubebuilder:printcolumn:name="Refused",type=integer,JSONPath=`.status.totals.refusals`,description="Documents that are not in force because something is wrong with them"
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.status.agentVersion`,priority=1
// +kubebuilder:printcolumn:name="Kernel",type=string,JSONPath=`.status.kernel.release`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type NodeReport struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Status NodeReportStatus `json:"status,omitempty"`
}

// NodeReportList is several reports.
//
// +kubebuilder:object:root=true
type NodeReportList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []NodeReport `json:"items"`
}

// Types of a report's conditions.
const (
	// Enforced: the policies in force stand in the kernel, and decide. False, for
	// example, while another process owns the table, or where an eBPF data path
	// bypasses netfilter (BypassedByEBPF); Unknown where it can't be told whether one
	// does (DataPathUnknown).
	ConditionEnforced = "Enforced"
	// Degraded: what is enforced rests on less than is wanted: documents that were
	// refused, facts that are missing or old, an API server that doesn't answer.
	ConditionDegraded = "Degraded"
	// Conflict: another component on this node works against a policy; Unknown where
	// only such was found of which it can't be told.
	ConditionConflict = "Conflict"
	// EarlyPodFacts: pods are known before their containers start. False where the
	// network plugins' results can't be read: then the first packets of a new pod
	// may meet no selector.
	ConditionEarlyPodFacts = "EarlyPodFacts"
)

// Most entries that a report's lists have; totals count those left out too.
const (
	MostReported       = 256
	MostReportedValues = 64
)

// NodeReportStatus is what holds on the node. Its lists are in a fixed order, so
// that nothing changes in it when nothing changed.
type NodeReportStatus struct {
	// Conditions: Enforced, Degraded, Conflict, EarlyPodFacts.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// AgentVersion is what `unmasq --version` prints.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=128
	AgentVersion string `json:"agentVersion,omitempty"`
	// Totals of the lists below, which have the first entries only where there are
	// more than fit.
	//
	// +optional
	Totals Totals `json:"totals,omitempty"`
	// Policies in force on the node, in their order of evaluation.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	Policies []PolicyInForce `json:"policies,omitempty"`
	// Rules in force, in their order of evaluation, with the flows that each decides.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	Rules []RuleInForce `json:"rules,omitempty"`
	// Refusals: documents that are not in force because something is wrong with them.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	Refusals []Refusal `json:"refusals,omitempty"`
	// Conflicts found with other components on the node.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	Conflicts []ConflictFound `json:"conflicts,omitempty"`
	// Facts that the words of policies stand for on this node.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=32
	Facts []FactUsed `json:"facts,omitempty"`
	// Kernel of the node, as far as it matters here.
	//
	// +optional
	Kernel Kernel `json:"kernel,omitempty"`
}

// Totals count the entries of a report's lists, those left out too.
type Totals struct {
	// Policies in force.
	//
	// +kubebuilder:validation:Minimum=0
	Policies int32 `json:"policies"`
	// Rules in force.
	//
	// +kubebuilder:validation:Minimum=0
	Rules int32 `json:"rules"`
	// Refusals of documents.
	//
	// +kubebuilder:validation:Minimum=0
	Refusals int32 `json:"refusals"`
	// Conflicts found.
	//
	// +kubebuilder:validation:Minimum=0
	Conflicts int32 `json:"conflicts"`
}

// Origin of a document: API or File.
//
// +kubebuilder:validation:Enum=API;File
type Origin string

// Where documents come from.
const (
	OriginAPI  Origin = "API"
	OriginFile Origin = "File"
)

// PolicyInForce is a policy that selects this node and is enforced there.
type PolicyInForce struct {
	// Name of the policy.
	//
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// Origin: API or File.
	Origin Origin `json:"origin"`
	// Generation in force (metadata.generation); of a file there is none.
	//
	// +optional
	Generation int64 `json:"generation,omitempty"`
	// Order of the policy.
	Order int32 `json:"order"`
	// Rules that it has.
	//
	// +kubebuilder:validation:Minimum=0
	Rules int32 `json:"rules"`
}

// Family of addresses: IPv4 or IPv6.
//
// +kubebuilder:validation:Enum=IPv4;IPv6
type Family string

// The families.
const (
	IPv4 Family = "IPv4"
	IPv6 Family = "IPv6"
)

// RuleInForce is a rule with the kind of flows that it decides.
type RuleInForce struct {
	// Policy that the rule is of.
	//
	// +kubebuilder:validation:MaxLength=253
	Policy string `json:"policy"`
	// Name of the rule.
	//
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`
	// Action: Keep, Masquerade, SNAT or Leave.
	//
	// +kubebuilder:validation:Enum=Keep;Masquerade;SNAT;Leave
	Action string `json:"action"`
	// From describes the sources: "pods", "pods app=web in all namespaces", "this node".
	//
	// +kubebuilder:validation:MaxLength=512
	From string `json:"from"`
	// To describes the destinations.
	//
	// +kubebuilder:validation:MaxLength=512
	To string `json:"to"`
	// Families that the rule can match in on this node: none where the facts it
	// needs aren't known, or a rule before it matches all that it does.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=2
	Families []Family `json:"families,omitempty"`
	// Note says why a family is missing, or what is hardly meant.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Note string `json:"note,omitempty"`
}

// Refusal is a document that is not in force.
type Refusal struct {
	// Origin: API or File.
	Origin Origin `json:"origin"`
	// Name of the policy, or the path of a file that can't be read.
	//
	// +kubebuilder:validation:MaxLength=4096
	Name string `json:"name"`
	// Generation that is refused; of a file there is none.
	//
	// +optional
	Generation int64 `json:"generation,omitempty"`
	// Message says which field is wrong and what was expected.
	//
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message"`
	// InForce says what is in force instead: the generation enforced before; 0: none.
	//
	// +optional
	InForce int64 `json:"inForce,omitempty"`
}

// ConflictFound is something another component does on the node against a policy.
type ConflictFound struct {
	// Reason in one word, CamelCase: BypassedByEBPF, TableOwned, TableChanged,
	// ForeignTable (a NAT chain at unmasq's priority), Untracked, UnknownProgram.
	//
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[A-Z][A-Za-z0-9]*$`
	Reason string `json:"reason"`
	// Owner is the component: kube-proxy, docker, calico, unknown.
	//
	// +kubebuilder:validation:MaxLength=64
	Owner string `json:"owner"`
	// Message says what was found and what mends it.
	//
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message"`
}

// FactUsed is what a word of the policies stands for.
type FactUsed struct {
	// Name as in spec.facts of files: podCIDRs, localPodCIDRs, nodeAddresses, nodes,
	// serviceCIDRs, serviceMark, hostPortMark.
	//
	// +kubebuilder:validation:MaxLength=64
	Name string `json:"name"`
	// Values, the first where there are more than fit.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=128
	Values []string `json:"values,omitempty"`
	// Total number of values.
	//
	// +kubebuilder:validation:Minimum=0
	Total int32 `json:"total"`
	// From says where it was learned: "Node worker-1", "default", "policy.yaml:12".
	//
	// +kubebuilder:validation:MaxLength=1024
	From string `json:"from"`
}

// Kernel of a node.
type Kernel struct {
	// Release as uname says: 6.12.57-amd64.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=256
	Release string `json:"release,omitempty"`
	// Features that were probed.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=32
	Features []KernelFeature `json:"features,omitempty"`
}

// KernelFeature is something a kernel has or lacks.
type KernelFeature struct {
	// Name: TableOwner, TablePersist.
	//
	// +kubebuilder:validation:MaxLength=64
	Name string `json:"name"`
	// State: Yes, No, or Unknown where it couldn't be told.
	//
	// +kubebuilder:validation:Enum=Yes;No;Unknown
	State string `json:"state"`
	// Message says what follows from it.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
}
