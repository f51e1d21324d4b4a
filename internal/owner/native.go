package owner

import (
	"strings"

	"github.com/unmasq/unmasq/internal/ruleset"
)

// OfNative returns the owner of a base chain of a native nftables table, which
// goes by the table's name: a component has a table of its own.
func OfNative(c ruleset.NativeChain) Owner {
	ip := c.Family == "ip" || c.Family == "ip6"
	inet := c.Family == "inet"
	switch name := c.Table; {
	case ip && name == "kube-proxy":
		return Owner{Name: KubeProxy, Version: "nftables mode", Setting: "masqueradeAll, clusterCIDR or externalTrafficPolicy",
			Change: editKubeProxy("nftables.masqueradeAll, clusterCIDR")}
	case c.Family == "ip" && name == "flannel-ipv4", c.Family == "ip6" && name == "flannel-ipv6":
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
	return nativeHost(c, ip, inet)
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

func nativeHost(c ruleset.NativeChain, ip, inet bool) Owner {
	switch name := c.Table; {
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
		return ovnKubernetesNative(c.Name)
	case (ip || inet) && name == "antrea":
		return Owner{Name: Antrea}
	case c.Family == "ip" && name == "aws-cni":
		return Owner{Name: AWSVPCCNI, Setting: "AWS_VPC_K8S_CNI_EXTERNALSNAT"}
	case (ip || inet) && name == "netbird":
		return Owner{Name: Netbird, Setting: "Masquerade of the network route"}
	case inet && strings.HasPrefix(name, "istio-"):
		return Owner{Name: Istio}
	}
	return Owner{Name: Unknown}
}
