// Package meaning_test holds the kernel against the specification: random
// policies, facts and packets; the source on the wire is what policy.Decide says.
package meaning_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/kernel/nft"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/plan"
	"github.com/unmasq/unmasq/internal/policy"
	"github.com/unmasq/unmasq/internal/policy/policytest"
	"github.com/unmasq/unmasq/internal/render"
	"github.com/unmasq/unmasq/internal/rig"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

const (
	policies       = 500
	flowsPerPolicy = 60

	// byServices counts, among the actions, those of rules for services.
	byServices policy.Action = "by services"

	// seedVariable repeats a run that failed: UNMASQ_SEED=N go test ./test/meaning.
	seedVariable = "UNMASQ_SEED"
)

// Foreign rules around unmasq's. Whatever it leaves is snatted to an address
// that no policy and no interface has, so that Leave shows. Packets to a few
// source ports are marked or DNATed before, as kube-proxy and portmap do.
const (
	foreignSource  = "192.0.2.200"
	foreignSource6 = "2001:db8::200"

	// First of a hundred source ports each.
	portServiceMark  = 1100
	portHostPortMark = 1200
	portDNAT         = 1300 // to a pod of the node
	portRemote       = 1400 // to a pod of another
	portMarkedDNAT   = 1500
	portMarkedRemote = 1600

	foreign = `
table inet foreign {
	chain mark-forwarded {
		type filter hook prerouting priority mangle;
		th sport { 1100-1199, 1500-1699 } meta mark set 0x4000
		th sport 1200-1299 meta mark set 0x2001
	}
	chain mark-local {
		type route hook output priority mangle;
		th sport 1100-1199 meta mark set 0x4000
		th sport 1200-1299 meta mark set 0x2001
	}
	chain services {
		type nat hook prerouting priority dstnat;
		meta nfproto ipv4 meta l4proto { tcp, udp } th sport { 1300-1399, 1500-1599 } dnat ip to 10.244.1.5:8081
		meta nfproto ipv6 meta l4proto { tcp, udp } th sport { 1300-1399, 1500-1599 } dnat ip6 to [fd00:10:244:1::5]:8081
		meta nfproto ipv4 meta l4proto { tcp, udp } th sport { 1400-1499, 1600-1699 } dnat ip to 10.244.2.5:8081
		meta nfproto ipv6 meta l4proto { tcp, udp } th sport { 1400-1499, 1600-1699 } dnat ip6 to [fd00:10:244:2::5]:8081
	}
	chain hide {
		type nat hook postrouting priority srcnat;
		meta nfproto ipv4 snat ip to 192.0.2.200
		meta nfproto ipv6 snat ip6 to 2001:db8::200
	}
}
`
)

// world is what policytest draws from, on the rig's links.
func world() policytest.World {
	w := policytest.DefaultWorld()
	w.OutInterfaces = []string{rig.Eth0, rig.Eth1, rig.Bridge}
	return w
}

func TestKernelDoesWhatDecideSays(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv(seedVariable); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("%s: %v", seedVariable, err)
		}
	}
	r := rig.New(t)
	r.NFT(t, foreign)
	table := openTable(t, r)
	checked, actions := 0, map[policy.Action]int{}
	for n := range uint64(policies) {
		c := newCase(seed+n, r)
		if err := table.Sync(c.table()); err != nil {
			t.Fatalf("seed %d: %v", c.seed, err)
		}
		for i, wrong := range c.run(t, actions) {
			if wrong != "" {
				c.fail(t, table, i, wrong)
			}
		}
		checked += len(c.flows)
	}
	t.Logf("checked: %d connections under %d random policies (seed %d): %v", checked, policies, seed, actions)
	for _, a := range []policy.Action{policy.Keep, policy.Masquerade, policy.SNAT, policy.Leave, byServices} {
		if actions[a] < checked/200 {
			t.Errorf("only %d of %d connections were to %s: the test has lost its aim", actions[a], checked, a)
		}
	}
}

