package link

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"go4.org/netipx"

	"github.com/unmasq/unmasq/internal/facts"
)

// serviceLinks hold the addresses of services, not the node's: kube-proxy's
// and kube-router's IPVS modes put every ClusterIP on one of them.
var serviceLinks = []string{"kube-ipvs0", "kube-dummy-if"}

// NodeAddresses are the global unicast addresses of all interfaces that are
// up, a pod bridge's gateway address included: the node answers to all of
// them. Link-local and loopback addresses are not among them.
func (h Host) NodeAddresses() []facts.Found[netip.Addr] {
	var found []facts.Found[netip.Addr]
	for l, a := range h.addresses {
		if a.Addr.IsGlobalUnicast() {
			found = append(found, facts.Found[netip.Addr]{Value: a.Addr, Origin: "interface " + l.Name})
		}
	}
	return found
}

// Broadcasts are the broadcast addresses of IPv4 subnets: the configured one,
// and the last address of the subnet, which the kernel treats as broadcast
// from /30 on, configured or not (net/ipv4/fib_frontend.c, fib_add_ifaddr).
// 255.255.255.255 is left out; it belongs to no subnet.
func (h Host) Broadcasts() []facts.Found[netip.Addr] {
	var found []facts.Found[netip.Addr]
	add := func(l Link, a netip.Addr) {
		if a.IsValid() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
			f := facts.Found[netip.Addr]{Value: a, Origin: "interface " + l.Name}
			if !slices.Contains(found, f) {
				found = append(found, f)
			}
		}
	}
	for l, a := range h.addresses {
		if !a.Addr.Is4() || a.Addr.IsLoopback() {
			continue
		}
		add(l, a.Broadcast)
		if a.Subnet.Bits() <= 30 {
			add(l, netipx.PrefixLastIP(a.Subnet))
		}
	}
	return found
}

// PodSubnets are the subnets of pod bridges. A bridge counts when it is up, has a
// global address, no default route leaves by it, and none of its ports leads
// to the network outside or to a virtual machine.
func (h Host) PodSubnets() []facts.Found[netip.Prefix] {
	var found []facts.Found[netip.Prefix]
	for l, a := range h.addresses {
		if h.podBridge(l) && a.Addr.IsGlobalUnicast() && !a.Subnet.IsSingleIP() {
			found = append(found, facts.Found[netip.Prefix]{Value: a.Subnet, Origin: bridgeOrigin(l.Name)})
		}
	}
	return found
}

// TunnelPorts are the UDP ports that tunnel links send their outer packets to.
func (h Host) TunnelPorts() []facts.Found[uint16] {
	var found []facts.Found[uint16]
	for _, l := range h.Links {
		if l.TunnelPort != 0 {
			found = append(found, facts.Found[uint16]{Value: l.TunnelPort, Origin: fmt.Sprintf("%s link %s", l.Kind, l.Name)})
		}
	}
	return found
}

// addresses yields the addresses of links that are up, services' left out.
func (h Host) addresses(yield func(Link, Address) bool) {
	for _, l := range h.Links {
		if !l.Up || slices.Contains(serviceLinks, l.Name) {
			continue
		}
		for _, a := range l.Addresses {
			if !yield(l, a) {
				return
			}
		}
	}
}

// outwardKinds of ports lead out of the host or into a virtual machine. A
// container's port is a veth or netkit; vxlan joins container networks of several hosts.
var outwardKinds = []string{"device", "tun", "tuntap", "macvtap", "ipvtap", "bond", "team", "vlan", "macvlan", "ipvlan"}

func (h Host) podBridge(l Link) bool {
	// libvirt's bridges are for virtual machines even while none runs.
	if l.Kind != "bridge" || strings.HasPrefix(l.Name, "virbr") || slices.Contains(h.DefaultRoutes, l.Index) {
		return false
	}
	return !slices.ContainsFunc(h.Links, func(port Link) bool {
		return port.Master == l.Index && slices.Contains(outwardKinds, port.Kind)
	})
}

// dockerNetwork is the name that docker gives to the bridge of a network: its
// id's first twelve digits.
var dockerNetwork = regexp.MustCompile(`^br-[0-9a-f]{12}$`)

// bridgeOrigin names a bridge and, where the name tells, who made it.
func bridgeOrigin(name string) string {
	owners := []struct{ prefix, owner string }{
		{"docker0", "docker"}, {"docker_gwbridge", "docker"}, {"cni-podman", "podman"}, {"podman", "podman"},
		{"cni0", "CNI bridge"}, {"cbr0", "kubenet"}, {"kube-bridge", "kube-router"},
		{"weave", "weave"}, {"lxdbr", "lxd"}, {"incusbr", "incus"},
	}
	for _, o := range owners {
		if strings.HasPrefix(name, o.prefix) {
			return fmt.Sprintf("bridge %s (%s)", name, o.owner)
		}
	}
	if dockerNetwork.MatchString(name) {
		return fmt.Sprintf("bridge %s (docker network)", name)
	}
	return "bridge " + name
}

// sorted puts what the kernel lists in no promised order into one, so that equal
// states are equal values.
func (h Host) sorted() Host {
	slices.SortFunc(h.Links, func(a, b Link) int { return cmp.Compare(a.Index, b.Index) })
	for _, l := range h.Links {
		slices.SortStableFunc(l.Addresses, func(a, b Address) int { return a.Addr.Compare(b.Addr) })
	}
	slices.Sort(h.DefaultRoutes)
	h.DefaultRoutes = slices.Compact(h.DefaultRoutes)
	return h
}
