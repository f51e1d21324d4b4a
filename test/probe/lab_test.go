// Package probe_test holds predictions against what real connections come to, in every
// scenario of the lab. It holds no code beside its tests.
package probe_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/agent/agenttest"
	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/lab"
	"github.com/unmasq/unmasq/internal/matrix"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/probe"
	"github.com/unmasq/unmasq/internal/snapshot"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// Every scenario, in its last form (with -tags e2e in every form), at every stage: of each host's pods, the hosts, their
// services and whoever is outside, the matrix predicted from snapshots is what is
// measured, by TCP and UDP, IPv4 and IPv6.
func TestEveryScenario(t *testing.T) {
	program := agenttest.Program(t)
	for _, s := range lab.Scenarios() {
		name := s.Name
		s.Name = fmt.Sprintf("probe%d-%s", os.Getpid(), name) // beside others that run the lab
		for i := range s.Forms {
			if i < len(s.Forms)-1 && !everyForm {
				continue
			}
			form := &s.Forms[i]
			t.Run(name+"/"+form.Name, func(t *testing.T) {
				run := &labRun{t: t, scenario: &s, program: program}
				runner := lab.Runner{Binary: program, Dir: filepath.Join(t.TempDir(), "state"), Measured: func(stage *lab.StageResult) {
					t.Run(stage.Title, run.stage)
				}}
				if _, err := runner.Run(t.Context(), &s, form, foreign.NFT); err != nil {
					t.Fatal(err)
				}
				t.Logf("checked: %d cells are measured as predicted, of which %d arrive so, and have no way back from there", run.cells, run.oneWay)
			})
		}
	}
}

// labRun is a scenario under way.
type labRun struct {
	t             *testing.T
	scenario      *lab.Scenario
	program       string
	cells, oneWay int
}

