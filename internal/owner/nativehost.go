package owner

import "strings"

// dockerNative knows docker's rules by their comments
// (libnetwork/drivers/bridge/internal/nftabler).
//
//	chain nat-postrouting-out__docker0: oifname != "docker0" ip saddr 172.17.0.0/16 counter masquerade comment "MASQUERADE"
//	chain filter-forward-in__docker0: counter drop comment "UNPUBLISHED PORT DROP"
//	chain raw-PREROUTING: ip daddr 192.0.2.2 iifname != "bridge1" counter drop comment "DROP DIRECT ACCESS"
func (o *Owner) dockerNative(n nativePlace) {
	_, bridge, _ := strings.Cut(n.chain, "__")
	switch {
	case n.rule == nil:
		o.Setting, o.Change = `"ip-masq"`, dockerMasquerade
	case n.translates():
		o.dockerNativeHides(n)
	case n.stops():
		o.dockerNativeDrops(n, bridge)
	case strings.HasSuffix(n.asks, "dnat"):
		o.Setting = "--publish"
		o.Change = []string{"run the container without -p, or with -p ADDRESS:PORT:PORT"}
	}
}

var dockerMasquerade = []string{
	`/etc/docker/daemon.json: {"ip-masq": false}, then systemctl restart docker`,
	"docker network create --opt com.docker.network.bridge.enable_ip_masquerade=false … (made anew)",
}

func (o *Owner) dockerNativeHides(n nativePlace) {
	subnet, _ := matchOf(n.rule, "ip", "saddr")
	bridge, _ := matchOf(n.rule, "meta", "oifname")
	switch {
	case n.is("oifname !=, ip saddr, masquerade", "oifname !=, ip saddr, snat") && n.comment() != "":
		o.Because = "a packet from " + subnet + ", docker's network on " + bridge + ", doesn't leave by that bridge"
		o.Setting, o.Change = `"ip-masq"; of a network: com.docker.network.bridge.enable_ip_masquerade`, dockerMasquerade
		o.Trap = "docker writes the rule again at every start; other programs' addresses in that network are hidden too"
	case n.is("fib saddr type, masquerade", "fib saddr type, snat"):
		o.Because = "the node itself is the client of a container, and docker runs without its user-land proxy"
		o.Setting, o.Change = `"userland-proxy": false`, []string{`/etc/docker/daemon.json: {"userland-proxy": true}, then systemctl restart docker`}
	case strings.HasPrefix(n.asks, "ip saddr, ip daddr, ") && n.comment() != "":
		o.Because = "hairpin: a container reaches its own published port"
		o.Trap = "without it the container would answer itself past the node, and the connection would hang"
	default:
		o.alien(n)
	}
}

func (o *Owner) dockerNativeDrops(n nativePlace, bridge string) {
	network := "docker network create --opt com.docker.network.bridge.gateway_mode_ipv4=nat-unprotected … (made anew)"
	switch n.comment() {
	case "UNPUBLISHED PORT DROP":
		o.Because = "the port isn't published (docker's network on " + bridge + ")"
		o.Setting, o.Change = "--publish", []string{"docker run -p PORT:PORT …", network}
	case "DROP DIRECT ACCESS", "SUBNET DROP EXTERNAL":
		o.Because = "the packet comes from outside straight to a container's address"
		o.Setting, o.Change = `"allow-direct-routing"`, []string{
			`/etc/docker/daemon.json: {"allow-direct-routing": true}, then systemctl restart docker`,
			"docker network create --opt com.docker.network.bridge.trusted_host_interfaces=INTERFACE … (made anew)",
		}
	case "DROP REMOTE":
		o.Because = "the port is published on the loopback address only"
		o.Setting, o.Change = "--publish 127.0.0.1:PORT:PORT", []string{"docker run -p PORT:PORT …"}
	case "INTERNAL NETWORK INGRESS", "INTERNAL NETWORK EGRESS":
		o.Because = "the network on " + bridge + " is internal"
		o.Setting, o.Change = "--internal", []string{"docker network create … without --internal (made anew)"}
	case "ICC":
		o.Because = "containers of the network on " + bridge + " may not reach each other"
		o.Setting, o.Change = "com.docker.network.bridge.enable_icc", []string{"docker network create --opt com.docker.network.bridge.enable_icc=true … (made anew)"}
	case "":
		o.alien(n)
	}
	if o.Because != "" {
		o.Trap = "docker rewrites its table, so rules added there are lost; accept in another table doesn't help against a drop here"
	}
}

