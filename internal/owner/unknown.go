package owner

import (
	"fmt"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
)

// lookAlike says what a rule of a built-in chain that nobody is known to write
// looks like; empty where it looks like nothing.
func (p place) lookAlike() string {
	r := p.rule
	switch {
	case p.table.Name == "nat" && r.Out.Not && p.bridge(r.Out) && translatesSource(r.Target):
		return "looks like docker's rule for " + r.Out.Name + ", but isn't in docker's form: written or changed by hand; docker adds its own again when it restarts"
	case p.table.Name == "nat" && r.NoInterfaces && asked(r) == source && translatesSource(r.Target):
		return "the listing doesn't show interfaces: with them it may be docker's or another component's rule; iptables -L -v shows them"
	case p.table.Name == "nat" && p.chain.Name == "POSTROUTING" && alone(r):
		return "one of flannel's old rules without the others: left behind, or written by hand"
	case p.table.Name == "nat" && p.chain.Name == "POSTROUTING" && bareSource(r):
		return "a bare rule: a person, a script, or a program that leaves no sign (systemd-networkd < 248, VPN scripts)"
	case prohibited(r.Target) && asked(r) == 0:
		return "default rules of iptables-services, as RHEL, CentOS and Fedora have them in /etc/sysconfig/iptables"
	case azureWireServer(r):
		return "as Azure's node images and its Linux agent write it, to keep others from the wire server 168.63.129.16"
	}
	return ""
}

func alone(r *ruleset.Rule) bool {
	role, _ := flannelRole(r)
	return role == leaving || role == entering
}

// deletion is the command that takes the rule away, where that can be told.
func (p place) deletion() []string {
	r := p.rule
	program := "iptables"
	if p.table.Family == packet.IPv6Family {
		program = "ip6tables"
	}
	program += map[ruleset.Variant]string{ruleset.Legacy: "-legacy", ruleset.NFT: "-nft"}[p.table.Variant]
	var change []string
	if text, ok := strings.CutPrefix(r.Text, "-A "); ok {
		change = append(change, fmt.Sprintf("%s -t %s -D %s", program, p.table.Name, text))
	} else if r.Index > 0 && !p.table.Excerpt {
		change = append(change, fmt.Sprintf("%s -t %s -D %s %d", program, p.table.Name, p.chain.Name, r.Index))
	}
	if prohibited(r.Target) {
		change = append(change, "edit /etc/sysconfig/iptables, then systemctl restart iptables")
	}
	return append(change, "find what writes it: grep -rE 'iptables|nft' /etc/systemd /etc/rc.local /etc/network /etc/cron* /etc/ufw /etc/sysconfig")
}
