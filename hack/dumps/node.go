package main

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/tools/txtar"

	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// nodeSetup is how a node is before the program runs.
type nodeSetup struct {
	veths   []string
	bridges []bridge
	ip      []string
	sysctls []string // key=value
	// after are more commands of ip, once the program has run.
	after []string
	// rebuilt, where not nil, is what the situation says instead.
	rebuilt *nodeSetup
}

// bridge with the veths that are its ports.
type bridge struct {
	name  string
	ports []string
}

// usual is a node with two uplinks, and pods behind cni0: 10.244.1.0/24 here,
// 10.244.2.0/24 behind the other node, 192.168.5.11.
func usual() nodeSetup {
	return nodeSetup{
		veths:   []string{"eth0", "eth1"},
		bridges: []bridge{{"cni0", []string{"vethpod1"}}},
		ip: []string{
			"addr add 192.168.5.10/24 dev eth0", "addr add fd00:192:168:5::10/64 dev eth0 nodad",
			"addr add 172.31.0.10/24 dev eth1", "addr add fd00:172:31::10/64 dev eth1 nodad",
			"addr add 10.244.1.1/24 dev cni0", "addr add fd00:10:244:1::1/64 dev cni0 nodad",
			"route add default via 192.168.5.1 dev eth0", "route add default via fd00:192:168:5::1 dev eth0",
			"route add 10.244.2.0/24 via 192.168.5.11 dev eth0", "route add fd00:10:244:2::/64 via fd00:192:168:5::11 dev eth0",
		},
		sysctls: []string{"net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"},
	}
}

// foreignNode is the usual node for package foreign.
func foreignNode() foreign.Node {
	prefix, address := netip.MustParsePrefix, netip.MustParseAddr
	return foreign.Node{
		Bridge: "cni0",
		IPv4: foreign.Addresses{ClusterPods: prefix("10.244.0.0/16"), LocalPods: prefix("10.244.1.0/24"),
			PodSubnets: []netip.Prefix{prefix("10.244.1.0/24"), prefix("10.244.2.0/24")},
			Pods:       []netip.Addr{address("10.244.1.7"), address("10.244.1.8")},
			Nodes:      []netip.Addr{address("192.168.5.10"), address("192.168.5.11")}},
		IPv6: foreign.Addresses{ClusterPods: prefix("fd00:10:244::/48"), LocalPods: prefix("fd00:10:244:1::/64"),
			PodSubnets: []netip.Prefix{prefix("fd00:10:244:1::/64"), prefix("fd00:10:244:2::/64")},
			Pods:       []netip.Addr{address("fd00:10:244:1::7"), address("fd00:10:244:1::8")},
			Nodes:      []netip.Addr{address("fd00:192:168:5::10"), address("fd00:192:168:5::11")}},
	}
}

// setUp makes the node's links and runs its commands. MAC addresses count up,
// so that a dump made again is the same.
func (h *host) setUp() error {
	s := h.dump.node
	number := 0
	settle := func(name string) error { // an IPv6 address is made of the MAC address when it comes up
		number++
		mac := fmt.Sprintf("02:00:00:00:00:%02x", number)
		_, err := h.ns.Run(fmt.Sprintf("link set %[1]s down\nlink set %[1]s address %s\nlink set %[1]s up\n", name, mac), "ip", "-batch", "-")
		return err
	}
	veth := func(name string) error {
		if err := netns.Veth(h.ns, name, h.far, fmt.Sprintf("far%d", number)); err != nil {
			return err
		}
		return settle(name)
	}
	for _, v := range s.veths {
		if err := veth(v); err != nil {
			return err
		}
	}
	for _, b := range s.bridges {
		if err := errors.Join(h.ns.Bridge(b.name), settle(b.name)); err != nil {
			return err
		}
		for _, p := range b.ports {
			if err := veth(p); err != nil {
				return err
			}
			if err := h.ns.Enslave(p, b.name); err != nil {
				return err
			}
		}
	}
	for _, pair := range s.sysctls {
		key, value, _ := strings.Cut(pair, "=")
		if err := h.ns.Sysctl(key, value); err != nil {
			return err
		}
	}
	_, err := h.ns.Run(strings.Join(s.ip, "\n")+"\n", "ip", "-batch", "-")
	return err
}

// text is the file "situation".
func (s nodeSetup) text() string {
	if s.rebuilt != nil {
		return s.rebuilt.text()
	}
	var b strings.Builder
	for _, v := range s.veths {
		fmt.Fprintf(&b, "veth %s\n", v)
	}
	for _, x := range s.bridges {
		fmt.Fprintf(&b, "bridge %s %s\n", x.name, strings.Join(x.ports, " "))
	}
	for _, pair := range s.sysctls {
		fmt.Fprintf(&b, "sysctl %s\n", pair)
	}
	for _, line := range append(s.ip, s.after...) {
		fmt.Fprintf(&b, "ip %s\n", line)
	}
	return b.String()
}

// sysctlPattern is of those that decide about packets.
const sysctlPattern = `^net.ipv[46].(ip_forward$|conf.[^.]*.(forwarding|rp_filter|route_localnet|accept_local)$)|bridge-nf-call|nf_conntrack_tcp_loose`

