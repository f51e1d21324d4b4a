package owner

import (
	"net/netip"
	"strings"

	"github.com/unmasq/unmasq/internal/ruleset"
)

// firewalldChain of its iptables backend: chains of zones, policies, direct rules.
//
//	POSTROUTING_ZONES, INPUT_direct, IN_public_allow, POST_home, FWDO_trusted_log
func firewalldChain(chain string) bool {
	hook, rest, ok := strings.Cut(chain, "_")
	if !ok {
		return false
	}
	switch hook {
	case "PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING":
		switch rest {
		case "direct", "ZONES", "ZONES_SOURCE", "IN_ZONES", "IN_ZONES_SOURCE", "OUT_ZONES", "OUT_ZONES_SOURCE", "POLICIES_pre", "POLICIES_post":
			return true
		}
	case "PRE", "POST", "IN", "FWDI", "FWDO", "FWD", "OUT":
		return rest != ""
	}
	return false
}

// firewalldZone is a chain of a zone that firewalld comes with, which is known as
// its even where the chains around it aren't shown.
func firewalldZone(chain string) bool {
	_, zone, _ := strings.Cut(chain, "_")
	for _, step := range [...]string{"_pre", "_log", "_deny", "_allow", "_post"} {
		zone = strings.TrimSuffix(zone, step)
	}
	switch zone {
	case "public", "internal", "external", "dmz", "work", "home", "trusted", "block", "drop", "docker", "libvirt", "libvirt-routed", "nm-shared":
		return true
	}
	return false
}

// firewalldRule: the rules around its jumps in table filter, where its chains are.
//
//	-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT
//	-A INPUT -i lo -j ACCEPT
//	-A INPUT -m conntrack --ctstate INVALID -j DROP
//	-A INPUT -j REJECT --reject-with icmp-host-prohibited
func firewalldRule(p place) bool {
	if p.table.Name != "filter" || !p.firewalldRuns() {
		return false
	}
	switch r := p.rule; asked(r) {
	case 0:
		return prohibited(r.Target) && p.chain.Name != "OUTPUT"
	case in:
		return accepts(r.Target) && named(r.In) && r.In.Name == "lo" && p.chain.Name != "OUTPUT"
	case out:
		return accepts(r.Target) && named(r.Out) && r.Out.Name == "lo" && p.chain.Name == "OUTPUT"
	case matches:
		c, ok := only(r).(ruleset.Conntrack)
		if !ok {
			return false
		}
		known := ruleset.StateRelated | ruleset.StateEstablished
		return accepts(r.Target) && (c == ruleset.Conntrack{States: known} || c == ruleset.Conntrack{States: known | ruleset.StateDNAT}) ||
			drops(r.Target) && c == ruleset.Conntrack{States: ruleset.StateInvalid}
	}
	return false
}

func (p place) firewalldRuns() bool {
	seen := p.tables[p.table]
	return seen["INPUT_ZONES"] || seen["FORWARD_IN_ZONES"] || seen["FORWARD_POLICIES_pre"]
}

// firewalldHere: a name such as IN_web may be anybody's where none of its other
// chains is.
func (p place) firewalldHere(target string) bool {
	for _, chain := range [...]string{"INPUT_ZONES", "FORWARD_IN_ZONES", "FORWARD_POLICIES_pre", "PREROUTING_ZONES", "POSTROUTING_ZONES"} {
		if p.node[chain] {
			return true
		}
	}
	return p.table.Excerpt && (firewalldZone(p.chain.Name) || firewalldZone(target)) || strings.HasSuffix(target, "_ZONES")
}

func prohibited(t ruleset.Target) bool {
	r, ok := t.(ruleset.Reject)
	return ok && strings.HasSuffix(r.With, "-prohibited")
}

