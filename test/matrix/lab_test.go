// Package matrix_test holds what the matrix predicts against what the lab measures with
// real connections. It holds no code beside its tests.
package matrix_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/agent/agenttest"
	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/lab"
	"github.com/unmasq/unmasq/internal/matrix"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/snapshot"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// TestLab: in every scenario of the lab and at every stage, before and after its policy,
// the matrix of its hosts' state says what the peers saw. It takes the last form of each
// scenario; all of them with -tags e2e.
func TestLab(t *testing.T) {
	unmasq := filepath.Join(t.TempDir(), "unmasq")
	if out, err := exec.Command("go", "build", "-o", unmasq, "../../cmd/unmasq").CombinedOutput(); err != nil {
		t.Fatalf("build the program: %v\n%s", err, out)
	}
	for _, s := range lab.Scenarios() {
		name := s.Name
		s.Name = fmt.Sprintf("matrix%d-%s", os.Getpid(), name) // beside others that run the lab
		first := len(s.Forms) - 1
		if everyForm {
			first = 0
		}
		for i := range s.Forms[first:] {
			form := &s.Forms[first+i]
			t.Run(strings.Trim(name+"/"+form.Name, "/"), func(t *testing.T) { judge(t, unmasq, &s, form) })
		}
	}
}

// judge runs a scenario, and asks the matrix at each of its stages.
func judge(t *testing.T, unmasq string, s *lab.Scenario, form *lab.Form) {
	j := &judged{t: t, unmasq: unmasq, scenario: s}
	runner := lab.Runner{Binary: unmasq, Dir: filepath.Join(t.TempDir(), "state"), Measured: j.stage}
	variants := form.Variants()
	if _, err := runner.Run(context.Background(), s, form, variants[len(variants)-1]); err != nil {
		t.Fatal(err)
	}
	if j.compared == 0 || j.stages < 2 {
		t.Errorf("%d connections compared in %d stages", j.compared, j.stages)
	}
	t.Logf("checked: %d connections in %d stages, %d left out", j.compared, j.stages, j.leftOut)
}

type judged struct {
	t                         *testing.T
	unmasq                    string
	scenario                  *lab.Scenario
	compared, leftOut, stages int
}

// stage compares all that was measured of it.
func (j *judged) stage(r *lab.StageResult) {
	j.stages++
	nodes := j.nodes()
	for i := range r.Sightings {
		x := &r.Sightings[i]
		if x.Protocol != "tcp" && x.Protocol != "udp" {
			j.leftOut++ // an echo request has no port that a service could be found by
			continue
		}
		said, ok := j.ask(nodes, x)
		if !ok {
			j.t.Errorf("%s: %s %s %s: the matrix has no such cell", r.Title, x.Call, x.Family, x.Protocol)
			continue
		}
		j.compared++
		if said != x.Sight && !j.diesOutside(said, x) {
			j.t.Errorf("%s: %s %s %s: seen as %q, the matrix says %q", r.Title, x.Call, x.Family, x.Protocol, x.Sight, said)
		}
	}
}

// diesOutside: the peer saw the caller as the matrix says, and is a host outside that
// has no way back to it, which no node's state shows.
func (j *judged) diesOutside(said lab.Sight, x *lab.Sighting) bool {
	to, err := j.scenario.Space(x.To)
	return err == nil && to.Role == lab.Outside && x.Sight == lab.NoReply && said == lab.Itself && x.Seen.Addr() == x.Source.Addr()
}

// nodes are the spaces that forward, as snapshots of theirs show them.
func (j *judged) nodes() []matrix.Node {
	j.t.Helper()
	var all []matrix.Node
	for _, role := range []lab.Role{lab.Host, lab.Router} {
		for i := range j.scenario.Spaces {
			space := &j.scenario.Spaces[i]
			if space.Role != role {
				continue
			}
			ns, err := netns.Open(j.scenario.Namespace(space.Name))
			if err != nil {
				j.t.Fatal(err)
			}
			dir := filepath.Join(j.t.TempDir(), space.Name)
			if out, said, status := agenttest.Run(j.t, ns, "", j.unmasq, "snapshot", "-o", dir); status != 0 {
				j.t.Fatalf("snapshot of %s: %s%s", space.Name, out, said)
			}
			host, err := snapshot.Read([]string{dir}, nil)
			if err != nil {
				j.t.Fatal(err)
			}
			all = append(all, matrix.Node{Name: space.Name, Host: host})
		}
	}
	return all
}

