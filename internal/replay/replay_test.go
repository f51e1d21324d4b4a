package replay_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/explain"
	"github.com/unmasq/unmasq/internal/kernel/capture"
	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/kernel/wires"
	"github.com/unmasq/unmasq/internal/replay"
	"github.com/unmasq/unmasq/internal/sim"
	"github.com/unmasq/unmasq/internal/snapshot"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

const setUp = `link add cni0 type bridge
link add eth0 type veth peer name eth0x
link add eth1 type veth peer name eth1x
link add pod0 type veth peer name pod0x
link set pod0 master cni0
link set eth0 up
link set eth1 up
link set pod0 up
link set cni0 up
addr add 192.0.2.11/24 dev eth0
addr add 198.51.100.1/24 dev eth1
addr add 10.244.1.1/24 dev cni0
addr add 2001:db8::11/64 dev eth0 nodad
addr add fd00:10:244:1::1/64 dev cni0 nodad
link set eth0x up
link set eth1x up
link set pod0x up
route add default via 192.0.2.1 dev eth0
route add 203.0.113.0/24 via 198.51.100.2 dev eth1
route add default via 198.51.100.2 dev eth1 table 100
rule add fwmark 0x100/0x100 lookup 100 priority 50
route add blackhole 10.66.0.0/24
route add ::/0 via 2001:db8::1 dev eth0
`

const rules = `*nat
-A PREROUTING -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -m statistic --mode random --probability 0.5 -j DNAT --to-destination 10.244.1.8:8080
-A PREROUTING -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 203.0.113.9:8080
-A POSTROUTING -s 10.244.1.0/24 -m set --match-set outside dst -j MASQUERADE --random-fully
COMMIT
*mangle
-A PREROUTING -p udp -m udp --dport 1234 -m comment --comment "to the \"other\" table" -j MARK --set-xmark 0x100/0x100
COMMIT
*filter
:FORWARD DROP [0:0]
:own - [0:0]
-A FORWARD -d 10.244.1.99/32 -j REJECT --reject-with icmp-admin-prohibited
-A FORWARD -p udp -m nfacct --nfacct-name replayed -m udp --dport 9 -j DROP
-A FORWARD -j own
-A own -j ACCEPT
COMMIT
`

const legacyRules = `*nat
-A POSTROUTING -s 10.244.1.0/24 -d 198.51.100.0/24 -j SNAT --to-source 198.51.100.77
COMMIT
`

const nativeRules = `table inet guard {
	map to {
		type ipv4_addr : verdict
		elements = { 192.0.2.66 : goto away }
	}
	chain away {
		snat ip to 192.0.2.99
	}
	chain late {
		type nat hook postrouting priority srcnat - 5; policy accept;
		oif "eth0" ip daddr vmap @to
		ip6 saddr fd00:10:244:1::/64 oifname "eth0" masquerade
	}
}
`

