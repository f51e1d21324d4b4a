package doctor_test

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/conntrack"
	"github.com/unmasq/unmasq/internal/doctor"
	"github.com/unmasq/unmasq/internal/kernel/capture"
	"github.com/unmasq/unmasq/internal/kernel/netns"
)

// wayLessons are about connections that wait for a way back.
var wayLessons = []lesson{
	{
		code: "kept-unanswered", name: "by a policy",
		provoke: noRules + applied(keptFar),
		before:  noWayBack,
		mended:  func(l *lab) { l.addAsked(keptFar) },
		alike:   map[string]string{"nobody calls": noRules + applied(keptFar)},
		call:    &call{from: pod1, to: out, address: "203.0.113.9:80", before: lost, after: "192.0.2.1"},
	},
	{
		code: "kept-unanswered", name: "nothing translates",
		provoke: untranslated,
		before:  noWayBack,
		call:    &call{from: pod1, to: out, address: "203.0.113.9:80", before: lost, after: "192.0.2.1"},
	},
	{
		code: "kept-unanswered", name: "of several hosts none",
		provoke: untranslated,
		before: func(l *lab) {
			l.shell(l.out, forgetPods)
			l.knock(l.pod1, 2, "203.0.113.9:80", "203.0.113.10:80")
		},
		call: &call{from: pod1, to: out, address: "203.0.113.9:80", before: lost, after: "192.0.2.1"},
	},
}

const (
	keptFar = `{name: far, from: {cidrs: [10.244.1.0/24]}, to: {cidrs: [203.0.113.0/24]}, action: Keep}`
	// untranslated, but tracked.
	untranslated = noRules + "iptables -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n"
	// forgetPods: the network outside has no route to pods.
	forgetPods = "ip route del 10.244.1.0/24; ip route add blackhole 10.244.1.0/24"
)

// noWayBack to pods, from a host that answers the node.
func noWayBack(l *lab) {
	l.shell(l.out, forgetPods)
	l.check(&call{from: node, to: out, address: "203.0.113.9:80"}, "192.0.2.1", "from the node")
	l.knock(l.pod1, 3, "203.0.113.9:80")
}

// knock so many times at each door; who opens isn't waited for.
func (l *lab) knock(from *netns.NS, times int, doors ...string) {
	l.t.Helper()
	must(l.t, from.Do(func() error {
		for range times {
			for _, door := range doors {
				if conn, err := (&net.Dialer{Timeout: 20 * time.Millisecond}).Dial("tcp", door); err == nil {
					conn.Close()
				}
			}
		}
		return nil
	}))
}

// TestUnansweredOtherwise: connections that wait for something else than a way back.
func TestUnansweredOtherwise(t *testing.T) {
	node := func(l *lab) {
		l.t.Helper()
		l.check(&call{from: node, to: out, address: "203.0.113.9:80"}, "192.0.2.1", "from the node")
	}
	for name, c := range map[string]struct {
		script string
		do     func(*lab)
	}{
		"the port is dead for all": {untranslated, func(l *lab) {
			l.shell(l.out, "iptables -A INPUT -p tcp --dport 81 -j DROP")
			l.knock(l.node, 1, "203.0.113.9:81")
			l.knock(l.pod1, 5, "203.0.113.9:81")
		}},
		"two are on their way": {untranslated, func(l *lab) {
			l.shell(l.out, forgetPods)
			node(l)
			l.knock(l.pod1, 2, "203.0.113.9:80")
		}},
		"pods have had answers there": {untranslated, func(l *lab) {
			l.check(&call{from: pod2, to: out, address: "203.0.113.9:80"}, "10.244.1.3", "from a pod")
			node(l)
			l.shell(l.out, forgetPods)
			l.knock(l.pod1, 5, "203.0.113.9:80")
		}},
		"they are translated": {"", func(l *lab) {
			node(l)
			l.shell(l.out, "iptables -I INPUT -p tcp --dport 80 -j DROP")
			l.knock(l.pod1, 5, "203.0.113.9:80", "203.0.113.10:80")
		}},
		"they are translated by now": {untranslated, func(l *lab) {
			noWayBack(l)
			l.shell(l.node, "iptables -t nat -A POSTROUTING -s 10.244.1.0/24 ! -o cni0 -j MASQUERADE")
		}},
		"on the node's own network": {untranslated, func(l *lab) {
			l.shell(l.out, forgetPods)
			l.knock(l.pod1, 3, "192.0.2.2:80", "198.51.100.2:80")
		}},
		"another node's pods": {untranslated + "ip route add 10.244.2.0/24 via 192.0.2.2", func(l *lab) {
			l.shell(l.out, forgetPods)
			l.knock(l.pod1, 3, "10.244.2.2:80", "10.244.2.3:80")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, c.script)
			c.do(l)
			if r := l.examine(); slices.Contains(codes(&r), "kept-unanswered") {
				t.Errorf("found where it isn't:\n%s", text(&r))
			}
		})
	}
}

