// Package masqagent_test compares `unmasq ip-masq-agent` with ip-masq-agent, by
// packets and as an operator sees it.
package masqagent_test

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unmasq/unmasq/internal/agent/agenttest"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/rig"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// setting is a configuration, with the rules that ip-masq-agent makes of it.
type setting struct {
	name string
	// args of unmasq ip-masq-agent beside its directory and the pods' networks.
	args []string
	// file has the configuration; "": there is none.
	file string
	// unknown: nobody says which networks are pods'.
	unknown bool
	rules   rules
	// differences that are meant, by the flow: what each makes of it, and why.
	differences []difference
}

type difference struct{ flow, theirs, ours, why string }

// Why ours is another way.
const (
	pinned  = "RETURN leaves a chain, not POSTROUTING: pods keep their addresses to the list whoever else masquerades"
	inbound = "clients of pods are not outbound traffic, whatever the list says"
)

// clients that differ wherever the list hasn't the pods' own network.
func clients(families ...packet.Family) (all []difference) {
	for _, f := range families {
		for _, who := range []string{"guest", "client", "node"} {
			all = append(all, difference{fmt.Sprintf("%s %s → pod", f, who), rig.Bridge, "kept", inbound})
		}
	}
	return all
}

func settings() []setting {
	const v4, v6 = packet.IPv4Family, packet.IPv6Family
	private := []string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"}
	return []setting{
		{name: "no file", rules: rules{list: private, random: true}},
		{name: "everything is masqueraded", file: "nonMasqueradeCIDRs: []\n", rules: rules{random: true}, differences: clients(v4)},
		{name: "everything, clients too", file: "nonMasqueradeCIDRs: []\n", args: []string{"--outbound-only=false"}, rules: rules{random: true}},
		{name: "list without pods", file: "nonMasqueradeCIDRs: [10.9.0.0/16]\nmasqLinkLocal: true\n", rules: rules{list: []string{"10.9.0.0/16"}, linkLocal: true, random: true}, differences: clients(v4)},
		{name: "both families", args: []string{"-enable-ipv6"}, file: "nonMasqueradeCIDRs: [10.9.0.0/16, 'fd00:9::/32']\n",
			rules: rules{list: []string{"10.9.0.0/16", "fd00:9::/32"}, random: true, ipv6: true}, differences: clients(v4, v6)},
		{name: "no random ports", args: []string{"--random-fully=false"}, rules: rules{list: private}},
		{name: "azure", args: []string{"--resync-interval", "60", "--v=2"}, file: "masqLinkLocal: true\n", rules: rules{linkLocal: true}, differences: clients(v4)},
		{name: "ports", args: []string{"--to-ports=20000-20999", "--random-fully"}, rules: rules{list: private, random: true, ports: "20000-20999"}},
		{name: "pods aren't known", file: "nonMasqueradeCIDRs: [10.9.0.0/16]\n", unknown: true, rules: rules{list: []string{"10.9.0.0/16"}, random: true}},
	}
}

// rules of ip-masq-agent in its own texts.
type rules struct {
	list                    []string
	linkLocal, random, ipv6 bool
	ports                   string
}

const (
	jumpComment  = `-m comment --comment "ip-masq-agent: ensure nat POSTROUTING directs all non-LOCAL destination traffic to our custom IP-MASQ-AGENT chain"`
	localComment = `-m comment --comment "ip-masq-agent: local traffic is not subject to MASQUERADE"`
	lastComment  = `-m comment --comment "ip-masq-agent: outbound traffic is subject to MASQUERADE (must be last in chain)"`
)

