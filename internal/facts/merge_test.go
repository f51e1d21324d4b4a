package facts_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/unmasq/unmasq/internal/facts"
	"github.com/unmasq/unmasq/internal/policy"
)

func addrs(texts ...string) []netip.Addr {
	var all []netip.Addr
	for _, s := range texts {
		all = append(all, netip.MustParseAddr(s))
	}
	return all
}

func prefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, s := range texts {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

func stated[T any](value T, origin string) policy.StatedValue[T] {
	return policy.StatedValue[T]{Set: true, Value: value, Origin: origin}
}

// found says that the first of its words was shown by the second.
func found[T any](parse func(string) T, pairs ...[2]string) []facts.Found[T] {
	var all []facts.Found[T]
	for _, p := range pairs {
		all = append(all, facts.Found[T]{Value: parse(p[0]), Origin: p[1]})
	}
	return all
}

// host is a docker and flannel host as it shows itself.
func host() facts.Discovered {
	return facts.Discovered{
		NodeAddresses: found(netip.MustParseAddr, [2]string{"fd00::138", "interface eth0"}, [2]string{"192.168.5.138", "interface eth0"},
			[2]string{"172.17.0.1", "interface docker0"}),
		Broadcasts: found(netip.MustParseAddr, [2]string{"192.168.5.255", "interface eth0"}),
		TunnelPorts: []facts.Found[uint16]{{Value: 8472, Origin: "vxlan link flannel.1"}, {Value: 4789, Origin: "vxlan link vx"},
			{Value: 8472, Origin: "vxlan link flannel-v6.1"}},
		LocalPodCIDRs: found(netip.MustParsePrefix, [2]string{"172.17.0.0/16", "bridge docker0 (docker)"}, [2]string{"172.16.4.0/24", "bridge cni0 (CNI bridge)"},
			[2]string{"172.16.4.0/24", "CNI network cbr0 in /etc/cni/net.d/10-x.conflist"}),
	}
}

// rows are facts as status prints them: name, values, origin.
func rows(all []facts.Fact) [][]string {
	var out [][]string
	for _, f := range all {
		out = append(out, append(append([]string{f.Name}, f.Values...), f.Origin))
	}
	return out
}

func TestMergeNothingStated(t *testing.T) {
	const pods = "discovered: bridge cni0 (CNI bridge), CNI network cbr0 in /etc/cni/net.d/10-x.conflist, bridge docker0 (docker)"
	got, list, _ := facts.Merge(policy.Stated{}, nil, host())
	want := policy.Facts{
		PodCIDRs: prefixes("172.16.4.0/24", "172.17.0.0/16"), LocalPodCIDRs: prefixes("172.16.4.0/24", "172.17.0.0/16"),
		NodeAddresses: addrs("172.17.0.1", "192.168.5.138", "fd00::138"), Nodes: addrs("172.17.0.1", "192.168.5.138", "fd00::138"),
		ServiceMark: policy.DefaultServiceMark, HostPortMark: policy.DefaultHostPortMark,
		Broadcasts: addrs("192.168.5.255"), TunnelPorts: []uint16{4789, 8472},
	}
	compareFacts(t, want, got)
	if diff := cmp.Diff([][]string{
		{"podCIDRs", "172.16.4.0/24", "172.17.0.0/16", "default: localPodCIDRs"},
		{"localPodCIDRs", "172.16.4.0/24", "172.17.0.0/16", pods},
		{"nodeAddresses", "172.17.0.1", "192.168.5.138", "fd00::138", "discovered: interface docker0, interface eth0"},
		{"nodes", "172.17.0.1", "192.168.5.138", "fd00::138", "default: nodeAddresses"},
		{"serviceCIDRs", "not stated"},
		{"serviceMark", "0x4000/0x4000", "default"},
		{"hostPortMark", "0x2000/0x2000", "default"},
		{"pods", "not stated"},
		{"broadcasts", "192.168.5.255", "discovered: interface eth0"},
		{"tunnelPorts", "4789", "8472", "discovered: vxlan link vx, vxlan link flannel.1, vxlan link flannel-v6.1"},
	}, rows(list)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestMergeEverythingStated(t *testing.T) {
	pod := policy.Pod{Namespace: "web", Name: "nginx", Addresses: addrs("10.1.0.7", "fd01::7")}
	got, list, _ := facts.Merge(policy.Stated{
		PodCIDRs: stated(prefixes("10.0.0.0/8"), "a.yaml:3"), LocalPodCIDRs: stated(prefixes("10.1.0.0/24"), "a.yaml:4"),
		ServiceCIDRs:  stated(prefixes("10.96.0.0/16"), "a.yaml:5"),
		NodeAddresses: stated(addrs("192.0.2.9", "192.0.2.1"), "b.yaml:3"), Nodes: stated(addrs("192.0.2.2"), "b.yaml:4"),
		ServiceMark: stated(policy.Mark{Value: 0x8000, Mask: 0xc000}, "b.yaml:5"), HostPortMark: stated(policy.Mark{Value: 1, Mask: 1}, "b.yaml:6"),
		Pods: stated([]policy.Pod{pod}, "b.yaml:7"),
	}, nil, host())
	want := policy.Facts{
		PodCIDRs: prefixes("10.0.0.0/8"), LocalPodCIDRs: prefixes("10.1.0.0/24"), ServiceCIDRs: prefixes("10.96.0.0/16"),
		NodeAddresses: addrs("192.0.2.9", "192.0.2.1"), Nodes: addrs("192.0.2.2"),
		ServiceMark: policy.Mark{Value: 0x8000, Mask: 0xc000}, HostPortMark: policy.Mark{Value: 1, Mask: 1},
		Pods: []policy.Pod{pod}, PodsKnown: true,
		Broadcasts: addrs("192.168.5.255"), TunnelPorts: []uint16{4789, 8472},
	}
	compareFacts(t, want, got)
	if diff := cmp.Diff([][]string{
		{"podCIDRs", "10.0.0.0/8", "stated in a.yaml:3"},
		{"localPodCIDRs", "10.1.0.0/24", "stated in a.yaml:4"},
		{"nodeAddresses", "192.0.2.9", "192.0.2.1", "stated in b.yaml:3"},
		{"nodes", "192.0.2.2", "stated in b.yaml:4"},
		{"serviceCIDRs", "10.96.0.0/16", "stated in a.yaml:5"},
		{"serviceMark", "0x8000/0xc000", "stated in b.yaml:5"},
		{"hostPortMark", "0x1/0x1", "stated in b.yaml:6"},
		{"pods", "web/nginx 10.1.0.7 fd01::7", "stated in b.yaml:7"},
		{"broadcasts", "192.168.5.255", "discovered: interface eth0"},
		{"tunnelPorts", "4789", "8472", "discovered: vxlan link vx, vxlan link flannel.1, vxlan link flannel-v6.1"},
	}, rows(list)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestMergeDefaultsFollow(t *testing.T) {
	for _, c := range []struct {
		name        string
		stated      policy.Stated
		pods, local []netip.Prefix
		nodes, own  []netip.Addr
		known       bool
	}{
		{
			name: "podCIDRs follow stated localPodCIDRs", stated: policy.Stated{LocalPodCIDRs: stated(prefixes("10.9.0.0/24"), "f:1")},
			pods: prefixes("10.9.0.0/24"), local: prefixes("10.9.0.0/24"),
			nodes: addrs("172.17.0.1", "192.168.5.138", "fd00::138"), own: addrs("172.17.0.1", "192.168.5.138", "fd00::138"),
		},
		{
			name: "stated podCIDRs leave localPodCIDRs discovered", stated: policy.Stated{PodCIDRs: stated(prefixes("10.0.0.0/8"), "f:1")},
			pods: prefixes("10.0.0.0/8"), local: prefixes("172.16.4.0/24", "172.17.0.0/16"),
			nodes: addrs("172.17.0.1", "192.168.5.138", "fd00::138"), own: addrs("172.17.0.1", "192.168.5.138", "fd00::138"),
		},
		{
			name: "nodes follow stated nodeAddresses", stated: policy.Stated{NodeAddresses: stated(addrs("192.0.2.1"), "f:1"), Pods: stated([]policy.Pod(nil), "f:2")},
			pods: prefixes("172.16.4.0/24", "172.17.0.0/16"), local: prefixes("172.16.4.0/24", "172.17.0.0/16"),
			nodes: addrs("192.0.2.1"), own: addrs("192.0.2.1"), known: true,
		},
		{
			name:   "an empty list is stated, too",
			stated: policy.Stated{LocalPodCIDRs: stated([]netip.Prefix(nil), "f:1"), NodeAddresses: stated([]netip.Addr(nil), "f:2")},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, _, _ := facts.Merge(c.stated, nil, host())
			got.Broadcasts, got.TunnelPorts = nil, nil
			compareFacts(t, policy.Facts{
				PodCIDRs: c.pods, LocalPodCIDRs: c.local, Nodes: c.nodes, NodeAddresses: c.own, PodsKnown: c.known,
				ServiceMark: policy.DefaultServiceMark, HostPortMark: policy.DefaultHostPortMark,
			}, got)
		})
	}
}

// cluster is what a dual-stack cluster says, whose operator stated IPv4 alone.
func cluster() *facts.Cluster {
	return &facts.Cluster{
		PodCIDRs:      found(netip.MustParsePrefix, [2]string{"10.244.0.0/16", "--pod-cidrs"}),
		LocalPodCIDRs: found(netip.MustParsePrefix, [2]string{"10.244.1.0/24", "Node n1"}, [2]string{"fd00:10:244:1::/64", "Node n1"}),
		ServiceCIDRs:  found(netip.MustParsePrefix, [2]string{"10.96.0.0/16", "ServiceCIDR kubernetes"}),
		Nodes:         found(netip.MustParseAddr, [2]string{"192.168.5.138", "Node n1"}),
		NodeCIDRs:     found(netip.MustParsePrefix, [2]string{"192.168.5.0/24", "--node-cidrs"}),
		Pods: []policy.Pod{{Namespace: "web", Name: "a", Addresses: addrs("10.244.1.7", "fd00:10:244:1::7")},
			{Namespace: "web", Name: "b", Addresses: addrs("10.244.9.7", "10.9.0.7")}},
	}
}

func TestMergeCluster(t *testing.T) {
	got, list, outside := facts.Merge(policy.Stated{}, cluster(), host())
	compareFacts(t, policy.Facts{
		PodCIDRs:      prefixes("10.244.0.0/16", "10.9.0.7/32", "fd00:10:244:1::7/128"),
		LocalPodCIDRs: prefixes("10.244.1.0/24", "fd00:10:244:1::/64", "10.9.0.7/32", "10.244.9.7/32"),
		NodeAddresses: addrs("172.17.0.1", "192.168.5.138", "fd00::138"), Nodes: addrs("192.168.5.138"), NodeCIDRs: prefixes("192.168.5.0/24"),
		ServiceCIDRs: prefixes("10.96.0.0/16"), ServiceMark: policy.DefaultServiceMark, HostPortMark: policy.DefaultHostPortMark,
		Pods: cluster().Pods, PodsKnown: true, Broadcasts: addrs("192.168.5.255"), TunnelPorts: []uint16{4789, 8472},
	}, got)
	if diff := cmp.Diff([]string{"pod web/a has fd00:10:244:1::7", "pod web/b has 10.9.0.7"}, outside); diff != "" {
		t.Errorf("outside -want +got:\n%s", diff)
	}
	if diff := cmp.Diff([][]string{
		{"podCIDRs", "10.244.0.0/16", "10.9.0.7/32", "fd00:10:244:1::7/128", "cluster: --pod-cidrs; and pods outside of it"},
		{"localPodCIDRs", "10.244.1.0/24", "fd00:10:244:1::/64", "10.9.0.7/32", "10.244.9.7/32", "cluster: Node n1; and pods outside of it"},
		{"nodeAddresses", "172.17.0.1", "192.168.5.138", "fd00::138", "discovered: interface docker0, interface eth0"},
		{"nodes", "192.168.5.138", "cluster: Node n1"},
		{"nodeCIDRs", "192.168.5.0/24", "cluster: --node-cidrs"},
		{"serviceCIDRs", "10.96.0.0/16", "cluster: ServiceCIDR kubernetes"},
	}, rows(list)[:6]); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// What files state wins over the cluster; without pod CIDRs they follow the node's.
func TestMergeClusterBesideOthers(t *testing.T) {
	for _, c := range []struct {
		name    string
		stated  policy.Stated
		change  func(*facts.Cluster)
		want    func(*policy.Facts)
		outside []string
	}{
		{name: "files", stated: policy.Stated{PodCIDRs: stated(prefixes("10.0.0.0/8", "fd00::/8"), "f:1"), Nodes: stated(addrs("192.0.2.1"), "f:2"),
			Pods: stated([]policy.Pod(nil), "f:3"), ServiceCIDRs: stated(prefixes("10.97.0.0/16"), "f:4"), LocalPodCIDRs: stated(prefixes("10.0.0.0/8", "fd00::/8"), "f:5")},
			want: func(f *policy.Facts) {
				f.PodCIDRs, f.LocalPodCIDRs, f.Nodes, f.NodeCIDRs, f.Pods = prefixes("10.0.0.0/8", "fd00::/8"), prefixes("10.0.0.0/8", "fd00::/8"), addrs("192.0.2.1"), nil, nil
				f.ServiceCIDRs = prefixes("10.97.0.0/16")
			}},
		{name: "nothing but pods", change: func(c *facts.Cluster) { *c = facts.Cluster{Pods: c.Pods[:1]} },
			want: func(f *policy.Facts) {
				f.LocalPodCIDRs = prefixes("172.16.4.0/24", "172.17.0.0/16", "10.244.1.7/32", "fd00:10:244:1::7/128")
				f.PodCIDRs, f.Pods, f.ServiceCIDRs, f.NodeCIDRs = f.LocalPodCIDRs, f.Pods[:1], nil, nil
				f.Nodes = f.NodeAddresses
			}},
		{name: "the node's CIDRs alone", change: func(c *facts.Cluster) { c.PodCIDRs, c.Pods = nil, nil },
			want: func(f *policy.Facts) {
				f.LocalPodCIDRs = prefixes("10.244.1.0/24", "fd00:10:244:1::/64")
				f.PodCIDRs, f.Pods = f.LocalPodCIDRs, nil
			}},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := cluster()
			if c.change != nil {
				c.change(in)
			}
			want, _, _ := facts.Merge(policy.Stated{}, cluster(), host())
			c.want(&want)
			got, _, outside := facts.Merge(c.stated, in, host())
			compareFacts(t, want, got)
			if diff := cmp.Diff(c.outside, outside); diff != "" {
				t.Errorf("outside -want +got:\n%s", diff)
			}
		})
	}
}

func TestMergeLeavesItsInputAlone(t *testing.T) {
	in := host()
	facts.Merge(policy.Stated{}, nil, in)
	if diff := cmp.Diff(host(), in, byEquality); diff != "" {
		t.Errorf("-before +after:\n%s", diff)
	}
}

var byEquality = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

func compareFacts(t *testing.T, want, got policy.Facts) {
	t.Helper()
	if diff := cmp.Diff(want, got, byEquality); diff != "" {
		t.Errorf("facts -want +got:\n%s", diff)
	}
}
