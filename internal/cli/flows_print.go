package cli

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	ct "github.com/unmasq/unmasq/internal/conntrack"
	"github.com/unmasq/unmasq/internal/explain"
	"github.com/unmasq/unmasq/internal/flows"
	"github.com/unmasq/unmasq/internal/kernel/conntrack"
)

// Events of flows --watch.
const (
	flowOpen  = "open" // was there
	flowNew   = "new"
	flowEnded = "ended"
	flowLost  = "lost" // the kernel dropped events
	flowNote  = "note"
)

// flowPipe takes entries to a printer: filtered, judged by all processors, in order.
// It holds few at a time.
type flowPipe struct {
	filter *flows.Filter
	judge  *flows.Judge
	names  explain.Names
	out    flowPrinter
	log    io.Writer
	limit  int
	shown  int
	notes  []string
	batch  []flowItem
	// strange: a new connection was one that the rules, as they were read, don't make.
	strange bool
}

type flowItem struct {
	entry ct.Entry
	event string
	at    time.Time
	flow  flows.Flow
	taken bool
}

// errEnough ends a listing with --limit.
var errEnough = errors.New("as many as were asked for")

const flowBatch = 1024

func (p *flowPipe) add(e *ct.Entry, event string, at time.Time) error {
	if !p.filter.Entry(e) {
		return nil
	}
	if p.batch == nil {
		p.batch = make([]flowItem, 0, flowBatch)
	}
	p.batch = append(p.batch, flowItem{entry: *e, event: event, at: at})
	if len(p.batch) == flowBatch || p.limit > 0 && len(p.batch) >= p.limit {
		return p.flush()
	}
	return nil
}

// flush judges and prints what is held.
func (p *flowPipe) flush() error {
	workers := min(runtime.GOMAXPROCS(0), len(p.batch))
	var wait sync.WaitGroup
	for w := range workers {
		wait.Go(func() {
			for i := w; i < len(p.batch); i += workers {
				p.judged(&p.batch[i])
			}
		})
	}
	wait.Wait()
	defer func() { p.batch = p.batch[:0] }()
	for i := range p.batch {
		item := &p.batch[i]
		p.strange = p.strange || item.event == flowNew && item.flow.ByRules == flows.Other
		if !item.taken {
			continue
		}
		if err := p.out.add(&item.flow, item.event, item.at); err != nil {
			return err
		}
		if p.shown++; p.shown == p.limit {
			return errEnough
		}
	}
	return nil
}

func (p *flowPipe) judged(item *flowItem) {
	item.flow = p.judge.Flow(&item.entry, p.names)
	item.flow.Start, item.flow.Stop = moment(item.entry.Start), moment(item.entry.Stop)
	item.taken = p.filter.Flow(&item.flow)
}

// moment in RFC 3339; "" for 0.
func moment(nanoseconds uint64) string {
	if nanoseconds == 0 {
		return ""
	}
	return at(time.Unix(0, int64(nanoseconds)))
}

