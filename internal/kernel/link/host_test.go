package link

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/facts"
)

// on makes an address from "192.0.2.1/24" and a broadcast address, "" for none.
func on(prefix, broadcast string) Address {
	p := netip.MustParsePrefix(prefix)
	a := Address{Addr: p.Addr(), Subnet: p.Masked()}
	if broadcast != "" {
		a.Broadcast = netip.MustParseAddr(broadcast)
	}
	return a
}

// lines writes what was found as "VALUE ORIGIN".
func lines[T interface{ String() string }](found []facts.Found[T]) []string {
	var out []string
	for _, f := range found {
		out = append(out, f.Value.String()+" "+f.Origin)
	}
	return out
}

func TestNodeAddresses(t *testing.T) {
	for _, c := range []struct {
		name  string
		links []Link
		want  []string
	}{
		{"loopback and link-local are left out", []Link{
			{Name: "lo", Up: true, Loopback: true, Addresses: []Address{on("127.0.0.1/8", ""), on("::1/128", "")}},
			{Name: "eth0", Up: true, Addresses: []Address{on("192.0.2.1/24", ""), on("2001:db8::1/64", ""), on("fe80::1/64", ""), on("169.254.7.7/16", "")}},
		}, []string{"192.0.2.1 interface eth0", "2001:db8::1 interface eth0"}},
		{"an announced address on lo is the node's", []Link{
			{Name: "lo", Up: true, Loopback: true, Addresses: []Address{on("127.0.0.1/8", ""), on("198.51.100.1/32", "")}},
		}, []string{"198.51.100.1 interface lo"}},
		{"an interface that is down", []Link{
			{Name: "eth1", Addresses: []Address{on("192.0.2.1/24", "")}},
		}, nil},
		{"the node owns a bridge's gateway address", []Link{
			{Name: "docker0", Kind: "bridge", Up: true, Addresses: []Address{on("172.17.0.1/16", "")}},
		}, []string{"172.17.0.1 interface docker0"}},
		{"ClusterIPs of the IPVS modes are no node addresses", []Link{
			{Name: "kube-dummy-if", Kind: "dummy", Up: true, Addresses: []Address{on("10.96.0.1/32", "")}},
			{Name: "kube-ipvs0", Kind: "dummy", Up: true, Addresses: []Address{on("10.96.0.1/32", "")}},
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, lines(Host{Links: c.links}.NodeAddresses())); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestBroadcasts(t *testing.T) {
	for _, c := range []struct {
		name    string
		address Address
		want    []string
	}{
		{"configured", on("192.0.2.1/24", "192.0.2.255"), []string{"192.0.2.255 interface eth0"}},
		{"computed where absent", on("192.0.2.1/24", ""), []string{"192.0.2.255 interface eth0"}},
		{"an odd one beside the computed", on("192.0.2.1/24", "192.0.2.0"), []string{"192.0.2.0 interface eth0", "192.0.2.255 interface eth0"}},
		{"/30 has one", on("192.0.2.1/30", ""), []string{"192.0.2.3 interface eth0"}},
		{"/31 has none", on("192.0.2.1/31", ""), nil},
		{"/32 has none", on("192.0.2.1/32", ""), nil},
		{"a configured one on /32 counts", on("192.0.2.1/32", "192.0.2.255"), []string{"192.0.2.255 interface eth0"}},
		{"all ones is no subnet's", on("192.0.2.1/32", "255.255.255.255"), nil},
		{"IPv6 has none", on("2001:db8::1/64", ""), nil},
		{"loopback", on("127.0.0.1/8", ""), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := Host{Links: []Link{{Name: "eth0", Up: true, Addresses: []Address{c.address}}}}
			if diff := cmp.Diff(c.want, lines(h.Broadcasts())); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			h.Links[0].Up = false
			if got := lines(h.Broadcasts()); got != nil {
				t.Errorf("down: %v, want none", got)
			}
		})
	}
}

func TestPodSubnets(t *testing.T) {
	bridge := func(name string, addresses ...Address) Link {
		return Link{Index: 7, Name: name, Kind: "bridge", Up: true, Addresses: addresses}
	}
	port := func(kind string) Link { return Link{Index: 9, Name: "port", Kind: kind, Master: 7, Up: true} }
	gw := on("172.17.0.1/16", "")
	for _, c := range []struct {
		name     string
		links    []Link
		defaults []int
		want     []string
	}{
		{"docker0 without containers", []Link{bridge("docker0", gw)}, nil, []string{"172.17.0.0/16 bridge docker0 (docker)"}},
		{"a docker network", []Link{bridge("br-0123456789ab", gw)}, nil, []string{"172.17.0.0/16 bridge br-0123456789ab (docker network)"}},
		{"not quite a docker network", []Link{bridge("br-lan", gw)}, nil, []string{"172.17.0.0/16 bridge br-lan"}},
		{"both families", []Link{bridge("kube-bridge", gw, on("fd00::1/64", ""), on("fe80::1/64", ""))}, nil,
			[]string{"172.17.0.0/16 bridge kube-bridge (kube-router)", "fd00::/64 bridge kube-bridge (kube-router)"}},
		{"container ports", []Link{bridge("cni0", gw), port("veth")}, nil, []string{"172.17.0.0/16 bridge cni0 (CNI bridge)"}},
		{"an overlay's port", []Link{bridge("cni0", gw), port("vxlan")}, nil, []string{"172.17.0.0/16 bridge cni0 (CNI bridge)"}},
		{"a physical port", []Link{bridge("br0", gw), port("device")}, nil, nil},
		{"a bonded uplink", []Link{bridge("br0", gw), port("bond")}, nil, nil},
		{"a virtual machine's port", []Link{bridge("br0", gw), port("tun")}, nil, nil},
		{"another bridge's physical port", []Link{bridge("cni0", gw), {Index: 9, Name: "eth0", Kind: "device", Master: 8}}, nil,
			[]string{"172.17.0.0/16 bridge cni0 (CNI bridge)"}},
		{"the default route leaves by it", []Link{bridge("br0", gw)}, []int{7}, nil},
		{"the default route leaves by another", []Link{bridge("cbr0", gw)}, []int{2}, []string{"172.17.0.0/16 bridge cbr0 (kubenet)"}},
		{"libvirt", []Link{bridge("virbr0", gw)}, nil, nil},
		{"no address", []Link{bridge("cni0")}, nil, nil},
		{"a single address is no subnet", []Link{bridge("cni0", on("10.0.0.1/32", ""))}, nil, nil},
		{"down", []Link{{Index: 7, Name: "cni0", Kind: "bridge", Addresses: []Address{gw}}}, nil, nil},
		{"no bridge", []Link{{Index: 7, Name: "docker0", Kind: "dummy", Up: true, Addresses: []Address{gw}}}, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := Host{Links: c.links, DefaultRoutes: c.defaults}
			if diff := cmp.Diff(c.want, lines(h.PodSubnets())); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestTunnelPorts(t *testing.T) {
	h := Host{Links: []Link{
		{Name: "flannel.1", Kind: "vxlan", TunnelPort: 8472, Up: true}, {Name: "eth0", Kind: "device"},
		{Name: "wg0", Kind: "wireguard", TunnelPort: 51900}, // down: may come up without telling us its port anew
	}}
	want := []facts.Found[uint16]{{Value: 8472, Origin: "vxlan link flannel.1"}, {Value: 51900, Origin: "wireguard link wg0"}}
	if diff := cmp.Diff(want, h.TunnelPorts()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestListenPort(t *testing.T) {
	attr := func(kind uint16, value ...byte) []byte {
		b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
		b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
		return append(b, make([]byte, (4-len(b)%4)%4)...)
	}
	port := binary.NativeEndian.AppendUint16(nil, 51900)
	header := []byte{0, 1, 0, 0}
	name := attr(unix.WGDEVICE_A_IFNAME, 'w', 'g', '0', 0)
	for _, c := range []struct {
		name string
		msg  []byte
		want uint16
	}{
		{"after other attributes", append(append(header[:4:4], name...), attr(unix.WGDEVICE_A_LISTEN_PORT, port...)...), 51900},
		{"none", append(header[:4:4], name...), 0},
		{"no attributes", header, 0},
		{"empty", nil, 0},
		{"a short value", append(header[:4:4], attr(unix.WGDEVICE_A_LISTEN_PORT, 1)...), 0},
		{"cut off", append(header[:4:4], 9, 0), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := listenPort(c.msg); got != c.want {
				t.Errorf("port %d, want %d", got, c.want)
			}
		})
	}
}
