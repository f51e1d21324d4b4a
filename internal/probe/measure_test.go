package probe_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/matrix"
	"github.com/unmasq/unmasq/internal/probe"
)

var (
	clientAddress, serverAddress, nodeAddress = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("192.0.2.1")
	serverPort                                = netip.AddrPortFrom(serverAddress, 7007)
)

// oneCell of a client that calls a server, with what is predicted.
func oneCell(predicted ...matrix.Sight) *matrix.Matrix {
	client := matrix.Place{Kind: matrix.Pod, Name: "client", Addresses: []netip.Addr{clientAddress}}
	server := matrix.Place{Kind: matrix.Pod, Name: "server", Addresses: []netip.Addr{serverAddress}}
	return &matrix.Matrix{
		Rows:    []matrix.Row{{Name: "pod-here", Place: client}},
		Columns: []matrix.Column{{Name: "pod-there", Place: &server, Targets: []matrix.Target{{Address: serverAddress, Port: 7007, Protocol: "tcp"}}}},
		Cells:   []matrix.Cell{{Row: "pod-here", Column: "pod-there", Family: "ipv4", Source: clientAddress, Destination: serverPort, Predicted: predicted}},
	}
}

// answering gives the reports one after the other, the last for ever.
func answering(reports ...probe.Report) (spaces probe.Spaces, asked *int) {
	asked = new(int)
	call := func(_ context.Context, orders []probe.Order) (all []probe.Report, err error) {
		for range orders {
			all = append(all, reports[min(*asked, len(reports)-1)])
			*asked++
		}
		return all, nil
	}
	arrived := func(key probe.Arrival) (netip.AddrPort, bool) {
		return netip.AddrPortFrom(nodeAddress, 5), key == "heard"
	}
	return probe.Spaces{
		{Name: "client", Addresses: []netip.Addr{clientAddress}, Peer: 7007, Call: call},
		{Name: "server", Addresses: []netip.Addr{serverAddress}, Peer: 7007, Call: call, Arrived: arrived},
	}, asked
}

func seenAs(a netip.Addr, by string) probe.Report {
	return probe.Report{Source: netip.AddrPortFrom(clientAddress, 4), Seen: netip.AddrPortFrom(a, 5), By: by, Answered: true}
}

func TestJudgement(t *testing.T) {
	kept := matrix.Sight{Verdict: matrix.Kept, Source: clientAddress, At: serverPort}
	hidden := matrix.Sight{Verdict: matrix.Masqueraded, Source: nodeAddress, At: serverPort}
	lostAsNode := matrix.Sight{Verdict: matrix.Lost, Source: nodeAddress}
	lost, refused := matrix.Sight{Verdict: matrix.Lost}, matrix.Sight{Verdict: matrix.Refused}
	for _, c := range []struct {
		name      string
		predicted matrix.Sight
		report    probe.Report
		want      matrix.Verdict
		differs   bool
	}{
		{"kept", kept, seenAs(clientAddress, "server"), matrix.Kept, false},
		{"pinned is kept", matrix.Sight{Verdict: matrix.Pinned, Source: clientAddress}, seenAs(clientAddress, "server"), matrix.Kept, false},
		{"hidden, and shouldn't be", kept, seenAs(nodeAddress, "server"), matrix.Masqueraded, true},
		{"hidden", hidden, seenAs(nodeAddress, "server"), matrix.Masqueraded, false},
		{"hidden as somebody else", hidden, seenAs(netip.MustParseAddr("192.0.2.2"), "server"), matrix.Masqueraded, true},
		{"hidden as nobody knows whom", matrix.Sight{Verdict: matrix.Masqueraded}, seenAs(nodeAddress, "server"), matrix.Masqueraded, false},
		{"by another backend", kept, seenAs(clientAddress, "client"), matrix.Kept, true},
		{"silence", lost, probe.Report{}, matrix.Lost, false},
		{"silence, where an answer was predicted", kept, probe.Report{}, matrix.Lost, true},
		{"silence, and it was heard as predicted", lostAsNode, probe.Report{Key: "heard"}, matrix.Lost, false},
		{"silence, and it was heard otherwise", matrix.Sight{Verdict: matrix.Lost, Source: clientAddress}, probe.Report{Key: "heard"}, matrix.Lost, true},
		{"an answer, where none was predicted", lost, seenAs(clientAddress, "server"), matrix.Kept, true},
		{"dropped by the caller's own rules", lost, probe.Report{No: probe.Denied}, matrix.Refused, false},
		{"refused", refused, probe.Report{No: probe.Refused}, matrix.Refused, false},
		{"rejected on the way", refused, probe.Report{No: probe.Unreachable}, matrix.Refused, false},
		{"refused, where silence was predicted", lost, probe.Report{No: probe.Refused}, matrix.Refused, true},
		{"silence, where a no was predicted", refused, probe.Report{}, matrix.Lost, true},
		{"nothing is predicted for certain", matrix.Sight{Verdict: matrix.Unknown}, probe.Report{}, matrix.Lost, false},
		{"somebody answers who says nothing", kept, probe.Report{Answered: true}, matrix.Unknown, false},
		{"somebody answers, and nobody should", refused, probe.Report{Answered: true}, matrix.Unknown, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := oneCell(c.predicted)
			spaces, asked := answering(c.report)
			if err := (probe.Measure{Spaces: spaces}).Fill(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			cell := m.Cells[0]
			if len(cell.Measured) != 1 || cell.Measured[0].Verdict != c.want || cell.Differs != c.differs || !m.Measured {
				t.Errorf("measured %+v, differs %v; want %s, %v", cell.Measured, cell.Differs, c.want, c.differs)
			}
			if want := map[bool]int{false: 1, true: 2}[c.differs]; *asked != want {
				t.Errorf("asked %d times, want %d", *asked, want)
			}
			if lines := probe.Differing(m); (len(lines) == 1) != c.differs {
				t.Errorf("differing %q", lines)
			}
		})
	}
}

