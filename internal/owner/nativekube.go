package owner

import "strings"

// kubeProxyNative tells why a rule of kube-proxy's nftables mode takes a packet
// (pkg/proxy/nftables/proxier.go).
//
//	chain service-SUSTUHLJ-default/web/tcp/http: ip daddr 10.96.83.77 ip saddr != 10.244.0.0/16 jump mark-for-masquerade
//	chain endpoint-…: ip saddr 10.244.1.11 jump mark-for-masquerade
//	chain external-…: fib saddr type local jump mark-for-masquerade
//
// Since 1.36 there is no chain that marks:
//
//	chain services: ip daddr @cluster-ips ip saddr != 10.244.0.0/16 meta mark set meta mark | 0x4000
//	chain masquerading: ct status dnat ip saddr . ip daddr . meta l4proto . th dport @hairpin-connections masquerade
func (o *Owner) kubeProxyNative(n nativePlace) {
	if n.table.Native.Set("hairpin-connections") != nil {
		o.Version = "nftables mode, ≥ 1.36"
	} else if n.table.Chain("mark-for-masquerade") != nil {
		o.Version = "nftables mode, < 1.36"
	}
	if n.rule == nil {
		o.Setting, o.Change = kubeProxyMasquerade, editKubeProxy("nftables.masqueradeAll, clusterCIDR")
		return
	}
	kind, _, _ := strings.Cut(n.chain, "-")
	switch {
	case n.chain == "masquerading":
		o.kubeProxyMasquerading(n)
	case strings.HasSuffix(n.asks, "jump mark-for-masquerade"), kubeProxyMarks(n):
		o.kubeProxyMarking(kind, n)
	case n.translates():
		o.alien(n)
	case kind == "firewall" && n.stops():
		o.Because = "the source isn't in loadBalancerSourceRanges"
		o.Setting = "loadBalancerSourceRanges of the Service"
		o.Change = patchService(serviceOf(n.chain), `{"spec":{"loadBalancerSourceRanges":null}}`)
	default:
		o.kubeProxyStops(n)
	}
}

const kubeProxyMasquerade = "masqueradeAll, clusterCIDR or externalTrafficPolicy"

func (o *Owner) kubeProxyMasquerading(n nativePlace) {
	switch {
	case !n.translates():
	case strings.Contains(n.rule.Text, "@hairpin-connections"):
		o.hairpin()
	case n.is("masquerade"), strings.HasPrefix(n.asks, "meta mark &"):
		o.Because = "a rule before marked the packet"
		o.Setting = kubeProxyMasquerade + ", whichever marked it"
		o.Change = []string{"see the rule that marked it: nft list table " + n.table.Native.Family + " kube-proxy | grep -e mark-for-masquerade -e 'mark set'"}
		o.Trap = "deleting the rule breaks NodePorts and hairpin traffic, and kube-proxy writes it again"
	default:
		o.alien(n)
	}
}

// kubeProxyMarks: since 1.36 rules set the mark themselves.
func kubeProxyMarks(n nativePlace) bool {
	return n.chain != "mark-for-masquerade" && strings.HasSuffix(n.asks, "meta mark set")
}

func (o *Owner) kubeProxyMarking(kind string, n nativePlace) {
	source, not := matchOf(n.rule, "ip", "saddr")
	in, notIn := matchOf(n.rule, "meta", "iifname")
	switch {
	case kind == "endpoint":
		o.hairpin()
	case (kind == "service" || kind == "services") && not:
		o.outside("the source isn't in the cluster's pods "+source, "clusterCIDR: a range that holds the client too")
	case (kind == "service" || kind == "services") && notIn:
		o.outside("the packet didn't come in from a pod's interface "+in, "detectLocalMode: ClusterCIDR, with a clusterCIDR that holds the client too")
	case kind == "service" || kind == "services":
		o.Because = "masqueradeAll is on"
		o.Setting = "masqueradeAll"
		o.Change = editKubeProxy("nftables.masqueradeAll: false")
		o.Trap = "clients outside whose replies bypass this node then hang on services with a backend elsewhere"
	case kind == "external" && strings.HasPrefix(n.asks, "fib saddr"):
		o.Because = "the node itself is the client of a service with external traffic policy Local"
	case kind == "external":
		o.external(serviceOf(n.chain))
	}
}

// serviceOf the chain's name, as a comment of iptables mode names it:
// external-LJ3JKJC4-default/webnp/tcp/http is of default/webnp:http.
func serviceOf(chain string) string {
	_, rest, _ := strings.Cut(chain, "-")
	_, rest, _ = strings.Cut(rest, "-")
	rest, _, _ = strings.Cut(rest, "__")
	parts := strings.Split(rest, "/")
	if len(parts) < 4 {
		return ""
	}
	return parts[0] + "/" + parts[1] + ":" + parts[3]
}

