package sim

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/route"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

// Hooks below IP: at devices (family netdev, and inet at ingress), and on bridges.
// Neither iptables nor NAT has chains there.
const (
	ingress hook = hookCount + iota
	egress
	bridgePrerouting
	bridgeInput
	bridgeForward
	bridgeOutput
	bridgePostrouting
	allHooks
)

const deviceHooks = allHooks - hookCount

func (h hook) onBridge() bool { return h >= bridgePrerouting }

// deviceHook is the hook below IP that a base chain stands at.
func deviceHook(family string, b *nftables.Base) (h hook, ok bool) {
	switch {
	case b.Hook == "ingress" && (family == "netdev" || family == "inet"):
		return ingress, true
	case b.Hook == "egress" && family == "netdev":
		return egress, true
	case family != "bridge":
		return 0, false
	}
	for h := bridgePrerouting; h < allHooks; h++ {
		if h.String() == b.Hook {
			return h, true
		}
	}
	return 0, false
}

// deviceSlots are the chains below IP, by hook and priority; nil without any.
func (n *Node) deviceSlots() *[deviceHooks][]slot {
	var at [deviceHooks]map[int][]base
	some := false
	for _, t := range n.host.Rules.Tables {
		if t.Native == nil || t.Native.IsDormant() {
			continue
		}
		for _, c := range t.Chains {
			if c.Native.Base == nil || len(c.Rules) == 0 && c.Policy != "DROP" {
				continue
			}
			h, ok := deviceHook(t.Native.Family, c.Native.Base)
			if !ok {
				continue
			}
			some = true
			if at[h-hookCount] == nil {
				at[h-hookCount] = map[int][]base{}
			}
			priority := c.Native.Base.Priority
			at[h-hookCount][priority] = append(at[h-hookCount][priority], base{table: t, chain: c, priority: priority, native: n.nativeOf(t, c)})
		}
	}
	if !some {
		return nil
	}
	var all [deviceHooks][]slot
	does := map[*ruleset.Table]effects{}
	for h := range all {
		for _, priority := range slices.Sorted(maps.Keys(at[h])) {
			addEffects(at[h][priority], does)
			all[h] = append(all[h], slot{priority: priority, bases: at[h][priority]})
		}
	}
	return &all
}

// device is one that a packet passes below the interface that IP sees.
type device struct {
	openInterface
	// bridge that it is a port of; else empty.
	bridge string
}

// mostBelow bounds how many devices are looked for below one another.
const mostBelow = 8

// below are the devices that carry an interface's packets, from it down: the
// port of a bridge, the device of a VLAN. peer is whom the packets come from, or go to.
func (r *run) below(top *openInterface, peer netip.Addr) (all []device) {
	for d := top; d.known && len(all) < mostBelow; d = &all[len(all)-1].openInterface {
		link := r.node.host.Network.Link(d.name)
		if link == nil {
			break
		}
		switch link.Kind {
		case "bridge":
			all = append(all, device{r.portOf(link, peer), link.Name})
		case "bond", "team":
			all = append(all, device{r.portOf(link, netip.Addr{}), ""})
		case "vlan", "macvlan", "macvtap", "ipvlan", "ipvtap", "macsec":
			if link.Underlay == "" {
				return all
			}
			all = append(all, device{interfaceNamed(link.Underlay), ""})
		default: // hardware, or a tunnel, whose outer packet is another
			return all
		}
	}
	return all
}

// portOf is the port of a bridge or bond that a peer is behind: the only one, or
// the one that the neighbour and forwarding tables tell.
func (r *run) portOf(master *route.Link, peer netip.Addr) openInterface {
	n := &r.node.host.Network
	var ports []string
	for i := range n.Links {
		if n.Links[i].Master == master.Name {
			ports = append(ports, n.Links[i].Name)
		}
	}
	if len(ports) == 1 {
		return interfaceNamed(ports[0])
	}
	if f := r.learnt(master.Name, peer, func(f *route.Forward) bool { return slices.Contains(ports, f.Interface) }); f != nil {
		return interfaceNamed(f.Interface)
	}
	return openInterface{what: "port of " + master.Name, why: "which of its ports leads there isn't known", among: ports}
}

// passDevice runs the chains at a hook below IP whose priority is at least from
// and below to. in and out are the interfaces as the hook has them; what rules
// ask of them is kept there. It returns false where the packet ends.
func (r *run) passDevice(h hook, in, out *openInterface, from, to int) bool {
	before := r.hook
	ipIn, ipOut := r.in, r.out
	r.hook, r.in, r.out = h, *in, *out
	for _, s := range r.node.devices[h-hookCount] {
		if s.priority < from || s.priority >= to {
			continue
		}
		s.bases = slices.DeleteFunc(slices.Clone(s.bases), func(b base) bool { return !r.isOn(&b) })
		if !r.passSlot(&s) {
			break
		}
	}
	*in, *out = r.in, r.out
	r.hook, r.in, r.out = before, ipIn, ipOut
	return r.verdict == Accepted
}

// isOn says whether a chain is registered at the device where the packet is.
func (r *run) isOn(b *base) bool {
	at := &r.in
	switch r.hook {
	case ingress:
	case egress:
		at = &r.out
	default:
		return true
	}
	devices := b.chain.Native.Base.Devices
	if len(devices) == 0 {
		return r.isOnUnlisted(b, at)
	}
	return slices.ContainsFunc(devices, func(name string) bool {
		prefix, wildcard := strings.CutSuffix(name, "*")
		return r.interfaceIs(at, ruleset.Interface{Name: prefix, Wildcard: wildcard}, false)
	})
}

