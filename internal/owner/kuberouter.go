package owner

import (
	"strings"

	"github.com/unmasq/unmasq/internal/ruleset"
)

func kubeRouterChain(chain string) bool {
	return hasAnyPrefix(chain, "KUBE-ROUTER-", "KUBE-NWPLCY-", "KUBE-POD-FW-")
}

// kubeRouterComment: the three rules that let pods' packets through, and those of
// its network policies.
func kubeRouterComment(text string) bool {
	switch text {
	case "allow outbound node port traffic on node interface with which node ip is associated",
		"allow inbound traffic to pods", "allow outbound traffic from pods":
		return true
	}
	return strings.HasPrefix(text, "kube-router netpol - ")
}

// kubeRouterRule recognises its NAT rules by their sets or by the ipvs match:
// their comment is empty.
func kubeRouterRule(p place) bool {
	return usesSet(p.rule, "kube-router-", "inet6:kube-router-") || p.kubeRouterVirtual()
}

// kubeRouterVirtual translates service traffic that ipvs sends on.
//
//	-A POSTROUTING ! -s 10.244.1.0/24 ! -d 10.244.1.0/24 -m ipvs --ipvs --vdir ORIGINAL --vmethod MASQ -m comment --comment ""
//	  -j SNAT --to-source 172.18.0.11 --random-fully
func (p place) kubeRouterVirtual() bool {
	text, ok := extension(p.rule, "ipvs")
	if !ok || only(p.rule) == nil || p.table.Name != "nat" || p.chain.Name != "POSTROUTING" {
		return false
	}
	_, snat := p.rule.Target.(ruleset.SNAT)
	both := p.rule.Source.Not && p.rule.Destination.Not && p.rule.Source.Prefix == p.rule.Destination.Prefix
	return snat && (asked(p.rule) == matches || asked(p.rule) == matches|source|destination && both) &&
		strings.Contains(text, "--vdir ORIGINAL") && strings.Contains(text, "--vmethod MASQ") && !strings.Contains(text, "vaddr")
}

const kubeRouterEdit = "kubectl -n kube-system edit daemonset kube-router   # args: "

// kubeRouter describes its rules. The first of these is pod egress:
//
//	-A POSTROUTING -m set --match-set kube-router-pod-subnets src -m set ! --match-set kube-router-pod-subnets dst
//	  -m set ! --match-set kube-router-node-ips dst -j MASQUERADE --random-fully
//	-A POSTROUTING -m ipvs --vdir ORIGINAL -j KUBE-ROUTER-HAIRPIN
//	-A KUBE-ROUTER-HAIRPIN -s 10.244.1.11/32 -d 10.244.1.11/32 -m ipvs --vaddr 10.96.0.10 --vport 80 -j SNAT --to-source 10.96.0.10
func (p place) kubeRouter() Owner {
	o := Owner{Name: KubeRouter}
	target, _ := jump(p.rule)
	switch {
	case p.table.Name == "nat" && p.podEgress():
		o.Setting = "--enable-pod-egress"
		o.Because = "a packet of the cluster's pods goes neither to a pod nor to a node"
		o.Change = []string{
			kubeRouterEdit + "--enable-pod-egress=false",
			"ipset add kube-router-pod-subnets CIDR   # destinations in it stay untranslated, until kube-router fills the set again",
		}
		o.Trap = "written once, at kube-router's start: after a flush it stays away until a restart, after a change of the flag it stays until then"
	case p.kubeRouterVirtual() && builtIn(p.chain.Name):
		p.kubeRouterServices(&o)
	case p.chain.Name == "KUBE-ROUTER-HAIRPIN", target == "KUBE-ROUTER-HAIRPIN":
		o.Setting = "--hairpin-mode, annotation kube-router.io/service.hairpin"
		o.Because = "hairpin: the endpoint reaches itself through the service"
		o.Change = []string{kubeRouterEdit + "--hairpin-mode=false", "kubectl annotate service NAME kube-router.io/service.hairpin-"}
	case p.table.Name == "nat" && builtIn(p.chain.Name) && translatesSource(p.rule.Target):
		return unknown("uses kube-router's sets, but isn't kube-router's own rule")
	case hasAnyPrefix(p.chain.Name, "KUBE-POD-FW-", "KUBE-NWPLCY-"):
		o.Setting = "--run-firewall"
		o.Because = "a NetworkPolicy of the pod"
		o.Change = []string{"kubectl get networkpolicy -A", kubeRouterEdit + "--run-firewall=false"}
	}
	return o
}

// podEgress has exactly the three sets.
func (p place) podEgress() bool {
	r := p.rule
	all := sets(r)
	if asked(r) != matches || len(all) != 3 || len(r.Matches) != 3 || !masquerade(r.Target) {
		return false
	}
	pods := strings.TrimPrefix(all[0].Name, "inet6:") == "kube-router-pod-subnets" && all[1].Name == all[0].Name
	nodes := strings.TrimPrefix(all[2].Name, "inet6:") == "kube-router-node-ips"
	return pods && nodes && !all[0].Not && all[1].Not && all[2].Not
}

func (p place) kubeRouterServices(o *Owner) {
	if p.rule.Source.Not {
		o.Setting = "none: always written, once for each pod range of the node"
		o.Because = "service traffic from outside the node's pods goes to a pod elsewhere"
		o.Change = []string{"kubectl annotate service NAME kube-router.io/service.local=true"}
		o.Trap = "the rules of an earlier node address or pod range are left behind"
		return
	}
	o.Setting = "--masquerade-all"
	o.Because = "--masquerade-all is on: every client of every service is hidden"
	o.Change = []string{kubeRouterEdit + "--masquerade-all=false"}
}