// kubeProxyStops are the rules that reject and drop, and the maps that lead to them.
func (o *Owner) kubeProxyStops(n nativePlace) {
	switch {
	case n.chain == "cluster-ips-check" && strings.HasSuffix(n.asks, "reject"):
		o.Because = "the destination is a service's cluster IP, and the service has no such port"
		o.Change = []string{"kubectl get services -A -o wide | grep ADDRESS   # its ports"}
	case n.chain == "cluster-ips-check" && n.stops():
		o.Because = "no service has this cluster IP"
		o.Change = []string{"kubectl get services -A | grep ADDRESS"}
	case n.chain == "reject-chain" && n.stops():
		o.Because = "the service has no ready endpoint"
		o.Change = []string{"kubectl get endpointslices -A -l kubernetes.io/service-name=SERVICE"}
	case n.chain == "service-endpoints-check", n.chain == "nodeport-endpoints-check":
		o.Because = "the service has no ready endpoint, or its traffic policy is Local and this node has none"
		o.Setting = "externalTrafficPolicy or internalTrafficPolicy of the Service"
		o.Change = []string{"kubectl get endpointslices -A -l kubernetes.io/service-name=SERVICE"}
	}
}

func flannelTable(family, table string) bool {
	return family == "ip" && table == "flannel-ipv4" || family == "ip6" && table == "flannel-ipv6"
}

// flannelNative knows the rules of EnableNFTables (pkg/trafficmngr/nftables).
func (o *Owner) flannelNative(n nativePlace) {
	o.Setting, o.Change = "--ip-masq", []string{flannelEdit + "without --ip-masq"}
	o.Trap = "after nft flush ruleset nothing restores the table until flannel restarts"
	switch {
	case n.rule == nil:
	case n.chain == "postrtg" && n.is("ip saddr, ip daddr !=, masquerade"):
		o.Because = "a packet of a pod leaves the cluster's pod network"
		o.Trap = "--ip-masq has no exceptions; without it the network outside needs a route back to the pods"
	case n.chain == "postrtg" && n.is("ip saddr !=, ip daddr, masquerade"):
		o.Because = "a packet from outside the pod network goes to a pod of another node"
	case n.chain == "postrtg" && n.is("meta mark, return"):
		o.Because = "kube-proxy marked the packet, and masquerades it itself"
	case n.chain == "postrtg" && n.is("ip saddr, ip daddr, return", "ip saddr !=, ip daddr, return"):
		o.Because = "both ends are in the pod network, or it goes to a pod of this node"
	case n.chain == "forward" && n.is("ip saddr, accept", "ip daddr, accept"):
		o.Setting, o.Change, o.Trap = "--iptables-forward-rules", []string{flannelEdit + "--iptables-forward-rules=false"}, ""
	default:
		o.alien(n)
	}
}

// cniNative is ipMasq of plugins bridge and ptp (pkg/ip/ipmasq_nftables_linux.go).
//
//	chain masq_checks: ip saddr 10.22.2.2 ip daddr != 10.22.2.0/24 masquerade comment "5aff…-4ea9…, net: podnet, if: eth0, id: cid"
func (o *Owner) cniNative(n nativePlace) {
	network := "NETWORK"
	if _, rest, ok := strings.Cut(n.comment(), ", net: "); ok {
		network, _, _ = strings.Cut(rest, ",")
		o.Version += ", network " + network
	}
	o.Setting, o.Trap = "ipMasq", "a pod keeps its rules until it is made anew"
	o.Change = []string{"/etc/cni/net.d, network " + network + ": \"ipMasq\": false, then make the pods anew"}
	switch {
	case !n.translates():
	case n.chain == "masq_checks" && n.is("ip saddr, ip daddr !=, masquerade") && network != "NETWORK":
		o.Because = "a packet of the pod leaves its network"
	default:
		o.alien(n)
	}
}

// portmapNative is plugin portmap (portmap_nftables.go): no mark, the connection's
// own ends tell hairpin traffic.
func (o *Owner) portmapNative(n nativePlace) {
	o.Setting = "hostPort of the pod, snat of plugin portmap"
	o.Change = []string{
		"/etc/cni/net.d, plugin portmap: \"snat\": false (localhost and hairpin then fail)",
		"remove hostPort from the pod's ports; reach it through a Service",
	}
	o.Trap = "a pod keeps its rules until it is made anew"
	if !n.translates() {
		return
	}
	from, _ := matchOf(n.rule, "ip", "saddr")
	switch to, _ := matchOf(n.rule, "ip", "daddr"); {
	case n.chain != "masquerading" || !n.is("ip saddr, ip daddr, masquerade"):
		o.alien(n)
	case from == to:
		o.Because = "hairpin: the pod reaches its own hostPort"
	case from == "127.0.0.1":
		o.Because = "a client on the node reaches a hostPort through localhost"
	default:
		o.alien(n)
	}
}

