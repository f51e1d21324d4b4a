package owner

import (
	"strings"
)

// portmapChain: the plugin's chains since 0.7; SNAT and SN before it.
func portmapChain(chain string) bool {
	switch chain {
	case "CNI-HOSTPORT-DNAT", "CNI-HOSTPORT-SETMARK", "CNI-HOSTPORT-MASQ", "CNI-HOSTPORT-SNAT":
		return true
	}
	return afterPrefix(chain, hexadecimal, "CNI-DN-", "CNI-SN-")
}

func portmapComment(text string) bool {
	return text == "CNI portfwd masquerade mark" || text == "CNI portfwd requiring masquerade" || hasAnyPrefix(text, `dnat name: "`, `snat name: "`)
}

// portmap describes the rules of hostPort.
//
//	-A POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ
//	-A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE
//	-A CNI-DN-2e2f8d5b91929ef9fc152 -s 127.0.0.1/32 -p tcp -m tcp --dport 8081 -j CNI-HOSTPORT-SETMARK
//	-A CNI-DN-2e2f8d5b91929ef9fc152 -p tcp -m tcp --dport 8081 -j DNAT --to-destination 10.4.0.7:80
func (p place) portmap() Owner {
	if podmanNetwork(p.rule.Comment) {
		return p.podman()
	}
	o := Owner{
		Name: CNIPortmap, Setting: "hostPort of the pod, snat of plugin portmap",
		Change: []string{
			"/etc/cni/net.d, plugin portmap: \"snat\": false (localhost and hairpin then fail)",
			"remove hostPort from the pod's ports; reach it through a Service",
		},
		Trap: "a pod keeps its rules until it is made anew",
	}
	target, _ := jump(p.rule)
	switch {
	case p.chain.Name == "CNI-HOSTPORT-MASQ" && translatesSource(p.rule.Target):
		if asked(p.rule)&^comment != matches {
			return alien(CNIPortmap, p.chain.Name)
		}
		o.Because = "a rule that jumps to CNI-HOSTPORT-SETMARK marked the packet"
	case target == "CNI-HOSTPORT-SETMARK" && is(p.rule.Source, loopback), target == "CNI-HOSTPORT-SETMARK" && p.fromLoopback():
		o.Because = "a client on the node reaches a hostPort through localhost"
	case target == "CNI-HOSTPORT-SETMARK" && asksAddress(p.rule.Source):
		o.Because = "hairpin: a pod of the network reaches a hostPort of the network"
	case target == "CNI-HOSTPORT-SETMARK":
		o.Because, o.Setting = "masqAll is on", "masqAll of plugin portmap"
		o.Change = []string{"/etc/cni/net.d, plugin portmap: \"masqAll\": false"}
	}
	return o
}

func (p place) fromLoopback() bool {
	a, ok := single(p.rule.Source)
	return ok && a.IsLoopback()
}

// cniChain is CNI- and 24 hexadecimal digits of sha512(network + container).
func cniChain(chain string) bool {
	id, ok := strings.CutPrefix(chain, "CNI-")
	return ok && len(id) == 24 && hexadecimal(id)
}

// cniComment: name: "podnet" id: "cri-0123".
func cniComment(text string) bool {
	return strings.HasPrefix(text, `name: "`) && strings.Contains(text, `" id: "`)
}

// podmanNetwork: podman's default network, in the comment of a CNI plugin.
func podmanNetwork(text string) bool {
	return hasAnyPrefix(text, `name: "podman" id: "`, `dnat name: "podman" id: "`)
}

// cniBridge describes ipMasq of plugins bridge and ptp.
//
//	-A POSTROUTING -s 10.22.1.2/32 -m comment --comment "name: \"podnet\" id: \"cid\"" -j CNI-0adcbb0271d31dc1b1ce9566
//	-A CNI-0adcbb0271d31dc1b1ce9566 -d 10.22.1.0/24 -m comment --comment "name: \"podnet\" id: \"cid\"" -j ACCEPT
//	-A CNI-0adcbb0271d31dc1b1ce9566 ! -d 224.0.0.0/4 -m comment --comment "name: \"podnet\" id: \"cid\"" -j MASQUERADE
func (p place) cniBridge() Owner {
	target, jumps := jump(p.rule)
	switch {
	case !cniComment(p.rule.Comment):
		return alien("plugin bridge or ptp", p.chain.Name)
	case jumps && awsEgressChain(target):
		return p.aws()
	case builtIn(p.chain.Name) && (!jumps || !cniChain(target)):
		return unknown("has the comment of a CNI plugin, but not its form")
	case podmanNetwork(p.rule.Comment):
		return p.podman()
	}
	network, _, _ := strings.Cut(strings.TrimPrefix(p.rule.Comment, `name: "`), `"`)
	o := Owner{
		Name: CNIBridge, Version: "plugin bridge or ptp, network " + network, Setting: "ipMasq",
		Change: []string{"/etc/cni/net.d, network " + network + ": \"ipMasq\": false, then make the pods anew"},
		Trap:   "a pod keeps its rules until it is made anew",
	}
	if _, one := single(p.rule.Source); jumps && !one {
		o.Version = "plugin bridge or ptp < 0.8, network " + network
	}
	switch {
	case accepts(p.rule.Target):
		o.Because = "the destination is in the pod's own network"
		o.Trap = "ACCEPT hides the packet from all later rules of POSTROUTING, kube-proxy's among them"
	case translatesSource(p.rule.Target):
		o.Because = "a packet of the pod leaves its network"
	}
	return o
}

// cniFirewallChain of plugin firewall: not NAT, but often asked for.
func cniFirewallChain(chain string) bool {
	switch chain {
	case "CNI-FORWARD", "CNI-ADMIN", "CNI-ISOLATION-STAGE-1", "CNI-ISOLATION-STAGE-2":
		return true
	}
	return false
}

func cniFirewallComment(text string) bool { return strings.HasPrefix(text, "CNI firewall plugin ") }

func (p place) cniFirewall() Owner {
	if p.chain.Name == "CNI-ADMIN" {
		return unknown("added by hand to chain CNI-ADMIN, which plugin firewall keeps for such rules")
	}
	return Owner{Name: CNIFirewall, Setting: "plugin firewall", Change: []string{
		"/etc/cni/net.d: take plugin firewall out of the list, then make the pods anew",
	}}
}
