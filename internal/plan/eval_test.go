package plan_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/plan"
	"github.com/unmasq/unmasq/internal/policy"
	"github.com/unmasq/unmasq/internal/policy/policytest"
	"github.com/unmasq/unmasq/internal/render"
)

// evaluator runs a flow through a table as nf_tables does.
type evaluator struct {
	table *plan.Table
	flow  packet.Flow
	mark  uint32
	// Outcome.
	action  policy.Action
	address netip.Addr
	counter string
	path    []string
}

type result uint8

const (
	goOn result = iota
	done
	returned
)

func (e *evaluator) run(t *testing.T) {
	e.mark, e.action = e.flow.Mark, policy.Leave
	e.chain(t, e.table.Chains[0].Name)
}

func (e *evaluator) chain(t *testing.T, name string) result {
	i := slices.IndexFunc(e.table.Chains, func(c plan.Chain) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("no chain %s", name)
	}
	e.path = append(e.path, name)
	for _, r := range e.table.Chains[i].Rules {
		switch res := e.rule(t, r); res {
		case done:
			return done
		case returned:
			return goOn
		}
	}
	return goOn
}

func (e *evaluator) rule(t *testing.T, r plan.Rule) result {
	for _, s := range r.Statements {
		matched, res := e.statement(t, s)
		if res != goOn {
			return res
		}
		if !matched {
			return goOn
		}
	}
	return goOn
}

func (e *evaluator) statement(t *testing.T, s plan.Statement) (matched bool, res result) {
	f := e.flow
	switch s := s.(type) {
	case plan.OutLoopback:
		return f.OutInterface == "lo", goOn
	case plan.NoInput, plan.SourceIsLocal:
		return f.Local, goOn
	case plan.OutInterface:
		if prefix, ok := strings.CutSuffix(s.Name, "*"); ok {
			return strings.HasPrefix(f.OutInterface, prefix), goOn
		}
		return f.OutInterface == s.Name, goOn
	case plan.NFProto:
		return f.Family() == s.Family, goOn
	case plan.L4Proto:
		return slices.Contains(s.Protocols, f.Protocol), goOn
	case plan.InSet:
		if isAddress(s.Field) && f.Family() != s.Family {
			return false, goOn
		}
		element := e.lookup(t, s.Family, s.Field, s.Set, s.Bits)
		return (element != nil) != s.Not, goOn
	case plan.VerdictMap:
		if element := e.lookup(t, s.Family, s.Field, s.Map, s.Bits); element != nil {
			return true, e.verdict(t, element.Verdict)
		}
		return false, goOn
	case plan.DNATed:
		return f.DNATed(), goOn
	case plan.IPsec:
		return f.IPsec, goOn
	case plan.MarkIs:
		return e.mark&s.Mark.Mask == s.Mark.Value, goOn
	case plan.ClearMark:
		e.mark &^= s.Mask
		return true, goOn
	case plan.Count:
		e.counter = s.Counter
		return true, goOn
	case plan.Verdict:
		return true, e.verdict(t, s)
	case plan.Keep:
		e.action = policy.Keep
	case plan.Masquerade:
		e.action = policy.Masquerade
	case plan.SNAT:
		e.action, e.address = policy.SNAT, policy.SNATAddress(s.Addresses, f.Source)
	default:
		t.Fatalf("statement %T", s)
	}
	return true, done
}

func (e *evaluator) verdict(t *testing.T, v plan.Verdict) result {
	switch v.Kind {
	case plan.Accept:
		return done
	case plan.Return:
		return returned
	case plan.Jump:
		return e.chain(t, v.Chain)
	}
	if e.chain(t, v.Chain) == done {
		return done
	}
	return returned
}

func (e *evaluator) lookup(t *testing.T, family packet.Family, field plan.Field, name string, bits int) *plan.Element {
	if isAddress(field) && e.flow.Family() != family {
		return nil
	}
	i := slices.IndexFunc(e.table.Sets, func(s plan.Set) bool { return s.Name == name })
	if i < 0 {
		t.Fatalf("no set %s", name)
	}
	var key []byte
	switch field {
	case plan.SourceAddress:
		key = e.flow.Source.AsSlice()
	case plan.DestinationAddress:
		key = e.flow.Destination.AsSlice()
	case plan.BothAddresses:
		key = append(e.flow.Source.AsSlice(), e.flow.Destination.AsSlice()...)
	case plan.SourcePort:
		key = binary.BigEndian.AppendUint16(nil, e.flow.SourcePort)
	case plan.DestinationPort:
		key = binary.BigEndian.AppendUint16(nil, e.flow.DestinationPort)
	case plan.OriginalDestination:
		a, _ := e.flow.Asked()
		key = a.AsSlice()
	case plan.OriginalPort:
		_, port := e.flow.Asked()
		key = binary.BigEndian.AppendUint16(nil, port)
	}
	if bits > 0 {
		key = e.flow.Destination.AsSlice()
		for j, m := range net.CIDRMask(bits, 8*len(key)) {
			key[j] &= m
		}
	}
	for j := range e.table.Sets[i].Elements {
		if el := &e.table.Sets[i].Elements[j]; el.First <= string(key) && string(key) <= el.Last {
			return el
		}
	}
	return nil
}

func isAddress(f plan.Field) bool {
	return f != plan.SourcePort && f != plan.DestinationPort && f != plan.OriginalPort
}

