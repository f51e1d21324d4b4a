package flows

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unmasq/unmasq/internal/conntrack"
	"github.com/unmasq/unmasq/internal/explain"
	"github.com/unmasq/unmasq/internal/ruleset/rulesettest"
	"github.com/unmasq/unmasq/internal/snapshot"
)

const examples = "../../docs/example/node-a"

func example(t testing.TB, more ...string) *snapshot.Host {
	t.Helper()
	host, err := snapshot.Read(append([]string{examples}, more...), nil)
	if err != nil {
		t.Fatal(err)
	}
	return host
}

// entries as `conntrack -L` prints them.
func entries(t testing.TB, text string) []conntrack.Entry {
	t.Helper()
	all, problems := conntrack.Read(text, 1)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return all
}

// What a connection is called, on the example's node with flannel and kube-proxy.
func TestBy(t *testing.T) {
	j := NewJudge(example(t))
	for _, x := range []struct{ name, line, direction, want string }{
		{"masqueraded", "tcp 6 9 ESTABLISHED src=10.244.1.7 dst=192.168.200.253 sport=41234 dport=443 src=192.168.200.253 dst=192.0.2.11 sport=443 dport=62113",
			"forwarded", "masqueraded by flannel: FLANNEL-POSTRTG:5"},
		{"with another port", "tcp 6 9 ESTABLISHED src=10.244.1.7 dst=10.244.2.9 sport=41234 dport=443 src=10.244.2.9 dst=10.244.1.7 sport=443 dport=62113",
			"forwarded", "kept"},
		{"as another address", "tcp 6 9 ESTABLISHED src=10.244.1.7 dst=192.168.200.253 sport=41234 dport=443 src=192.168.200.253 dst=192.0.2.99 sport=443 dport=41234",
			"forwarded", "translated; the rules now: masqueraded by flannel: FLANNEL-POSTRTG:5, seen as 192.0.2.11"},
		{"kept before", "udp 17 9 src=10.244.1.7 dst=192.168.200.253 sport=41234 dport=53 src=192.168.200.253 dst=10.244.1.7 sport=53 dport=41234",
			"forwarded", "kept; the rules now: masqueraded by flannel: FLANNEL-POSTRTG:5, seen as 192.0.2.11"},
		{"a service", "tcp 6 9 ESTABLISHED src=10.244.1.7 dst=10.96.0.10 sport=50010 dport=80 src=10.244.2.9 dst=10.244.1.7 sport=8080 dport=50010",
			"forwarded", "kept; dnat by kube-proxy"},
		{"an endpoint that is gone", "tcp 6 9 ESTABLISHED src=10.244.1.7 dst=10.96.0.10 sport=50010 dport=80 src=10.244.2.77 dst=10.244.1.7 sport=8080 dport=50010",
			"forwarded", "kept; the rules now: sent to 10.244.1.8, 10.244.2.9"},
		{"a ping", "icmp 1 29 src=10.244.1.7 dst=8.8.8.8 type=8 code=0 id=7 src=8.8.8.8 dst=192.0.2.11 type=0 code=0 id=7",
			"forwarded", "masqueraded by flannel: FLANNEL-POSTRTG:5"},
		{"the node's", "tcp 6 9 ESTABLISHED src=192.0.2.11 dst=192.0.2.10 sport=33880 dport=6443 src=192.0.2.10 dst=192.0.2.11 sport=6443 dport=33880", "out", "kept"},
		{"to the node", "tcp 6 9 ESTABLISHED src=192.0.2.10 dst=192.0.2.11 sport=33880 dport=22 src=192.0.2.11 dst=192.0.2.10 sport=22 dport=33880", "in", "kept"},
		{"within the node", "tcp 6 9 ESTABLISHED src=127.0.0.1 dst=127.0.0.1 sport=33880 dport=22 src=127.0.0.1 dst=127.0.0.1 sport=22 dport=33880", "local", "kept"},
	} {
		t.Run(x.name, func(t *testing.T) {
			for range 2 { // the second one is remembered
				f := j.Flow(&entries(t, x.line)[0], nil)
				if f.By() != x.want || f.Direction != x.direction {
					t.Errorf("%s, %q; want %s, %q", f.Direction, f.By(), x.direction, x.want)
				}
			}
			f := NoRules().Flow(&entries(t, x.line)[0], nil)
			if f.ByRules != Unknown || f.DecidedBy != nil || strings.Contains(f.By(), "kept") == (f.SeenAs != f.Source) {
				t.Errorf("without rules: %q, %+v", f.By(), f)
			}
		})
	}
}

