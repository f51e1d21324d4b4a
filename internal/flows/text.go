package flows

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
	"unicode/utf8"
)

// Table writes flows in columns as they come. The first rows set the columns'
// widths; later ones widen them where they must, so that nothing is held back for
// long, and nothing for ever.
type Table struct {
	// Out is written to in pieces; call Flush at the end.
	Out io.Writer
	// Watch adds a column with what happened, and when; Wide adds what else is recorded.
	Watch, Wide bool

	held   [][]string
	widths []int
	begun  bool
	err    error
}

// heldRows set the widths.
const heldRows = 500

// Add a flow; event and time only where the table has such columns.
func (t *Table) Add(f *Flow, event, time string) error {
	if t.held == nil && !t.begun {
		t.held = append(t.held, t.head())
	}
	row := t.row(f, event, time)
	if t.begun {
		t.write(row)
		return t.err
	}
	if t.held = append(t.held, row); len(t.held) > heldRows {
		return t.Flush()
	}
	return nil
}

// Flush writes what is held.
func (t *Table) Flush() error {
	for _, row := range t.held {
		t.measure(row)
	}
	if len(t.held) > 0 {
		t.begun = true
	}
	for _, row := range t.held {
		t.write(row)
	}
	t.held = nil
	return t.err
}

func (t *Table) head() []string {
	columns := []string{"PROTO", "SOURCE", "SEEN AS", "DESTINATION", "BACKEND", "STATE", "BY"}
	if t.Watch {
		columns = append([]string{"TIME", "EVENT"}, columns...)
	}
	if t.Wide {
		n := len(columns) - 1
		columns = append(columns[:n:n], "DIRECTION", "ZONE", "MARK", "PACKETS", "BYTES", "SINCE", "ID", "BY")
	}
	return columns
}

func (t *Table) row(f *Flow, event, time string) []string {
	cells := []string{f.Protocol, end(f.Source, f.SourcePort, f.SourceName), f.seen(), end(f.Destination, f.DestinationPort, f.DestinationName), f.backend(), f.state()}
	if t.Watch {
		cells = append([]string{time, event}, cells...)
	}
	if t.Wide {
		cells = append(cells, orDash(f.Direction), fmt.Sprint(f.Zone), fmt.Sprintf("%#x", f.Mark), both(f.Packets), both(f.Bytes), orDash(f.Start), fmt.Sprint(f.ID))
	}
	return append(cells, f.By())
}

// end is an address with its port and name.
func end(a netip.Addr, port *uint16, name string) string {
	text := a.String()
	if port != nil {
		text = netip.AddrPortFrom(a, *port).String()
	}
	if name != "" {
		text += " (" + name + ")"
	}
	return text
}

// seen is the address that the peer sees, where it isn't the sender's own.
func (f *Flow) seen() string {
	if f.SeenAs == f.Source && (f.SeenAsPort == nil || *f.SeenAsPort == *f.SourcePort) {
		return "itself"
	}
	return end(f.SeenAs, f.SeenAsPort, f.SeenAsName)
}

func (f *Flow) backend() string {
	if f.Backend == nil {
		return "-"
	}
	return end(*f.Backend, f.BackendPort, f.BackendName)
}

func (f *Flow) state() string {
	text := f.State
	switch {
	case text == "" && f.Replied:
		text = "REPLIED"
	case text == "":
		text = "UNREPLIED"
	}
	if f.Offloaded {
		text += " OFFLOADED"
	}
	return text
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func both(n *[2]uint64) string {
	if n == nil {
		return "-"
	}
	return fmt.Sprintf("%d/%d", n[0], n[1])
}

func (t *Table) measure(row []string) {
	for len(t.widths) < len(row) {
		t.widths = append(t.widths, 0)
	}
	for i, cell := range row {
		t.widths[i] = max(t.widths[i], utf8.RuneCountInString(cell))
	}
}

func (t *Table) write(row []string) {
	t.measure(row)
	var b strings.Builder
	for i, cell := range row {
		b.WriteString(cell)
		if i < len(row)-1 {
			b.WriteString(strings.Repeat(" ", t.widths[i]-utf8.RuneCountInString(cell)+2))
		}
	}
	b.WriteByte('\n')
	if t.err == nil {
		_, t.err = io.WriteString(t.Out, b.String())
	}
}