// disturb gives some flows what guards look at.
func disturb(r *rand.Rand, f packet.Flow) packet.Flow {
	switch r.IntN(14) {
	case 0:
		f.Mark = 0x4000
	case 1:
		f.Mark = 0x2001
	case 2:
		f.Mark = 0x6000
	case 3:
		f.OriginalDestination, f.Destination = f.Destination, f.Source
	case 4:
		f.OriginalDestination = netip.MustParseAddr("10.96.0.1")
		if f.Family() == packet.IPv6Family {
			f.OriginalDestination = netip.MustParseAddr("fd00:96::1")
		}
	case 5:
		f.IPsec = true
	case 6:
		f.OutInterface = "lo"
	case 7:
		f.Protocol, f.DestinationPort = packet.UDP, 4790
	case 8:
		f.Protocol = packet.GRE
	case 9:
		if f.Family() == packet.IPv4Family {
			f.Source = netip.MustParseAddr("127.0.0.1")
		} else {
			f.Source = netip.MustParseAddr("fe80::1")
		}
	}
	return f
}

// The table means what Decide says, for random policies, facts and flows.
func TestTableMeansDecide(t *testing.T) {
	const policies, flows = 1500, 60
	services := 0 // flows decided by rules for services
	for seed := range uint64(policies) {
		r := rand.New(rand.NewPCG(seed, 1))
		g := policytest.New(r)
		p, facts := g.Policy(), g.Facts()
		table := plan.Compile(p, facts, plan.Options{HashFrom: int(seed % 4)})
		for i := range flows {
			flow := g.Flow(facts)
			if i%2 == 0 {
				flow = g.ToService(facts, flow)
				flow.Mark = []uint32{0, 0, 0x4000, 0x2000}[r.IntN(4)]
			} else {
				flow = disturb(r, flow)
			}
			e := evaluator{table: table, flow: flow}
			e.run(t)
			want := policy.Decide(p, facts, flow)
			if want.Rule != nil && want.Rule.To.Services != nil {
				services++
			}
			if e.action != want.Action || e.address != want.Address || e.counter != counterOf(want) || (e.mark != flow.Mark) != (want.ClearServiceMark && flow.Mark&0x4000 != 0) {
				var b bytes.Buffer
				_ = render.Table(&b, table)
				t.Fatalf("seed %d\nflow %+v\npath %v\ngot  %s %s %s\nwant %+v\n%s", seed, flow, e.path, e.action, e.address, e.counter, want, b.String())
			}
		}
	}
	if services < policies*flows/100 {
		t.Errorf("%d of %d flows were decided by rules for services: the test has lost its aim", services, policies*flows)
	}
}

func counterOf(d policy.Decision) string {
	if d.Rule == nil {
		return ""
	}
	return plan.CounterName(d.Rule)
}

// A change leads from any table to any other: applied to the old one it gives the new.
func TestDiffLeadsThere(t *testing.T) {
	safe := 0
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 2))
		g := policytest.New(r)
		p := g.Policy()
		old := plan.Compile(p, g.Facts(), plan.Options{})
		new := plan.Compile(p, g.Facts(), plan.Options{})
		change, ok := plan.Diff(old, new)
		if !ok {
			continue
		}
		safe++
		if got := apply(old, change); got != outline(new) {
			t.Fatalf("seed %d: after the change\n%s\nwant\n%s", seed, got, outline(new))
		}
	}
	if safe < 20 {
		t.Errorf("only %d changes could be made by differences", safe)
	}
	if change, ok := plan.Diff(&plan.Table{}, &plan.Table{}); !ok || !change.Empty() {
		t.Error("equal tables differ")
	}
}

// outline is a table's sets and chain names, as text, in an order of its own.
func outline(t *plan.Table) string {
	var lines []string
	for _, s := range t.Sets {
		for _, e := range s.Elements {
			lines = append(lines, fmt.Sprintf("%s %x-%x %v", s.Name, e.First, e.Last, e.Verdict))
		}
	}
	for _, c := range t.Chains {
		lines = append(lines, "chain "+c.Name)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func apply(t *plan.Table, c *plan.Change) string {
	out := &plan.Table{}
	for _, s := range t.Sets {
		if slices.ContainsFunc(c.DeleteSets, func(x *plan.Set) bool { return x.Name == s.Name }) {
			continue
		}
		for _, x := range c.Sets {
			if x.Set.Name == s.Name {
				s.Elements = slices.DeleteFunc(slices.Clone(s.Elements), func(e plan.Element) bool { return slices.Contains(x.Delete, e) })
				s.Elements = append(s.Elements, x.Add...)
			}
		}
		out.Sets = append(out.Sets, s)
	}
	for _, s := range c.AddSets {
		out.Sets = append(out.Sets, *s)
	}
	for _, ch := range t.Chains {
		if !slices.ContainsFunc(c.DeleteChains, func(x *plan.Chain) bool { return x.Name == ch.Name }) {
			out.Chains = append(out.Chains, ch)
		}
	}
	for _, ch := range c.AddChains {
		out.Chains = append(out.Chains, *ch)
	}
	return outline(out)
}

func BenchmarkCompile(b *testing.B) {
	var list []netip.Prefix
	for i := range 10000 {
		list = append(list, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24+i%9))
	}
	p := &policy.Policy{Rules: []policy.Rule{
		{Document: "d", Name: "keep", Number: 1, From: policy.From{PodCIDRs: true}, To: policy.To{CIDRs: list}, Action: policy.Keep},
		{Document: "d", Name: "rest", Number: 2, From: policy.From{PodCIDRs: true}, To: policy.To{Everywhere: true}, Action: policy.Masquerade},
	}}
	facts := policytest.New(rand.New(rand.NewPCG(1, 1))).Facts()
	for b.Loop() {
		plan.Compile(p, facts, plan.Options{})
	}
}
