package policy

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/unmasq/unmasq/api/v1alpha1"
)

// fileDocument is a SourcePolicy as files and standard input have it: that of the
// Kubernetes API with spec.facts, which a cluster is asked for instead.
type fileDocument struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec fileSpec `json:"spec"`
}

type fileSpec struct {
	v1alpha1.SourcePolicySpec `json:",inline"`

	// Facts state what the words of the policies mean on this node, each field once
	// over all documents.
	Facts *fileFacts `json:"facts,omitempty"`
}

// fileFacts say what the words of policies mean on a node.
type fileFacts struct {
	// PodCIDRs of the whole cluster. Default on a plain host: LocalPodCIDRs.
	PodCIDRs []v1alpha1.CIDR `json:"podCIDRs,omitempty"`
	// LocalPodCIDRs of this node. Default: discovered from bridges and CNI configuration.
	LocalPodCIDRs []v1alpha1.CIDR `json:"localPodCIDRs,omitempty"`
	// NodeAddresses of this node. Default: discovered from interfaces.
	NodeAddresses []string `json:"nodeAddresses,omitempty"`
	// Nodes are the InternalIPs and ExternalIPs of every node. Default: NodeAddresses.
	Nodes []string `json:"nodes,omitempty"`
	// ServiceCIDRs are the ranges of ClusterIPs.
	ServiceCIDRs []v1alpha1.CIDR `json:"serviceCIDRs,omitempty"`
	// ServiceMark is kube-proxy's mark "VALUE/MASK". Default 0x4000/0x4000.
	ServiceMark string `json:"serviceMark,omitempty"`
	// HostPortMark is CNI portmap's mark "VALUE/MASK". Default 0x2000/0x2000.
	HostPortMark string `json:"hostPortMark,omitempty"`
	// Pods on this node, for selectors.
	Pods []filePod `json:"pods,omitempty"`
	// Services of the cluster, for rules that name or select services.
	Services []fileService `json:"services,omitempty"`
}

// filePod is one pod of this node.
type filePod struct {
	Namespace string            `json:"namespace"`
	Name      string            `json:"name"`
	Labels    map[string]string `json:"labels,omitempty"`
	// NamespaceLabels are the labels of the pod's namespace;
	// kubernetes.io/metadata.name is always among them.
	NamespaceLabels map[string]string `json:"namespaceLabels,omitempty"`
	Addresses       []string          `json:"addresses"`
}
