//go:build e2e

package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
)

// The matrix: who is seen as whom, of each source by each way to a service. Two
// nodes n1 and n2 have a backend each, near (w1, on n1) and far (w2, on n2).

// sources of connections: pods p1 on n1 and p2 on n2, the nodes, the host outside,
// whose way to services' addresses is n1, and the backend near itself.
var sources = []string{"p1", "p2", "n1", "n2", "out", "w1"}

// way that a connection goes: a service's name, how it is addressed, and by what.
type way struct{ service, by, network string }

func (w way) String() string { return w.service + " " + w.by + " " + w.network }

// Ways to address a service, or what is none.
const (
	byPod      = "pod"       // its backend's own address
	byCluster  = "ClusterIP" // at the source's node; n1 for the outside
	byPort1    = "NodePort1" // at n1
	byPort2    = "NodePort2" // at n2
	byBalancer = "ingress"   // the load balancer's address
	byExternal = "external"  // one of externalIPs
	byHost     = "host"      // the host outside, beyond the nodes' network
)

// Services, one backend each: near or far. local has externalTrafficPolicy Local,
// inside internalTrafficPolicy Local. sticky has both backends and affinity, spread
// both without; none has no backend.
const (
	near, far             = "near", "far"
	nearLocal, farLocal   = "near-local", "far-local"
	nearInside, farInside = "near-inside", "far-inside"
	sticky, spread, none  = "sticky", "spread", "none"
)

// Cells say what the server saw:
//
//	p1 p2 w1 n1 n2 out   the address of that host; of nodes, of its uplink
//	b1 b2                the address of that node's bridge of pods
//	snat                 the address that a policy states
//	a/b                  a at the backend near, b at the one far: either is right
//	a|b                  a of IPv4, b of IPv6
//	p1~                  that, but the answer goes another way and isn't taken: by TCP a hang
//	w1!                  that, but nobody takes IPv4 from his own address: a hang
//	hung, refused        nobody saw anything
//	denied               nor here: the node's own kernel says so to who sends by UDP, dropped or rejected
//	-                    not asked
//
// expected is that of kube-proxy alone, in each mode and of both families, by hand:
// pods' addresses are kept on the way to services (their networks are
// --cluster-cidr), all others' are translated at ClusterIPs, everybody's at external
// addresses; externalTrafficPolicy Local keeps all but the node's own; what goes back
// to where it came from is translated.
var expected = table{
	//                               p1      p2      n1      n2      out     w1
	{near, byPod, "tcp"}:           "p1      p2      b1      n2      out     w1",
	{near, byCluster, "tcp"}:       "p1      p2      b1      n2      b1      b1",
	{near, byCluster, "udp"}:       "p1      p2      b1      n2      b1      b1",
	{near, byPort1, "tcp"}:         "b1      b1      b1      b1      b1      b1",
	{near, byPort1, "udp"}:         "b1      b1      b1      b1      b1      b1",
	{near, byPort2, "tcp"}:         "n2      n2      n2      n2      n2      n2",
	{near, byPort2, "udp"}:         "n2      n2      n2      n2      n2      n2",
	{near, byBalancer, "tcp"}:      "b1      n2      b1      n2      b1      b1",
	{near, byExternal, "tcp"}:      "b1      n2      b1      n2      b1      b1",
	{nearLocal, byCluster, "tcp"}:  "p1      p2      b1      n2      b1      b1",
	{nearLocal, byPort1, "tcp"}:    "p1      p2      b1      n2      out     b1",
	{nearLocal, byPort1, "udp"}:    "p1      p2      b1      n2      out     b1",
	{nearLocal, byPort2, "tcp"}:    "p1~     p2      hung    n2      hung    n2",
	{nearLocal, byPort2, "udp"}:    "p1~     p2      hung    n2      hung    n2",
	{nearLocal, byBalancer, "tcp"}: "p1      p2      b1      n2      out     b1",
	{nearLocal, byExternal, "tcp"}: "p1      p2      b1      n2      out     b1",
	{nearInside, byCluster, "tcp"}: "p1      hung    b1      hung    b1      b1",
	{nearInside, byCluster, "udp"}: "p1      hung    b1      denied  b1      b1",

	{far, byPod, "tcp"}:           "p1      p2      n1      b2      out     w1",
	{far, byCluster, "tcp"}:       "p1      p2      n1      b2      n1      w1",
	{far, byCluster, "udp"}:       "p1      p2      n1      b2      n1      w1",
	{far, byPort1, "tcp"}:         "n1      n1      n1      n1      n1      n1",
	{far, byPort1, "udp"}:         "n1      n1      n1      n1      n1      n1",
	{far, byPort2, "tcp"}:         "b2      b2      b2      b2      b2      b2",
	{far, byPort2, "udp"}:         "b2      b2      b2      b2      b2      b2",
	{far, byBalancer, "tcp"}:      "n1      b2      n1      b2      n1      n1",
	{far, byExternal, "tcp"}:      "n1      b2      n1      b2      n1      n1",
	{farLocal, byCluster, "tcp"}:  "p1      p2      n1      b2      n1      w1",
	{farLocal, byPort1, "tcp"}:    "p1      p2~     n1      hung    hung    w1",
	{farLocal, byPort1, "udp"}:    "p1      p2~     n1      hung    hung    w1",
	{farLocal, byPort2, "tcp"}:    "p1      p2      n1      b2      out     w1",
	{farLocal, byPort2, "udp"}:    "p1      p2      n1      b2      out     w1",
	{farLocal, byBalancer, "tcp"}: "p1      p2      n1      b2      hung    w1",
	{farLocal, byExternal, "tcp"}: "p1      p2      n1      b2      hung    w1",
	{farInside, byCluster, "tcp"}: "hung    p2      hung    b2      hung    hung",
	{farInside, byCluster, "udp"}: "hung    p2      denied  b2      hung    hung",

	{sticky, byCluster, "tcp"}:  "p1/p1   p2/p2   b1/n1   n2/b2   b1/n1   b1/w1",
	{sticky, byPort1, "tcp"}:    "b1/n1   b1/n1   b1/n1   b1/n1   b1/n1   b1/n1",
	{sticky, byBalancer, "tcp"}: "b1/n1   n2/b2   b1/n1   n2/b2   b1/n1   b1/n1",
	{spread, byCluster, "tcp"}:  "p1/p1   p2/p2   b1/n1   n2/b2   b1/n1   b1/w1",
	{none, byCluster, "tcp"}:    "refused refused refused refused refused refused",
	{none, byCluster, "udp"}:    "refused refused denied  denied  refused refused",
	{none, byPort1, "tcp"}:      "refused refused refused refused refused refused",
	{"", byHost, "tcp"}:         "p1      p2      n1      n2      -       w1",
}