// What got lost once, as packets do, is no difference.
func TestAskedAgain(t *testing.T) {
	m := oneCell(matrix.Sight{Verdict: matrix.Kept, Source: clientAddress})
	spaces, asked := answering(probe.Report{}, seenAs(clientAddress, "server"))
	if err := (probe.Measure{Spaces: spaces}).Fill(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if c := m.Cells[0]; c.Differs || len(c.Measured) != 1 || c.Measured[0].As != "itself" || *asked != 2 {
		t.Errorf("asked %d times, %+v", *asked, c)
	}
}

// Of several backends each is asked for, and each is one that was predicted.
func TestShares(t *testing.T) {
	m := oneCell(matrix.Sight{Verdict: matrix.Kept, Source: clientAddress}, matrix.Sight{Verdict: matrix.Masqueraded, Source: nodeAddress})
	spaces, _ := answering(seenAs(clientAddress, "server"), seenAs(clientAddress, "server"), seenAs(clientAddress, "server"), seenAs(nodeAddress, "server"))
	if err := (probe.Measure{Spaces: spaces}).Fill(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	c := m.Cells[0]
	if c.Differs || len(c.Measured) != 2 || *c.Measured[0].Share != 0.25 || *c.Measured[1].Share != 0.75 {
		t.Errorf("measured %+v", c.Measured)
	}
}

// What can't be measured isn't, and a note says why.
func TestNotMeasured(t *testing.T) {
	sight := matrix.Sight{Verdict: matrix.Kept, Source: clientAddress, At: serverPort}
	for _, c := range []struct {
		name, note string
		change     func(*matrix.Matrix, probe.Spaces)
	}{
		{"nobody calls from there", "not measured: from pod-here, of which no network namespace is known here",
			func(m *matrix.Matrix, _ probe.Spaces) { m.Cells[0].Source = nodeAddress }},
		{"nobody would answer", "not measured: to pod-there: nobody there would answer",
			func(_ *matrix.Matrix, s probe.Spaces) { s[1].Peer = 8 }},
		{"no way is known", "which way its packets to them take isn't known",
			func(_ *matrix.Matrix, s probe.Spaces) { s[0].Elsewhere = func(netip.Addr) bool { return true } }},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := oneCell(sight)
			spaces, asked := answering(seenAs(clientAddress, "server"))
			c.change(m, spaces)
			if err := (probe.Measure{Spaces: spaces}).Fill(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			if m.Cells[0].Measured != nil || *asked > 0 || !strings.Contains(strings.Join(m.Notes, "\n"), c.note) {
				t.Errorf("asked %d times: %+v; notes %q", *asked, m.Cells[0], m.Notes)
			}
		})
	}
}

// An error that says nothing of the network ends it.
func TestBrokenCaller(t *testing.T) {
	spaces, _ := answering(probe.Report{Error: "too many open files"})
	err := (probe.Measure{Spaces: spaces}).Fill(t.Context(), oneCell(matrix.Sight{Verdict: matrix.Kept}))
	if err == nil || !strings.Contains(err.Error(), "tcp from client to 10.0.0.2:7007: too many open files") {
		t.Errorf("error %v", err)
	}
	spaces[0].Call = func(context.Context, []probe.Order) ([]probe.Report, error) {
		return nil, errors.New("the pod is gone")
	}
	if err := (probe.Measure{Spaces: spaces}).Fill(t.Context(), oneCell(matrix.Sight{Verdict: matrix.Kept})); err == nil || !strings.Contains(err.Error(), "the pod is gone") {
		t.Errorf("error %v", err)
	}
}
