package owner

import (
	"fmt"
	"strings"

	"github.com/unmasq/unmasq/internal/ruleset"
)

// kubeProxyChain knows the chains of iptables mode (1.0 on) and of ipvs mode.
func kubeProxyChain(chain string) bool {
	if !strings.HasPrefix(chain, "KUBE-") {
		return false
	}
	switch chain {
	case "KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ", "KUBE-FORWARD",
		"KUBE-PROXY-CANARY", "KUBE-PROXY-FIREWALL", "KUBE-FIREWALL",
		"KUBE-NODE-PORT", "KUBE-LOAD-BALANCER", "KUBE-SOURCE-RANGES-FIREWALL", "KUBE-IPVS-FILTER", "KUBE-IPVS-OUT-FILTER",
		"KUBE-PORTALS-HOST", "KUBE-PORTALS-CONTAINER", "KUBE-NODEPORT-HOST", "KUBE-NODEPORT-CONTAINER", "KUBE-NODEPORT-NON-LOCAL":
		return true
	}
	return afterPrefix(chain, hash, "KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-SEP-", "KUBE-FW-", "KUBE-XLB-")
}

// kubeProxy describes a rule of kube-proxy, or a jump to its chains.
//
//	-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
//	-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
//	-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
//	-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully
func (p place) kubeProxy() Owner {
	o := Owner{Name: KubeProxy, Version: p.kubeProxyVersion()}
	switch target, _ := jump(p.rule); {
	case target == "KUBE-MARK-MASQ":
		p.marks(&o)
	case p.chain.Name == "KUBE-POSTROUTING" && translatesSource(p.rule.Target):
		if !p.kubeProxyMasquerades() {
			return alien(KubeProxy, p.chain.Name)
		}
		p.masquerades(&o)
	case p.chain.Name == "KUBE-FORWARD" && drops(p.rule.Target):
		o.Because = "conntrack takes the packet for invalid"
		o.Setting = "conntrack.tcpBeLiberal"
		o.Change = editKubeProxy("conntrack.tcpBeLiberal: true")
	case p.chain.Name == "KUBE-PROXY-FIREWALL" || strings.HasPrefix(p.chain.Name, "KUBE-FW-") && drops(p.rule.Target):
		o.Because = "the source isn't in loadBalancerSourceRanges"
		o.Setting = "loadBalancerSourceRanges of the Service"
		o.Change = patchService(p.rule.Comment, `{"spec":{"loadBalancerSourceRanges":null}}`)
	case strings.HasSuffix(p.rule.Comment, " has no endpoints"):
		o.Because = "the service has no ready endpoint"
	case strings.HasSuffix(p.rule.Comment, " has no local endpoints"):
		o.Because = "the traffic policy is Local, and this node has no endpoint"
		o.Setting = "externalTrafficPolicy or internalTrafficPolicy of the Service"
		o.Change = patchService(p.rule.Comment, `{"spec":{"externalTrafficPolicy":"Cluster"}}`)
	}
	return o
}

func (p place) kubeProxyVersion() string {
	target, _ := jump(p.rule)
	service := func(chain string) bool {
		return hasAnyPrefix(chain, "KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-SEP-", "KUBE-XLB-")
	}
	switch {
	case (service(p.chain.Name) || service(target)) && p.node["KUBE-EXT-"]:
		return "iptables mode, ≥ 1.24"
	case service(p.chain.Name), service(target):
		return "iptables mode"
	case p.node["KUBE-NODE-PORT"], p.node["KUBE-LOAD-BALANCER"]:
		return "ipvs mode"
	case p.node["KUBE-EXT-"]:
		return "iptables mode, ≥ 1.24"
	case p.node["KUBE-XLB-"]:
		return "iptables mode, < 1.24"
	}
	return "iptables mode"
}

const kubeProxyComment = "kubernetes service traffic requiring SNAT"

// kubeProxyMasquerades: every version says so in a comment, and the hairpin rule
// of ipvs mode names its set.
func (p place) kubeProxyMasquerades() bool {
	return p.rule.Comment == kubeProxyComment || usesSet(p.rule, "KUBE-LOOP-BACK", "KUBE-6-LOOP-BACK")
}

func (p place) masquerades(o *Owner) {
	if usesSet(p.rule, "KUBE-LOOP-BACK", "KUBE-6-LOOP-BACK") {
		o.hairpin()
		return
	}
	o.Because = "a rule that jumps to KUBE-MARK-MASQ marked the packet"
	o.Setting = "masqueradeAll, clusterCIDR or externalTrafficPolicy, whichever marked it"
	o.Change = []string{"see the rule that marked it: iptables -t nat -S | grep KUBE-MARK-MASQ"}
	o.Trap = "deleting the rule breaks NodePorts and hairpin traffic, and kube-proxy writes it again"
}