// ask the matrix what the peer of a call sees.
func (j *judged) ask(nodes []matrix.Node, x *lab.Sighting) (lab.Sight, bool) {
	s := matrix.Situation{Nodes: slices.Clone(nodes), Protocol: packet.TCP, Port: x.Target.Port()}
	if x.Protocol == "udp" {
		s.Protocol = packet.UDP
	}
	s.Places = append(s.Places, j.place(x.From, x.Source.Addr(), 0, matrix.Source))
	to := x.To
	if x.Service != "" {
		s.Services, to = []string{x.Target.String()}, ""
		slices.SortStableFunc(s.Nodes, func(a, b matrix.Node) int { return j.away(a, x) - j.away(b, x) })
	} else {
		s.Places = append(s.Places, j.place(x.To, x.Target.Addr(), x.Target.Port(), matrix.Destination))
	}
	if err := s.Check(); err != nil {
		j.t.Errorf("%s: %v", x.Call, err)
		return "", false
	}
	m := matrix.Predict(s)
	for _, c := range m.Cells {
		if c.Family == strings.ToLower(x.Family.String()) && c.Destination == x.Target && j.is(&m, &c, x.From, to) && len(c.Predicted) > 0 {
			return j.seen(&c, x), true
		}
	}
	return "", false
}

// away: services are entered at the node that is here; node ports at their own.
func (j *judged) away(n matrix.Node, x *lab.Sighting) int {
	switch {
	case x.Node != "" && n.Name == x.Node:
		return 0
	case x.Node == "" && len(n.Host.Rules.Tables) > 0 && slices.Contains(j.scenario.Hosts(), n.Name):
		return 0
	}
	return 1
}

// place of a space, whose packets go by the space that it is plugged into.
func (j *judged) place(name string, a netip.Addr, port uint16, only string) matrix.Place {
	space, err := j.scenario.Space(name)
	if err != nil {
		j.t.Fatal(err)
	}
	p := matrix.Place{Name: name, Addresses: []netip.Addr{a}, Port: port, Only: only}
	switch space.Role {
	case lab.Pod:
		p.Kind, p.Node = matrix.Pod, space.Ports[0].Space
	case lab.Outside:
		p.Kind, p.Node = matrix.Outside, space.Ports[0].Space
	default:
		p.Kind, p.Node = matrix.Host, name
	}
	return p
}

// is says whether a cell is of that source, and destination where one is named.
func (j *judged) is(m *matrix.Matrix, c *matrix.Cell, from, to string) bool {
	row := slices.ContainsFunc(m.Rows, func(r matrix.Row) bool { return r.Name == c.Row && r.Place.Name == from })
	return row && slices.ContainsFunc(m.Columns, func(x matrix.Column) bool {
		return x.Name == c.Column && x.Role != matrix.Hairpin && (to == "" && x.Place == nil || x.Place != nil && x.Place.Name == to)
	})
}

// seen is a cell in the lab's words: of a service what the backend in question sees.
func (j *judged) seen(c *matrix.Cell, x *lab.Sighting) lab.Sight {
	sights := c.Predicted
	if x.Service != "" {
		to, err := j.scenario.Space(x.To)
		if err != nil {
			j.t.Fatal(err)
		}
		at := slices.DeleteFunc(slices.Clone(sights), func(s matrix.Sight) bool { return s.At.Addr() != to.Address(x.Family) })
		if len(at) > 0 {
			sights = at
		}
	}
	var all []string
	for i := range sights {
		word := string(j.word(&sights[i]))
		if word == x.From {
			word = string(lab.Itself) // by another of its addresses, which the lab takes for the same
		}
		if !slices.Contains(all, word) {
			all = append(all, word)
		}
	}
	return lab.Sight(strings.Join(all, ", "))
}

func (j *judged) word(s *matrix.Sight) lab.Sight {
	switch s.Verdict {
	case matrix.Kept, matrix.Pinned:
		return lab.Itself
	case matrix.Lost, matrix.Refused:
		return lab.NoReply
	case matrix.Unknown:
		return lab.Sight(fmt.Sprintf("unknown: %s %v", s.Why, s.DependsOn))
	}
	node, _, _ := strings.Cut(s.As, "'s ")
	return lab.Sight(node)
}
