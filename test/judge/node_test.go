package judge_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/kernel/capture"
	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/kernel/wires"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/rig"
	"github.com/unmasq/unmasq/internal/sim"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// situation is what a node is before it has rules: commands of `ip`, without
// the word ip, that run once the node's veths are there.
type situation struct {
	// veths are links of the node whose far ends the test holds.
	veths []string
	// bridges, each with the veth that is its port.
	bridges []bridge
	ip      []string
	// v6: what ip isn't told the family of is IPv6.
	v6 bool
	// addresses of the node, which packets of its own come from.
	addresses []netip.Addr
	sysctls   map[string]string
	// neighbours are addresses that packets are sent to; those in a bridge's
	// subnet are behind its port. Other links ask for nobody.
	neighbours []netip.Addr
}

type bridge struct{ name, port string }

// links that packets come in by, as rules name them.
func (s situation) links() []string {
	all := slices.Clone(s.veths)
	for _, b := range s.bridges {
		all = append(all, b.name)
	}
	return all
}

// subnets of a link: "addr add PREFIX dev LINK".
func (s situation) subnets(link string) (all []netip.Prefix) {
	for _, line := range s.ip {
		if words := strings.Fields(line); words[0] == "addr" && words[4] == link {
			all = append(all, netip.MustParsePrefix(words[2]))
		}
	}
	return all
}

// broadcasts of a link's subnets.
func (s situation) broadcasts(link string) (all []netip.Addr) {
	for _, p := range s.subnets(link) {
		if p.Addr().Is4() && p.Bits() < 31 {
			all = append(all, lastOf(p))
		}
	}
	return all
}

// node is a node in a namespace with the far ends of its links.
type node struct {
	situation
	ns    *netns.NS
	wires *rig.Wires
	// dir holds the files that the host is read from.
	dir string
	// peers are the link addresses behind the bridges.
	peers map[string]net.HardwareAddr
	// madeSets are the names of IP sets that may still be there.
	madeSets []string
	// native: nft's own tables are read too.
	native bool
}

func newNode(t *testing.T, s situation) *node {
	t.Helper()
	n := &node{situation: s, ns: netnstest.Test(t, "node"), dir: t.TempDir()}
	far := netnstest.Test(t, "far")
	for _, of := range []string{"all", "default"} { // addresses are there at once
		n.must(t, n.ns.Sysctl("net.ipv6.conf."+of+".accept_dad", "0"))
	}
	var ends []rig.Wire
	for _, link := range s.veths {
		n.must(t, netns.Veth(n.ns, link, far, "to-"+link))
		n.run(t, "", "ip", "link", "set", link, "arp", "off")
		ends = append(ends, rig.Wire{Link: link, Far: far, FarLink: "to-" + link, Broadcasts: s.broadcasts(link)})
	}
	for _, b := range s.bridges {
		n.must(t, errors.Join(netns.Veth(n.ns, b.port, far, "to-"+b.port), n.ns.Bridge(b.name), n.ns.Enslave(b.port, b.name)))
		// What comes from a pod and is sent to another goes back through the one port.
		n.run(t, "", "ip", "link", "set", b.port, "type", "bridge_slave", "hairpin", "on")
		own := slices.Clone(s.addresses)
		for _, p := range s.subnets(b.name) {
			if p.Addr().Is6() {
				own = append(own, p.Masked().Addr()) // the anycast address of all routers
			}
		}
		ends = append(ends, rig.Wire{Link: b.name, Far: far, FarLink: "to-" + b.port, OnLink: s.subnets(b.name), Own: own, Broadcasts: s.broadcasts(b.name)})
	}
	for key, value := range sysctls {
		n.must(t, n.ns.Sysctl(key, value))
	}
	for key, value := range s.sysctls {
		n.must(t, n.ns.Sysctl(key, value))
	}
	args := []string{"-batch", "-"}
	if s.v6 {
		args = append([]string{"-6"}, args...)
	}
	n.run(t, strings.Join(s.ip, "\n")+"\n", "ip", args...)
	n.addNeighbours(t, far)
	n.wires = rig.Open(t, n.ns, ends...)
	n.settle(t)
	n.capture(t)
	return n
}

// settle waits for the routes that come of IPv6 addresses: the kernel adds them
// from a work queue, a little later.
func (n *node) settle(t *testing.T) {
	const patience, pause = 5 * time.Second, 20 * time.Millisecond
	before := ""
	for deadline := time.Now().Add(patience); ; time.Sleep(pause) {
		routes := n.run(t, "", "ip", "-6", "route", "show", "table", "all")
		tentative := n.run(t, "", "ip", "-6", "addr", "show", "tentative")
		missing := slices.ContainsFunc(n.addresses, func(a netip.Addr) bool { return a.Is6() && !strings.Contains(routes, "local "+a.String()+" ") })
		if !missing && tentative == "" && routes == before {
			return
		}
		if before = routes; time.Now().After(deadline) {
			t.Fatalf("the routes of %v aren't there after %v:\n%s%s", n.addresses, patience, routes, tentative)
		}
	}
}

// addNeighbours says once and for all where a bridge's neighbours are.
func (n *node) addNeighbours(t *testing.T, far *netns.NS) {
	n.peers = map[string]net.HardwareAddr{}
	for _, b := range n.bridges {
		n.must(t, far.Do(func() error {
			i, err := net.InterfaceByName("to-" + b.port)
			if err == nil {
				n.peers[b.name] = i.HardwareAddr
			}
			return err
		}))
		n.meetOn(t, b.name, n.neighbours)
	}
}

// floods says whether a packet comes back by the bridge that it came in by, beside
// what becomes of it: a broadcast.
func (n *node) floods(f packet.Flow) bool {
	return slices.ContainsFunc(n.bridges, func(b bridge) bool {
		return b.name == f.InInterface && (slices.Contains(n.broadcasts(b.name), f.Destination) || f.Destination.IsMulticast())
	})
}

