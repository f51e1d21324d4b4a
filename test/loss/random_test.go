package loss_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/policy"
	"github.com/unmasq/unmasq/internal/policy/policytest"
	"github.com/unmasq/unmasq/internal/rig"
)

// generator makes random policies and versions near to them. All have the same
// services, but for what differs between two.
type generator struct {
	*policytest.Generator
	services []policy.Service
}

func newGenerator(t *testing.T) generator {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	g := policytest.New(rand.New(rand.NewPCG(seed, 0)))
	return generator{g, g.Facts().Services}
}

// flows are some that come out of the node, each of its own.
func (g generator) flows(t *testing.T, r *rig.Rig, n int) []packet.Flow {
	t.Helper()
	facts := g.Facts()
	var all, out []packet.Flow
	for len(all) < n {
		f := g.Flow(facts)
		if g.IntN(3) == 0 {
			f = g.toService(f)
		}
		f.Local, f.SourcePort = false, 1000
		f.OutInterface = r.OutInterface(f.Destination)
		forwarded := !slices.Contains(facts.NodeAddresses, f.Destination) && !slices.Contains(facts.NodeAddresses, f.Source)
		if forwarded && f.OutInterface != rig.Bridge {
			all = append(all, f)
		}
	}
	seen, err := r.SendAll(all)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range all {
		if seen[i] != nil { // not from or to the node's own networks' first or last address
			out = append(out, f)
		}
	}
	if len(out) < n/2 {
		t.Fatalf("%d of %d flows go through the node: expected at least half", len(out), n)
	}
	return out
}

// toService sends a flow to a ClusterIP that nobody translates.
func (g generator) toService(f packet.Flow) packet.Flow {
	s := g.services[g.IntN(len(g.services))]
	for _, x := range s.Frontends(&policy.Facts{}, policy.ViaClusterIP, nil) {
		if packet.Of(x.Address) == f.Family() {
			f.Destination, f.DestinationPort, f.Protocol = x.Address, x.Port, x.Protocol
		}
	}
	return f
}

// version is a random policy with random facts.
func (g generator) version() version {
	v := version{*g.Policy(), *g.Facts(), nil}
	v.facts.Services = g.services
	for i := range v.policy.Rules {
		v.policy.Rules[i].Ports = policy.PortRange{} // a small range runs out of ports
	}
	return v
}

// near returns a version that differs in one thing.
func (g generator) near(v version) version {
	rs := slices.Clone(v.policy.Rules)
	i, j := g.IntN(len(rs)), g.IntN(len(rs))
	cidr := func() netip.Prefix { return g.Prefix(g.World.Destinations) }
	switch g.IntN(11) {
	case 0, 1: // a destination more
		rs[i].To.CIDRs = append(slices.Clone(rs[i].To.CIDRs), cidr())
	case 2: // destinations change places
		rs[i].To.CIDRs, rs[j].To.CIDRs = rs[j].To.CIDRs, rs[i].To.CIDRs
	case 3: // an exception more
		rs[i].To.Except = append(slices.Clone(rs[i].To.Except), cidr())
	case 4: // a source more
		rs[i].From.CIDRs = append(slices.Clone(rs[i].From.CIDRs), g.Prefix(g.World.Sources))
	case 5: // a rule more, near another
		r := rs[i]
		r.Name, r.To = r.Name+"-more", policy.To{CIDRs: []netip.Prefix{cidr(), cidr()}}
		rs = slices.Insert(rs, g.IntN(len(rs)+1), r)
	case 6: // a rule less
		rs = slices.Delete(rs, i, i+1)
	case 7: // another order
		rs[i], rs[j] = rs[j], rs[i]
	case 8: // other facts
		f := *g.Facts()
		f.PodsKnown, f.Services = v.facts.PodsKnown, v.facts.Services
		v.facts = f
	case 9: // a service less
		v.facts.Services = slices.Delete(slices.Clone(g.services), i%len(g.services), i%len(g.services)+1)
	case 10: // a port less, and one more
		v.facts.Services = slices.Clone(g.services)
		for n := range v.facts.Services {
			s := &v.facts.Services[n]
			s.Ports = append(slices.Clone(s.Ports[min(1, len(s.Ports)):]), policy.ServicePort{Protocol: packet.TCP, Port: 443})
		}
	}
	for n := range rs {
		rs[n].Number = n + 1
	}
	v.policy = policy.Policy{Rules: rs}
	return v
}