// unmarked are rows in which kube-proxy in nftables mode is another from 1.36 on:
// it knows what goes back to where it came from by its own node's backends alone.
var unmarked = table{
	{nearLocal, byPort2, "tcp"}: "p1~     p2      hung    n2      hung    w1!|w1~",
	{nearLocal, byPort2, "udp"}: "p1~     p2      hung    n2      hung    w1!|w1~",
}

// table of cells, a row for each way with the sources in their order.
type table map[way]string

// cell is one of a table, of one family.
type cell struct {
	way
	from, family string
}

func (c cell) String() string { return fmt.Sprintf("%s from %s to %s", c.family, c.from, c.way) }

var families = []string{"IPv4", "IPv6"}

// cells of both families, with what is expected of each.
func (t table) cells(tb testing.TB) map[cell]string {
	tb.Helper()
	all := map[cell]string{}
	for w, row := range t {
		words := strings.Fields(row)
		if len(words) != len(sources) {
			tb.Fatalf("row %s of the matrix: %d cells, want %d", w, len(words), len(sources))
		}
		for i, from := range sources {
			for _, family := range families {
				word := words[i]
				if four, six, differ := strings.Cut(word, "|"); differ {
					word = map[string]string{"IPv4": four, "IPv6": six}[family]
				}
				if word != "-" {
					all[cell{w, from, family}] = word
				}
			}
		}
	}
	return all
}

// with is the table with other rows in place of some.
func (t table) with(rows table) table {
	changed := maps.Clone(t)
	maps.Copy(changed, rows)
	return changed
}

// fits says whether what was seen is what a cell of a table says.
func (c cell) fits(saw, want string) bool {
	seen, backend, _ := strings.Cut(saw, "@")
	if atNear, atFar, either := strings.Cut(want, "/"); either {
		return seen == atNear && backend == "w1" || seen == atFar && backend == "w2" || backend == "both" && seen == want
	}
	if seen == "hung" {
		return want == "hung" || strings.HasSuffix(want, "!") || c.network == "tcp" && strings.HasSuffix(want, "~")
	}
	return seen == want && (backend == "" || backend == c.backend())
}

// backend that serves the cell, where it's one.
func (c cell) backend() string {
	switch {
	case strings.HasPrefix(c.service, near):
		return "w1"
	case strings.HasPrefix(c.service, far):
		return "w2"
	}
	return "outside"
}

// text of what was seen, as a table for each family.
func text(saw map[cell]string) string {
	rows := map[way]bool{}
	for c := range saw {
		rows[c.way] = true
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	for _, family := range families {
		fmt.Fprintf(w, "%s\t%s\n", family, strings.Join(sources, "\t"))
		for _, row := range slices.SortedFunc(maps.Keys(rows), func(a, b way) int { return strings.Compare(a.String(), b.String()) }) {
			fmt.Fprint(w, row)
			for _, from := range sources {
				fmt.Fprintf(w, "\t%s", saw[cell{row, from, family}])
			}
			fmt.Fprintln(w)
		}
	}
	w.Flush()
	return b.String()
}