// -A POST_public_allow ! -o lo -j MASQUERADE
func (p place) firewalld() Owner {
	o := Owner{Name: Firewalld, Version: "iptables backend"}
	target, _ := jump(p.rule)
	if !p.firewalldHere(target) {
		return Owner{Name: Unknown}
	}
	if strings.HasSuffix(p.chain.Name, "_direct") {
		o.Setting = "direct rules"
		o.Change = []string{"firewall-cmd --permanent --direct --get-all-rules; --remove-rule …", "firewall-cmd --reload"}
		return o
	}
	if zone, ok := strings.CutPrefix(p.chain.Name, "POST_"); ok && translatesSource(p.rule.Target) {
		zone = strings.TrimSuffix(zone, "_allow")
		o.Setting = "masquerade of zone " + zone
		o.Because = "the packet leaves by an interface of zone " + zone
		o.Change = []string{"firewall-cmd --permanent --zone=" + zone + " --remove-masquerade", "firewall-cmd --reload"}
		o.Trap = "a zone with masquerade hides every source, pods and clients of services too"
		return o
	}
	if prohibited(p.rule.Target) {
		o.Because = "no zone lets the packet through"
		o.Change = []string{"firewall-cmd --permanent --zone=trusted --add-source=PODCIDR", "firewall-cmd --reload"}
	}
	if builtIn(p.chain.Name) && target != "" {
		o.Trap = "firewall-cmd --reload writes all tables anew: other components' rules are lost until they write them again"
	}
	return o
}

// ufwChain knows ufw's own chains, of both families.
func ufwChain(chain string) bool {
	rest, ok := strings.CutPrefix(chain, "ufw-")
	if !ok {
		if rest, ok = strings.CutPrefix(chain, "ufw6-"); !ok {
			return false
		}
	}
	switch rest {
	case "not-local", "logging-allow", "logging-deny", "user-limit", "user-limit-accept":
		return true
	}
	for _, hook := range [...]string{"-input", "-output", "-forward"} {
		what, ok := strings.CutSuffix(rest, hook)
		if !ok {
			continue
		}
		switch what {
		case "before", "after", "user", "reject", "track", "skip-to-policy", "before-logging", "after-logging", "user-logging":
			return true
		}
	}
	return false
}

func (p place) ufw() Owner {
	o := Owner{Name: UFW, Change: []string{"ufw status numbered; ufw delete NUMBER"}}
	target, _ := jump(p.rule)
	switch {
	case strings.HasPrefix(target, "ufw-reject-"), strings.HasPrefix(p.chain.Name, "ufw-skip-to-policy-"):
		o.Setting = "DEFAULT_INPUT_POLICY, DEFAULT_FORWARD_POLICY"
		o.Change = []string{"/etc/default/ufw: DEFAULT_FORWARD_POLICY=\"ACCEPT\", then ufw reload", "ufw route allow from PODCIDR"}
	case strings.HasPrefix(p.chain.Name, "ufw-before-"), strings.HasPrefix(p.chain.Name, "ufw6-before-"):
		o.Setting = "/etc/ufw/before.rules"
		o.Change = []string{"edit /etc/ufw/before.rules, then ufw reload"}
	case strings.HasPrefix(p.chain.Name, "ufw-user-"), strings.HasPrefix(p.chain.Name, "ufw6-user-"):
		o.Setting = "ufw's own rules"
	default:
		o.Change = nil
	}
	return o
}

func ufwPolicy(chain string) Owner {
	field := map[string]string{"INPUT": "DEFAULT_INPUT_POLICY", "FORWARD": "DEFAULT_FORWARD_POLICY", "OUTPUT": "DEFAULT_OUTPUT_POLICY"}[chain]
	return Owner{Name: UFW, Setting: field, Change: []string{"/etc/default/ufw: " + field + "=\"ACCEPT\", then ufw reload"}}
}

func libvirtChain(chain string) bool {
	switch chain {
	case "LIBVIRT_PRT", "LIBVIRT_FWI", "LIBVIRT_FWO", "LIBVIRT_FWX", "LIBVIRT_INP", "LIBVIRT_OUT":
		return true
	}
	return false
}

