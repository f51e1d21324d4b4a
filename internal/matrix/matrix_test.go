package matrix_test

import (
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/unmasq/unmasq/internal/matrix"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
	"github.com/unmasq/unmasq/internal/snapshot"
)

var update = flag.Bool("update", false, "write what is printed into testdata")

// dumps of real programs, which hack/dumps writes.
const dumps = "../../test/judge/testdata/dumps/"

// example are the two nodes of docs/example; change edits a node's files.
func example(t *testing.T, change func(node, file, text string) string) []matrix.Node {
	t.Helper()
	var nodes []matrix.Node
	for _, name := range []string{"node-a", "node-b"} {
		dir := filepath.Join("../../docs/example", name)
		if change != nil {
			dir = changed(t, dir, func(file, text string) string { return change(name, file, text) })
		}
		nodes = append(nodes, node(t, name, dir))
	}
	return nodes
}

// changed copy of a snapshot.
func changed(t *testing.T, dir string, change func(file, text string) string) string {
	t.Helper()
	to := t.TempDir()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, f.Name()), []byte(change(f.Name(), string(text))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

func node(t *testing.T, name, path string) matrix.Node {
	t.Helper()
	host, err := snapshot.Read([]string{path}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return matrix.Node{Name: name, Host: host}
}

// dumped is the node of a dump in test/judge.
func dumped(t testing.TB, name string) matrix.Node {
	t.Helper()
	archive, err := txtar.ParseFile(dumps + name + ".txt")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, f := range archive.Files {
		if f.Name == "situation" || f.Name == "ruleset.nft" {
			continue // how the node was made, and its rules once more
		}
		if err := os.WriteFile(filepath.Join(dir, f.Name), f.Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	host, err := snapshot.Read([]string{dir}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return matrix.Node{Name: "n1", Host: host}
}

// words of a matrix' cells: "pod-here → outside ipv4" is "kept".
func words(m *matrix.Matrix) map[string]string {
	all := map[string]string{}
	for _, c := range m.Cells {
		if len(c.Predicted) > 0 {
			all[fmt.Sprintf("%s → %s %s", c.Row, c.Column, c.Family)] = matrix.Words(c.Predicted)
		}
	}
	return all
}

// golden compares with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s\n-want +got\n%s", path, diff)
	}
}

// TestAsPrinted: tables of real nodes as a person sees them.
func TestAsPrinted(t *testing.T) {
	for name, s := range map[string]matrix.Situation{
		"two-nodes":   {Nodes: example(t, nil)},
		"iptables":    {Nodes: []matrix.Node{dumped(t, "kube-proxy-v1.37.1-nft")}},
		"nftables":    {Nodes: []matrix.Node{dumped(t, "kube-proxy-v1.37.1-nftables")}},
		"masqueraded": {Nodes: []matrix.Node{dumped(t, "kube-proxy-v1.37.1-masquerade-all-nftables")}},
		"docker":      {Nodes: []matrix.Node{dumped(t, "docker-nft")}},
		"published":   {Nodes: []matrix.Node{dumped(t, "docker-published-nftables")}},
		"masq-agent":  {Nodes: []matrix.Node{dumped(t, "ip-masq-agent-nft")}},
		"flannel":     {Nodes: []matrix.Node{dumped(t, "flannel-nftables")}},
	} {
		t.Run(name, func(t *testing.T) {
			m := matrix.Predict(s)
			text := m.Text()
			golden(t, name+".txt", text)
			for line := range strings.Lines(text) {
				if n := len([]rune(strings.TrimRight(line, "\n"))); n > 120 {
					t.Errorf("%d columns: %s", n, line)
				}
			}
		})
	}
}

// TestModesOfKubeProxyAreAlike: what a client is seen as doesn't hang on how kube-proxy
// writes its rules, nor on its version.
func TestModesOfKubeProxyAreAlike(t *testing.T) {
	for _, all := range []string{"", "-masquerade-all"} {
		var first map[string]string
		compared := 0
		for _, version := range []string{"v1.34.4", "v1.35.4", "v1.36.3", "v1.37.1"} {
			for _, variant := range []string{"-legacy", "-nft", "-nftables"} {
				name := "kube-proxy-" + version + all + variant
				if _, err := os.Stat(dumps + name + ".txt"); err != nil {
					continue // iptables mode was recorded of the oldest and the newest
				}
				m := matrix.Predict(matrix.Situation{Nodes: []matrix.Node{dumped(t, name)}})
				got := words(&m)
				if first == nil {
					first = got
				}
				compared++
				if diff := cmp.Diff(first, got); diff != "" {
					t.Errorf("%s\n-first +this\n%s", name, diff)
				}
			}
		}
		if compared < 8 || len(first) < 60 {
			t.Errorf("%d dumps, %d cells", compared, len(first))
		}
	}
}

// TestCells of real kube-proxies' rules: who is seen as whom.
func TestCells(t *testing.T) {
	usual := matrix.Predict(matrix.Situation{Nodes: []matrix.Node{dumped(t, "kube-proxy-v1.37.1-nft")}})
	all := matrix.Predict(matrix.Situation{Nodes: []matrix.Node{dumped(t, "kube-proxy-v1.37.1-masquerade-all-nft")}})
	for _, c := range []struct{ cell, usual, masqueradeAll string }{
		{"pod-here → pod-there", "kept", "kept"},
		{"pod-here → cluster-ip-here", "kept", "as n1's cni0"},
		{"pod-here → cluster-ip-there", "kept", "as n1's eth0"},
		{"pod-here → itself", "as n1's cni0", "as n1's cni0"},
		{"pod-here → cluster-ip-none", "refused", "refused"},
		{"pod-here → outside", "kept", "kept"},
		{"this-node → cluster-ip-here", "as n1's cni0", "as n1's cni0"},
		{"this-node → outside", "kept (eth0)", "kept (eth0)"},
		{"outside → cluster-ip-there", "as n1's eth0", "as n1's eth0"},
		{"outside → node-port-cluster", "as n1's cni0 50 %, as n1's eth0 50 %", "as n1's cni0 50 %, as n1's eth0 50 %"},
		{"outside → node-port-local", "kept", "kept"},
		{"this-node → node-port-local", "as n1's cni0 50 %, as n1's eth0 50 %", "as n1's cni0 50 %, as n1's eth0 50 %"},
		{"outside → outside", "", ""},
	} {
		for _, family := range []string{" ipv4", " ipv6"} {
			if got := words(&usual)[c.cell+family]; got != c.usual {
				t.Errorf("%s%s: %q, want %q", c.cell, family, got, c.usual)
			}
			if got := words(&all)[c.cell+family]; got != c.masqueradeAll {
				t.Errorf("masqueradeAll: %s%s: %q, want %q", c.cell, family, got, c.masqueradeAll)
			}
		}
	}
}

// noClusterCIDR takes the rule away by which kube-proxy masquerades clients outside.
func noClusterCIDR(_, file, text string) string {
	if file != snapshot.FileIPTables {
		return text
	}
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.Contains(line, "! -s 10.244.0.0/16 -d 10.96.0.10/32") && !strings.Contains(line, "! -s 10.244.0.0/16 -d 10.244.0.0/16") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// TestAnswersThatGoAnotherWay: where clients outside are kept, a backend on another
// node answers past the one that holds the connection.
func TestAnswersThatGoAnotherWay(t *testing.T) {
	const cell = "outside → cluster-ip-both ipv4"
	hidden := matrix.Predict(matrix.Situation{Nodes: example(t, nil)})
	if got := words(&hidden)[cell]; got != "as node-a's cni0 50 %, as node-a's flannel.1 50 %" {
		t.Errorf("hidden: %q", got)
	}
	kept := matrix.Predict(matrix.Situation{Nodes: example(t, noClusterCIDR)})
	if got := words(&kept)[cell]; got != "kept 50 %, lost 50 %" {
		t.Errorf("kept: %q", got)
	}
	for _, c := range kept.Cells {
		if c.Row != "outside" || c.Column != "cluster-ip-both" {
			continue
		}
		want := "the answer leaves node-b by eth0 and doesn't come by node-a, which holds the connection"
		if s := c.Predicted[1]; s.Why != want || s.At != netip.MustParseAddrPort("10.244.2.9:8080") {
			t.Errorf("%q at %s, want %q", s.Why, s.At, want)
		}
	}
	one := example(t, noClusterCIDR)[:1]
	alone := matrix.Predict(matrix.Situation{Nodes: one})
	if got := words(&alone)[cell]; got != "kept" {
		t.Errorf("of one node: %q", got)
	}
	depends := "the way back: whether 10.244.2.9 answers 1.1.1.1 by way of node-a, which holds the connection"
	if !strings.Contains(alone.Text(), "depends on "+strings.Fields(depends)[0]) {
		t.Errorf("of one node nothing says that it depends on the way back:\n%s", alone.Text())
	}
	stated := matrix.Place{Kind: matrix.Outside, Name: "office", Node: "node-b", Addresses: []netip.Addr{netip.MustParseAddr("198.51.100.9")}}
	other := matrix.Predict(matrix.Situation{Nodes: example(t, noClusterCIDR), Places: []matrix.Place{stated}})
	for _, c := range other.Cells {
		for _, s := range c.Predicted {
			if c.Row == "outside" && c.Column == "cluster-ip-both" && (s.Verdict == matrix.Lost) != (s.At == netip.MustParseAddrPort("10.244.1.8:8080")) {
				t.Errorf("coming in at node-b, it is %s at %s", s.Verdict, s.At)
			}
		}
	}
}

// TestAnswersOnTheSameBridge: a backend on the client's own bridge answers straight
// away where bridges don't call iptables.
func TestAnswersOnTheSameBridge(t *testing.T) {
	for value, want := range map[string]string{"1": "kept", "0": "lost 50 %, kept 50 %"} {
		nodes := example(t, func(_, file, text string) string {
			if file != snapshot.FileSysctl {
				return text
			}
			var b strings.Builder
			for line := range strings.Lines(text) {
				if !strings.HasPrefix(line, "net.bridge.bridge-nf-call-iptables") {
					b.WriteString(line)
				}
			}
			return b.String() + "net.bridge.bridge-nf-call-iptables = " + value + "\n"
		})
		m := matrix.Predict(matrix.Situation{Nodes: nodes})
		if got := words(&m)["pod-here → cluster-ip-both ipv4"]; got != want {
			t.Errorf("bridge-nf-call-iptables = %s: %q, want %q", value, got, want)
		}
	}
}

// TestServices that are asked about by name, and those that can't be.
func TestServices(t *testing.T) {
	n := dumped(t, "kube-proxy-v1.37.1-nftables")
	columns := func(s matrix.Situation) (names []string) {
		s.Nodes = []matrix.Node{n}
		if err := s.Check(); err != nil {
			t.Fatal(err)
		}
		for _, c := range matrix.Predict(s).Columns {
			if c.Service != "" {
				names = append(names, c.Name)
			}
		}
		return names
	}
	for _, c := range []struct {
		service string
		want    []string
	}{
		{"default/one", []string{"default/one:http cluster-ip-here", "default/one:http itself"}},
		{"default/one:http", []string{"default/one:http cluster-ip-here", "default/one:http itself"}},
		{"default/node-port-local", []string{"default/node-port-local:http cluster-ip-both", "default/node-port-local:http itself", "default/node-port-local:http node-port-local"}},
		{"10.96.0.5", []string{"default/none:http cluster-ip-none"}},
		{"[fd00:96::5]:80", []string{"default/none:http cluster-ip-none"}},
	} {
		if diff := cmp.Diff(c.want, columns(matrix.Situation{Services: []string{c.service}})); diff != "" {
			t.Errorf("%s\n-want +got\n%s", c.service, diff)
		}
	}
	if got := columns(matrix.Situation{AllServices: true}); len(got) < 40 || len(slices.Compact(slices.Sorted(slices.Values(got)))) != len(got) {
		t.Errorf("all: %d: %v", len(got), got)
	}
	udp := columns(matrix.Situation{Protocol: packet.UDP})
	if diff := cmp.Diff([]string{"cluster-ip-both", "itself", "node-port-cluster"}, udp); diff != "" {
		t.Errorf("udp\n%s", diff)
	}
	err := matrix.Situation{Nodes: []matrix.Node{n}, Services: []string{"default/headless"}}.Check()
	want := `service "default/headless" isn't in the rules of n1 (headless services and ExternalName have none); expected NAMESPACE/NAME, NAMESPACE/NAME:PORT or an address; it knows default/affinity:http, default/balancer-local:http, default/balancer-none:http, default/balancer-sources:http, default/balancer:http and `
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v\nwant %s", err, want)
	}
}

// TestPlaces that are stated stand in the place of found ones, or beside them.
func TestPlaces(t *testing.T) {
	address := netip.MustParseAddr
	m := matrix.Predict(matrix.Situation{Nodes: example(t, nil), Places: []matrix.Place{
		{Kind: matrix.Pod, Name: "default/client", Addresses: []netip.Addr{address("10.244.1.7")}, Only: matrix.Source},
		{Kind: matrix.Pod, Name: "default/other", Addresses: []netip.Addr{address("10.244.1.9")}, Only: matrix.Source},
		{Kind: matrix.Outside, Name: "office", Addresses: []netip.Addr{address("198.51.100.9")}, Port: 443},
		{Kind: matrix.Network, Name: "mirror", CIDR: netip.MustParsePrefix("192.168.200.0/24"), Addresses: []netip.Addr{address("192.168.200.1")}},
	}})
	got := map[string]string{}
	for _, r := range m.Rows {
		got["row "+r.Name] = r.Place.Name
	}
	for _, c := range m.Columns {
		if c.Place != nil {
			got["column "+c.Name] = fmt.Sprint(c.Place.Name, " ", c.Targets[0].Address, ":", c.Targets[0].Port)
		}
	}
	want := map[string]string{
		"row pod-here": "default/client", "row default/other": "default/other", "row pod-there": "pod on node-b", "row this-node": "node-a", "row other-node": "node-b", "row outside": "office",
		"column pod-here": "pod on node-a 10.244.1.8:8080", "column pod-there": "pod on node-b 10.244.2.9:8080", "column this-node": "node-a 192.0.2.11:8080",
		"column other-node": "node-b 192.0.2.12:8080", "column outside": "office 198.51.100.9:443", "column mirror": "mirror 192.168.200.1:8080",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// TestEveryDumpIsAnswered: no dump of a real program makes a cell that can't be read, or
// two cells of one place.
func TestEveryDumpIsAnswered(t *testing.T) {
	files, err := filepath.Glob(dumps + "*.txt")
	if err != nil || len(files) < 30 {
		t.Fatalf("%d dumps: %v", len(files), err)
	}
	verdicts := map[matrix.Verdict]int{}
	for _, file := range files {
		m := matrix.Predict(matrix.Situation{Nodes: []matrix.Node{dumped(t, strings.TrimSuffix(filepath.Base(file), ".txt"))}})
		if len(m.Rows) < 3 {
			t.Errorf("%s: %d rows", file, len(m.Rows))
		}
		seen := map[string]bool{}
		for _, c := range m.Cells {
			key := c.Row + c.Column + c.Family
			if seen[key] || (len(c.Predicted) == 0) == (c.Why == "") {
				t.Errorf("%s: cell %+v", file, c)
			}
			seen[key] = true
			sum := 0.0
			for _, s := range c.Predicted {
				verdicts[s.Verdict]++
				if s.Share == nil {
					sum = 1
				} else {
					sum += *s.Share
				}
			}
			if len(c.Predicted) > 0 && (sum < 0.99 || sum > 1.01) {
				t.Errorf("%s: the shares of %s to %s are %v", file, c.Row, c.Column, sum)
			}
		}
	}
	if verdicts[matrix.Kept] < 100 || verdicts[matrix.Masqueraded] < 100 || verdicts[matrix.Refused] < 20 || verdicts[matrix.Unknown] > 0 {
		t.Errorf("%v", slices.Collect(maps.Keys(verdicts)))
	}
	t.Logf("checked: %d dumps, sights %v", len(files), verdicts)
}

// TestManyNodes: the first is here, three more are rows and columns, the rest is used.
func TestManyNodes(t *testing.T) {
	nodes := example(t, nil)
	for i := 3; i <= 6; i++ {
		n := fmt.Sprint(i)
		dir := changed(t, "../../docs/example/node-b", func(_, text string) string {
			return strings.NewReplacer("10.244.2.", "10.244."+n+".", "192.0.2.12", "192.0.2.1"+n, "f4:02:0", "f4:0"+n+":0").Replace(text)
		})
		nodes = append(nodes, node(t, "node-"+n, dir))
	}
	m := matrix.Predict(matrix.Situation{Nodes: nodes})
	var rows []string
	for _, r := range m.Rows {
		rows = append(rows, r.Name)
	}
	want := []string{"pod-here", "pod-there", "pod on node-3", "pod on node-4", "this-node", "other-node", "node-3", "node-4", "outside"}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if note := "2 more nodes aren't in the table by themselves; their state is used"; !slices.Contains(m.Notes, note) {
		t.Errorf("%q isn't in %q", note, m.Notes)
	}
	if got := words(&m)["pod on node-3 → pod-here ipv4"]; got != "kept" {
		t.Errorf("from another pod: %q", got)
	}
}

// TestOneFamily: a service that has no address of a family is said to have none.
func TestOneFamily(t *testing.T) {
	s := matrix.Situation{Nodes: []matrix.Node{dumped(t, "docker-published-nftables")}, Services: []string{"192.168.5.10:8081"}}
	m := matrix.Predict(s)
	if note := "service 192.168.5.10:8081 has an IPv4 address alone"; !slices.Contains(m.Notes, note) {
		t.Errorf("%q isn't in %q", note, m.Notes)
	}
	for _, c := range m.Cells {
		if c.Row == "outside" && strings.HasSuffix(c.Column, "published-port") && c.Family == "ipv6" && c.Why != "the destination has no IPv6 address" {
			t.Errorf("%+v", c)
		}
	}
}

// TestPolicyIsPreviewed: a table that isn't in force changes the cells that it decides,
// and the node stays as it was.
func TestPolicyIsPreviewed(t *testing.T) {
	table, problems := nftables.ReadText(`table inet unmasq {
	chain postrouting {
		type nat hook postrouting priority -199; policy accept;
		ip saddr 10.244.1.0/24 ip daddr 1.1.1.1 snat ip to ip saddr
	}
}
`, 1)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	nodes := example(t, nil)
	tables := len(nodes[0].Host.Rules.Tables)
	before := matrix.Predict(matrix.Situation{Nodes: nodes})
	after := matrix.Predict(matrix.Situation{Nodes: []matrix.Node{nodes[0].With(table.Tables[0]), nodes[1]}})
	if n := after.Since(&before); n != 1 {
		t.Errorf("%d cells changed", n)
	}
	for _, c := range after.Cells {
		if changed := c.Row == "pod-here" && c.Column == "outside"; changed != (c.Before != nil) || changed && (c.Predicted[0].Verdict != matrix.Pinned || matrix.Words(c.Before) != "as node-a's eth0") {
			t.Errorf("%s to %s: %v, before %v", c.Row, c.Column, c.Predicted, c.Before)
		}
	}
	again := nodes[0].With(table.Tables[0]).With(table.Tables[0])
	if len(nodes[0].Host.Rules.Tables) != tables || len(again.Host.Rules.Tables) != tables+1 {
		t.Errorf("%d tables, with the policy %d", len(nodes[0].Host.Rules.Tables), len(again.Host.Rules.Tables))
	}
}
