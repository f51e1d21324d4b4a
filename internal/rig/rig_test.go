package rig

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/packet"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func flows() []packet.Flow {
	var out []packet.Flow
	for _, f := range []struct {
		from, to string
		protocol uint8
		local    bool
	}{
		{"10.244.1.7", "203.0.113.5", packet.UDP, false}, {"10.244.1.7", "8.8.8.8", packet.TCP, false},
		{"172.30.0.9", "8.8.8.8", packet.ICMP, false}, {"10.244.1.8", "8.8.4.4", packet.GRE, false},
		{"fd00:10:244:1::7", "2001:db8:113::5", packet.UDP, false}, {"fd00:10:244:1::7", "2001:db8:5::1", packet.TCP, false},
		{"fd00:10:244:1::7", "2001:db8:5::1", packet.ICMPv6, false},
		{"10.244.1.9", "8.8.8.8", packet.SCTP, false}, {"fd00:10:244:1::9", "2001:db8:5::1", packet.SCTP, false},
		{"192.0.2.1", "203.0.113.5", packet.UDP, true}, {"2001:db8::1", "2001:db8:5::1", packet.TCP, true},
		{"192.0.2.1", "8.8.8.8", packet.ICMP, true},
	} {
		out = append(out, packet.Flow{Source: netip.MustParseAddr(f.from), Destination: netip.MustParseAddr(f.to),
			Protocol: f.protocol, SourcePort: 4000, DestinationPort: 443, Local: f.local})
	}
	return out
}

func TestWithoutRulesSourcesAreKept(t *testing.T) {
	r := New(t)
	seen, err := r.SendAll(flows())
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range flows() {
		switch s := seen[i]; {
		case s == nil:
			t.Errorf("%+v: nothing came out", f)
		case s.Source != f.Source || s.Destination != f.Destination || s.Interface != r.OutInterface(f.Destination):
			t.Errorf("%+v: came out as %+v", f, *s)
		}
	}
}

func TestMasqueradeIsSeen(t *testing.T) {
	r := New(t)
	r.NFT(t, "table inet x {\nchain p {\ntype nat hook postrouting priority 100;\nmasquerade\n}\n}\n")
	seen, err := r.SendAll(flows())
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range flows() {
		link := r.OutInterface(f.Destination)
		if want := AddressOf(link, f.Source.Is6()); seen[i] == nil || seen[i].Source != want {
			t.Errorf("%+v: came out as %+v, want source %s", f, seen[i], want)
		}
	}
}

func TestLoadSeesEveryChange(t *testing.T) {
	r := New(t)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	var reports = make(chan Report, 1)
	go func() {
		report, err := r.Load(ctx, Traffic{Rate: 30000, Flow: UDPFlow, Check: func(i uint64, s Seen) string {
			if want := UDPFlow(i).Source; s.Source != want {
				return fmt.Sprintf("flow %d: %s, want %s", i, s.Source, want)
			}
			return ""
		}})
		if err != nil {
			t.Error(err)
		}
		reports <- report
	}()
	time.Sleep(time.Second)
	r.NFT(t, "table inet x {\nchain p {\ntype nat hook postrouting priority 100;\nmasquerade\n}\n}\n")
	report := <-reports
	t.Logf("checked: %s", report)
	if report.Wrong == 0 || report.Wrong >= report.Seen {
		t.Errorf("%s; want some wrong: masquerading began half-way", report)
	}
	if report.Seen < report.Sent*99/100 {
		t.Errorf("%s: packets were lost", report)
	}
}
