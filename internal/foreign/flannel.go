package foreign

import (
	"fmt"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
)

// FlannelOld is flannel as it was before it had a chain of its own: four rules
// in POSTROUTING, each appended; when one is missing all are deleted and
// appended anew.
//
//	-A POSTROUTING -s 172.16.0.0/16 -d 172.16.0.0/16 -j RETURN
//	-A POSTROUTING -s 172.16.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE
//	-A POSTROUTING ! -s 172.16.0.0/16 -d 172.16.4.0/24 -j RETURN
//	-A POSTROUTING ! -s 172.16.0.0/16 -d 172.16.0.0/16 -j MASQUERADE
func FlannelOld() Component {
	rules := func(n Node, f packet.Family) []string {
		a := n.Of(f)
		return []string{
			fmt.Sprintf("-s %[1]s -d %[1]s -j RETURN", a.ClusterPods),
			fmt.Sprintf("-s %s ! -d %s -j MASQUERADE", a.ClusterPods, multicast(f)),
			fmt.Sprintf("! -s %s -d %s -j RETURN", a.ClusterPods, a.LocalPods),
			fmt.Sprintf("! -s %[1]s -d %[1]s -j MASQUERADE", a.ClusterPods),
		}
	}
	write := func(n Node, v Variant, f packet.Family) []Step {
		var steps []Step
		for _, r := range rules(n, f) {
			steps = append(steps, ensure(v, f, atEnd, "POSTROUTING", strings.Fields(r)...))
		}
		return steps
	}
	return Component{
		Name:  "flannel-old",
		Write: known(write),
		Restart: known(func(n Node, v Variant, f packet.Family) []Step {
			var steps []Step
			for _, r := range rules(n, f) {
				steps = append(steps, discard(v, f, "POSTROUTING", strings.Fields(r)...))
			}
			return append(steps, write(n, v, f)...)
		}),
		Remove: known(func(n Node, v Variant, f packet.Family) []Step {
			var steps []Step
			for _, r := range rules(n, f) {
				steps = append(steps, nat(v, f, append([]string{"-D", "POSTROUTING"}, strings.Fields(r)...)...))
			}
			return steps
		}),
	}
}

const flannelJump = `POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG`

// flannelMatch is one of flannel's rules before it is written for a backend.
// Places are cluster, local, or multicast; a leading ! negates.
type flannelMatch struct{ from, to, target string }

// Flannel is flannel in its iptables mode: the chain FLANNEL-POSTRTG with its
// jump. At a restart the jump is deleted and appended again.
func Flannel() Component {
	write := func(n Node, v Variant, f packet.Family) []Step {
		return []Step{restore(v, f, append([]string{":FLANNEL-POSTRTG - [0:0]", "-A " + flannelJump}, flannelChain(n, f)...)...)}
	}
	jump := []string{"-m", "comment", "--comment", "flanneld masq", "-j", "FLANNEL-POSTRTG"}
	return Component{
		Name:  "flannel",
		Write: known(write),
		Restart: known(func(n Node, v Variant, f packet.Family) []Step {
			return append([]Step{discard(v, f, "POSTROUTING", jump...)}, write(n, v, f)...)
		}),
		Remove: known(func(_ Node, v Variant, f packet.Family) []Step {
			return []Step{restore(v, f, "-D "+flannelJump, ":FLANNEL-POSTRTG - [0:0]", "-X FLANNEL-POSTRTG")}
		}),
	}
}

// flannelChain are the rules of FLANNEL-POSTRTG.
func flannelChain(n Node, f packet.Family) []string {
	const comment = `-m comment --comment "flanneld masq"`
	lines := []string{"-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 " + comment + " -j RETURN"}
	for _, m := range []flannelMatch{
		{"local", "cluster", "RETURN"},
		{"cluster", "local", "RETURN"},
		{"!cluster", "local", "RETURN"},
		{"cluster", "!multicast", "MASQUERADE --random-fully"},
		{"!cluster", "cluster", "MASQUERADE --random-fully"},
	} {
		lines = append(lines, fmt.Sprintf("-A FLANNEL-POSTRTG %s %s %s -j %s",
			m.place(n, f, "-s", m.from), m.place(n, f, "-d", m.to), comment, m.target))
	}
	return lines
}

func (flannelMatch) place(n Node, f packet.Family, option, place string) string {
	name, negated := strings.CutPrefix(place, "!")
	prefix := map[string]string{
		"cluster": n.Of(f).ClusterPods.String(), "local": n.Of(f).LocalPods.String(), "multicast": multicast(f),
	}[name]
	if negated {
		return "! " + option + " " + prefix
	}
	return option + " " + prefix
}

// FlannelNFTables is flannel in its nftables mode: a table for each family,
// replaced whole at a restart. It compares the mark's exact value, and returns
// packets from elsewhere to any pod, unlike the iptables mode.
func FlannelNFTables() Component {
	return Component{
		Name: "flannel-nftables", Native: true,
		Write: known(func(n Node, _ Variant, f packet.Family) []Step { return []Step{nft(flannelTable(n, f)...)} }),
		Restart: known(func(n Node, _ Variant, f packet.Family) []Step {
			table := "table " + nftFamily(f) + " " + flannelTableName(f)
			return []Step{nft(append([]string{"add " + table, "delete " + table}, flannelTable(n, f)...)...)}
		}),
		Remove: known(func(_ Node, _ Variant, f packet.Family) []Step {
			return []Step{nft("delete table " + nftFamily(f) + " " + flannelTableName(f))}
		}),
	}
}

func flannelTableName(f packet.Family) string {
	if f == packet.IPv4Family {
		return "flannel-ipv4"
	}
	return "flannel-ipv6"
}

func flannelTable(n Node, f packet.Family) []string {
	a, ip, name := n.Of(f), nftFamily(f), flannelTableName(f)
	rule := func(format string, args ...any) string {
		return "\t\t" + strings.ReplaceAll(fmt.Sprintf(format, args...), "IP", ip)
	}
	return []string{
		fmt.Sprintf("table %s %s {", ip, name),
		fmt.Sprintf("\tcomment \"rules for %s\"", name),
		"\tchain postrtg {",
		"\t\tcomment \"chain to manage traffic masquerading by flannel\"",
		"\t\ttype nat hook postrouting priority srcnat; policy accept;",
		"\t\tmeta mark 0x00004000 return",
		rule("IP saddr %s IP daddr %s return", a.LocalPods, a.ClusterPods),
		rule("IP saddr %s IP daddr %s return", a.ClusterPods, a.LocalPods),
		rule("IP saddr != %s IP daddr %s return", a.LocalPods, a.ClusterPods),
		rule("IP saddr %s IP daddr != %s masquerade fully-random", a.ClusterPods, multicast(f)),
		rule("IP saddr != %[1]s IP daddr %[1]s masquerade fully-random", a.ClusterPods),
		"\t}", "}",
	}
}
