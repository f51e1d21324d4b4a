package doctor_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/conntrack"
	"github.com/unmasq/unmasq/internal/doctor"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// kernelLessons are about what the kernel itself can't do, or has counted.
var kernelLessons = []lesson{
	{
		code: "conntrack-full", name: "no room for another",
		provoke: connected("$(cat /proc/sys/net/netfilter/nf_conntrack_max)", "SEEN_REPLY,ASSURED"),
		before:  (*lab).globalMax,
		alike:   map[string]string{"some thousands": connected("5000", "SEEN_REPLY,ASSURED")},
		call:    &call{from: pod1, to: out, address: "203.0.113.9:80", before: lost, after: lost}, // the bound is what it was
	},
	{
		code: "conntrack-full", name: "others make room",
		provoke: connected("$(cat /proc/sys/net/netfilter/nf_conntrack_max)", "SEEN_REPLY"),
		before: func(l *lab) {
			l.globalMax()
			for range 3 {
				l.check(&call{from: pod1, to: out, address: "203.0.113.9:80"}, "192.0.2.1", "in the place of another")
			}
			if l.counted("early_drop") == 0 {
				l.t.Error("nothing has made room")
			}
		},
	},
	{
		code: "ports-collide", name: "iptables",
		provoke: collided,
		alike: map[string]string{
			"random already":     noRules + "iptables -t nat -A POSTROUTING -s 10.244.1.0/24 ! -o cni0 -j MASQUERADE --random-fully; ip6tables -t nat -A POSTROUTING -s fd00:10:244:1::/64 -j MASQUERADE --random\n" + collided,
			"of the node alone":  noRules + collided,
			"none has collided":  "bash -c 'echo x > /dev/udp/203.0.113.9/9'",
			"a policy says that": noRules + collided + applied(`{name: all, from: {cidrs: [10.244.1.0/24]}, action: Masquerade, masquerade: {fullyRandom: true}}`),
		},
		call: &call{from: pod1, to: out, address: "203.0.113.9:80", before: "192.0.2.1", after: "192.0.2.1"},
	},
	{
		code: "ports-collide", name: "nftables",
		provoke: noRules + collided + `nft -f - <<'END'
table inet nat {
	chain out {
		type nat hook postrouting priority srcnat;
		ip saddr 10.244.1.0/24 oifname != "cni0" counter masquerade
		ip6 saddr fd00:10:244:1::/64 oifname != "cni0" snat ip6 to 2001:db8::1
	}
}
END`,
		call: &call{from: pod1, to: out, address: "203.0.113.9:80", before: "192.0.2.1", after: "192.0.2.1"},
	},
	{
		code: "ports-taken", name: "a narrow range of nftables",
		provoke: noIPv4 + `nft -f - <<'END'
table ip nat2 {
	chain out {
		type nat hook postrouting priority srcnat;
		ip saddr 10.244.1.0/24 oifname "eth0" meta l4proto udp masquerade to :2000-2009
		ip saddr 10.244.1.0/24 oifname "eth0" masquerade
	}
}
END`,
		before: func(l *lab) { l.flows(9, 1) },
	},
}

// collided makes the kernel count three packets that were dropped for a port that was
// taken: the node's own, with a rule that is gone again.
const collided = `iptables -t nat -I POSTROUTING -d 203.0.113.9 -p udp -m udp --dport 9 -j MASQUERADE --to-ports 2000
bash -c 'for i in 1 2 3 4; do echo x > /dev/udp/203.0.113.9/9; done' 2>/dev/null || true
iptables -t nat -D POSTROUTING 1; conntrack -F 2>/dev/null; conntrack -S | grep -q 'insert_failed=[1-9]'
`

// connected makes so many entries of connections that had answers, as the kernel would if
// as many clients came: conntrack loads what it has printed. What isn't ASSURED, such
// as a client that has sent once, makes room for others.
func connected(n, status string) string {
	return `awk -v n=` + n + ` 'BEGIN { for (i = 0; i < n; i++) { a = "10.9." int(i / 60000) ".1"; p = 1024 + i % 60000
	printf "-A -t 600 -u %s -s %s -d 192.0.2.1 -r 192.0.2.1 -q %s -p udp --sport %d --dport 53 --reply-port-src 53 --reply-port-dst %d\n", "` + status + `", a, a, p, p } }' | conntrack -R - >/dev/null 2>&1 || true
`
}

// globalMax stands in for a setting that no network namespace but the first may
// change: sysctl -w of it, which the mend calls, changes what the next look reads.
func (l *lab) globalMax() {
	set := filepath.Join(l.path, "max")
	must(l.t, os.WriteFile(filepath.Join(l.path, "sysctl"), []byte("#!/bin/sh\ncase \"$2\" in net.netfilter.nf_conntrack_max=*) echo \"${2#*=}\" >"+set+";; *) exit 1;; esac\n"), 0o700))
	l.taken = func(files map[string][]byte) {
		most, err := os.ReadFile(set)
		if err != nil {
			return
		}
		var lines []string
		for line := range strings.Lines(string(files[snapshot.FileSysctl])) {
			if strings.HasPrefix(line, "net.netfilter.nf_conntrack_max") {
				line = "net.netfilter.nf_conntrack_max = " + string(most)
			}
			lines = append(lines, line)
		}
		files[snapshot.FileSysctl] = []byte(strings.Join(lines, ""))
	}
}

// TestConntrackFull: how full is too full, and what of it is an error. The counters
// are those of a kernel that threw connections out, which takes unanswered ones.
func TestConntrackFull(t *testing.T) {
	for _, c := range []struct {
		count, most, evicted uint64
		want                 doctor.Severity
	}{
		{0, 262144, 0, ""},
		{209_000, 262144, 0, ""},
		{210_000, 262144, 0, doctor.Warning},
		{250_000, 262144, 0, doctor.Error},
		{130_000, 262144, 7, ""}, // it was full, and has been mended or has emptied
		{132_000, 262144, 7, doctor.Error},
		{5000, 0, 7, ""}, // no bound
	} {
		host := &snapshot.Host{
			Sysctls:  map[string]string{"net.netfilter.nf_conntrack_count": fmt.Sprint(c.count), "net.netfilter.nf_conntrack_max": fmt.Sprint(c.most)},
			Counters: conntrack.Counters{"early_drop": c.evicted},
		}
		r := doctor.Examine(doctor.Node{Host: host})
		i := slices.IndexFunc(r.Findings, func(f doctor.Finding) bool { return f.Code == "conntrack-full" })
		if got := c.want; i < 0 && got != "" || i >= 0 && r.Findings[i].Severity != got {
			t.Errorf("%d of %d, %d thrown out: expected %q\n%s", c.count, c.most, c.evicted, got, text(&r))
		}
	}
}
