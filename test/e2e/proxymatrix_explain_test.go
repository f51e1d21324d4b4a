//go:build e2e

package e2e

import (
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/agent/agenttest"
	"github.com/unmasq/unmasq/internal/explain"
	"github.com/unmasq/unmasq/internal/sim"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// explained asks explain, by snapshots of both nodes, what each cell's server sees,
// and holds its answers against what was seen.
func (m *matrix) explained(t *testing.T, program string, saw, want map[cell]string) {
	t.Helper()
	n1, n2 := m.snapshot(t, program, "n1"), m.snapshot(t, program, "n2")
	// Of who is on the link of both, the first node has the packet first.
	first, second := explain.New(n1, n2), explain.New(n2, n1)
	agree, asked := 0, 0
	var lines []string
	for c, s := range saw {
		if c.from == c.backend() && c.by == byPod {
			continue // it doesn't leave the pod
		}
		asked++
		e := first
		if c.from == "out" && (c.by == byPort2 || c.service == far && c.by == byPod) {
			e = second
		}
		said := m.explain(t, e, c)
		if c.agrees(said, s, want[c]) {
			agree++
			continue
		}
		lines = append(lines, fmt.Sprintf("%s: saw %s, explain says %v", c, s, said))
	}
	slices.Sort(lines)
	if agree != asked {
		t.Errorf("explain agrees in %d of %d cells:\n%s", agree, asked, strings.Join(lines, "\n"))
		return
	}
	t.Logf("checked: explain agrees in all of %d cells", asked)
}

func (m *matrix) snapshot(t *testing.T, program, node string) explain.Node {
	t.Helper()
	dir := filepath.Join(t.TempDir(), node)
	if out, said, status := agenttest.Run(t, m.hosts[node].NS, "", program, "snapshot", "-o", dir); status != 0 {
		t.Fatalf("snapshot of %s: %s%s", node, out, said)
	}
	host, err := snapshot.Read([]string{dir}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return explain.Node{Name: node, Host: host}
}

// explain the cell, in the matrix's words: each of what can happen.
func (m *matrix) explain(t *testing.T, e *explain.Explainer, c cell) []string {
	t.Helper()
	// Of an open port explain tells those of tunnels apart.
	asked, err := explain.Request{Source: m.source(c).String(), SourcePort: "40000", Destination: m.address(c).String() + "/" + c.network}.Parse()
	if err != nil {
		t.Fatal(err)
	}
	words := map[string]bool{}
	m.leaves(e.Explain(asked.Question, sim.Options{}).Outcomes, words)
	return slices.Sorted(maps.Keys(words))
}

// source that the cell's connections are made with: a node sends to its own pods
// with its bridge's address.
func (m *matrix) source(c cell) netip.Addr {
	f := slices.Index(families, c.family)
	if n := m.c.Node(c.from); n != nil && c.by == byPod && c.from[1] == c.backend()[1] {
		return []netip.Addr{n.Pods4.Addr().Next(), n.Pods6.Addr().Next()}[f]
	}
	return []netip.Addr{m.hosts[c.from].IPv4, m.hosts[c.from].IPv6}[f]
}

// leaves are what becomes of the packet behind the last of the nodes.
func (m *matrix) leaves(outcomes []explain.Outcome, words map[string]bool) {
	for _, o := range outcomes {
		switch {
		case o.Next != nil:
			m.leaves(o.Next.Outcomes, words)
		case o.Verdict != "accepted":
			words[o.Verdict] = true
		case o.Source == nil:
			words["unknown source"] = true
		default:
			words[m.called(*o.Source)+"@"+m.called(o.Destination)] = true
		}
	}
}

// agrees says whether explain said what was seen: of one backend that alone, of
// two without affinity both, of two with affinity that among both, which it can't
// tell where the kernel doesn't say whom it remembers.
func (c cell) agrees(said []string, saw, want string) bool {
	seen, backend, _ := strings.Cut(saw, "@")
	switch {
	case strings.TrimRight(want, "~!") != want:
		return slices.Equal(said, []string{strings.TrimRight(want, "~!") + "@" + c.backend()})
	case seen == "hung":
		return slices.Equal(said, []string{"dropped"})
	case seen == "refused":
		return slices.Equal(said, []string{"rejected"})
	case seen == "denied":
		return slices.Equal(said, []string{"rejected"}) || slices.Equal(said, []string{"dropped"})
	}
	atNear, atFar, _ := strings.Cut(want, "/")
	both := slices.Sorted(slices.Values([]string{atNear + "@w1", atFar + "@w2"}))
	switch {
	case backend == "both":
		return slices.Equal(said, both)
	case c.service == sticky:
		return slices.Equal(said, both) || slices.Equal(said, []string{saw})
	}
	return slices.Equal(said, []string{saw})
}
