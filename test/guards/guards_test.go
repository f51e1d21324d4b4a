// Package guards_test proves that each guard of the table is needed: beside the
// rules of the component that it protects, a packet leaves as that component
// wants it with the guard, and wrongly without.
package guards_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/kernel/nft"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/plan"
	"github.com/unmasq/unmasq/internal/policy"
	"github.com/unmasq/unmasq/internal/policy/policytest"
	"github.com/unmasq/unmasq/internal/rig"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// proof is one packet that needs one guard.
type proof struct {
	name  string
	guard policy.Guard
	// foreign sets up the component that the guard protects; nil: there is none,
	// the packet is to be left as it is.
	foreign func(*testing.T, *rig.Rig)
	// rule of the policy that would do harm.
	rule policy.Rule
	// facts changes what is known of the node; nil: nothing.
	facts func(*policy.Facts)
	flow  packet.Flow
	// send sends the packet and returns the source that was seen, for as long as it
	// has patience; nil: the flow, as the rig sees it come out.
	send func(t *testing.T, r *rig.Rig, patience time.Duration) (netip.Addr, error)
	// hidden: the source must be an address of this link. Else it must be source,
	// or where that isn't set the flow's own.
	hidden string
	source netip.Addr
}

// proofs of every guard that a packet can be made for on any kernel; IPsec has a
// test of its own.
func proofs() []proof {
	return slices.Concat(hairpins(), markedHairpins(), serviceMarks(), hostPortMarks(), localhostPorts(), linkLocals(),
		broadcasts(), loopbacks(), tunnels())
}

func TestGuardsAreNeeded(t *testing.T) {
	var c checked
	for _, p := range proofs() {
		t.Run(string(p.guard)+"/"+p.name, func(t *testing.T) { p.prove(t, rig.New(t), &c) })
	}
	c.log(t)
}

// checked counts the connections of a test.
type checked struct{ atomic.Int64 }

func (c *checked) log(t *testing.T) {
	t.Helper()
	t.Logf("checked: %d connections, each guard left out and put in", c.Load())
}

// How long a connection may take that must be made, and one that can't be.
const (
	patient   = 10 * time.Second
	impatient = 400 * time.Millisecond
)

// prove shows that a node is right without unmasq and with the guard, and wrong
// with everything but the guard.
func (p *proof) prove(t *testing.T, r *rig.Rig, c *checked) {
	t.Helper()
	c.Add(3)
	if p.foreign != nil {
		p.foreign(t, r)
	}
	if wrong := p.wrong(t, r, patient); wrong != "" {
		t.Fatalf("without unmasq: %s", wrong)
	}
	table := openTable(t, r)
	p.install(t, table, plan.Options{})
	if wrong := p.wrong(t, r, patient); wrong != "" {
		t.Errorf("with the guard: %s", wrong)
	}
	p.install(t, table, plan.Options{Without: p.guard})
	if p.wrong(t, r, impatient) == "" {
		t.Error("without the guard the packet leaves as it should: this proves nothing")
	}
}

func (p *proof) install(t *testing.T, table *nft.Table, opts plan.Options) {
	t.Helper()
	facts := facts()
	if p.facts != nil {
		p.facts(facts)
	}
	sync(t, table, plan.Compile(policyOf(p.rule), facts, opts))
}

func sync(t *testing.T, table *nft.Table, want *plan.Table) {
	t.Helper()
	if err := table.Sync(want); err != nil {
		t.Fatal(err)
	}
}

// wrong sends the packet and says what is wrong with it, "" if nothing.
func (p *proof) wrong(t *testing.T, r *rig.Rig, patience time.Duration) string {
	t.Helper()
	r.Forget(t)
	var seen netip.Addr
	if p.send != nil {
		var err error
		if seen, err = p.send(t, r, patience); err != nil {
			return err.Error()
		}
	} else {
		s, err := r.Send(p.flow)
		if err != nil {
			return err.Error()
		}
		seen = s.Source
	}
	want := p.source
	switch {
	case p.hidden != "" && slices.Contains(addressesOf(t, r, p.hidden), seen):
		return ""
	case p.hidden != "":
		return fmt.Sprintf("the source is %s, want an address of %s", seen, p.hidden)
	case !want.IsValid():
		want = p.flow.Source
	}
	if seen != want {
		return fmt.Sprintf("the source is %s, want %s", seen, want)
	}
	return ""
}