// take reads all that the snapshot of a node has.
func (h *host) take() ([]byte, error) {
	if _, err := h.ns.Run(strings.Join(h.dump.node.after, "\n")+"\n", "ip", "-batch", "-"); err != nil {
		return nil, err
	}
	suffix := map[foreign.Variant]string{foreign.NFT: snapshot.FileIPTables, foreign.Legacy: snapshot.FileIPTablesLegacy}[h.dump.variant]
	suffix6 := map[foreign.Variant]string{foreign.NFT: snapshot.FileIP6Tables, foreign.Legacy: snapshot.FileIP6TablesLegacy}[h.dump.variant]
	save := "-" + string(h.dump.variant) + "-save"
	a := &txtar.Archive{Comment: []byte(h.dump.about + "\n")}
	a.Files = append(a.Files, txtar.File{Name: "situation", Data: []byte(h.dump.node.text())})
	for _, f := range []struct {
		name    string
		command []string
	}{
		{suffix, []string{"iptables" + save}}, {suffix6, []string{"ip6tables" + save}}, {snapshot.FileIPSet, []string{"ipset", "save"}},
		{snapshot.FileLinks, []string{"ip", "-j", "-d", "link", "show"}}, {snapshot.FileAddresses, []string{"ip", "-j", "-d", "addr", "show"}},
		{snapshot.FileRoutes, []string{"ip", "-j", "-d", "-4", "route", "show", "table", "all"}}, {snapshot.FileRules, []string{"ip", "-j", "-d", "-4", "rule", "show"}},
		{snapshot.FileRoutes6, []string{"ip", "-j", "-d", "-6", "route", "show", "table", "all"}}, {snapshot.FileRules6, []string{"ip", "-j", "-d", "-6", "rule", "show"}},
		{snapshot.FileSysctl, []string{"sysctl", "-a", "--pattern", sysctlPattern}},
		{snapshot.FileNFT, []string{"nft", "-j", "list", "ruleset"}},
	} {
		if f.name == snapshot.FileNFT && !h.dump.native {
			continue
		}
		text, err := h.ns.Run("", f.command[0], f.command[1:]...)
		if err != nil {
			return nil, err
		}
		if text = settled(text); text != "" {
			a.Files = append(a.Files, txtar.File{Name: f.name, Data: []byte(text)})
		}
	}
	if h.dump.native {
		text, err := h.nativeTables()
		if err != nil {
			return nil, err
		}
		a.Files = append(a.Files, txtar.File{Name: "ruleset.nft", Data: []byte(settled(text))})
	}
	return txtar.Format(a), nil
}

// nativeTables are the tables that are nobody's but nft's, as nft -f takes them:
// the same as in nft.json, beside the tables of iptables.
func (h *host) nativeTables() (string, error) {
	var b strings.Builder
	names, err := h.ns.Run("", "nft", "list", "tables")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(names) {
		words := strings.Fields(line)
		if slices.Contains([]string{"filter", "nat", "mangle", "raw", "security"}, words[2]) {
			continue
		}
		text, err := h.ns.Run("", "nft", "list", "table", words[1], words[2])
		if err != nil {
			return "", err
		}
		b.WriteString(text)
	}
	return b.String(), nil
}

var (
	counters = regexp.MustCompile(`\[\d+:\d+\]`)
	// nftCounters in text and JSON.
	nftCounters  = regexp.MustCompile(`packets \d+ bytes \d+`)
	jsonCounters = regexp.MustCompile(`"packets": \d+, "bytes": \d+`)
	date         = regexp.MustCompile(`(?m)^(# (?:Generated|Completed).* on ).*$`)
	// dockerBridge and dockerMAC are random.
	dockerBridge = regexp.MustCompile(`br-[0-9a-f]{12}`)
	dockerMAC    = regexp.MustCompile(`02:42(:[0-9a-f]{2}){4}`)
	bridgeTimer  = regexp.MustCompile(`_timer":\d+\.\d+`)
	bridgeID     = regexp.MustCompile(`8000\.2:42:[0-9a-f:]+`)
	// newObject: a list of JSON objects has a line for each.
	newObject = regexp.MustCompile(`, ?\{("(?:ifindex|dst|type|priority|deleted)"|"(?:table|chain|rule|set|map|counter)": \{"family")`)
)

// settled takes out what differs each time a dump is made.
func settled(text string) string {
	text = counters.ReplaceAllString(text, "[0:0]")
	text = date.ReplaceAllString(text, "${1}Thu Jan  1 00:00:00 1970")
	text = dockerBridge.ReplaceAllString(text, blueBridge)
	text = dockerMAC.ReplaceAllString(text, "02:42:00:00:00:01")
	text = bridgeTimer.ReplaceAllString(text, `_timer":0.00`)
	text = bridgeID.ReplaceAllString(text, "8000.2:42:0:0:0:1")
	text = nftCounters.ReplaceAllString(text, "packets 0 bytes 0")
	text = jsonCounters.ReplaceAllString(text, `"packets": 0, "bytes": 0`)
	text = newObject.ReplaceAllString(text, ",\n{$1")
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	return text
}