// libvirtHides is a NAT rule of a network N:
//
//	-A LIBVIRT_PRT -s 192.168.122.0/24 -d 224.0.0.0/24 -j RETURN
//	-A LIBVIRT_PRT -s 192.168.122.0/24 -d 255.255.255.255/32 -j RETURN
//	-A LIBVIRT_PRT -s 192.168.122.0/24 ! -d 192.168.122.0/24 -p tcp -j MASQUERADE --to-ports 1024-65535
//	-A LIBVIRT_PRT -s 192.168.122.0/24 ! -d 192.168.122.0/24 -j MASQUERADE
func libvirtHides(r *ruleset.Rule) (network netip.Prefix, ports, ok bool) {
	n, a := r.Source.Prefix, asked(r)&^out
	if !n.IsValid() || r.Source.Not || r.Out.Not || a&^protocol != source|destination {
		return n, false, false
	}
	if returns(r.Target) {
		d := r.Destination
		return n, false, a == source|destination && !d.Not && (d.Prefix.Addr().IsMulticast() || d.Prefix.Addr() == broadcast)
	}
	if !translatesSource(r.Target) || !isNot(r.Destination, n) {
		return n, false, false
	}
	if a&protocol == 0 {
		return n, false, true
	}
	return n, true, natPorts(r.Target) == ruleset.PortRange{First: 1024, Last: 65535}
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

func natPorts(t ruleset.Target) ruleset.PortRange {
	var p *ruleset.PortRange
	switch t := t.(type) {
	case ruleset.Masquerade:
		p = t.Ports
	case ruleset.SNAT:
		p = t.Ports
	}
	if p == nil {
		return ruleset.PortRange{}
	}
	return *p
}

// libvirtNetworks are those whose rules stand together in POSTROUTING, as libvirt
// before 5.1 wrote them: the two with ports are its mark.
func libvirtNetworks(c *ruleset.Chain) map[netip.Prefix]bool {
	if c.Name != "POSTROUTING" {
		return nil
	}
	count, found := map[netip.Prefix]int{}, map[netip.Prefix]bool{}
	for i := range c.Rules {
		if network, ports, ok := libvirtHides(&c.Rules[i]); ok && ports {
			count[network]++
			found[network] = count[network] >= 2
		}
	}
	return found
}

// libvirtRule: NAT of old versions, and filter rules on its bridges virbrN.
//
//	-A FORWARD -d 192.168.122.0/24 -o virbr0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
//	-A FORWARD -o virbr0 -j REJECT --reject-with icmp-port-unreachable
//	-A INPUT -i virbr0 -p udp -m udp --dport 53 -j ACCEPT
//	-A POSTROUTING -o virbr0 -p udp -m udp --dport 68 -j CHECKSUM --checksum-fill
func libvirtRule(p place) bool {
	r := p.rule
	if p.table.Name == "nat" {
		network, _, ok := libvirtHides(r)
		return ok && p.libvirtOld[p.chain][network]
	}
	if !virbr(r.In) && !virbr(r.Out) || r.Comment != "" {
		return false
	}
	fill, inert := r.Target.(ruleset.Inert)
	if p.table.Name == "mangle" {
		return inert && fill.Name == "CHECKSUM"
	}
	_, rejects := r.Target.(ruleset.Reject)
	switch a := asked(r); p.chain.Name {
	case "INPUT", "OUTPUT":
		return accepts(r.Target) && (a == in|protocol|matches || a == out|protocol|matches) && destinationPort(r)
	case "FORWARD":
		own := a == source|in && accepts(r.Target) || a == destination|out|matches && established(r) && accepts(r.Target)
		between := a == in|out && r.In == r.Out && accepts(r.Target)
		return own || between || (a == in || a == out) && rejects
	}
	return false
}

func virbr(i ruleset.Interface) bool {
	return named(i) && afterPrefix(i.Name, digits, "virbr")
}

const libvirtEdit = "virsh net-edit NETWORK   # <forward mode='route'/>; then virsh net-destroy NETWORK; virsh net-start NETWORK"

// libvirtRejects says why a rule of table filter does.
func (p place) libvirtRejects(o *Owner) {
	if _, rejects := p.rule.Target.(ruleset.Reject); !rejects {
		return
	}
	if o.Because = "libvirt lets no more through from " + p.rule.In.Name; p.rule.Out.Name != "" {
		o.Because = "of what comes from outside, libvirt lets replies alone through to " + p.rule.Out.Name
	}
	o.Setting = "forward mode of the network"
	o.Change = []string{strings.Replace(libvirtEdit, "mode='route'", "mode='open'", 1)}
	o.Trap = "with mode open libvirt writes no rules for the network, NAT neither"
}

func (p place) libvirt() Owner {
	o := Owner{Name: Libvirt, Version: "≥ 5.1"}
	if target, _ := jump(p.rule); builtIn(p.chain.Name) && !libvirtChain(target) {
		o.Version = "< 5.1"
	}
	if p.table.Name != "nat" || target(p.rule) {
		p.libvirtRejects(&o)
		return o
	}
	if _, _, ok := libvirtHides(p.rule); !ok {
		return alien(Libvirt, p.chain.Name)
	}
	o.Setting = "forward mode nat of the network"
	o.Change = []string{libvirtEdit}
	o.Trap = "libvirt writes its rules again when it restarts, and when firewalld reloads"
	if translatesSource(p.rule.Target) {
		o.Because = "a packet of the network " + p.rule.Source.Prefix.String() + " leaves it"
	}
	return o
}

// target says whether the rule jumps to a chain.
func target(r *ruleset.Rule) bool { _, ok := jump(r); return ok }

// lxdComment of LXD, and of Incus, which came of it.
func lxdComment(text string) bool {
	return hasAnyPrefix(text, "generated for LXD network", "generated for Incus network")
}

// lxd describes its rules: of one network, whose source and destination are the same.
//
//	-A POSTROUTING -s 10.105.28.0/24 ! -d 10.105.28.0/24 -m comment --comment "generated for LXD network lxdbr0" -j MASQUERADE
func (p place) lxd() Owner {
	r := p.rule
	o, program := Owner{Name: LXD}, "lxc"
	name, _ := strings.CutPrefix(r.Comment, "generated for LXD ")
	if incus, ok := strings.CutPrefix(r.Comment, "generated for Incus "); ok {
		name, o.Version, program = incus, "Incus", "incus"
	}
	if network, forward := strings.CutPrefix(name, "network-forward "); forward {
		o.Setting, o.Change = "network forward", []string{program + " network forward list " + network}
		return o
	}
	network := strings.TrimPrefix(name, "network ")
	if p.table.Name != "nat" || !translatesSource(r.Target) {
		o.Setting = "ipv4.firewall, ipv6.firewall of network " + network
		o.Change = []string{program + " network set " + network + " ipv4.firewall=false"}
		return o
	}
	if asked(r) != source|destination|comment || r.Source.Not || !isNot(r.Destination, r.Source.Prefix) {
		return unknown("has LXD's comment, but excludes another destination than LXD's own rule does")
	}
	family := "ipv4"
	if r.Source.Prefix.Addr().Is6() {
		family = "ipv6"
	}
	o.Setting = family + ".nat of network " + network
	o.Because = "a packet of the network " + r.Source.Prefix.String() + " leaves it"
	o.Change = []string{program + " network set " + network + " " + family + ".nat=false"}
	o.Trap = "it puts the rule back when it restarts"
	return o
}

func podmanChain(chain string) bool {
	switch chain {
	case "NETAVARK_FORWARD", "NETAVARK_INPUT", "NETAVARK_ISOLATION_1", "NETAVARK_ISOLATION_2", "NETAVARK_ISOLATION_3",
		"NETAVARK-HOSTPORT-DNAT", "NETAVARK-HOSTPORT-SETMARK", "NETAVARK-HOSTPORT-MASQ":
		return true
	}
	return afterPrefix(chain, hexadecimal, "NETAVARK-DN-", "NETAVARK-")
}

func podmanComment(text string) bool {
	return text == "netavark firewall rules" || text == "netavark portfw masq mark"
}

const podmanUnmanaged = "podman network create --opt mode=unmanaged …   # made anew: podman then writes no rules for it"

// podman describes what netavark, or a CNI plugin for podman's network, writes.
//
//	-A POSTROUTING -s 10.88.0.0/16 -j NETAVARK-1D8721804F16F
//	-A NETAVARK-1D8721804F16F -d 10.88.0.0/16 -j ACCEPT
//	-A NETAVARK-1D8721804F16F ! -d 224.0.0.0/4 -j MASQUERADE
func (p place) podman() Owner {
	o := Owner{Name: Podman, Version: "netavark"}
	if podmanNetwork(p.rule.Comment) {
		o.Version = "podman < 4 or with network_backend=cni"
	}
	if p.table.Name != "nat" {
		return o
	}
	chain := p.chain.Name
	if to, ok := jump(p.rule); ok && builtIn(chain) {
		chain = to
	}
	if strings.Contains(chain, "-DN-") || strings.Contains(chain, "-HOSTPORT-") {
		o.Setting = "--publish"
		o.Change = []string{"run the container without -p, or with -p ADDRESS:PORT:PORT"}
		return o
	}
	if translatesSource(p.rule.Target) {
		if r := p.rule; asked(r)&^comment != destination || !r.Destination.Not || !r.Destination.Prefix.Addr().IsMulticast() {
			return alien(Podman, p.chain.Name)
		}
		o.Because = "a packet of a container leaves its network"
	}
	o.Setting = "the bridge network"
	o.Change = []string{podmanUnmanaged}
	o.Trap = "podman writes the rules at each container's start"
	return o
}