// addressesOf a link of the node.
func addressesOf(t *testing.T, r *rig.Rig, link string) []netip.Addr {
	t.Helper()
	var out []netip.Addr
	err := r.Node.Do(func() error {
		i, err := net.InterfaceByName(link)
		if err != nil {
			return err
		}
		addrs, err := i.Addrs()
		for _, a := range addrs {
			out = append(out, netip.MustParsePrefix(a.String()).Addr())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
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

// Pods of this node: web has a published port and is a service's endpoint.
var (
	web, web6       = addr("10.244.1.7"), addr("fd00:10:244:1::7")
	client, client6 = addr("10.244.1.8"), addr("fd00:10:244:1::8")
	// vpn is a client network's address, that comes to services through this node.
	vpn, vpn6 = addr("172.30.0.9"), addr("fd00:172:30::9")
	// stated is what rules translate to.
	stated, stated6 = addr("192.0.2.77"), addr("2001:db8::77")
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func facts() *policy.Facts {
	return &policy.Facts{
		PodCIDRs:      policytest.Prefixes("10.244.0.0/16", "fd00:10:244::/48"),
		LocalPodCIDRs: policytest.Prefixes("10.244.1.0/24", "fd00:10:244:1::/64"),
		NodeAddresses: []netip.Addr{rig.Eth0Addr, rig.Eth1Addr, rig.Eth0Addr6, rig.Eth1Addr6},
		Broadcasts:    policytest.Addrs("192.0.2.255", "198.51.100.255"),
		ServiceMark:   policy.DefaultServiceMark, HostPortMark: policy.DefaultHostPortMark,
		PodsKnown: true,
		Pods: []policy.Pod{
			{Namespace: "default", Name: "web", Addresses: []netip.Addr{web, web6}},
			{Namespace: "default", Name: "client", Addresses: []netip.Addr{client, client6}},
		},
	}
}

func policyOf(r policy.Rule) *policy.Policy {
	r.Document, r.Name, r.Number, r.To.Everywhere = "guards", "rule", 1, true
	return &policy.Policy{Rules: []policy.Rule{r}}
}

// keepAll keeps every forwarded packet's source.
func keepAll() policy.Rule {
	return policy.Rule{From: policy.From{Forwarded: true}, Action: policy.Keep}
}

// keepOwn keeps the sources of the node's own packets.
func keepOwn() policy.Rule { return policy.Rule{From: policy.From{Node: true}, Action: policy.Keep} }

// moveOwn gives the node's own packets another source.
func moveOwn() policy.Rule {
	return policy.Rule{From: policy.From{Node: true}, Action: policy.SNAT, Addresses: []netip.Addr{stated, stated6}}
}

// moveAll gives every packet another source.
func moveAll() policy.Rule {
	r := moveOwn()
	r.From.Forwarded = true
	return r
}

// overriding makes a rule one that marks don't hold off.
func overriding(r policy.Rule) policy.Rule {
	r.OverrideServiceMasquerade = true
	return r
}

// Each guard that there is has a proof.
func TestEveryGuardHasAProof(t *testing.T) {
	proven := map[policy.Guard]bool{policy.GuardIPsec: true} // TestIPsec
	for _, p := range proofs() {
		proven[p.guard] = true
	}
	all := allGuards(t)
	if len(all) == 0 {
		t.Fatal("no guards found")
	}
	for _, g := range all {
		if !proven[g] {
			t.Errorf("guard %s has no proof", g)
		}
	}
}

// allGuards are the constants of type Guard.
func allGuards(t *testing.T) []policy.Guard {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../../internal/policy/types.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var out []policy.Guard
	ast.Inspect(file, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if typ, ok := v.Type.(*ast.Ident); ok && typ.Name == "Guard" {
			for _, value := range v.Values {
				text, err := strconv.Unquote(value.(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, policy.Guard(text))
			}
		}
		return true
	})
	return out
}
