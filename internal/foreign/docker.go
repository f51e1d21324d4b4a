package foreign

import "github.com/unmasq/unmasq/internal/packet"

// Docker is the rule that hides a docker network, inserted at the top unless
// it is there. At a restart docker deletes the network and makes it anew, so
// that the rule comes back, above all others.
//
//	-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
func Docker() Component {
	rule := func(n Node, f packet.Family) []string {
		return []string{"-s", n.Of(f).LocalPods.String(), "!", "-o", n.Bridge, "-j", "MASQUERADE"}
	}
	write := func(n Node, v Variant, f packet.Family) []Step {
		return []Step{ensure(v, f, atTop, "POSTROUTING", rule(n, f)...)}
	}
	return Component{
		Name:  "docker",
		Write: known(write),
		Restart: known(func(n Node, v Variant, f packet.Family) []Step {
			return append([]Step{discard(v, f, "POSTROUTING", rule(n, f)...)}, write(n, v, f)...)
		}),
		Remove: known(func(n Node, v Variant, f packet.Family) []Step {
			return []Step{nat(v, f, append([]string{"-D", "POSTROUTING"}, rule(n, f)...)...)}
		}),
	}
}

// known does nothing in a family without pods.
func known(s Steps) Steps {
	return func(n Node, v Variant, f packet.Family) []Step {
		if !n.Of(f).LocalPods.IsValid() {
			return nil
		}
		return s(n, v, f)
	}
}
