package owner

import (
	"strings"

	"github.com/unmasq/unmasq/internal/ruleset"
)

// kubeletChain: kubelet made KUBE-MARK-DROP, KUBE-MARK-MASQ and KUBE-POSTROUTING
// too up to 1.27; kube-proxy makes the last two with the same rules.
func kubeletChain(chain string) bool {
	switch chain {
	case "KUBE-KUBELET-CANARY", "KUBE-MARK-DROP", "KUBE-IPTABLES-HINT", "KUBE-FIREWALL":
		return true
	}
	return false
}

// kubelet describes its rules. KUBE-FIREWALL is kubelet's in table filter, unless
// kubelet was never here: kube-proxy ≥ 1.27 writes the same chain. In table nat it
// is a chain of kube-proxy's ipvs mode.
//
//	-A INPUT -j KUBE-FIREWALL
//	-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment "block incoming localnet connections"
//	  -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
func (p place) kubelet() Owner {
	target, _ := jump(p.rule)
	firewall := p.chain.Name == "KUBE-FIREWALL" || target == "KUBE-FIREWALL"
	if firewall && (p.table.Name == "nat" || p.node["KUBE-SERVICES"] && !p.kubeletRuns() && !p.table.Excerpt) {
		return p.kubeProxy()
	}
	o := Owner{Name: Kubelet}
	switch {
	case p.rule.Comment == "kubernetes firewall for dropping marked packets":
		o.Version = "< 1.28"
		o.Because = "a rule that jumps to KUBE-MARK-DROP marked the packet"
	case p.chain.Name == "KUBE-MARK-DROP":
		o.Version = "< 1.28"
	case p.rule.Comment == "block incoming localnet connections":
		o.Because = "the packet comes from outside and goes to the node's loopback network"
	}
	if firewall || p.chain.Name == "KUBE-MARK-DROP" {
		o.Setting = "makeIPTablesUtilChains"
		o.Change = []string{"makeIPTablesUtilChains: false in kubelet's configuration, then systemctl restart kubelet"}
	}
	return o
}

// kubeletRuns: its canaries are there since 1.17, KUBE-MARK-DROP was until 1.27.
func (x *Index) kubeletRuns() bool { return x.node["KUBE-KUBELET-CANARY"] || x.node["KUBE-MARK-DROP"] }

// kubenetComment of the one rule that kubenet wrote for itself.
func kubenetComment(text string) bool {
	return text == "kubenet: SNAT for outbound traffic from cluster"
}

// -A POSTROUTING ! -d 10.0.0.0/8 -m comment --comment "kubenet: SNAT for outbound traffic from cluster"
//
//	-m addrtype ! --dst-type LOCAL -j MASQUERADE
func (p place) kubenet() Owner {
	return Owner{
		Name: Kubenet, Version: "kubelet < 1.24 with --network-plugin=kubenet", Setting: "--non-masquerade-cidr",
		Because: "the destination isn't in the non-masquerade range",
		Change:  []string{"kubelet --non-masquerade-cidr=0.0.0.0/0 (then kubenet translates nothing, ip-masq-agent may)"},
		Trap:    "the rule stays after a change of the flag: iptables -t nat -D it by hand",
	}
}

// hostPortChain is made by kubenet, and by CRI-O, which took over its code.
func hostPortChain(chain string) bool {
	return chain == "KUBE-HOSTPORTS" || chain == "CRIO-HOSTPORTS-MASQ" || afterPrefix(chain, hash, "KUBE-HP-", "CRIO-MASQ-")
}

func hostPortComment(text string) bool {
	return text == "kube hostport portals" || text == "SNAT for localhost access to hostports"
}

// -A PREROUTING -m comment --comment "kube hostport portals" -m addrtype --dst-type LOCAL -j KUBE-HOSTPORTS
// -A POSTROUTING -s 127.0.0.0/8 -o cbr0 -m comment --comment "SNAT for localhost access to hostports" -j MASQUERADE
func (p place) hostPorts() Owner {
	o := Owner{Name: CRIO, Setting: "hostPort of the pod", Change: []string{"remove hostPort from the pod's ports; reach it through a Service"}}
	if p.kubenetWrites() {
		o.Name, o.Version = Kubenet, "kubelet < 1.24 with --network-plugin=kubenet"
	}
	if strings.HasPrefix(p.rule.Comment, "SNAT for localhost") {
		o.Because = "a client on the node reaches a hostPort through localhost"
	}
	return o
}

// kubenetWrites: its bridge is always cbr0, and CRI-O isn't there.
func (p place) kubenetWrites() bool {
	if p.node["CRIO-"] {
		return false
	}
	post := p.table.Chain("POSTROUTING")
	if post == nil {
		return false
	}
	for i := range post.Rules {
		r := &post.Rules[i]
		if kubenetComment(r.Comment) || hostPortComment(r.Comment) && named(r.Out) && r.Out.Name == "cbr0" {
			return true
		}
	}
	return false
}

func nodeLocalDNSComment(text string) bool {
	return text == "NodeLocal DNS Cache: skip conntrack" || text == "NodeLocal DNS Cache: allow DNS traffic"
}

// -A PREROUTING -d 169.254.20.10/32 -p udp -m udp --dport 53 -m comment --comment "NodeLocal DNS Cache: skip conntrack" -j NOTRACK
func (p place) nodeLocalDNS() Owner {
	o := Owner{Name: NodeLocalDNS, Setting: "-setupiptables", Change: []string{
		"kubectl -n kube-system edit daemonset node-local-dns   # args: -setupiptables=false",
	}}
	if _, ok := p.rule.Target.(ruleset.NoTrack); ok {
		o.Because = "DNS to the node's own cache needs no connection tracking"
		o.Trap = "a packet without tracking is translated by nobody"
	}
	return o
}
