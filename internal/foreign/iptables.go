package foreign

import (
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
)

// multicast of a family, which most components except.
func multicast(f packet.Family) string {
	if f == packet.IPv4Family {
		return "224.0.0.0/4"
	}
	return "ff00::/8"
}

// nft returns the native family's name: ip, ip6.
func nftFamily(f packet.Family) string {
	if f == packet.IPv4Family {
		return "ip"
	}
	return "ip6"
}

// iptables is the program of a variant and family, such as ip6tables-legacy.
func iptables(v Variant, f packet.Family) string {
	return nftFamily(f) + "tables-" + string(v)
}

// nat is one call of iptables on the nat table.
func nat(v Variant, f packet.Family, args ...string) Step {
	return Step{Program: iptables(v, f), Args: natArgs(args)}
}

func natArgs(args []string) []string {
	return append([]string{"--wait", "-t", "nat"}, args...)
}

// Where a rule that is missing goes.
const (
	atTop = "-I"
	atEnd = "-A"
)

// ensure puts a rule into a chain unless it is there already, as most
// components do: `iptables -C … || iptables -A …`.
func ensure(v Variant, f packet.Family, where, chain string, rule ...string) Step {
	s := nat(v, f, append([]string{where, chain}, rule...)...)
	s.Unless = natArgs(append([]string{"-C", chain}, rule...))
	return s
}

// discard deletes a rule that may be missing.
func discard(v Variant, f packet.Family, chain string, rule ...string) Step {
	s := nat(v, f, append([]string{"-D", chain}, rule...)...)
	s.MayFail = true
	return s
}

// restore is one batch for the nat table; a chain that a line declares is
// emptied first.
func restore(v Variant, f packet.Family, lines ...string) Step {
	return Step{
		Program: iptables(v, f) + "-restore",
		Args:    []string{"--wait=5", "--noflush"},
		Stdin:   "*nat\n" + strings.Join(lines, "\n") + "\nCOMMIT\n",
	}
}

// nft is one transaction of the nft program.
func nft(lines ...string) Step {
	return Step{Program: "nft", Args: []string{"-f", "-"}, Stdin: strings.Join(lines, "\n") + "\n"}
}
