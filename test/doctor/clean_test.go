package doctor_test

import (
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/doctor"
	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// TestCleanForms: nodes as they are set up everywhere, of which nothing is said.
func TestCleanForms(t *testing.T) {
	t.Run("plain host", func(t *testing.T) {
		t.Parallel()
		cleanForm(t, noRules+"ip link del cni0; sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0", nil)
	})
	t.Run("plain host with a firewall", func(t *testing.T) {
		t.Parallel()
		cleanForm(t, noRules+`ip link del cni0; sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0
iptables -P INPUT DROP; iptables -P FORWARD DROP; iptables -A INPUT -i lo -j ACCEPT
iptables -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; iptables -A INPUT -p tcp -m tcp --dport 22 -j ACCEPT`, nil)
	})
	docker := foreign.Node{Bridge: "cni0", IPv4: foreign.Addresses{LocalPods: netip.MustParsePrefix("10.244.1.0/24")},
		IPv6: foreign.Addresses{LocalPods: netip.MustParsePrefix("fd00:10:244:1::/64")}}
	bridge := docker
	bridge.IPv4.Pods = []netip.Addr{netip.MustParseAddr("10.244.1.2"), netip.MustParseAddr("10.244.1.3")}
	bridge.IPv6.Pods = []netip.Addr{netip.MustParseAddr("fd00:10:244:1::2"), netip.MustParseAddr("fd00:10:244:1::3")}
	for _, v := range foreign.Variants {
		t.Run("docker, "+string(v), func(t *testing.T) {
			t.Parallel()
			cleanForm(t, noRules+written(foreign.Docker(), docker, v), &out4)
		})
		t.Run("CNI bridge with ipMasq, "+string(v), func(t *testing.T) {
			t.Parallel()
			cleanForm(t, noRules+written(foreign.CNIBridge(), bridge, v), &out4)
		})
	}
	t.Run("CNI bridge with ipMasq, nftables", func(t *testing.T) {
		t.Parallel()
		cleanForm(t, noRules+written(foreign.CNIBridgeNFTables(), bridge, ""), &out4)
	})
	for _, proxy := range []string{"v1.34.4-legacy", "v1.34.4-nft", "v1.34.4-nftables", "v1.37.1-nft", "v1.37.1-nftables"} {
		flannel := proxy[strings.LastIndex(proxy, "-"):]
		t.Run("kube-proxy "+proxy+" and flannel with VXLAN", func(t *testing.T) {
			t.Parallel()
			cleanForm(t, noRules+recorded(t, "kube-proxy-"+proxy)+recorded(t, "flannel"+flannel)+vxlanPods, &out4)
		})
	}
	for _, v := range foreign.Variants {
		t.Run("kube-proxy, "+string(v)+", all of whose services have endpoints", func(t *testing.T) {
			t.Parallel()
			cleanForm(t, noRules+refused.ReplaceAllString(recorded(t, "kube-proxy-v1.37.1-"+string(v)), "")+recorded(t, "flannel-"+string(v))+vxlanPods, &out4)
		})
	}
}

// TestExample: the nodes of the documentation's examples are in order.
func TestExample(t *testing.T) {
	for _, name := range []string{"node-a", "node-b"} {
		host, err := snapshot.Read([]string{"../../docs/example/" + name}, nil)
		must(t, err)
		if r := doctor.Examine(doctor.Node{Host: host}); len(r.Findings) > 0 {
			t.Errorf("%s: %s", name, text(&r))
		}
	}
}

// refused is what has no endpoints.
var refused = regexp.MustCompile(`(?m)^-A .* has no (local )?endpoints" .*$`)

// out4 is a pod's way to the world.
var out4 = call{from: pod1, to: out, address: "203.0.113.9:80"}

// cleanForm: nothing is found, and what leaves is seen as the node.
func cleanForm(t *testing.T, script string, c *call) {
	t.Helper()
	l := newLab(t, script)
	if r := l.examine(); len(r.Findings) > 0 || len(r.NotLookedAt) > 0 {
		t.Errorf("%s", text(&r))
	}
	l.check(c, "192.0.2.1", "on a clean node")
}

// vxlanPods are those of another node, as flannel leads to them.
const vxlanPods = `ip link add flannel.1 type vxlan id 1 local 192.0.2.1 dev eth0 dstport 8472 nolearning
ip addr add 10.244.1.0/32 dev flannel.1; ip link set flannel.1 up; ip route add 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink
ip neigh replace 10.244.2.0 lladdr 02:00:00:00:00:03 dev flannel.1 nud permanent; bridge fdb append 02:00:00:00:00:03 dev flannel.1 dst 192.0.2.2
`

// written are a component's commands for both families.
func written(c foreign.Component, n foreign.Node, v foreign.Variant) string {
	var b strings.Builder
	for _, f := range packet.Families {
		for _, s := range c.Write(n, v, f) {
			b.WriteString(s.String() + "\n")
		}
	}
	return b.String()
}

// counted by an object that kube-proxy makes by netlink, and that isn't there.
var counted = regexp.MustCompile(` -m nfacct --nfacct-name +\S+`)

// recorded are the rules that a real program has written, as a script.
func recorded(t *testing.T, dump string) string {
	t.Helper()
	text, err := os.ReadFile("../judge/testdata/dumps/" + dump + ".txt")
	must(t, err)
	script := ""
	for name, program := range map[string]string{
		"iptables-save.txt": "iptables-nft-restore --noflush", "ip6tables-save.txt": "ip6tables-nft-restore --noflush",
		"iptables-legacy-save.txt": "iptables-legacy-restore --noflush", "ip6tables-legacy-save.txt": "ip6tables-legacy-restore --noflush",
		"ruleset.nft": "nft -f -",
	} {
		if _, section, ok := strings.Cut(string(text), "\n-- "+name+" --\n"); ok {
			section, _, _ = strings.Cut(section, "\n-- ")
			script += program + " <<'END'\n" + counted.ReplaceAllString(section, "") + "\nEND\n"
		}
	}
	if script == "" {
		t.Fatalf("%s has no rules", dump)
	}
	return script
}

// fromElsewhere are kube-proxy's rules that mark clients of ClusterIPs by their source.
var fromElsewhere = regexp.MustCompile(`(?m)^.*(! -s (10\.244\.0\.0/16|fd00:10:244::/48) .*-j KUBE-MARK-MASQ|saddr != (10\.244\.0\.0/16|fd00:10:244::/48)).*$`)

// TestRecordedWithoutCIDR: what the real kube-proxy writes, without the rules that it leaves
// out where it isn't told the cluster's networks.
func TestRecordedWithoutCIDR(t *testing.T) {
	for _, proxy := range []string{"v1.34.4-legacy", "v1.34.4-nftables", "v1.37.1-nft", "v1.37.1-nftables"} {
		t.Run(proxy, func(t *testing.T) {
			t.Parallel()
			told := recorded(t, "kube-proxy-"+proxy)
			untold := fromElsewhere.ReplaceAllString(told, "")
			if told == untold {
				t.Fatal("no rule marks by source")
			}
			// flannel's chain of iptables masquerades clients from outside to other nodes' pods itself.
			variant := "-nft"
			if strings.HasSuffix(proxy, "-legacy") {
				variant = "-legacy"
			}
			l := newLab(t, noRules+untold+recorded(t, "flannel"+variant)+vxlanPods)
			if r := l.examine(); len(r.Findings) > 0 {
				t.Errorf("with flannel in iptables mode:\n%s", text(&r))
			}
			l = newLab(t, noRules+untold+recorded(t, "flannel-nftables")+vxlanPods)
			r := l.examine()
			if got := codes(&r); !slices.Equal(got, []string{"cluster-cidr-missing", "cluster-cidr-missing"}) { // of each family
				t.Fatalf("found %v\n%s", got, text(&r))
			}
			for _, f := range r.Findings {
				l.shell(l.node, strings.Join(f.Mend, "\n"))
			}
			if r = l.examine(); len(r.Findings) > 0 {
				t.Errorf("after the mend there is still:\n%s", text(&r))
			}
		})
	}
}
