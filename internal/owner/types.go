// Package owner says which component wrote a rule, which of its settings
// produces it, and which command or field changes it. It goes by what the
// components write into their rules: chains, comments, sets, marks, interfaces.
//
// A name alone proves nothing: a chain MY-DOCKER-RULES or a comment "allow
// docker" is somebody's own. So chains are known by their whole name, comments
// by their whole text or by a prefix that nobody else writes, and rules without
// either by their exact form together with what else stands in the tables. A
// rule that differs from a component's own form is [Unknown]: a person or a
// script wrote or changed it, and Version says what it looks like.
//
//	owners := owner.New(&rules, sets)
//	o := owners.Of(table, chain, &chain.Rules[0])
//	fmt.Println(o.Name, o.Setting) // flannel --ip-masq
package owner

import "github.com/unmasq/unmasq/internal/ruleset"

// Unknown is the owner of a rule that no component is known to write: a person
// or a script did.
const Unknown = "unknown"

// Names of owners as they stand in answers.
const (
	KubeProxy       = "kube-proxy"
	Docker          = "docker"
	Flannel         = "flannel"
	KubeRouter      = "kube-router"
	IPMasqAgent     = "ip-masq-agent"
	CNIBridge       = "cni-bridge"
	CNIPortmap      = "cni-portmap"
	Calico          = "calico"
	Cilium          = "cilium"
	AWSVPCCNI       = "aws-vpc-cni"
	Antrea          = "antrea"
	KubeOVN         = "kube-ovn"
	OVNKubernetes   = "ovn-kubernetes"
	Kindnet         = "kindnet"
	Weave           = "weave"
	Istio           = "istio"
	Podman          = "podman"
	Netbird         = "netbird"
	Tailscale       = "tailscale"
	StrongSwan      = "strongswan"
	K3sServiceLB    = "k3s-servicelb"
	SystemdNetworkd = "systemd-networkd"
	LXD             = "lxd"
	Firewalld       = "firewalld"
	UFW             = "ufw"
	Libvirt         = "libvirt"
	GKE             = "gke"
	Kubenet         = "kubenet"
	Kubelet         = "kubelet"
	NodeLocalDNS    = "node-local-dns"
	AzureNPM        = "azure-npm"
	CRIO            = "cri-o"
	CNIFirewall     = "cni-firewall"
	Unmasq          = "unmasq"
)

// Names lists every name that [Owner].Name can have, in the order of the
// documentation; unknown is the last.
func Names() []string {
	return []string{
		KubeProxy, Docker, Flannel, KubeRouter, IPMasqAgent, CNIBridge, CNIPortmap, Calico, Cilium, AWSVPCCNI, Antrea,
		KubeOVN, OVNKubernetes, Kindnet, Weave, Istio, Podman, Netbird, Tailscale, StrongSwan, K3sServiceLB,
		SystemdNetworkd, LXD, Firewalld, UFW, Libvirt, GKE, Kubenet, Kubelet, NodeLocalDNS, AzureNPM, CRIO, CNIFirewall,
		Unmasq, Unknown,
	}
}

// Owner of a rule.
type Owner struct {
	// Name from the list of owners: kube-proxy, docker, flannel, …, unknown.
	Name string
	// Version says what the form of the rule tells, such as "≥ 1.36" or "iptables
	// mode"; for unknown, what the rule looks like, where it looks like something.
	Version string
	// Setting that makes the component write the rule, such as "--ip-masq";
	// empty where there is none.
	Setting string
	// Because is why this rule takes a packet, where the rule's form tells: a
	// short clause such as "external traffic policy is Cluster".
	Because string
	// Change lists the commands or fields that change it, first choice first.
	Change []string
	// Trap is what goes wrong, or comes back, after such a change; empty where
	// nothing is known to.
	Trap string
}

// Of returns the owner of a rule of a chain of a table; for a chain's policy
// rule is nil. It looks at that one table; an [Index] knows the others too, and
// is quicker for many rules.
func Of(t *ruleset.Table, c *ruleset.Chain, rule *ruleset.Rule) Owner {
	return New(&ruleset.Ruleset{Tables: []*ruleset.Table{t}}, nil).Of(t, c, rule)
}