// TestUnansweredSeverity: what is proved is a warning, what may be otherwise a note.
func TestUnansweredSeverity(t *testing.T) {
	t.Parallel()
	l := newLab(t, untranslated)
	l.shell(l.out, forgetPods)
	l.knock(l.pod1, 3, "203.0.113.9:80", "203.0.113.10:80")
	for _, want := range []doctor.Severity{doctor.Info, doctor.Warning} {
		r := l.examine()
		i := slices.IndexFunc(r.Findings, func(f doctor.Finding) bool { return f.Code == "kept-unanswered" })
		if i < 0 || r.Findings[i].Severity != want {
			t.Fatalf("expected %s:\n%s", want, text(&r))
		}
		if got := strings.Join(r.Findings[i].Evidence, "\n"); want == doctor.Warning && (strings.Contains(got, ".10 ") || !strings.Contains(got, "3 connections of 10.244.1.0/24 to 203.0.113.9:80")) {
			t.Errorf("evidence: %s", got)
		}
		l.check(&call{from: node, to: out, address: "203.0.113.9:80"}, "192.0.2.1", "from the node")
	}
}

// TestUnansweredOfMany: of a table with more hosts than are asked about, those that have
// answered count all the same; and lost replies without end are told in a few findings.
func TestUnansweredOfMany(t *testing.T) {
	t.Parallel()
	l := newLab(t, untranslated)
	host, err := capture.Live(t.Context(), capture.Options{Namespace: l.node})
	must(t, err)
	var table strings.Builder
	for i := range 1100 {
		fmt.Fprintf(&table, "tcp 6 117 SYN_SENT src=10.244.1.2 dst=203.0.%d.%d sport=4000 dport=80 [UNREPLIED] src=203.0.%d.%d dst=10.244.1.2 sport=80 dport=4000 mark=0 use=1\n", i/250, i%250, i/250, i%250)
	}
	for _, c := range []struct {
		more  string
		found bool
	}{
		{"", true},
		{"tcp 6 86400 ESTABLISHED src=10.244.1.3 dst=198.18.0.1 sport=4000 dport=80 src=198.18.0.1 dst=10.244.1.3 sport=80 dport=4000 [ASSURED] mark=0 use=1\n", false},
	} {
		var problems []conntrack.Problem
		host.Connections, problems = conntrack.Read(table.String()+c.more, 1)
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		r := doctor.Examine(doctor.Node{Host: host})
		if slices.Contains(codes(&r), "kept-unanswered") != c.found {
			t.Errorf("expected %t:\n%s", c.found, text(&r))
		}
	}
	table.Reset()
	for i := range 100 {
		fmt.Fprintf(&table, "tcp 6 117 SYN_SENT src=198.18.0.9 dst=10.96.0.10 sport=4000 dport=80 [UNREPLIED] src=203.0.113.%d dst=198.18.0.9 sport=80 dport=4000 mark=0 use=1\n", i)
		fmt.Fprintf(&table, "tcp 6 117 ESTABLISHED src=10.244.1.2 dst=10.96.0.10 sport=4000 dport=80 src=203.0.113.%d dst=10.244.1.2 sport=80 dport=4000 mark=0 use=1\n", i)
	}
	host.Connections, _ = conntrack.Read(table.String(), 1)
	r := doctor.Examine(doctor.Node{Host: host})
	if got := codes(&r); len(got) != 32 || got[31] != "replies-lost" || len(r.Findings[31].Evidence) != 3 {
		t.Errorf("%d findings\n%s", len(got), text(&r)[:2000])
	}
}