// unmasqNative is this program's own table.
func (o *Owner) unmasqNative(n nativePlace) {
	o.Setting, o.Change = "the policies in force", []string{"unmasq status", "unmasq diff -f FILE"}
	if n.rule != nil && n.translates() {
		o.Because = "a rule of a SourcePolicy decides so"
		if comment := n.comment(); comment != "" {
			o.Because = "rule " + comment + " of a SourcePolicy decides so"
		}
	}
}

// systemdNative is IPMasquerade= (src/shared/firewall-util-nft.c).
//
//	chain postrouting: ip saddr @masq_saddr masquerade
func (o *Owner) systemdNative(n nativePlace) {
	o.Setting = "IPMasquerade="
	o.Change = []string{"IPMasquerade=no in the .network or .nspawn file, then networkctl reload"}
	switch {
	case !n.translates():
	case n.is("ip saddr, masquerade"):
		o.Because = "the source is in a network with IPMasquerade="
	default:
		o.alien(n)
	}
}

// firewalldNative has a chain for each zone and policy: nat_POST_public_allow.
//
//	meta nfproto ipv4 oifname != "lo" masquerade
func (o *Owner) firewalldNative(n nativePlace) {
	kind, name := firewalldNativeZone(n.chain)
	switch {
	case n.translates(), n.rule == nil:
		o.Setting = "masquerade of a " + kind
		o.Change = []string{"firewall-cmd --permanent --" + kind + "=" + name + " --remove-masquerade", "firewall-cmd --reload"}
		if n.rule != nil && name != "ZONE" {
			o.Because = kind + " " + name + " masquerades what leaves by it"
		}
	case n.stops():
		o.Setting = "target, services and ports of zones and policies"
		o.Because = "no zone or policy lets it through"
		if name != "ZONE" {
			o.Because = kind + " " + name + " doesn't let it through"
		}
		o.Change = []string{"firewall-cmd --get-active-zones; firewall-cmd --" + kind + "=" + name + " --list-all"}
	}
}

// firewalldNativeZone of nat_POST_public_allow is zone public, of
// nat_POST_policy_office_allow policy office; ZONE where the chain is no zone's.
func firewalldNativeZone(chain string) (kind, name string) {
	for _, start := range [...]string{"nat_POST_", "nat_PRE_", "filter_IN_", "filter_FWD_", "filter_FWDI_", "filter_FWDO_", "filter_OUT_", "mangle_PRE_"} {
		zone, ok := strings.CutPrefix(chain, start)
		if !ok {
			continue
		}
		for _, step := range [...]string{"_pre", "_log", "_deny", "_allow", "_post"} {
			zone = strings.TrimSuffix(zone, step)
		}
		if policy, is := strings.CutPrefix(zone, "policy_"); is {
			return "policy", policy
		}
		return "zone", zone
	}
	return "zone", "ZONE"
}