// captured is a snapshot of a node that has some of everything, and is gone.
func captured(t *testing.T) map[string][]byte {
	t.Helper()
	n := netnstest.Test(t, "node")
	run := func(stdin string, words ...string) {
		t.Helper()
		if _, err := n.Run(stdin, words[0], words[1:]...); err != nil {
			t.Fatal(err)
		}
	}
	run("", "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	run(setUp, "ip", "-batch", "-")
	run("create outside hash:net\nadd outside 0.0.0.0/1\nadd outside 128.0.0.0/1\nadd outside 10.0.0.0/8 nomatch\nadd outside 198.51.100.0/24 nomatch\n", "ipset", "restore")
	if err := wires.AddAccounting(n, rules); err != nil {
		t.Fatal(err)
	}
	run(rules, "iptables-nft-restore")
	run(legacyRules, "iptables-legacy-restore")
	run(nativeRules, "nft", "-f", "-")
	files, err := capture.Take(t.Context(), capture.Options{Namespace: n})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func ask(t *testing.T, source, destination string) sim.Question {
	t.Helper()
	q, err := explain.Request{Source: source, Destination: destination}.Parse()
	if err != nil {
		t.Fatal(err)
	}
	return q.Question
}

// nothingLeft fails where a replay of this process left a namespace; others may
// be at work.
func nothingLeft(t *testing.T) {
	t.Helper()
	if names, err := netns.List(fmt.Sprintf("unmasq-replay-%d-", os.Getpid())); err != nil || len(names) > 0 {
		t.Errorf("left behind: %v %v", names, err)
	}
}

func TestReplay(t *testing.T) {
	host, sources, err := snapshot.SourcesFromFiles(captured(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		source, destination string
		local               bool
		// want: TIMES VERDICT SOURCE DESTINATION INTERFACE of each fate; 0 times is any.
		want []string
	}{
		{"10.244.1.7", "8.8.8.8:53/udp", false, []string{"accepted 192.0.2.11 8.8.8.8 eth0"}},
		{"10.244.1.7", "10.96.0.10:80", false, []string{"accepted 10.244.1.7 10.244.1.8 cni0", "accepted 198.51.100.1 203.0.113.9 eth1"}},
		{"10.244.1.7", "198.51.100.9:80", false, []string{"accepted 198.51.100.77 198.51.100.9 eth1"}},
		{"10.244.1.7", "192.0.2.66:80", false, []string{"accepted 192.0.2.99 192.0.2.66 eth0"}},
		{"10.244.1.7", "8.8.8.8:1234/udp", false, []string{"accepted 198.51.100.1 8.8.8.8 eth1"}},
		{"8.8.8.8", "10.244.1.99:80", false, []string{"rejected icmp-admin-prohibited"}},
		{"10.244.1.7", "8.8.8.8:9/udp", false, []string{"dropped"}},
		{"10.244.1.7", "10.66.0.1:9/udp", false, []string{"dropped"}},
		{"8.8.8.8", "192.0.2.11:22", false, []string{"accepted 8.8.8.8 192.0.2.11 to the node"}},
		{"192.0.2.11", "203.0.113.5:80", true, []string{"accepted 192.0.2.11 203.0.113.5 eth1"}},
		{"fd00:10:244:1::7", "2001:4860::8888", false, []string{"accepted 2001:db8::11 2001:4860::8888 eth0"}},
	} {
		q := ask(t, c.source, c.destination)
		q.Local = c.local
		got, err := replay.Run(t.Context(), replay.Node{Host: host, Sources: sources}, q)
		if err != nil {
			t.Fatal(err)
		}
		if got.Agrees == nil || !*got.Agrees {
			t.Errorf("%s → %s: %+v", c.source, c.destination, got)
		}
		var fates []string
		for i := range got.Seen {
			if text := describe(&got.Seen[i]); !slices.Contains(fates, text) {
				fates = append(fates, text)
			}
		}
		slices.Sort(fates)
		if !slices.Equal(fates, c.want) {
			t.Errorf("%s → %s: saw %q, want %q", c.source, c.destination, fates, c.want)
		}
	}
	nothingLeft(t)
}

func describe(f *explain.Fate) string {
	switch {
	case f.Source == nil:
		return strings.TrimSpace(f.Verdict + " " + f.RejectWith)
	case f.ToNode:
		return f.Verdict + " " + f.Source.String() + " " + f.Destination.String() + " to the node"
	}
	return f.Verdict + " " + f.Source.String() + " " + f.Destination.String() + " " + f.OutInterface
}

// Native tables are loaded from text too, as nft list ruleset prints it or as
// commands, and not the tables of iptables beside them.
func TestText(t *testing.T) {
	commands := `add table inet guard
add chain inet guard late { type nat hook postrouting priority 95; policy accept; }
add map inet guard to { type ipv4_addr : verdict; }
add chain inet guard away
add rule inet guard away snat ip to 192.0.2.99
add element inet guard to { 192.0.2.66 : goto away }
add rule inet guard late ip daddr vmap @to
`
	listing := "table ip nat {\n\tchain POSTROUTING {\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n\t\txt target \"MASQUERADE\"\n\t}\n}\n" + nativeRules
	for name, text := range map[string]string{"list ruleset": listing, "commands": commands} {
		files := captured(t)
		files[snapshot.FileNFT] = []byte(text)
		host, sources, err := snapshot.SourcesFromFiles(files)
		if err != nil {
			t.Fatal(err)
		}
		got, err := replay.Run(t.Context(), replay.Node{Host: host, Sources: sources}, ask(t, "10.244.1.7", "192.0.2.66:80"))
		if err != nil {
			t.Fatal(err)
		}
		if got.Agrees == nil || !*got.Agrees || describe(&got.Seen[0]) != "accepted 192.0.2.99 192.0.2.66 eth0" {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// A prediction that isn't the kernel's is found out: here the rules that the
// prediction is made from are changed behind its back.
func TestDisagrees(t *testing.T) {
	files := captured(t)
	host, sources, err := snapshot.SourcesFromFiles(files)
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range host.Rules.Tables {
		if table.Name != "nat" || table.Native != nil {
			continue
		}
		for _, c := range table.Chains {
			for i := range c.Rules {
				c.Rules[i].Text = strings.Replace(c.Rules[i].Text, "10.244.1.0/24 -m set --match-set outside dst", "10.244.9.0/24", 1)
			}
		}
	}
	q := ask(t, "10.244.1.7", "8.8.8.8:53/udp")
	got, err := replay.Run(t.Context(), replay.Node{Host: host, Sources: sources}, q)
	if err != nil {
		t.Fatal(err)
	}
	if got.Agrees != nil || got.Seen[0].Predicted || !strings.Contains(got.Why, "reads back differently") {
		t.Errorf("%+v", got)
	}
	nothingLeft(t)
}

// What can't be built is said, and nothing is claimed.
func TestCannot(t *testing.T) {
	whole := captured(t)
	without := func(names ...string) map[string][]byte {
		files := map[string][]byte{}
		for name, text := range whole {
			if !slices.Contains(names, name) {
				files[name] = text
			}
		}
		return files
	}
	with := func(name, text string) map[string][]byte {
		files := without(snapshot.FileNFT, snapshot.FileIPTablesLegacy)
		files[name] = []byte(text)
		return files
	}
	for _, c := range []struct {
		why   string
		files map[string][]byte
		ask   func(*sim.Question)
	}{
		{"no IPv4 routing table was given", without(snapshot.FileRoutes), nil},
		{"not given: routing rules", without(snapshot.FileRules), nil},
		{"no interfaces were given", without(snapshot.FileLinks, snapshot.FileAddresses, snapshot.FileBridgeLinks), nil},
		{"iptables-nft-restore: ", with(snapshot.FileIPTables, "*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -m sorcery --wand -j MASQUERADE\nCOMMIT\n"), nil},
		{"ipset: ", with(snapshot.FileIPSet, "create outside hash:sorcery\n"), nil},
		{"give iptables-save", with(snapshot.FileIPTables, "Chain FORWARD (policy ACCEPT)\ntarget     prot opt source               destination\nACCEPT     all  --  0.0.0.0/0            0.0.0.0/0\n"), nil},
		{"with a mark", whole, func(q *sim.Question) { q.Mark = 1 }},
		{"stand in for routes", whole, func(q *sim.Question) { q.OutInterface = "eth1" }},
		{"multicast", whole, func(q *sim.Question) { q.Destination = netip.MustParseAddr("224.0.0.7") }},
		{"a port of cni0", whole, func(q *sim.Question) { q.InInterface = "pod0" }},
		{"comes in by isn't known", whole, func(q *sim.Question) { q.Source = netip.MustParseAddr("10.66.0.1") }},
	} {
		host, sources, err := snapshot.SourcesFromFiles(c.files)
		if err != nil {
			t.Fatalf("%s: %v", c.why, err)
		}
		q := ask(t, "10.244.1.7", "8.8.8.8:53/udp")
		if c.ask != nil {
			c.ask(&q)
		}
		got, err := replay.Run(t.Context(), replay.Node{Host: host, Sources: sources}, q)
		if err != nil {
			t.Fatalf("%s: %v", c.why, err)
		}
		if got.Agrees != nil || !strings.Contains(got.Why, c.why) {
			t.Errorf("want %q, got %+v", c.why, got)
		}
	}
	nothingLeft(t)
}

// An interrupt ends it at any time, and nothing stays.
func TestInterrupted(t *testing.T) {
	host, sources, err := snapshot.SourcesFromFiles(captured(t))
	if err != nil {
		t.Fatal(err)
	}
	cause := errors.New("interrupted")
	for polls := range 12 {
		ctx, cancel := context.WithCancelCause(t.Context())
		watched := &watch{Context: ctx, left: polls, cancel: func() { cancel(cause) }}
		_, err := replay.Run(watched, replay.Node{Host: host, Sources: sources}, ask(t, "10.244.1.7", "8.8.8.8:53/udp"))
		cancel(nil)
		if !errors.Is(err, cause) && !errors.Is(err, context.Canceled) {
			t.Errorf("after %d looks at the context: %v", polls, err)
		}
		nothingLeft(t)
	}
}

// watch is a context that is cancelled when it was looked at some times.
type watch struct {
	context.Context
	left   int
	cancel func()
}

func (w *watch) Err() error {
	if w.left--; w.left < 0 {
		w.cancel()
	}
	return w.Context.Err()
}

// What a killed replay left is swept by the next.
func TestSweep(t *testing.T) {
	const name = "unmasq-replay-4194305-1-node" // no process has that number (PID_MAX_LIMIT is 4194304)
	n, err := netns.New(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Release(); err != nil {
		t.Fatal(err)
	}
	host, sources, err := snapshot.SourcesFromFiles(captured(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := replay.Run(t.Context(), replay.Node{Host: host, Sources: sources}, ask(t, "10.244.1.7", "8.8.8.8:53/udp")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(n.Path()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", name, err)
	}
}