// text for iptables-restore of a family.
func (r rules) text(f packet.Family) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*nat\n:IP-MASQ-AGENT - [0:0]\n-A POSTROUTING %s -m addrtype ! --dst-type LOCAL -j IP-MASQ-AGENT\n", jumpComment)
	list := slices.Clone(r.list)
	if local := map[packet.Family]string{packet.IPv4Family: "169.254.0.0/16", packet.IPv6Family: "fe80::/10"}[f]; !r.linkLocal || f == packet.IPv6Family {
		list = append([]string{local}, list...)
	}
	for _, p := range list {
		if packet.Of(netip.MustParsePrefix(p).Addr()) == f {
			fmt.Fprintf(&b, "-A IP-MASQ-AGENT %s -d %s -j RETURN\n", localComment, p)
		}
	}
	random := ""
	if r.random {
		random = " --random-fully"
	}
	if r.ports != "" {
		for _, protocol := range []string{"tcp", "udp", "sctp"} {
			fmt.Fprintf(&b, "-A IP-MASQ-AGENT %s -j MASQUERADE%s -p %s --to-ports %s\n", lastComment, random, protocol, r.ports)
		}
	}
	fmt.Fprintf(&b, "-A IP-MASQ-AGENT %s -j MASQUERADE%s\nCOMMIT\n", lastComment, random)
	return b.String()
}

func (r rules) load(t *testing.T, node *rig.Rig, variant string) {
	t.Helper()
	node.Run(t, r.text(packet.IPv4Family), "iptables-"+variant+"-restore", "--noflush")
	if r.ipv6 {
		node.Run(t, r.text(packet.IPv6Family), "ip6tables-"+variant+"-restore", "--noflush")
	}
}

// named is a flow with who sends it where.
type named struct {
	name string
	packet.Flow
}

// flows of each kind of sender to each kind of place, in both families. Senders are
// the node by an address that it wouldn't take by itself, a pod, and others that the
// node forwards for: a container or guest that is no pod of the cluster, a client.
func flows() (all []named) {
	places := map[packet.Family][][2]string{
		packet.IPv4Family: {{"listed", "10.9.1.1"}, {"internet", "203.0.113.9"}, {"link-local", "169.254.7.7"}, {"pod", "10.244.1.8"}},
		packet.IPv6Family: {{"listed", "fd00:9::1"}, {"internet", "2001:db8:113::9"}, {"pod", "fd00:10:244::8"}},
	}
	senders := map[packet.Family][][2]string{
		packet.IPv4Family: {{"pod", "10.244.1.7"}, {"guest", "172.30.0.5"}, {"client", "198.18.5.5"}, {"node", ""}},
		packet.IPv6Family: {{"pod", "fd00:10:244::7"}, {"guest", "fd00:172:30::5"}, {"client", "2001:db8:5::5"}, {"node", ""}},
	}
	port := uint16(40000)
	for _, f := range packet.Families {
		for _, from := range senders[f] {
			for _, to := range places[f] {
				if from[0] == "client" && to[0] != "pod" || from[0] == "pod" && to[0] == "pod" {
					continue
				}
				x := named{fmt.Sprintf("%s %s → %s", f, from[0], to[0]), packet.Flow{Destination: netip.MustParseAddr(to[1]), Protocol: packet.UDP, SourcePort: port, DestinationPort: 53}}
				port++
				if x.Local = from[0] == "node"; x.Local {
					x.Source = nodeSource(to[0], f)
				} else {
					x.Source = netip.MustParseAddr(from[1])
				}
				all = append(all, x)
			}
		}
	}
	return all
}

// nodeSource is an address that the node has, but not on the link that leads there.
func nodeSource(to string, f packet.Family) netip.Addr {
	if to == "internet" {
		return rig.AddressOf(rig.Eth0, f == packet.IPv6Family)
	}
	return rig.AddressOf(rig.Eth1, f == packet.IPv6Family)
}

// seen is what came out of each flow, and whether ports were others.
func seen(t *testing.T, r *rig.Rig, ports string) (sources map[string]string, random bool) {
	t.Helper()
	sources = map[string]string{}
	for _, f := range flows() {
		s, err := r.Send(f.Flow)
		if err != nil {
			t.Fatalf("%s: %v", f.name, err)
		}
		switch s.Source {
		case f.Source:
			sources[f.name] = "kept"
		case rig.AddressOf(s.Interface, s.Source.Is6()):
			sources[f.name] = s.Interface
		case netip.MustParseAddr("10.244.255.1"), netip.MustParseAddr("fd00:10:244:ffff::1"):
			sources[f.name] = rig.Bridge
		default:
			sources[f.name] = s.Source.String()
		}
		if sources[f.name] != "kept" {
			if ports != "" && (s.SourcePort < 20000 || s.SourcePort > 20999) {
				t.Errorf("%s: left by port %d, want one of %s", f.name, s.SourcePort, ports)
			}
			random = random || s.SourcePort != f.SourcePort
		}
	}
	return sources, random
}