// Random policies and others near to them take turns under load: each packet has
// the decision of the one or of the other.
func TestRandomTurns(t *testing.T) {
	const pairs = 24
	for _, owned := range []bool{true, false} {
		t.Run(fmt.Sprintf("owned %t", owned), func(t *testing.T) {
			r := rig.New(t)
			r.NFT(t, foreignSNAT)
			g := newGenerator(t)
			flows := g.flows(t, r, 400)
			table := open(t, r, owned)
			var sum rig.Report
			times := 0
			for i := range pairs {
				a := g.version()
				b := g.near(a)
				if i%2 == 1 {
					tag(&a, &b)
				}
				turns := &turns{a: a, b: b, flows: flows, hashFrom: 1 + g.IntN(4), port: 1 + sum.Sent/uint64(len(flows)) + uint64(i)}
				report, n := turns.run(t, r, table, 300*time.Millisecond)
				add(&sum, report)
				times += n
				if report.Wrong > 0 {
					t.Errorf("pair %d: %s", i+1, report)
				}
			}
			noneWrong(t, sum, "%d pairs of random policies in turn, %d changes", pairs, times)
		})
	}
}

// tag gives rules tags that they keep, in no order.
func tag(versions ...*version) {
	tags := map[string]int{}
	for _, v := range versions {
		for i := range v.policy.Rules {
			if id := v.policy.Rules[i].ID(); tags[id] == 0 {
				tags[id] = 1000 - len(tags)
			}
		}
		v.tags = tags
	}
}

func add(sum *rig.Report, r rig.Report) {
	sum.Sent += r.Sent
	sum.Seen += r.Seen
	sum.Wrong += r.Wrong
	sum.Took += r.Took
	sum.Examples = append(sum.Examples, r.Examples...)
}

// A thousand policies, one after the other, of which each keeps the load's
// sources, by other rules, sets and hashes than the one before.
func TestThousandPolicies(t *testing.T) {
	const changes = 1000
	for _, owned := range []bool{true, false} {
		t.Run(fmt.Sprintf("owned %t", owned), func(t *testing.T) {
			r := rig.New(t)
			r.NFT(t, foreign)
			g := newGenerator(t)
			flows := g.flows(t, r, 400)
			table := open(t, r, owned)
			keepers := g.keepers(t, flows)
			if err := table.Sync(keepers(0).compile(1)); err != nil {
				t.Fatal(err)
			}
			n := uint64(len(flows))
			traffic := rig.Traffic{
				Flow: func(i uint64) packet.Flow {
					f := flows[i%n]
					f.SourcePort = uint16(1024 + i/n%60000)
					return f
				},
				Check: func(i uint64, s rig.Seen) string {
					if f := flows[i%n]; s.Source != f.Source {
						return fmt.Sprintf("%s → %s came out as %s", f.Source, f.Destination, s.Source)
					}
					return ""
				},
			}
			report := underLoad(t, r, traffic, func() {
				for i := range changes {
					if err := table.Sync(keepers(i).compile(1 + g.IntN(5))); err != nil {
						t.Fatal(err)
					}
				}
			})
			noneWrong(t, report, "%d policies, one after the other", changes)
		})
	}
}

// keepers returns versions that keep the sources of flows: random rules that
// keep, random ones for sources that send nothing, and at last one that keeps
// all. Every other is near the one before.
func (g generator) keepers(t *testing.T, flows []packet.Flow) func(i int) *version {
	var last version
	unused := policytest.Prefixes("100.127.0.0/16", "2001:db8:ffff::/48")
	return func(i int) *version {
		v := g.version()
		if i%2 == 1 {
			v = g.near(last)
		}
		for i := range v.policy.Rules {
			if r := &v.policy.Rules[i]; g.IntN(3) == 0 {
				r.From = policy.From{CIDRs: unused}
			} else if !slices.Equal(r.From.CIDRs, unused) {
				r.Action, r.Addresses, r.FullyRandom = policy.Keep, nil, false
			}
		}
		last = version{policy.Policy{Rules: slices.Clone(v.policy.Rules)}, v.facts, nil}
		if len(last.policy.Rules) == 0 {
			last.policy.Rules = g.Policy().Rules
		}
		end := policy.Rule{Document: "loss", Name: "end", Number: len(v.policy.Rules) + 1, From: policy.From{Forwarded: true}, To: everywhere, Action: policy.Keep}
		v.policy.Rules = append(v.policy.Rules, end)
		v.facts.Broadcasts = nil
		for _, f := range flows {
			if d := policy.Decide(&v.policy, &v.facts, f); d.Action != policy.Keep {
				t.Fatalf("a policy that shall keep everything decides %+v for %+v:\n%+v", d, f, v)
			}
		}
		return &v
	}
}
