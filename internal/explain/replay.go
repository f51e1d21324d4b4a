package explain

import (
	"fmt"
	"net/netip"
	"strings"
)

// Replay is what this machine's kernel did with the packet on a node that was
// built like the snapshot's.
type Replay struct {
	// Agrees is null where that can't be told; Why says why.
	Agrees *bool `json:"agrees"`
	// Seen is what became of the packets, the same fates counted together.
	Seen []Fate `json:"seen"`
	Why  string `json:"why,omitempty"`
	// LeftOut is what the snapshot has and the node that was built has not.
	LeftOut []string `json:"leftOut,omitempty"`
}

// Fate of packets in the kernel.
type Fate struct {
	// Times that it was seen.
	Times    int    `json:"times"`
	Protocol string `json:"protocol"`
	// Verdict: accepted, dropped, rejected.
	Verdict string `json:"verdict"`
	// Source, SourcePort and Destination as the packet came out; null where none did.
	Source *netip.Addr `json:"source"`
	// SourcePort is a number, the [first, last] that were seen, or null.
	SourcePort      any         `json:"sourcePort"`
	Destination     *netip.Addr `json:"destination"`
	DestinationPort *int        `json:"destinationPort,omitempty"`
	OutInterface    string      `json:"outInterface,omitempty"`
	ToNode          bool        `json:"toNode,omitempty"`
	RejectWith      string      `json:"rejectWith,omitempty"`
	// Tracked: connection tracking expects the reply that belongs to what came
	// out; null for what it doesn't track, or was not asked about.
	Tracked *bool `json:"tracked"`
	// Predicted: one of the outcomes.
	Predicted bool `json:"predicted"`
}

// Disagrees says whether the kernel did what wasn't predicted.
func (r *Replay) Disagrees() bool { return r != nil && r.Agrees != nil && !*r.Agrees }

func (t writer) replay(r *Replay) {
	if r == nil {
		return
	}
	t.section("replayed in this kernel")
	switch {
	case r.Agrees == nil && len(r.Seen) == 0:
		t.line("  can't be replayed: %s", r.Why)
	case r.Agrees == nil:
		t.line("  can't be compared: %s", r.Why)
	case *r.Agrees:
		t.line("  agrees")
	default:
		t.line("  %s: %s", t.bold("DISAGREES"), r.Why)
	}
	t.table(func(row func(cells ...string)) {
		for i := range r.Seen {
			f := &r.Seen[i]
			as := "as predicted"
			if !f.Predicted {
				as = "not predicted"
			}
			row(fmt.Sprintf("  %d ×", f.Times), f.Protocol, t.fate(f), as)
		}
	})
	for _, what := range r.LeftOut {
		t.line("  left out: %s", what)
	}
}

// fate in words: dropped, rejected with tcp-reset, 192.0.2.11:1024-65535 → 8.8.8.8:53 by eth0.
func (t writer) fate(f *Fate) string {
	if f.Source == nil {
		return strings.TrimSpace(f.Verdict + with(f.RejectWith))
	}
	text := t.ended(*f.Source, f.SourcePort) + " → " + t.ended(*f.Destination, f.DestinationPort)
	switch {
	case f.ToNode:
		text += ", delivered to the node"
	case f.OutInterface != "":
		text += ", out by " + f.OutInterface
	}
	if f.Tracked != nil && !*f.Tracked {
		text += "; connection tracking expects another reply"
	}
	return text
}

// ended is an address with its port or ports.
func (t writer) ended(a netip.Addr, port any) string {
	if p, ok := port.([2]uint16); ok {
		host := t.address(a, nil)
		if a.Is6() {
			host = "[" + host + "]"
		}
		return fmt.Sprintf("%s:%d-%d", host, p[0], p[1])
	}
	return t.address(a, port)
}

// ProtocolName is the name that answers use, or the number.
func ProtocolName(n uint8) string { return protocolName(n) }