// another component that masquerades pods, as CNI plugins with ipMasq do.
func another(t *testing.T, r *rig.Rig) {
	t.Helper()
	r.NFT(t, `table inet another {
	chain postrouting { type nat hook postrouting priority srcnat + 10; policy accept;
		ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 masquerade
		ip6 saddr fd00:10:244::/48 ip6 daddr != fd00:10:244::/48 masquerade
	}
}
`)
}

// TestInItsPlace is all that needs the program, which is built once.
func TestInItsPlace(t *testing.T) {
	program := agenttest.Program(t)
	for _, tt := range []struct {
		name string
		run  func(*testing.T, string)
	}{{"packets", samePackets}, {"life", life}, {"deploy", deploy}} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, program) })
	}
}

// samePackets sends the same packets through ip-masq-agent's rules and through
// unmasq's: each has the same source behind both, but for what is meant.
func samePackets(t *testing.T, program string) {
	for i, s := range settings() {
		variant := []string{"nft", "legacy"}[i%2]
		t.Run(s.name+"/"+variant, func(t *testing.T) {
			theirs, ours := rig.New(t), rig.New(t)
			s.rules.load(t, theirs, variant)
			s.start(t, ours, program)
			wantPackets, wantRandom := seen(t, theirs, s.rules.ports)
			gotPackets, random := seen(t, ours, s.rules.ports)
			if random != wantRandom {
				t.Errorf("ports at random: %v, by ip-masq-agent %v", random, wantRandom)
			}
			s.compare(t, wantPackets, gotPackets, s.differences)

			another(t, theirs)
			another(t, ours)
			theirs.Forget(t)
			ours.Forget(t)
			wantPackets, _ = seen(t, theirs, "")
			gotPackets, _ = seen(t, ours, "")
			s.compare(t, wantPackets, gotPackets, append(s.pins(), s.differences...))
		})
	}
}

// pins are the flows that the other component would have hidden.
func (s *setting) pins() (all []difference) {
	if s.unknown {
		return nil
	}
	for _, p := range s.rules.list {
		prefix := netip.MustParsePrefix(p)
		for _, f := range flows() {
			if strings.HasSuffix(f.name, " pod → listed") && prefix.Contains(f.Destination) {
				all = append(all, difference{f.name, rig.Eth0, "kept", pinned})
			}
		}
	}
	return all
}

func (s *setting) start(t *testing.T, r *rig.Rig, program string) {
	t.Helper()
	dir := t.TempDir()
	if s.file != "" {
		agenttest.Write(t, filepath.Join(dir, "ip-masq-agent"), s.file)
	}
	args := append([]string{"ip-masq-agent", "--config-dir", dir, "--cni-dir", t.TempDir()}, s.args...)
	if !s.unknown {
		args = append(args, "--pod-cidrs=10.244.0.0/16,fd00:10:244::/48")
	}
	a := agenttest.LaunchCommand(t, r.Node, program, args...)
	a.Await(t, "ready", func() bool { return a.Ready() == "" })
}

// compare finds the differences that are meant, each, and no other.
func (s *setting) compare(t *testing.T, theirs, ours map[string]string, meant []difference) {
	t.Helper()
	var got, want []string
	for _, f := range flows() {
		if theirs[f.name] != ours[f.name] {
			got = append(got, fmt.Sprintf("%s: %s, by ip-masq-agent %s", f.name, ours[f.name], theirs[f.name]))
		}
		for _, d := range meant {
			if d.flow == f.name {
				want = append(want, fmt.Sprintf("%s: %s, by ip-masq-agent %s", d.flow, d.ours, d.theirs))
			}
		}
	}
	if len(want) != len(meant) {
		t.Errorf("differences of no flow: %v", meant)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("differences (-meant +found):\n%s", diff)
	}
}
