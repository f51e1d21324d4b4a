package foreign

import (
	"fmt"
	"net/netip"

	"github.com/unmasq/unmasq/internal/packet"
)

// KubeRouter is kube-router with --enable-pod-egress: one rule on two ipsets.
// The sets are filled anew at every start, the rule is appended unless it is
// there. With pod egress turned off the rule goes and the sets stay.
//
//	-A POSTROUTING -m set --match-set kube-router-pod-subnets src
//	  -m set ! --match-set kube-router-pod-subnets dst
//	  -m set ! --match-set kube-router-node-ips dst -j MASQUERADE --random-fully
func KubeRouter() Component {
	write := func(n Node, v Variant, f packet.Family) []Step {
		return []Step{kubeRouterSets(n.Of(f), f), ensure(v, f, atEnd, "POSTROUTING", kubeRouterRule(f)...)}
	}
	return Component{
		Name:  "kube-router",
		Write: known(write),
		Restart: known(func(n Node, v Variant, f packet.Family) []Step {
			// The rule without --random-fully is what old versions wrote.
			rule := kubeRouterRule(f)
			return append([]Step{discard(v, f, "POSTROUTING", rule[:len(rule)-1]...)}, write(n, v, f)...)
		}),
		Remove: known(func(_ Node, v Variant, f packet.Family) []Step {
			return []Step{nat(v, f, append([]string{"-D", "POSTROUTING"}, kubeRouterRule(f)...)...)}
		}),
	}
}

// kubeRouterSet is the name of a set; IPv6's carry a prefix.
func kubeRouterSet(f packet.Family, name string) string {
	if f == packet.IPv6Family {
		return "inet6:" + name
	}
	return name
}

func kubeRouterRule(f packet.Family) []string {
	pods, nodes := kubeRouterSet(f, "kube-router-pod-subnets"), kubeRouterSet(f, "kube-router-node-ips")
	return []string{
		"-m", "set", "--match-set", pods, "src",
		"-m", "set", "!", "--match-set", pods, "dst",
		"-m", "set", "!", "--match-set", nodes, "dst",
		"-j", "MASQUERADE", "--random-fully",
	}
}

func kubeRouterSets(a Addresses, f packet.Family) Step {
	inet := map[packet.Family]string{packet.IPv4Family: "inet", packet.IPv6Family: "inet6"}[f]
	var text string
	set := func(name, kind string, members ...string) {
		name = kubeRouterSet(f, name)
		text += fmt.Sprintf("create %s %s family %s hashsize 1024 maxelem 65536 timeout 0\nflush %[1]s\n", name, kind, inet)
		for _, m := range members {
			text += fmt.Sprintf("add %s %s timeout 0\n", name, m)
		}
	}
	subnets := a.PodSubnets
	if subnets == nil {
		subnets = []netip.Prefix{a.LocalPods}
	}
	set("kube-router-pod-subnets", "hash:net", texts(subnets)...)
	set("kube-router-node-ips", "hash:ip", texts(a.Nodes)...)
	return Step{Program: "ipset", Args: []string{"-exist", "restore"}, Stdin: text}
}

func texts[T fmt.Stringer](values []T) []string {
	var out []string
	for _, v := range values {
		out = append(out, v.String())
	}
	return out
}