func openTable(t *testing.T, r *rig.Rig) *nft.Table {
	t.Helper()
	var table *nft.Table
	if err := r.Node.Do(func() (err error) { table, err = nft.Open(slog.New(slog.DiscardHandler)); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { table.Close() })
	return table
}

// testcase is one policy with the flows that try it.
type testcase struct {
	seed   uint64
	rig    *rig.Rig
	policy *policy.Policy
	facts  *policy.Facts
	flows  []packet.Flow // as sent
	leaves []packet.Flow // as postrouting sees them
}

func newCase(seed uint64, r *rig.Rig) *testcase {
	g := policytest.New(rand.New(rand.NewPCG(seed, 7)))
	g.World = world()
	c := &testcase{seed: seed, rig: r, policy: g.Policy(), facts: g.Facts()}
	c.facts.NodeAddresses = []netip.Addr{rig.Eth0Addr, rig.Eth1Addr, rig.Eth0Addr6, rig.Eth1Addr6}
	c.facts.Nodes = policytest.Addrs("192.0.2.50", "203.0.113.9", "2001:db8::50", "2001:db8:113::9") // others: packets to this one don't leave
	for i := range c.policy.Rules {
		// Flows to services all end at one port of a backend: one that finds none of its
		// range free is dropped, whoever decides.
		if p := &c.policy.Rules[i].Ports; p.Last != 0 {
			p.Last = max(p.Last, p.First+2*flowsPerPolicy)
		}
	}
	for i := range flowsPerPolicy {
		sent := g.Flow(c.facts)
		sent.SourcePort = uint16(2000 + i)
		leaves := c.disturb(g, &sent, uint16(i))
		c.flows, c.leaves = append(c.flows, sent), append(c.leaves, leaves)
	}
	return c
}

// disturb makes some flows marked, and DNATs some; it returns what postrouting
// will see. n keeps flows apart.
func (c *testcase) disturb(g *policytest.Generator, f *packet.Flow, n uint16) packet.Flow {
	mark := uint32(0)
	if f.HasPorts() {
		switch g.IntN(16) {
		case 0:
			f.SourcePort, mark = portServiceMark+n, 0x4000
		case 1:
			f.SourcePort, mark = portHostPortMark+n, 0x2001
		case 2, 3, 4, 5, 6, 7:
			if !f.Local { // the rules for services are at prerouting
				return c.dnat(g, f, n)
			}
		}
	}
	leaves := *f
	leaves.Mark, leaves.OutInterface = mark, c.rig.OutInterface(f.Destination)
	return leaves
}

// dnat sends the flow to a service, mostly one that is known, whose backend is a pod
// of this node or of another; sometimes from that pod. The packet may carry the
// service mark.
func (c *testcase) dnat(g *policytest.Generator, f *packet.Flow, n uint16) packet.Flow {
	v6 := f.Source.Is6()
	remote, marked := g.IntN(2) == 0, g.IntN(3) == 0
	backend := backends[remote][v6]
	asked := g.ToService(c.facts, *f)
	f.Protocol = asked.Protocol
	if f.Destination, f.DestinationPort = asked.Asked(); f.Protocol == packet.SCTP {
		f.Protocol = packet.UDP
	}
	f.SourcePort = map[bool]map[bool]uint16{false: {false: portDNAT, true: portRemote}, true: {false: portMarkedDNAT, true: portMarkedRemote}}[marked][remote] + n
	if g.IntN(4) == 0 {
		f.Source = backend
	}
	if !remote && c.facts.PodsKnown && len(c.facts.Pods) > 0 {
		c.facts.Pods[0].Addresses = append(slices.Clone(c.facts.Pods[0].Addresses), backend)
	}
	out := *f
	out.OriginalDestination, out.OriginalPort, out.Destination, out.DestinationPort, out.OutInterface = f.Destination, f.DestinationPort, backend, 8081, rig.Bridge
	if marked {
		out.Mark = 0x4000
	}
	return out
}

// backends that services lead to: of this node or another, of a family.
var backends = map[bool]map[bool]netip.Addr{
	false: {false: netip.MustParseAddr("10.244.1.5"), true: netip.MustParseAddr("fd00:10:244:1::5")},
	true:  {false: netip.MustParseAddr("10.244.2.5"), true: netip.MustParseAddr("fd00:10:244:2::5")},
}

func (c *testcase) table() *plan.Table {
	return plan.Compile(c.policy, c.facts, plan.Options{HashFrom: int(c.seed % 4)})
}

// run sends all flows and says of each what is wrong.
func (c *testcase) run(t *testing.T, actions map[policy.Action]int) []string {
	t.Helper()
	c.rig.Forget(t)
	seen, err := c.rig.SendAll(c.flows)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]string, len(seen))
	for i := range seen {
		want := policy.Decide(c.policy, c.facts, c.leaves[i])
		actions[want.Action]++
		if want.Rule != nil && want.Rule.To.Services != nil {
			actions[byServices]++
		}
		out[i] = judge(c.leaves[i], want, seen[i])
	}
	return out
}