// stage is looked at from each host.
func (r *labRun) stage(t *testing.T) {
	locals, end := r.locals(t)
	defer end()
	spaces, closePeers, err := probe.OpenLocal(t.Context(), locals, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer closePeers()
	nodes := r.nodes(t)
	for i, host := range r.scenario.Hosts() {
		// Each host is here once.
		slices.SortStableFunc(nodes, func(a, b matrix.Node) int { return first(b.Name, host) - first(a.Name, host) })
		for _, protocol := range protocols(i, len(r.scenario.Hosts())) {
			s := matrix.Situation{Nodes: nodes, Places: r.places(t), Protocol: protocol, Port: spaces[0].Peer, AllServices: true}
			m := matrix.Predict(s)
			x := probe.Measure{Patience: 600 * time.Millisecond, Spaces: append(slices.Clone(spaces), r.backends(spaces)...)}
			if err := x.Fill(t.Context(), &m); err != nil {
				t.Fatal(err)
			}
			r.judge(t, &m, i)
		}
	}
}

// protocols that a host is looked at by: with two hosts one of each has to do.
func protocols(host, hosts int) []uint8 {
	both := []uint8{packet.TCP, packet.UDP}
	if hosts == 1 {
		return both
	}
	return both[host%2 : host%2+1]
}

func first(name, wanted string) int {
	if name == wanted {
		return 1
	}
	return 0
}

// locals are all spaces but the routers.
func (r *labRun) locals(t *testing.T) (all []probe.Local, end func()) {
	t.Helper()
	for _, s := range r.scenario.Spaces {
		if s.Role == lab.Router {
			continue
		}
		l := probe.Local{Name: s.Name, NS: r.open(t, s.Name)}
		if s.Role == lab.Outside {
			l.Elsewhere = func(a netip.Addr) bool { return r.entersAt(t, s.Name, a) == "" }
		}
		all = append(all, l)
	}
	return all, func() {
		for _, l := range all {
			l.NS.Release()
		}
	}
}

func (r *labRun) open(t *testing.T, space string) *netns.NS {
	t.Helper()
	ns, err := netns.Open(r.scenario.Namespace(space))
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

// entersAt is the host by which packets from a space come to an address, by the routes of
// the spaces on the way; empty where they come to none.
func (r *labRun) entersAt(t *testing.T, space string, to netip.Addr) string {
	t.Helper()
	for range r.scenario.Spaces {
		ns := r.open(t, space)
		route, err := ns.Run("", "ip", "-o", "route", "get", to.String())
		ns.Release()
		if err != nil {
			return ""
		}
		next := to
		if _, via, ok := strings.Cut(route, " via "); ok {
			next = netip.MustParseAddr(strings.TrimPrefix(strings.Fields(via)[0], "inet6 "))
		}
		owner := r.owner(next)
		switch {
		case owner == nil:
			return ""
		case owner.Role == lab.Host:
			return owner.Name
		}
		space = owner.Name
	}
	return ""
}

// owner of an address.
func (r *labRun) owner(a netip.Addr) *lab.Space {
	for i := range r.scenario.Spaces {
		s := &r.scenario.Spaces[i]
		has := func(p netip.Prefix) bool { return p.Addr() == a }
		if slices.ContainsFunc(s.Ports, func(p lab.Port) bool { return slices.ContainsFunc(p.Addresses, has) }) ||
			slices.ContainsFunc(s.Bridges, func(b lab.Bridge) bool { return slices.ContainsFunc(b.Addresses, has) }) ||
			slices.ContainsFunc(s.Tunnels, func(x lab.Tunnel) bool { return slices.ContainsFunc(x.Addresses, has) }) {
			return s
		}
	}
	return nil
}

// nodes are snapshots of the hosts, and of the routers between them.
func (r *labRun) nodes(t *testing.T) (all []matrix.Node) {
	t.Helper()
	for _, s := range r.scenario.Spaces {
		if s.Role != lab.Host && s.Role != lab.Router {
			continue
		}
		ns := r.open(t, s.Name)
		dir := filepath.Join(t.TempDir(), s.Name)
		out, said, status := agenttest.Run(t, ns, "", r.program, "snapshot", "-o", dir)
		ns.Release()
		if status != 0 {
			t.Fatalf("snapshot of %s: %s%s", s.Name, out, said)
		}
		host, err := snapshot.Read([]string{dir}, nil)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, matrix.Node{Name: s.Name, Host: host})
	}
	return all
}

// places are all spaces; routers are none.
func (r *labRun) places(t *testing.T) (all []matrix.Place) {
	t.Helper()
	for i := range r.scenario.Spaces {
		s := &r.scenario.Spaces[i]
		p := matrix.Place{Name: s.Name}
		switch s.Role {
		case lab.Host:
			p.Kind, p.Node = matrix.Host, s.Name
		case lab.Pod:
			p.Kind, p.Node = matrix.Pod, s.Ports[0].Space
		case lab.Outside:
			p.Kind, p.Node = matrix.Outside, r.servicesBy(t, s.Name)
		default:
			continue
		}
		for _, f := range packet.Families {
			if a := s.Address(f); a.IsValid() {
				p.Addresses = append(p.Addresses, a)
			}
		}
		all = append(all, p)
	}
	return all
}

// servicesBy is the host that a space's packets to services come in at.
func (r *labRun) servicesBy(t *testing.T, space string) string {
	t.Helper()
	for _, s := range r.scenario.Services {
		if host := r.entersAt(t, space, s.Addresses[0]); host != "" {
			return host
		}
	}
	return ""
}

// backends are the lab's own peers, which services lead to.
func (r *labRun) backends(spaces probe.Spaces) (all probe.Spaces) {
	for _, s := range spaces {
		all = append(all, probe.Space{Name: s.Name, Addresses: s.Addresses, Peer: probe.Port})
	}
	return all
}

// judge a matrix: each cell is predicted for certain, and measured so.
func (r *labRun) judge(t *testing.T, m *matrix.Matrix, host int) {
	t.Helper()
	found := map[string]bool{} // a router's bridge looks like one of containers
	for _, row := range m.Rows {
		found[row.Name] = row.Place.Found != ""
	}
	for _, column := range m.Columns {
		found[column.Name] = column.Place != nil && column.Place.Found != ""
	}
	for i := range m.Cells {
		c := &m.Cells[i]
		switch {
		case c.Why != "" || found[c.Row] || found[c.Column]:
		case len(c.Measured) == 0 && r.comesIn(t, m, c):
			t.Errorf("%s isn't measured; notes: %q", cellText(c), m.Notes)
		case len(c.Measured) == 0:
		case oneWay(c):
			r.oneWay++
			r.cells++
		case c.Differs:
			t.Errorf("host %d: %s: %s", host+1, cellText(c), differences(m, c))
		default:
			r.cells++
		}
	}
}

// comesIn is false for what hosts never see: no way leads from outside to them.
func (r *labRun) comesIn(t *testing.T, m *matrix.Matrix, c *matrix.Cell) bool {
	t.Helper()
	for _, row := range m.Rows {
		if row.Name == c.Row && row.Role == matrix.OutsideOne {
			return r.entersAt(t, row.Place.Name, c.Destination.Addr()) != ""
		}
	}
	return true
}

// oneWay: it arrives as predicted, and the answer finds no way back beyond the hosts.
func oneWay(c *matrix.Cell) bool {
	return len(c.Measured) == 1 && c.Measured[0].Why == probe.ArrivedUnanswered && slices.ContainsFunc(c.Predicted, func(p matrix.Sight) bool {
		return p.Verdict != matrix.Lost && p.Source == c.Measured[0].Source
	})
}

func cellText(c *matrix.Cell) string {
	return fmt.Sprintf("%s from %s (%s) to %s (%s)", c.Family, c.Row, c.Source, c.Column, c.Destination)
}

func differences(m *matrix.Matrix, c *matrix.Cell) string {
	one := matrix.Matrix{Cells: []matrix.Cell{*c}}
	return strings.Join(probe.Differing(&one), "")
}