// A rule that asks for source ports tells connections of one class apart.
func TestSourcePorts(t *testing.T) {
	rules := t.TempDir() + "/rules"
	text := "*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -s 10.1.0.0/16 -p tcp -m tcp --sport 1000:1999 -j SNAT --to-source 192.0.2.7\n-A POSTROUTING -s 10.1.0.0/16 -p tcp -j SNAT --to-source 192.0.2.7\nCOMMIT\n"
	if err := os.WriteFile(rules, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	host, err := snapshot.Read([]string{rules}, nil)
	if err != nil {
		t.Fatal(err)
	}
	j := NewJudge(host)
	for port, want := range map[int]string{1500: "snat by POSTROUTING:1", 2500: "snat by POSTROUTING:2"} {
		line := fmt.Sprintf("tcp 6 9 ESTABLISHED src=10.1.0.7 dst=203.0.113.9 sport=%d dport=443 src=203.0.113.9 dst=192.0.2.7 sport=443 dport=%d", port, port)
		for range 2 {
			if f := j.Flow(&entries(t, line)[0], nil); f.By() != want {
				t.Errorf("port %d: %q, want %q", port, f.By(), want)
			}
		}
	}
	// Rules of nftables weren't given, so nobody knows what else there is.
	f := j.Flow(&entries(t, "tcp 6 9 ESTABLISHED src=10.1.0.7 dst=203.0.113.9 sport=1 dport=443 src=203.0.113.9 dst=192.0.2.8 sport=443 dport=1")[0], nil)
	if f.By() != "translated; not all rules could be read" || j.Missing() != "not all rules were given" {
		t.Errorf("%q, %q", f.By(), j.Missing())
	}
}

func TestPolicyRule(t *testing.T) {
	for chain, want := range map[string]string{
		"rule-ip/default/internet": "default/internet", "rule-ip6/default/internet.g12": "default/internet",
		"rule-ip/default/a.g": "default/a.g", "rule-ip/default/a.gx": "default/a.gx", "guards-ip": "", "postrouting": "",
	} {
		if got := policyRule("unmasq", chain); got != want {
			t.Errorf("%s: %q, want %q", chain, got, want)
		}
	}
	if got := policyRule("mine", "rule-ip/a/b"); got != "" {
		t.Errorf("another's table: %q", got)
	}
}

func TestService(t *testing.T) {
	for _, x := range []struct{ owner, chain, rule, want string }{
		{"kube-proxy", "KUBE-SEP-X", `-A KUBE-SEP-X -p tcp -m comment --comment "default/web:http" -m tcp -j DNAT --to-destination 10.244.2.9:8080`, "default/web:http"},
		{"kube-proxy", "endpoint-5OJB2KTY-default/web/tcp/http__10.244.1.8/8080", "meta l4proto tcp dnat to 10.244.1.8:8080", "default/web:http"},
		{"kube-proxy", "endpoint-5OJB2KTY-default/web/tcp/__10.244.1.8/8080", "meta l4proto tcp dnat to 10.244.1.8:8080", "default/web"},
		{"kube-proxy", "service-PFISGYVC-default/web/tcp/", "meta l4proto tcp dnat to 10.244.2.2:8080", "default/web"},
		{"kube-proxy", "endpoint-5OJB2KTY", "", ""},
		{"kube-proxy", "mark-for-masquerade", "", ""},
		{"docker", "DOCKER", `-A DOCKER -m comment --comment "default/web"`, ""},
	} {
		if got := service(explain.Step{Owner: x.owner, Chain: x.chain, Rule: x.rule}); got != x.want {
			t.Errorf("%s: %q, want %q", x.chain, got, x.want)
		}
	}
}

// Columns are as wide as the rows that are there when they're first written, and
// only grow.
func TestTable(t *testing.T) {
	var out bytes.Buffer
	table := Table{Out: &out, Watch: true}
	add := func(source, event string) {
		t.Helper()
		if err := table.Add(&Flow{Protocol: "udp", Source: netip.MustParseAddr(source), SeenAs: netip.MustParseAddr(source), Destination: netip.MustParseAddr("10.0.0.9"), SourceKind: "kept"}, event, "10:00:00.000"); err != nil {
			t.Fatal(err)
		}
	}
	add("10.0.0.1", "open")
	if out.Len() != 0 {
		t.Errorf("early: %s", out.String())
	}
	if err := table.Flush(); err != nil {
		t.Fatal(err)
	}
	add("fd00:1234:5678::1", "new")
	add("10.0.0.1", "ended")
	want := `TIME          EVENT  PROTO  SOURCE    SEEN AS  DESTINATION  BACKEND  STATE      BY
10:00:00.000  open   udp    10.0.0.1  itself   10.0.0.9     -        UNREPLIED  kept
10:00:00.000  new    udp    fd00:1234:5678::1  itself   10.0.0.9     -        UNREPLIED  kept
10:00:00.000  ended  udp    10.0.0.1           itself   10.0.0.9     -        UNREPLIED  kept
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	out.Reset()
	table = Table{Out: &out}
	for range heldRows + 1 {
		add("10.0.0.1", "")
	}
	if lines := strings.Count(out.String(), "\n"); lines < heldRows {
		t.Errorf("%d lines of %d were written", lines, heldRows+1)
	}
}

func TestSummary(t *testing.T) {
	j := NewJudge(example(t))
	var s Summary
	for i := range 300 {
		line := fmt.Sprintf("tcp 6 9 ESTABLISHED src=10.244.1.%d dst=192.168.%d.253 sport=%d dport=443 src=192.168.%d.253 dst=192.0.2.11 sport=443 dport=%d", i%3+7, i%2, 1000+i, i%2, 1000+i)
		f := j.Flow(&entries(t, line)[0], nil)
		s.Add(&f)
	}
	groups, more := s.Groups(1)
	if len(groups) != 1 || more != 150 || groups[0].Count != 150 || groups[0].Source != "10.244.1.0/24" || groups[0].SeenAs != "192.0.2.11" || groups[0].Destination != "192.168.0.0/24" {
		t.Errorf("%+v, %d more", groups, more)
	}
}

// Each connection is a class of its own, or all are of few: what judging costs.
func BenchmarkJudge(b *testing.B) {
	host := example(b)
	e := entries(b, "tcp 6 9 ESTABLISHED src=10.244.1.7 dst=192.168.200.253 sport=41234 dport=443 src=192.168.200.253 dst=192.0.2.11 sport=443 dport=62113")[0]
	b.Run("new", func(b *testing.B) {
		j := NewJudge(host)
		for i := range b.N {
			a := netip.AddrFrom4([4]byte{100, byte(i >> 16), byte(i >> 8), byte(i)})
			e.Original.Destination, e.Reply.Source = a, a
			if f := j.Flow(&e, nil); f.ByRules != Same {
				b.Fatal(f.By())
			}
		}
	})
	b.Run("service of 500 endpoints", func(b *testing.B) {
		rules := b.TempDir() + "/rules"
		if err := os.WriteFile(rules, []byte(rulesettest.KubeProxy(10, 500)), 0o600); err != nil {
			b.Fatal(err)
		}
		host, err := snapshot.Read([]string{rules}, nil)
		if err != nil {
			b.Fatal(err)
		}
		j, s := NewJudge(host), rulesettest.Services(10, 500)[3]
		for i := range b.N {
			e := e
			a, to := netip.AddrFrom4([4]byte{10, 244, 200 + byte(i>>8), byte(i)}), s.Endpoints[i%500]
			e.Original.Source, e.Original.Destination, e.Original.DestinationPort = a, s.ClusterIP, rulesettest.Port
			e.Reply.Destination, e.Reply.Source, e.Reply.SourcePort = a, to.Addr(), to.Port()
			if f := j.Flow(&e, nil); f.ByRules != Same || f.DestinationName == "" {
				b.Fatal(f.By())
			}
		}
	})
	b.Run("known", func(b *testing.B) {
		j := NewJudge(host)
		for i := range b.N {
			e.Original.SourcePort = uint16(i)
			if f := j.Flow(&e, nil); f.ByRules != Same {
				b.Fatal(f.By())
			}
		}
	})
}