// meetOn tells a bridge where neighbours are.
func (n *node) meetOn(t *testing.T, bridge string, neighbours []netip.Addr) {
	var lines strings.Builder
	for _, a := range neighbours {
		fmt.Fprintf(&lines, "neigh replace %s lladdr %s dev %s nud permanent\n", a, n.peers[bridge], bridge)
	}
	n.run(t, lines.String(), "ip", "-batch", "-")
}

// meet makes neighbours of all that is predicted to leave by a bridge.
func (n *node) meet(t *testing.T, predicted [][]sim.Outcome) {
	for _, b := range n.bridges {
		var all []netip.Addr
		for _, outcomes := range predicted {
			for _, o := range outcomes {
				hop := o.NextHop
				if !hop.IsValid() {
					hop = o.Destination
				}
				if o.OutInterface == b.name && !slices.Contains(all, hop) && !hop.IsMulticast() {
					all = append(all, hop)
				}
			}
		}
		n.meetOn(t, b.name, all)
	}
}

// sysctls of every node. Nothing forwarded may be lost to a filter of the
// kernel's own that the test isn't about.
var sysctls = map[string]string{
	"net.ipv4.ip_forward":             "1",
	"net.ipv6.conf.all.forwarding":    "1",
	"net.ipv4.conf.all.rp_filter":     "0",
	"net.ipv4.conf.default.rp_filter": "0",
}

func (n *node) must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (n *node) run(t *testing.T, stdin, program string, args ...string) string {
	t.Helper()
	out, err := n.ns.Run(stdin, program, args...)
	n.must(t, err)
	return out
}

// capture reads all of the node as unmasq does on a live one.
func (n *node) capture(t *testing.T) {
	t.Helper()
	files, err := capture.Take(t.Context(), capture.Options{Namespace: n.ns})
	n.must(t, err)
	for name, text := range files {
		n.must(t, os.WriteFile(filepath.Join(n.dir, name), text, 0o600))
	}
}

// forget deletes all connections, so that the next packet of any is the first.
func (n *node) forget() error {
	return wires.Forget(n.ns)
}

// files of the host that rules are in, by program.
var saves = []struct{ file, program string }{
	{snapshot.FileIPTables, "iptables-nft-save"}, {snapshot.FileIP6Tables, "ip6tables-nft-save"},
	{snapshot.FileIPTablesLegacy, "iptables-legacy-save"}, {snapshot.FileIP6TablesLegacy, "ip6tables-legacy-save"},
}

// read reads the host from what the programs list in the node now. Rules of
// the families that aren't asked for are as they were at the last call.
func (n *node) read(families ...packet.Family) (*snapshot.Host, error) {
	for _, s := range saves {
		if slices.Contains(families, familyOf(s.program)) {
			text, err := n.ns.Run("", s.program)
			if err != nil {
				return nil, err
			}
			if err := os.WriteFile(filepath.Join(n.dir, s.file), []byte(text), 0o600); err != nil {
				return nil, err
			}
		}
	}
	text, err := n.ns.Run("", "ipset", "save")
	if err == nil {
		err = os.WriteFile(filepath.Join(n.dir, snapshot.FileIPSet), []byte(text), 0o600)
	}
	if err == nil && n.native {
		if text, err = n.ns.Run("", "nft", "-j", "list", "ruleset"); err == nil {
			err = os.WriteFile(filepath.Join(n.dir, snapshot.FileNFT), []byte(text), 0o600)
		}
		if err == nil {
			text, err = n.ns.Run("", "nft", "list", "chains")
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(n.dir, snapshot.FileNFTChains), []byte(text), 0o600)
		}
	}
	if err != nil {
		return nil, err
	}
	return snapshot.Read([]string{n.dir}, strings.NewReader(""))
}

func familyOf(program string) packet.Family {
	if strings.HasPrefix(program, "ip6") {
		return packet.IPv6Family
	}
	return packet.IPv4Family
}

// send sends packets, each as the first of its connection, and returns their fates.
func (n *node) send(flows []packet.Flow) ([]rig.Fate, error) { return n.sendAnd(flows, nil) }

// sendAnd calls look for some packets at a time, while their connections are there.
func (n *node) sendAnd(flows []packet.Flow, look func([]packet.Flow, []rig.Fate) error) ([]rig.Fate, error) {
	fates := make([]rig.Fate, 0, len(flows))
	for len(flows) > 0 {
		k := wires.Apart(flows)
		if err := n.forget(); err != nil {
			return nil, err
		}
		some, err := n.wires.Send(flows[:k])
		if err != nil {
			return nil, err
		}
		if look != nil {
			if err := look(flows[:k], some); err != nil {
				return nil, err
			}
		}
		fates, flows = append(fates, some...), flows[k:]
	}
	return fates, nil
}

// restore loads iptables-restore text of a family with a variant's program.
func (n *node) restore(variant string, f packet.Family, text string) error {
	program := "iptables-" + variant + "-restore"
	if f == packet.IPv6Family {
		program = "ip6tables-" + variant + "-restore"
	}
	_, err := n.ns.Run(text, program)
	return err
}

// replaceSets makes the sets of a text and destroys those that were made before,
// where no rule refers to them any more.
func (n *node) replaceSets(names []string, text string) error {
	n.madeSets = slices.DeleteFunc(n.madeSets, func(name string) bool {
		_, err := n.ns.Run("", "ipset", "destroy", name)
		return err == nil
	})
	n.madeSets = append(n.madeSets, names...)
	if text == "" {
		return nil
	}
	_, err := n.ns.Run(text, "ipset", "restore")
	return err
}
