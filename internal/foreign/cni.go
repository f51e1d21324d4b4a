package foreign

import (
	"crypto/sha512"
	"fmt"
	"net/netip"

	"github.com/unmasq/unmasq/internal/packet"
)

// cniNetwork is the name of the network in the CNI configuration that the
// rules are written for.
const cniNetwork = "podnet"

// cniPod is one local pod as a CNI plugin knows it.
type cniPod struct {
	address  netip.Addr
	id       string // container id
	chain    string
	comment  string
	selector string // the pod's address as a prefix
}

func cniPods(a Addresses) []cniPod {
	var pods []cniPod
	for i, addr := range a.Pods {
		id := fmt.Sprintf("pod-%d", i+1)
		pods = append(pods, cniPod{
			address:  addr,
			id:       id,
			chain:    fmt.Sprintf("CNI-%x", sha512.Sum512([]byte(cniNetwork+id)))[:len("CNI-")+24],
			comment:  fmt.Sprintf(`name: "%s" id: "%s"`, cniNetwork, id),
			selector: netip.PrefixFrom(addr, addr.BitLen()).String(),
		})
	}
	return pods
}

// CNIBridge is the bridge plugin with ipMasq through iptables: a chain for each
// pod. A pod that restarts has its chain removed and made anew.
//
//	-A POSTROUTING -s POD -j CNI-<hash>
//	-A CNI-<hash> -d SUBNET -j ACCEPT
//	-A CNI-<hash> ! -d 224.0.0.0/4 -j MASQUERADE
func CNIBridge() Component {
	return Component{
		Name:  "cni-bridge",
		Write: known(eachCNIPod(addCNIPod)),
		Restart: known(eachCNIPod(func(a Addresses, p cniPod, v Variant, f packet.Family) []Step {
			remove := removeCNIPod(a, p, v, f)
			for i := range remove {
				remove[i].MayFail = true
			}
			return append(remove, addCNIPod(a, p, v, f)...)
		})),
		Remove: known(eachCNIPod(removeCNIPod)),
	}
}

func eachCNIPod(steps func(Addresses, cniPod, Variant, packet.Family) []Step) Steps {
	return func(n Node, v Variant, f packet.Family) []Step {
		var all []Step
		for _, p := range cniPods(n.Of(f)) {
			all = append(all, steps(n.Of(f), p, v, f)...)
		}
		return all
	}
}

func addCNIPod(a Addresses, p cniPod, v Variant, f packet.Family) []Step {
	comment := []string{"-m", "comment", "--comment", p.comment}
	newChain := nat(v, f, "-N", p.chain)
	newChain.MayFail = true
	return []Step{
		newChain,
		ensure(v, f, atEnd, p.chain, append([]string{"-d", a.LocalPods.String(), "-j", "ACCEPT"}, comment...)...),
		ensure(v, f, atEnd, p.chain, append([]string{"!", "-d", multicast(f), "-j", "MASQUERADE"}, comment...)...),
		ensure(v, f, atEnd, "POSTROUTING", append([]string{"-s", p.selector, "-j", p.chain}, comment...)...),
	}
}

func removeCNIPod(_ Addresses, p cniPod, v Variant, f packet.Family) []Step {
	return []Step{
		nat(v, f, "-D", "POSTROUTING", "-s", p.selector, "-j", p.chain, "-m", "comment", "--comment", p.comment),
		nat(v, f, "-F", p.chain),
		nat(v, f, "-X", p.chain),
	}
}

const cniTable = "inet cni_plugins_masquerade"

// CNIBridgeNFTables is the bridge plugin with ipMasq through nftables: one
// table for both families, whose rules are written and removed a pod at a time.
func CNIBridgeNFTables() Component {
	return Component{
		Name: "cni-bridge-nftables", Native: true,
		Write: known(func(n Node, _ Variant, f packet.Family) []Step {
			return []Step{nft(append(cniTableLines(), cniChecks(n.Of(f), f)...)...)}
		}),
		Restart: known(func(n Node, _ Variant, f packet.Family) []Step {
			table := []string{"add table " + cniTable, "delete table " + cniTable}
			lines := append(table, cniTableLines()...)
			for _, each := range packet.Families {
				if n.Of(each).LocalPods.IsValid() {
					lines = append(lines, cniChecks(n.Of(each), each)...)
				}
			}
			return []Step{nft(lines...)}
		}),
		// Both families stand in one table: the first to be removed takes it away.
		Remove: known(func(Node, Variant, packet.Family) []Step {
			return []Step{nft("add table "+cniTable, "delete table "+cniTable)}
		}),
	}
}

// cniTableLines make the table and its first chain, whatever is there.
func cniTableLines() []string {
	return []string{
		"add table " + cniTable + ` { comment "Masquerading for plugins from github.com/containernetworking/plugins"; }`,
		"add chain " + cniTable + ` masq_checks { comment "Masquerade traffic from certain IPs to any (non-multicast) IP outside their subnet"; }`,
		"add chain " + cniTable + " postrouting { type nat hook postrouting priority srcnat; policy accept; }",
		"flush chain " + cniTable + " postrouting",
		"add rule " + cniTable + " postrouting ip daddr 224.0.0.0/4 return",
		"add rule " + cniTable + " postrouting ip6 daddr ff00::/8 return",
		"add rule " + cniTable + " postrouting goto masq_checks",
	}
}

func cniChecks(a Addresses, f packet.Family) []string {
	var lines []string
	for _, p := range cniPods(a) {
		network := sha512.Sum512([]byte(cniNetwork))
		pod := sha512.Sum512([]byte("eth0:" + p.id))
		comment := fmt.Sprintf("%x-%x, net: %s, if: eth0, id: %s", network[:8], pod[:8], cniNetwork, p.id)
		lines = append(lines, fmt.Sprintf("add rule %s masq_checks %s saddr %s %[2]s daddr != %[4]s masquerade comment %[5]q",
			cniTable, nftFamily(f), p.address, a.LocalPods, comment))
	}
	return lines
}