// lxdNative has chains for each network: pstrt.lxdbr0, fwd.lxdbr0.
//
//	ip saddr 10.105.28.0/24 ip daddr != 10.105.28.0/24 oifname != "lxdbr0" masquerade
func (o *Owner) lxdNative(n nativePlace) {
	program := "lxc"
	if o.Version == "Incus" {
		program = "incus"
	}
	kind, network, _ := strings.Cut(n.chain, ".")
	if network == "" {
		network = "NETWORK"
	}
	o.Setting, o.Change = "ipv4.nat, ipv6.nat of the network", []string{program + " network set " + network + " ipv4.nat=false"}
	switch {
	case n.rule == nil:
	case n.translates() && kind == "pstrt" && strings.HasPrefix(n.asks, "ip saddr, ip daddr !="):
		o.Because = "a packet leaves network " + network
	case n.translates() && strings.HasPrefix(n.asks, "ip saddr, ip daddr, "):
		o.Because, o.Setting = "hairpin: an instance reaches its own proxy device", "a device of type proxy with nat=true"
		o.Change = []string{program + " config device remove INSTANCE DEVICE"}
	case n.translates():
		o.alien(n)
	case n.stops():
		o.Setting, o.Because = "security.acls of the network, security.*_filtering of the device", "an ACL of the network, or filtering of the instance's device"
		o.Change = []string{program + " network acl list"}
	default:
		o.Setting, o.Change = "", nil
	}
}

// libvirtNative has guest_nat for translation and guest_input, guest_output,
// guest_cross for what may pass (src/network/network_nftables.c).
//
//	ip saddr 192.168.122.0/24 ip daddr != 192.168.122.0/24 counter masquerade
func (o *Owner) libvirtNative(n nativePlace) {
	o.Setting, o.Change = "forward mode nat of the network", []string{libvirtEdit}
	switch {
	case n.translates() && n.chain != "guest_nat":
		o.alien(n)
	case n.translates():
		o.Because = "a guest's packet leaves its network"
	case n.stops():
		o.Because = "guests' networks take no connections from outside"
		o.Setting, o.Change = "forward mode of the network", []string{strings.Replace(libvirtEdit, "mode='route'", "mode='open'", 1)}
	}
}

// podmanNative knows the chains of netavark's nftables driver.
//
//	chain nv_2f259bab_10_88_0_0_nm16: ip daddr != 224.0.0.0/4 masquerade
//	chain POSTROUTING: meta mark & 0x00002000 == 0x00002000 masquerade
func (o *Owner) podmanNative(n nativePlace) {
	o.Setting, o.Change = "the bridge network", []string{podmanUnmanaged}
	switch {
	case n.chain == "POSTROUTING" && n.translates() && strings.HasPrefix(n.asks, "meta mark &"):
		o.Because = "a rule that jumps to NETAVARK-HOSTPORT-SETMARK marked the packet"
		o.Setting, o.Change = "--publish", []string{"run the container without -p"}
	case strings.HasSuffix(n.asks, "jump NETAVARK-HOSTPORT-SETMARK"):
		o.Because, o.Setting, o.Change = "a container, or a client on the node, reaches a published port", "--publish", []string{"run the container without -p"}
	case n.translates() && strings.HasPrefix(n.chain, "nv_"):
		o.Because = "a container's packet leaves its network"
	case n.translates():
		o.alien(n)
	case n.stops() && strings.HasPrefix(n.chain, "NETAVARK-ISOLATION"):
		o.Because, o.Setting = "networks are isolated from each other", "isolate"
		o.Change = []string{"podman network create --opt isolate=false … (made anew)"}
	}
}

// netbirdNative (client/firewall/nftables/router_linux.go).
//
//	chain netbird-rt-postrouting: meta mark 0x0001bd21 oifname != "lo" masquerade
//	chain netbird-rt-postrouting: iifname "wt0" ip saddr 100.64.0.0/10 ip daddr 10.9.0.0/16 masquerade
func (o *Owner) netbirdNative(n nativePlace) {
	switch {
	case n.chain == "netbird-rt-postrouting":
		o.Setting = "Masquerade of the network route"
		o.Change = []string{
			"NetBird dashboard, Network Routes or Networks: turn Masquerade off for the route",
			"an exit node always masquerades: make it a network route 0.0.0.0/0 with Masquerade off",
		}
		if n.translates() {
			o.Because = "a route with masquerade leads through this peer"
			o.Trap = "without it the network behind needs a route back to the peers' range"
		}
	case n.translates():
		o.alien(n)
	case n.stops():
		o.Setting, o.Because = "access control policies", "no access control policy lets it through"
		o.Change = []string{"NetBird dashboard, Access Control: a policy for these peers and ports"}
	}
}