// kindnetNative (pkg/masq of kindnet, cmd/kindnetd of kind).
func (o *Owner) kindnetNative(n nativePlace) {
	o.Setting = "--no-masquerade-cidr, --masquerading"
	o.Change = []string{"kubectl -n kube-system edit daemonset kindnet   # args: --no-masquerade-cidr=CIDR,… or --masquerading=false"}
	switch {
	case !n.translates():
	case n.chain == "postrouting" && n.is("masquerade"):
		o.Because = "the destination is no pod's, and not in --no-masquerade-cidr"
	default:
		o.alien(n)
	}
}

// calicoNative: the chains have the names of its iptables mode, behind the table's:
// nat-cali-nat-outgoing, filter-cali-FORWARD.
//
//	ip saddr @cali40masq-ipam-pools ip daddr != @cali40network-ip-pools masquerade fully-random comment "cali:AAAAAAAAAAAAAAAA;"
func (o *Owner) calicoNative(n nativePlace) {
	switch {
	case n.rule == nil:
		o.Setting, o.Change = "natOutgoing of the IPPool", []string{calicoPool}
	case !strings.HasPrefix(n.comment(), "cali:"):
		o.alien(n)
	case n.translates() && strings.HasSuffix(n.chain, "cali-nat-outgoing"):
		o.Setting, o.Because = "natOutgoing of the IPPool", "a packet of a pool with natOutgoing leaves all of Calico's pools"
		o.Change = []string{calicoPool, "kubectl apply a disabled IPPool for destinations that are to see the pods: cidr: CIDR, disabled: true"}
	case n.translates():
		o.Setting = "tunnels of the IPPool (vxlanMode, ipipMode), WireGuard"
		o.Because = "the node's own packet goes to a pod by a tunnel"
	case n.stops() && strings.Contains(n.rule.Text, "fib saddr"):
		o.Because = "the route back to the source doesn't lead by the interface that the packet came in by (a workload may send from its own addresses only)"
		o.Setting = "workloadSourceSpoofing in FelixConfiguration"
		o.Change = []string{"annotation cni.projectcalico.org/allowedSourcePrefixes on the pod, with workloadSourceSpoofing: Any"}
	case n.stops():
		o.Setting, o.Because = "NetworkPolicy, GlobalNetworkPolicy, HostEndpoint", calicoReason(n.comment())
		o.Change = []string{"kubectl get networkpolicies -A; calicoctl get globalnetworkpolicy,hostendpoint"}
	}
}

const calicoPool = `kubectl patch ippool NAME --type merge -p '{"spec":{"natOutgoing":false}}'`

// calicoReason is the text behind a comment's hash: "cali:BBBBBBBBBBBBBBBB; Unknown interface".
func calicoReason(comment string) string {
	_, reason, _ := strings.Cut(comment, ";")
	if reason = strings.TrimSpace(reason); reason != "" {
		return "calico: " + reason
	}
	return "" // policies have names in their chains, not in comments
}

// ovnKubernetesNative goes by the chain: several translate, each for its own reason.
func (o *Owner) ovnKubernetesNative(n nativePlace) {
	switch {
	case strings.HasPrefix(n.chain, "egress-services"):
		o.Setting, o.Change = "EgressService", []string{"kubectl get egressservice -A; kubectl edit egressservice NAME"}
	case strings.HasPrefix(n.chain, "ovn-kube-local-gw-masq"), strings.HasPrefix(n.chain, "ovn-kube-pod-subnet-masq"), strings.HasPrefix(n.chain, "ovn-kube-udn-masq"):
		o.Setting = "routingViaHost (--gateway-mode=local)"
		o.Change = []string{ovnKubernetesEgress}
		if n.translates() {
			o.Because = "a packet of a pod leaves the node by the host's routes"
		}
	case strings.HasPrefix(n.chain, "mgmtport-"):
		o.Because = "the node's own packet goes to a pod by the management port"
	}
}

// awsNative marks connections; the translation itself stands in iptables
// (AWS-SNAT-CHAIN-0).
func (o *Owner) awsNative(n nativePlace) {
	o.Setting = "AWS_VPC_K8S_CNI_EXTERNALSNAT"
	o.Change = []string{"kubectl -n kube-system set env daemonset aws-node AWS_VPC_K8S_CNI_EXTERNALSNAT=true"}
	if n.translates() {
		o.alien(n)
	}
}
