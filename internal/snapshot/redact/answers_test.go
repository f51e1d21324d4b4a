package redact_test

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/sim"
	"github.com/unmasq/unmasq/internal/snapshot"
	"github.com/unmasq/unmasq/internal/snapshot/redact"
)

// TestAnswersStay asks the simulator's own questions of each of its nodes, and
// of the same node redacted with the question's addresses mapped alike.
func TestAnswersStay(t *testing.T) {
	nodes, err := filepath.Glob("../../sim/testdata/*.txtar")
	if err != nil || len(nodes) == 0 {
		t.Fatalf("%d nodes: %v", len(nodes), err)
	}
	for _, name := range nodes {
		for seed := range 3 {
			t.Run(fmt.Sprintf("%s-%d", filepath.Base(name), seed), func(t *testing.T) { answersStay(t, name, redact.Key{byte(seed)}) })
		}
	}
}

func answersStay(t *testing.T, name string, key redact.Key) {
	archive, err := txtar.ParseFile(name)
	if err != nil {
		t.Fatal(err)
	}
	files, questions := map[string][]byte{}, ""
	for _, f := range archive.Files {
		if f.Name == "questions" {
			questions = string(f.Data)
		} else {
			files[f.Name] = f.Data
		}
	}
	other, err := redact.Files(files, key)
	if err != nil {
		t.Fatal(err)
	}
	r, err := redact.New(key)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range files {
		r.Freeze(string(text))
	}
	plain, mapped := node(t, files), node(t, other)
	asked := 0
	for line := range strings.Lines(questions) {
		if line[0] == '\t' || line[0] == '#' || strings.TrimSpace(line) == "" {
			continue
		}
		q := question(t, strings.TrimSpace(line))
		want := outcomes(plain.Run(q, sim.Options{}), r.Address)
		q.Source, q.Destination = r.Address(q.Source), r.Address(q.Destination)
		if q.Via.IsValid() {
			q.Via = r.Address(q.Via)
		}
		got := outcomes(mapped.Run(q, sim.Options{}), func(a netip.Addr) netip.Addr { return a })
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s -want +got\n%s", line, diff)
		}
		asked++
	}
	if asked == 0 {
		t.Error("no questions")
	}
}

func node(t *testing.T, files map[string][]byte) *sim.Node {
	t.Helper()
	h, err := snapshot.FromFiles(files)
	if err != nil {
		t.Fatal(err)
	}
	return sim.New(h)
}

// outcomes as lines, with addresses mapped.
func outcomes(all []sim.Outcome, address func(netip.Addr) netip.Addr) []string {
	mapped := func(a netip.Addr) string {
		if !a.IsValid() {
			return "?"
		}
		return address(a).String()
	}
	var out []string
	for i := range all {
		o := &all[i]
		out = append(out, fmt.Sprint(o.Probability, o.Verdict, o.SourceKind, mapped(o.Source), o.SourcePort, mapped(o.Destination), o.DestinationPort, o.OutInterface,
			mapped(o.NextHop), o.ToNode, o.Mark, len(o.DependsOn), len(o.Steps)))
		if o.Encapsulated != nil {
			out = append(out, outcomes(o.Encapsulated.Outcomes, address)...)
		}
	}
	return out
}

func question(t *testing.T, line string) sim.Question {
	t.Helper()
	words := strings.Fields(line)
	q := sim.Question{Protocol: map[string]uint8{"tcp": packet.TCP, "udp": packet.UDP, "sctp": packet.SCTP, "icmp": packet.ICMP, "icmpv6": packet.ICMPv6}[words[0]]}
	q.Source, q.SourcePort = end(t, words[1])
	q.Destination, q.DestinationPort = end(t, words[2])
	for _, w := range words[3:] {
		switch key, value, _ := strings.Cut(w, "="); key {
		case "in":
			q.InInterface = value
		case "out":
			q.OutInterface = value
		case "via":
			q.Via = netip.MustParseAddr(value)
		case "mark":
			mark, err := strconv.ParseUint(value, 0, 32)
			if err != nil {
				t.Fatal(err)
			}
			q.Mark = uint32(mark)
		case "local":
			q.Local = true
		}
	}
	return q
}

func end(t *testing.T, s string) (netip.Addr, int) {
	t.Helper()
	if a, err := netip.ParseAddr(s); err == nil {
		return a, sim.UnknownPort
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		t.Fatal(err)
	}
	return ap.Addr(), int(ap.Port())
}
