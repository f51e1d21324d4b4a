package owner

import (
	"fmt"
	"strings"

	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

// native is the owner of a rule of a native table, or of a chain's policy.
func native(t *ruleset.Table, c *ruleset.Chain, rule *ruleset.Rule) Owner {
	o := ofNative(t.Native.Family, t.Name, c.Name)
	if rule == nil {
		return o
	}
	if o.Name == KubeProxy {
		o.kubeProxyNative(c.Name, rule.Native)
	}
	if o.Name == Unknown && rule.Native.Handle > 0 {
		o.Change = []string{
			fmt.Sprintf("nft delete rule %s %s %s handle %d   # until what wrote it runs again", t.Native.Family, t.Name, c.Name, rule.Native.Handle),
			"find what writes it: nft monitor, and grep -rE 'nft' /etc/systemd /etc/nftables* /etc/network /etc/cron*",
		}
	}
	return o
}

// kubeProxyNative tells why a rule of kube-proxy's nftables mode takes a packet
// (pkg/proxy/nftables/proxier.go).
//
//	chain service-SUSTUHLJ-default/web/tcp/http: ip daddr 10.96.83.77 ip saddr != 10.244.0.0/16 jump mark-for-masquerade
//	chain endpoint-…: ip saddr 10.244.1.11 jump mark-for-masquerade
//	chain external-…: fib saddr type local jump mark-for-masquerade
func (o *Owner) kubeProxyNative(chain string, rule *nftables.Rule) {
	marks, masquerades, source := kubeProxyRule(rule)
	kind, service, _ := strings.Cut(chain, "-")
	if _, name, ok := strings.Cut(service, "-"); ok { // SUSTUHLJ-default/web/tcp/http
		service = strings.Join(strings.SplitN(name, "/", 3)[:min(2, strings.Count(name, "/")+1)], "/")
	}
	switch {
	case masquerades:
		o.Because = "a rule that jumps to mark-for-masquerade marked the packet"
		o.Setting = "masqueradeAll, clusterCIDR or externalTrafficPolicy, whichever marked it"
		o.Trap = "deleting the rule breaks NodePorts and hairpin traffic, and kube-proxy writes it again"
	case marks && kind == "endpoint":
		o.hairpin()
	case marks && kind == "service" && source != "":
		o.outside("the source isn't in the cluster's pods "+source, "clusterCIDR: a range that holds the client too")
	case marks && kind == "service":
		o.Because = "masqueradeAll is on"
		o.Setting = "masqueradeAll"
		o.Change = editKubeProxy("nftables.masqueradeAll: false")
		o.Trap = "clients outside whose replies bypass this node then hang on services with a backend elsewhere"
	case marks && kind == "external" && strings.Contains(rule.Text, "fib saddr"):
		o.Because = "the node itself is the client of a service with external traffic policy Local"
	case marks && kind == "external":
		o.external(service + ":")
	case kind == "firewall":
		o.Because = "the source isn't in loadBalancerSourceRanges"
		o.Setting = "loadBalancerSourceRanges of the Service"
	case chain == "cluster-ips-check", chain == "reject-chain", strings.HasSuffix(chain, "-endpoints-check"):
		o.Because = "the service has no ready endpoint, or not this port"
	}
}

func kubeProxyRule(rule *nftables.Rule) (marks, masquerades bool, source string) {
	for _, s := range rule.Statements {
		switch s := s.(type) {
		case nftables.NAT:
			masquerades = masquerades || s.Kind == nftables.Masquerade
		case nftables.Verdict:
			marks = marks || s.Chain == "mark-for-masquerade"
		case nftables.Match:
			if p, ok := s.Left.(nftables.Payload); ok && p.Field == "saddr" && s.Op == "!=" {
				source = nftables.ExprText(s.Right)
			}
		}
	}
	return marks, masquerades, source
}

// ofNative returns the owner of a chain of a native nftables table, which goes
// by the table's name: a component has a table of its own.
func ofNative(family, name, chain string) Owner {
	ip := family == "ip" || family == "ip6"
	inet := family == "inet"
	switch {
	case ip && name == "kube-proxy":
		return Owner{Name: KubeProxy, Version: "nftables mode", Setting: "masqueradeAll, clusterCIDR or externalTrafficPolicy",
			Change: editKubeProxy("nftables.masqueradeAll, clusterCIDR")}
	case family == "ip" && name == "flannel-ipv4", family == "ip6" && name == "flannel-ipv6":
		return Owner{Name: Flannel, Version: "EnableNFTables", Setting: "--ip-masq", Change: []string{flannelEdit + "without --ip-masq"},
			Trap: "after nft flush ruleset nothing restores the table until flannel restarts"}
	case ip && name == "docker-bridges":
		return Owner{Name: Docker, Version: `≥ 29, "firewall-backend": "nftables"`, Setting: `"ip-masq": true`,
			Change: []string{`/etc/docker/daemon.json: {"ip-masq": false}, then systemctl restart docker`,
				"docker network create --opt com.docker.network.bridge.enable_ip_masquerade=false … (made anew)"}}
	case inet && name == "cni_plugins_masquerade":
		return Owner{Name: CNIBridge, Version: "ipMasqBackend nftables", Setting: "ipMasq",
			Change: []string{"/etc/cni/net.d: \"ipMasq\": false, then make the pods anew"}}
	case ip && name == "cni_hostport":
		return Owner{Name: CNIPortmap, Version: "backend nftables", Setting: "hostPort of the pod, snat of plugin portmap",
			Change: []string{"/etc/cni/net.d, plugin portmap: \"snat\": false"}}
	case inet && (name == "kindnet-ipmasq" || name == "kindnet"):
		return Owner{Name: Kindnet, Setting: "--no-masquerade-cidr, --masquerading",
			Change: []string{"kubectl -n kube-system edit daemonset kindnet   # args: --no-masquerade-cidr=CIDR,… or --masquerading=false"}}
	case inet && (name == "unmasq" || name == "unmasq-handover"):
		return Owner{Name: Unmasq, Setting: "the policies in force", Change: []string{"unmasq status", "unmasq diff -f FILE"}}
	case ip && name == "calico":
		return Owner{Name: Calico, Version: "nftablesMode", Setting: "natOutgoing of the IPPool",
			Change: []string{`kubectl patch ippool NAME --type merge -p '{"spec":{"natOutgoing":false}}'`}}
	case ip && name == "io.systemd.nat":
		return Owner{Name: SystemdNetworkd, Version: "≥ 248", Setting: "IPMasquerade=",
			Change: []string{"IPMasquerade=no in the .network or .nspawn file, then networkctl reload"}}
	}
	return nativeHost(family, name, chain, ip, inet)
}

// ovnKubernetesNative goes by the base chain: several translate, each for its own reason.
func ovnKubernetesNative(chain string) Owner {
	o := Owner{Name: OVNKubernetes}
	switch {
	case strings.HasPrefix(chain, "egress-services"):
		o.Setting, o.Change = "EgressService", []string{"kubectl get egressservice -A; kubectl edit egressservice NAME"}
	case strings.HasPrefix(chain, "ovn-kube-local-gw-masq"), strings.HasPrefix(chain, "ovn-kube-pod-subnet-masq"):
		o.Setting = "routingViaHost (--gateway-mode=local)"
		o.Change = []string{ovnKubernetesEgress}
	case strings.HasPrefix(chain, "mgmtport-"):
		o.Because = "the node's own packet goes to a pod by the management port"
	}
	return o
}

func nativeHost(family, name, chain string, ip, inet bool) Owner {
	switch {
	case (ip || inet) && name == "firewalld":
		return Owner{Name: Firewalld, Version: "nftables backend", Setting: "masquerade of a zone",
			Change: []string{"firewall-cmd --permanent --zone=ZONE --remove-masquerade", "firewall-cmd --reload"}}
	case inet && name == "lxd":
		return Owner{Name: LXD, Setting: "ipv4.nat, ipv6.nat of the network", Change: []string{"lxc network set NETWORK ipv4.nat=false"}}
	case inet && name == "incus":
		return Owner{Name: LXD, Version: "Incus", Setting: "ipv4.nat, ipv6.nat of the network", Change: []string{"incus network set NETWORK ipv4.nat=false"}}
	case ip && name == "libvirt_network":
		return Owner{Name: Libvirt, Version: "≥ 10.4", Setting: "forward mode nat of the network",
			Change: []string{libvirtEdit}}
	case inet && name == "netavark":
		return Owner{Name: Podman, Version: "netavark", Setting: "the bridge network", Change: []string{podmanUnmanaged}}
	case inet && name == "ovn-kubernetes":
		return ovnKubernetesNative(chain)
	case (ip || inet) && name == "antrea":
		return Owner{Name: Antrea}
	case family == "ip" && name == "aws-cni":
		return Owner{Name: AWSVPCCNI, Setting: "AWS_VPC_K8S_CNI_EXTERNALSNAT"}
	case (ip || inet) && name == "netbird":
		return Owner{Name: Netbird, Setting: "Masquerade of the network route"}
	case inet && strings.HasPrefix(name, "istio-"):
		return Owner{Name: Istio}
	}
	return Owner{Name: Unknown}
}