func at(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z07:00") }

func (p *flowPipe) note(text string) {
	if slices.Contains(p.notes, text) {
		return
	}
	p.notes = append(p.notes, text)
	if !p.out.hasNotes() {
		fmt.Fprintf(p.log, "note: %s\n", text)
	}
}

// recording says what the kernel doesn't keep, and how to make it.
func (p *flowPipe) recording(r conntrack.Recording, noRules bool) {
	var lacks []string
	if !r.Accounting {
		lacks = append(lacks, "packets and bytes (sysctl -w "+conntrack.SysctlAccounting+"=1)")
	}
	if !r.Timestamps {
		lacks = append(lacks, "when a connection began (sysctl -w "+conntrack.SysctlTimestamps+"=1)")
	}
	if !noRules {
		lacks = append(lacks, "which rule decided: BY is what the rules as they are now make of it")
	}
	if len(lacks) > 0 {
		p.note("not recorded by this kernel: " + strings.Join(lacks, "; "))
	}
	if p.shown == 0 {
		p.note(fmt.Sprintf("no connection fits; the table has %d", max(r.Count, 0)))
	}
}

// flowPrinter writes flows as they come.
type flowPrinter interface {
	add(f *flows.Flow, event string, at time.Time) error
	// flush what is held, since nothing may come for a while.
	flush() error
	// end writes the rest. notes were said already, unless it has them.
	end(notes []string) error
	hasNotes() bool
	// event of no connection: lost.
	event(event, text string, at time.Time) error
}

// printer holds back what it writes until it is flushed.
func (o *flowsOptions) printer(out io.Writer) flowPrinter {
	w := bufio.NewWriterSize(out, 64<<10)
	return &bufferedPrinter{o.printerTo(w), w}
}

type bufferedPrinter struct {
	flowPrinter
	w *bufio.Writer
}

func (b *bufferedPrinter) flush() error {
	return errors.Join(b.flowPrinter.flush(), b.w.Flush())
}

func (b *bufferedPrinter) end(notes []string) error {
	return errors.Join(b.flowPrinter.end(notes), b.w.Flush())
}

func (o *flowsOptions) printerTo(out io.Writer) flowPrinter {
	switch {
	case o.summary:
		return &summaryPrinter{out: out, limit: o.limit, json: o.output == "json"}
	case o.output == "json" && o.watch:
		return linePrinter{out}
	case o.output == "json":
		return &jsonPrinter{out: out}
	}
	return &tablePrinter{flows.Table{Out: out, Watch: o.watch, Wide: o.output == "wide"}}
}

type tablePrinter struct{ flows.Table }

func (t *tablePrinter) add(f *flows.Flow, event string, when time.Time) error {
	return t.Add(f, event, when.Format("15:04:05.000"))
}
func (t *tablePrinter) flush() error       { return t.Flush() }
func (t *tablePrinter) end([]string) error { return t.Flush() }
func (t *tablePrinter) hasNotes() bool     { return false }
func (t *tablePrinter) event(event, text string, when time.Time) error {
	_, err := fmt.Fprintf(t.Out, "%s  %s  %s\n", when.Format("15:04:05.000"), event, text)
	return err
}

// jsonPrinter writes one object, without holding its flows.
type jsonPrinter struct {
	out   io.Writer
	begun bool
}

func (j *jsonPrinter) begin() error {
	if j.begun {
		return nil
	}
	j.begun = true
	_, err := io.WriteString(j.out, `{"version":1,"flows":[`)
	return err
}

func (j *jsonPrinter) add(f *flows.Flow, _ string, _ time.Time) error {
	separator := ",\n"
	if !j.begun {
		separator = "\n"
	}
	if err := j.begin(); err != nil {
		return err
	}
	text, err := plainJSON(f)
	if err != nil {
		return err
	}
	_, err = io.WriteString(j.out, separator+text)
	return err
}

func (j *jsonPrinter) end(notes []string) error {
	if err := j.begin(); err != nil {
		return err
	}
	if notes == nil {
		notes = []string{}
	}
	text, err := plainJSON(notes)
	if err == nil {
		_, err = io.WriteString(j.out, "],\n\"notes\":"+text+"}\n")
	}
	return err
}

func (j *jsonPrinter) flush() error                         { return nil }
func (j *jsonPrinter) hasNotes() bool                       { return true }
func (j *jsonPrinter) event(_, _ string, _ time.Time) error { return nil }

// plainJSON without escapes for HTML, on one line.
func plainJSON(value any) (string, error) {
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(value)
	return strings.TrimSuffix(b.String(), "\n"), err
}

// linePrinter writes an object a line.
type linePrinter struct{ out io.Writer }

// flowLine is a line of flows --watch -o json. Fields are only ever added.
type flowLine struct {
	Version int    `json:"version"`
	Event   string `json:"event"`
	Time    string `json:"time"`
	// Text of a note, or of lost.
	Text string `json:"text,omitempty"`
	*flows.Flow
}

func (l linePrinter) write(line flowLine) error {
	text, err := plainJSON(line)
	if err == nil {
		_, err = io.WriteString(l.out, text+"\n")
	}
	return err
}

func (l linePrinter) add(f *flows.Flow, event string, when time.Time) error {
	return l.write(flowLine{Version: 1, Event: event, Time: at(when), Flow: f})
}
func (l linePrinter) event(event, text string, when time.Time) error {
	return l.write(flowLine{Version: 1, Event: event, Time: at(when), Text: text})
}
func (l linePrinter) flush() error       { return nil }
func (l linePrinter) end([]string) error { return nil }
func (l linePrinter) hasNotes() bool     { return false }

// summaryPrinter counts.
type summaryPrinter struct {
	out   io.Writer
	sum   flows.Summary
	limit int
	json  bool
}

func (s *summaryPrinter) add(f *flows.Flow, _ string, _ time.Time) error { s.sum.Add(f); return nil }
func (s *summaryPrinter) flush() error                                   { return nil }
func (s *summaryPrinter) hasNotes() bool                                 { return s.json }
func (s *summaryPrinter) event(_, _ string, _ time.Time) error           { return nil }
func (s *summaryPrinter) end(notes []string) error {
	groups, more := s.sum.Groups(s.limit)
	if !s.json {
		return flows.Text(s.out, groups, more)
	}
	if groups == nil {
		groups = []flows.Group{}
	}
	if notes == nil {
		notes = []string{}
	}
	return writeJSON(s.out, struct {
		Version int           `json:"version"`
		Summary []flows.Group `json:"summary"`
		// More connections than those of the groups listed.
		More  int      `json:"more"`
		Notes []string `json:"notes"`
	}{1, groups, more, notes})
}
