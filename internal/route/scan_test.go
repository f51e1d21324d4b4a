package route_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/route"
)

// jsonRoutes is what ip -j route prints of that many routes.
func jsonRoutes(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,{"dst":"20.%d.%d.%d/32","gateway":"192.0.2.%d","dev":"eth0","protocol":"bird","metric":32,"flags":["onlink"]}`, i>>16&255, i>>8&255, i&255, 2+i%250)
	}
	return "[" + strings.TrimPrefix(b.String(), ",") + "]"
}

// TestJSONAllocations: a router has a million routes; each costs its text, its
// next hop and little else.
func TestJSONAllocations(t *testing.T) {
	const routes = 10_000
	text := jsonRoutes(routes)
	allocations := testing.AllocsPerRun(3, func() {
		n := &route.Network{}
		if problems := n.ReadJSON(route.Routes, text, 1, packet.IPv4Family); len(problems) > 0 || len(n.Routes) != routes {
			t.Fatal(len(n.Routes), problems)
		}
	})
	if each := allocations / routes; each > 4 {
		t.Errorf("%.1f allocations a route", each)
	}
}

// TestJSONBad: what isn't JSON, or not a list of objects, is said with its line.
func TestJSONBad(t *testing.T) {
	const good = `[{"dst":"default","gateway":"192.0.2.254","dev":"eth0","flags":[]}]`
	for name, c := range map[string]struct {
		text, why string
		line      int
	}{
		"nothing":        {"", "found nothing", 1},
		"an object":      {"{}", "expected a list of objects", 1},
		"cut in a list":  {"[\n{\"dst\":\"default\"", "unexpected EOF", 2},
		"cut in a text":  {"[{\"dst\":\"defa", "unexpected EOF", 1},
		"cut in a word":  {"[{\"dst\":nul", "unexpected EOF", 1},
		"cut in a name":  {"[{\"ds", "unexpected EOF", 1},
		"cut in numbers": {"[{\"metric\":1", "unexpected EOF", 1},
		"a comma":        {"[,]", `","`, 1},
		"no colon":       {`[{"dst" "default"}]`, `'"'`, 1},
		"no name":        {`[{1:2}]`, "field's name", 1},
		"a bad number":   {`[{"metric":01}]`, `"01"`, 1},
		"a bare word":    {`[{"metric":NaN}]`, `"N"`, 1},
		"a bad escape":   {`[{"dst":"\x"}]`, "invalid character", 1},
		"a newline":      {"[{\"dst\":\"a\nb\"}]", "within a text", 1},
		"too deep":       {"[" + strings.Repeat(`{"a":[`, 1000), "nested too deep", 1},
		"a tail":         {good + "\n]", "expected a list of objects", 2},
	} {
		n := &route.Network{}
		problems := n.ReadJSON(route.Routes, c.text, 1, packet.IPv4Family)
		if len(problems) == 0 || !strings.Contains(problems[0].Why, c.why) || problems[0].Line != c.line {
			t.Errorf("%s: %+v", name, problems)
		}
		if n.IPv4.Main {
			t.Errorf("%s: table main counts as given", name)
		}
	}
}

// TestJSONTexts: escapes and bytes that aren't UTF-8.
func TestJSONTexts(t *testing.T) {
	n := &route.Network{}
	problems := n.ReadJSON(route.Routes, "[ ] [{\"dst\":\"10.0.0.0\\/8\" , \"dev\":\"\\u0065th0\",\"protocol\":\"b\xfcrd\",\"flags\":[ ],\"metric\":1e1}]", 1, 0)
	if len(n.Routes) != 1 || n.Routes[0].Destination.String() != "10.0.0.0/8" || n.Routes[0].Nexthops[0].Interface != "eth0" || n.Routes[0].Protocol != "b\ufffdrd" {
		t.Errorf("%+v", n.Routes)
	}
	if len(problems) != 1 || !strings.Contains(problems[0].Why, "metric 1e1") {
		t.Errorf("%+v", problems)
	}
}

// TestHostileRoutes: what isn't linear takes longer than a test may.
func TestHostileRoutes(t *testing.T) {
	const many = 200_000
	for name, text := range map[string]string{
		"next hops":         "10.0.0.0/8\n" + strings.Repeat("\tnexthop via 192.0.2.1 dev eth0 weight 1\n", many),
		"unknown next hops": "10.0.0.0/8\n" + strings.Repeat("\tnexthop via 192.0.2.1 dev eth0 splendid\n", many),
		"default routes":    strings.Repeat("default via 192.0.2.1 dev eth0\n", many),
		"siblings":          strings.Repeat("2001:db8::/64 via fe80::1 dev eth0 metric 1024\n", many),
	} {
		n := &route.Network{}
		problems := n.ReadText(route.Routes, text, 1, 0)
		n.Complete()
		if len(problems) > 1 || len(n.Routes) == 0 {
			t.Errorf("%s: %d problems, %d routes", name, len(problems), len(n.Routes))
		}
	}
}

// TestLostRouteKeepsItsHops: the next hops of a route that isn't understood are
// not those of the one before it.
func TestLostRouteKeepsItsHops(t *testing.T) {
	n := &route.Network{}
	problems := n.ReadText(route.Routes, "default via 192.0.2.254 dev eth0\n10.5.0.0/99 proto bird\n\tnexthop via 192.0.2.3 dev eth0 weight 1\n", 1, packet.IPv4Family)
	if len(n.Routes) != 1 || len(n.Routes[0].Nexthops) != 1 || n.Routes[0].Text != "default via 192.0.2.254 dev eth0" {
		t.Errorf("%+v", n.Routes)
	}
	if len(problems) != 2 || len(n.Missing(packet.IPv4Family)) == 0 || !strings.Contains(strings.Join(n.Missing(packet.IPv4Family), ","), "line 3") {
		t.Errorf("%+v, missing %q", problems, n.Missing(packet.IPv4Family))
	}
}