// isOnUnlisted asks about a chain whose devices aren't listed.
func (r *run) isOnUnlisted(b *base, at *openInterface) bool {
	name := at.name
	if !at.known {
		name = at.what
	}
	key := fmt.Sprintf("device %p %s", b.chain, name)
	if taken, ok := r.recall(key); ok {
		return taken == 1
	}
	const why = "older nft's JSON doesn't list them; give nft list ruleset as text"
	return r.choose(key, "devices of chain "+b.chain.Name,
		alternative{why: why, when: name + " isn't one of them"}, alternative{why: why, when: name + " is one of them"}) == 1
}

// Where br_netfilter shows frames to iptables, at prerouting and forward
// (NF_BR_PRI_BRNF of linux/netfilter_bridge.h). A chain of the same priority was
// made later, and is asked before.
const (
	lowest           = math.MinInt
	filterPrerouting = 0 + 1
	filterForward    = -1 + 1
	highest          = math.MaxInt
)

// arrive runs what is asked before IP sees a packet that comes in. Where
// br_netfilter calls iptables from the bridge, arriveRest has what comes after that.
func (r *run) arrive(called, bridged bool) bool {
	if r.node.devices == nil {
		return true
	}
	none := interfaceNamed("")
	r.lower = r.below(&r.in, r.question.Source)
	for i := len(r.lower) - 1; i >= 0; i-- {
		d := &r.lower[i]
		if !r.passDevice(ingress, &d.openInterface, &none, lowest, highest) {
			return false
		}
		if d.bridge == "" {
			continue
		}
		to := highest
		if called && i == 0 {
			to = filterPrerouting
		}
		r.bridge = d.bridge
		if !r.passDevice(bridgePrerouting, &d.openInterface, &none, lowest, to) {
			return false
		}
		if i == 0 && (called || bridged) {
			return true
		}
		if !r.passDevice(bridgeInput, &d.openInterface, &none, lowest, highest) {
			return false
		}
	}
	return r.atDevice(ingress)
}

// arriveRest goes on where br_netfilter has called iptables' PREROUTING.
func (r *run) arriveRest(bridged bool) bool {
	if r.node.devices == nil || len(r.lower) == 0 {
		return true
	}
	none, port := interfaceNamed(""), &r.lower[0].openInterface
	if !r.passDevice(bridgePrerouting, port, &none, filterPrerouting, highest) || bridged {
		return r.verdict == Accepted
	}
	return r.passDevice(bridgeInput, port, &none, lowest, highest) && r.atDevice(ingress)
}

// comesByBridge says whether the in-interface is a bridge, where chains below IP
// make that matter.
func (r *run) comesByBridge() bool {
	if r.node.devices == nil || !r.in.known {
		return false
	}
	link := r.node.host.Network.Link(r.in.name)
	return link != nil && link.Kind == "bridge"
}

// atDevice runs the chains at the in-interface itself, or the out-interface.
func (r *run) atDevice(h hook) bool {
	if r.node.devices == nil {
		return true
	}
	none, at := interfaceNamed(""), &r.in
	if h == egress {
		at = &r.out
	}
	device := *at
	defer func() { *at = device }()
	if h == egress {
		return r.passDevice(h, &none, &device, lowest, highest)
	}
	return r.passDevice(h, &device, &none, lowest, highest)
}

// crossBridge runs what is asked of a frame that goes from port to port, with
// iptables in between where br_netfilter calls it.
func (r *run) crossBridge(called bool) {
	r.bridged, r.out = true, r.in
	forwards, leaves := func() bool { return true }, func() bool { return true }
	if called {
		forwards, leaves = func() bool { return r.pass(forward) }, r.leaveBridge
	}
	if r.node.devices == nil || len(r.lower) == 0 {
		_ = forwards() && leaves()
		return
	}
	in, none := &r.lower[0].openInterface, interfaceNamed("")
	link := r.node.host.Network.Link(r.in.name)
	out := r.portOf(link, r.dst)
	_ = r.passDevice(bridgeForward, in, &out, lowest, filterForward) && forwards() && r.passDevice(bridgeForward, in, &out, filterForward, highest) &&
		r.passDevice(bridgePostrouting, &none, &out, lowest, highest) && leaves() && r.passDevice(egress, &none, &out, lowest, highest)
}

// leaveBridge is POSTROUTING as br_netfilter calls it: without an in-interface.
func (r *run) leaveBridge() bool {
	in := r.in
	r.in = interfaceNamed("")
	defer func() { r.in = in }()
	return r.pass(postrouting)
}

// depart runs what is asked of a packet that IP has sent to its out-interface.
func (r *run) depart() bool {
	if r.node.devices == nil {
		return true
	}
	if !r.atDevice(egress) {
		return false
	}
	none := interfaceNamed("")
	for _, d := range r.below(&r.out, r.hop()) {
		if r.bridge = d.bridge; d.bridge != "" &&
			(!r.passDevice(bridgeOutput, &none, &d.openInterface, lowest, highest) || !r.passDevice(bridgePostrouting, &none, &d.openInterface, lowest, highest)) {
			return false
		}
		if !r.passDevice(egress, &none, &d.openInterface, lowest, highest) {
			return false
		}
	}
	return true
}
