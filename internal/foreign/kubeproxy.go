package foreign

import "github.com/unmasq/unmasq/internal/packet"

// KubeProxy is the part of kube-proxy's iptables mode that masquerades what its
// service rules have marked, as context for the others: it changes no packet
// that isn't marked 0x4000. The jump is put at the top unless it is there; the
// chains are refilled in one batch at every sync.
func KubeProxy() Component {
	jump := []string{"-m", "comment", "--comment", "kubernetes postrouting rules", "-j", "KUBE-POSTROUTING"}
	write := func(_ Node, v Variant, f packet.Family) []Step {
		newChain := nat(v, f, "-N", "KUBE-POSTROUTING")
		newChain.MayFail = true
		return []Step{newChain, ensure(v, f, atTop, "POSTROUTING", jump...), restore(v, f,
			":KUBE-MARK-MASQ - [0:0]",
			":KUBE-POSTROUTING - [0:0]",
			"-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000",
			"-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
			"-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000",
			`-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully`,
		)}
	}
	return Component{
		Name:    "kube-proxy",
		Write:   write,
		Restart: write,
		Remove: func(_ Node, v Variant, f packet.Family) []Step {
			return []Step{
				nat(v, f, append([]string{"-D", "POSTROUTING"}, jump...)...),
				restore(v, f, ":KUBE-MARK-MASQ - [0:0]", ":KUBE-POSTROUTING - [0:0]", "-X KUBE-MARK-MASQ", "-X KUBE-POSTROUTING"),
			}
		},
	}
}