// marks tells why a rule that jumps to KUBE-MARK-MASQ takes a packet.
func (p place) marks(o *Owner) {
	r, chain, text := p.rule, p.chain.Name, p.rule.Comment
	switch {
	case strings.HasPrefix(chain, "KUBE-SEP-"):
		o.hairpin()
	case strings.HasPrefix(text, "masquerade LOCAL traffic for "):
		o.Because = "the node itself is the client of a service with external traffic policy Local"
	case r.Source.Not:
		o.outside(fmt.Sprintf("the source isn't in the cluster's pods %s", r.Source.Prefix), "clusterCIDR: a range that holds the client too")
	case r.In.Not:
		o.outside(fmt.Sprintf("the packet didn't come in from a pod's interface %s", interfaceText(r.In)), "detectLocalMode: ClusterCIDR, with a clusterCIDR that holds the client too")
	case usesSetDirection(r, "KUBE-CLUSTER-IP", ruleset.Source):
		o.Because = "the node itself is the client, and a cluster IP on its dummy interface became the source"
	case p.external():
		o.external(text)
	case is(r.Source, loopback):
		o.Because = "a client on the node reaches a NodePort through localhost"
		o.Setting = "localhostNodePorts"
		o.Change = editKubeProxy("iptables.localhostNodePorts: false")
	case strings.HasSuffix(text, " cluster IP"), strings.HasPrefix(text, "Kubernetes service cluster ip"), usesSet(r, "KUBE-CLUSTER-IP"):
		o.Because = "masqueradeAll is on"
		o.Setting = "masqueradeAll"
		o.Change = editKubeProxy("iptables.masqueradeAll: false (ipvs.masqueradeAll in ipvs mode)")
		o.Trap = "clients outside whose replies bypass this node then hang on services with a backend elsewhere"
	default:
		o.Because = "the service rule marks it for masquerading"
	}
}

// external: the mark of traffic from outside to a NodePort, an external IP or a
// load balancer's IP.
func (p place) external() bool {
	text := p.rule.Comment
	switch {
	case hasAnyPrefix(p.chain.Name, "KUBE-EXT-", "KUBE-FW-", "KUBE-XLB-", "KUBE-LOAD-BALANCER"):
		return true
	case p.chain.Name == "KUBE-NODEPORTS" || p.chain.Name == "KUBE-NODE-PORT":
		return !is(p.rule.Source, loopback)
	}
	return strings.HasSuffix(text, " external IP") || strings.HasSuffix(text, " loadbalancer IP") ||
		usesSet(p.rule, "KUBE-EXTERNAL-IP", "KUBE-LOAD-BALANCER", "KUBE-NODE-PORT")
}

func (o *Owner) hairpin() {
	o.Because = "hairpin: the endpoint reaches itself through the service"
	o.Trap = "without it the endpoint would answer itself past the node, and the connection would hang"
}

func (o *Owner) outside(why, field string) {
	o.Because = why
	o.Setting = "clusterCIDR, detectLocalMode"
	o.Change = editKubeProxy(field)
	o.Trap = "replies of pods on other nodes must then find their way back without this node"
}

func (o *Owner) external(text string) {
	o.Because = "external traffic policy is Cluster"
	o.Setting = "externalTrafficPolicy of the Service"
	o.Change = patchService(text, `{"spec":{"externalTrafficPolicy":"Local"}}`)
	o.Trap = "with Local, nodes without an endpoint drop the traffic"
}

// editKubeProxy are the commands that change kube-proxy's configuration.
func editKubeProxy(field string) []string {
	return []string{
		"kubectl -n kube-system edit configmap kube-proxy   # config.conf: " + field,
		"kubectl -n kube-system rollout restart daemonset kube-proxy",
		"EKS: the same in configmap kube-proxy-config; k3s, RKE2: kube-proxy-arg in /etc/rancher/*/config.yaml",
	}
}

// patchService is the command that changes the Service that a rule's comment names:
// "masquerade traffic for default/web:http external destinations", "default/web:http cluster IP".
func patchService(comment, patch string) []string {
	namespace, name := "NAMESPACE", "SERVICE"
	for _, word := range strings.Fields(comment) {
		ns, rest, ok := strings.Cut(word, "/")
		if ok && ns != "" && rest != "" {
			namespace = ns
			name, _, _ = strings.Cut(rest, ":")
			break
		}
	}
	return []string{fmt.Sprintf("kubectl -n %s patch service %s -p '%s'", namespace, name, patch)}
}

func interfaceText(i ruleset.Interface) string {
	if i.Wildcard {
		return i.Name + "+"
	}
	return i.Name
}

func usesSetDirection(r *ruleset.Rule, name string, first ruleset.Side) bool {
	for _, s := range sets(r) {
		if strings.HasSuffix(s.Name, strings.TrimPrefix(name, "KUBE-")) && strings.HasPrefix(s.Name, "KUBE-") &&
			len(s.Directions) > 0 && s.Directions[0] == first {
			return true
		}
	}
	return false
}