// judge compares what came out with the decision.
func judge(f packet.Flow, want policy.Decision, s *rig.Seen) string {
	if s == nil {
		return "nothing came out"
	}
	if s.Interface != f.OutInterface {
		return fmt.Sprintf("it left by %s, want %s", s.Interface, f.OutInterface)
	}
	source := expected(f, want)
	if s.Source != source {
		return fmt.Sprintf("its source is %s, want %s", s.Source, source)
	}
	if want.Action == policy.Keep && f.HasPorts() && s.SourcePort != f.SourcePort {
		return fmt.Sprintf("its source port is %d, want %d", s.SourcePort, f.SourcePort)
	}
	if want.Action == policy.Masquerade && f.HasPorts() && want.Rule.Ports != (policy.PortRange{}) && !want.Rule.Ports.Contains(s.SourcePort) {
		return fmt.Sprintf("its source port is %d, want one of %d-%d", s.SourcePort, want.Rule.Ports.First, want.Rule.Ports.Last)
	}
	return ""
}

func expected(f packet.Flow, want policy.Decision) netip.Addr {
	v6 := f.Source.Is6()
	switch want.Action {
	case policy.Keep:
		return f.Source
	case policy.SNAT:
		return want.Address
	case policy.Masquerade:
		if f.OutInterface == rig.Bridge {
			if v6 {
				return netip.MustParseAddr("fd00:10:244:ffff::1")
			}
			return netip.MustParseAddr("10.244.255.1")
		}
		return rig.AddressOf(f.OutInterface, v6)
	}
	if v6 {
		return netip.MustParseAddr(foreignSource6)
	}
	return netip.MustParseAddr(foreignSource)
}

// fail looks for the fewest rules that still go wrong, and shows them.
func (c *testcase) fail(t *testing.T, table *nft.Table, i int, wrong string) {
	t.Helper()
	flow, leaves := c.flows[i], c.leaves[i]
	attempt := func() string {
		c.rig.Forget(t)
		if err := table.Sync(c.table()); err != nil {
			return ""
		}
		s, err := c.rig.SendAll([]packet.Flow{flow})
		if err != nil {
			return ""
		}
		return judge(leaves, policy.Decide(c.policy, c.facts, leaves), s[0])
	}
	again := attempt()
	if again != "" {
		for n := len(c.policy.Rules) - 1; n >= 0; n-- {
			whole := c.policy.Rules
			c.policy.Rules = slices.Delete(slices.Clone(whole), n, n+1)
			if attempt() == "" {
				c.policy.Rules = whole
			}
		}
	}
	var b bytes.Buffer
	_ = render.Table(&b, c.table())
	var rules strings.Builder
	for _, r := range c.policy.Rules {
		fmt.Fprintf(&rules, "%+v\n", r)
	}
	t.Fatalf("seed %d, flow %+v\nleaves as %+v\nfirst: %s\nagain: %s\nwant %+v\n%s\n%s", c.seed, flow, leaves, wrong, again,
		policy.Decide(c.policy, c.facts, leaves), rules.String(), b.String())
}
