package conntrack

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/unmasq/unmasq/internal/lines"
)

// Bounds of a text: no line of an entry comes near, and hostile text costs no
// more memory than a few times its size.
const (
	maxLine     = 4096
	maxProblems = 1000
	// longText is how much of a line a problem quotes.
	longText = 200
)

// Read reads entries as `conntrack -L` prints them, with any of -o extended,
// id, ktimestamp and labels, and as /proc/net/nf_conntrack does. Each line that
// isn't blank is an entry, a problem, or the summary at the end; an entry that
// was read but for an unknown field is both. Lines count from firstLine;
// beyond 1000 problems, the last one says how many more there are.
//
//	tcp      6 431999 ESTABLISHED src=10.9.0.1 dst=10.9.0.9 sport=5555 dport=80 src=10.9.0.2 dst=10.9.0.7 sport=7000 dport=5555 [ASSURED] mark=4660 use=1
//	ipv4     2 udp      17 29 src=10.9.0.1 dst=10.9.0.9 sport=56545 dport=53 packets=1 bytes=29 [UNREPLIED] src=10.9.0.2 … mark=0 zone=7 use=2
//	conntrack v1.4.7 (conntrack-tools): 2 flow entries have been shown.
func Read(text string, firstLine int) ([]Entry, []Problem) {
	r := reader{strange: map[string]bool{}}
	for number, line := range lines.Of(text, firstLine) {
		r.read(line, number)
	}
	if r.dropped > 0 {
		r.problems = append(r.problems, Problem{Why: fmt.Sprintf("%d more lines weren't understood", r.dropped)})
	}
	return r.entries, r.problems
}

type reader struct {
	entries  []Entry
	problems []Problem
	dropped  int
	// strange fields are reported once each.
	strange map[string]bool
}

func (r *reader) problem(line string, number int, why string) {
	if len(r.problems) >= maxProblems {
		r.dropped++
		return
	}
	r.problems = append(r.problems, Problem{Line: number, Text: line[:min(len(line), longText)], Why: why})
}

func (r *reader) read(line string, number int) {
	switch {
	case line == "" || summary(line):
		return
	case len(line) > maxLine:
		r.problem(line, number, fmt.Sprintf("longer than %d bytes", maxLine))
		return
	}
	if strings.HasPrefix(line, "conntrack v") {
		r.problem(line, number, "the program says what went wrong")
		return
	}
	p := parser{rest: line, entry: Entry{SeenReply: true, Text: line, Line: number}}
	if err := p.parse(); err != nil {
		r.problem(line, number, err.Error())
		return
	}
	r.entries = append(r.entries, p.entry)
	const most = 16
	if p.strange != "" && len(r.strange) < most && !r.strange[p.strange] {
		r.strange[p.strange] = true
		r.problem(line, number, "the field "+p.strange+" isn't known; the rest of the entry was read")
	}
}

// summary is what the program writes behind the entries, or the prompt before them.
func summary(line string) bool {
	if strings.HasPrefix(line, "conntrack v") {
		return strings.HasSuffix(line, "entries have been shown.")
	}
	// root@node:~# conntrack -L
	prompt, _, ok := strings.Cut(line, "conntrack -L")
	if !ok {
		prompt, _, ok = strings.Cut(line, "cat /proc/net/nf_conntrack")
	}
	prompt = strings.TrimSuffix(strings.TrimSpace(prompt), "sudo")
	prompt = strings.TrimSpace(prompt)
	return ok && (prompt == "" || strings.HasSuffix(prompt, "#") || strings.HasSuffix(prompt, "$"))
}

// parser reads the words of one line.
type parser struct {
	rest  string
	entry Entry
	// family is 4 or 6, where the line states it.
	family byte
	// tuples begun: 1 within the original, 2 within the reply.
	tuples int
	// hasDestination and hasID of the current tuple; hasICMP: it has a type.
	hasDestination, hasICMP, hasID bool
	// strange is the first field that isn't known.
	strange string
}

// word takes the next one, "" at the end.
func (p *parser) word() string {
	p.rest = strings.TrimLeft(p.rest, " \t")
	end := strings.IndexAny(p.rest, " \t")
	if end < 0 {
		end = len(p.rest)
	}
	w := p.rest[:end]
	p.rest = p.rest[end:]
	return w
}

func (p *parser) parse() error {
	if err := p.head(); err != nil {
		return err
	}
	for w := p.word(); w != ""; w = p.word() {
		var err error
		key, value, ok := strings.Cut(w, "=")
		switch {
		case strings.HasPrefix(w, "["):
			err = p.flag(w)
		case ok:
			err = p.field(key, value)
		case p.tuples == 0:
			err = p.beforeTuples(w)
		default:
			p.note(w)
		}
		if err != nil {
			return err
		}
	}
	if p.tuples != 2 || !p.hasDestination {
		return fmt.Errorf("no entry of a connection table: it needs src= and dst= of both directions")
	}
	return p.sameFamily()
}

// head reads the family, where it is stated, and the protocol by name and number.
// Events of conntrack -E have a word in brackets first.
//
//	ipv4     2 tcp      6
func (p *parser) head() error {
	name := p.word()
	if name == "ipv4" || name == "ipv6" {
		p.family = name[3] - '0'
		p.word() // 2 or 10, AF_INET or AF_INET6
		name = p.word()
	}
	if strings.HasPrefix(name, "[") {
		return fmt.Errorf("an event, not an entry of the table")
	}
	number := p.word()
	protocol, err := strconv.ParseUint(number, 10, 8)
	if err != nil || strings.ContainsAny(name, "=[]") {
		return fmt.Errorf("no entry of a connection table: it should begin with a protocol, as in \"tcp 6\"")
	}
	p.entry.Protocol = uint8(protocol)
	return nil
}

// beforeTuples reads the timeout in seconds and the state.
func (p *parser) beforeTuples(w string) error {
	if strings.Trim(w, "0123456789") == "" {
		return nil
	}
	if p.entry.State != "" || strings.ToUpper(w) != w {
		return fmt.Errorf("%q: expected the state of the connection or src=", w)
	}
	p.entry.State = w
	return nil
}

// flag reads words in brackets. Times of -o ktimestamp have blanks within:
// [start=Tue Nov 24 10:01:02 2026].
func (p *parser) flag(w string) error {
	switch w {
	case "[UNREPLIED]":
		p.entry.SeenReply = false
	case "[ASSURED]":
		p.entry.Assured = true
	case "[OFFLOAD]", "[HW_OFFLOAD]":
		p.entry.Offloaded = true
	default:
		for last := w; !strings.HasSuffix(last, "]"); {
			if last = p.word(); last == "" {
				return fmt.Errorf("%q: no ] follows", w)
			}
		}
		if !strings.HasPrefix(w, "[start=") && !strings.HasPrefix(w, "[stop=") {
			p.note(w)
		}
	}
	return nil
}

func (p *parser) note(strange string) {
	if p.strange == "" {
		p.strange = strange
	}
}

// field reads one of key=value.
func (p *parser) field(key, value string) error {
	e := &p.entry
	switch key {
	case "src":
		return p.source(value)
	case "dst", "sport", "dport", "srckey", "dstkey", "type", "code":
		return p.ofTuple(key, value)
	case "id":
		// ICMP's identifier stands behind type and code; any other is the entry's own (-o id).
		if p.hasICMP && !p.hasID {
			p.hasID = true
			return number(&p.tuple().ID, key, value)
		}
		return number(&e.ID, key, value)
	case "mark":
		return number(&e.Mark, key, value)
	case "zone":
		err := number(&e.Zone, key, value)
		e.OriginalZone, e.ReplyZone = e.Zone, e.Zone
		return err
	case "zone-orig":
		return number(&e.OriginalZone, key, value)
	case "zone-reply":
		return number(&e.ReplyZone, key, value)
	case "packets":
		e.Counted = true
		return number(&e.Packets[max(p.tuples, 1)-1], key, value)
	case "bytes":
		return number(&e.Bytes[max(p.tuples, 1)-1], key, value)
	case "secctx", "secmark", "use", "labels", "helper", "delta-time",
		"timeout", "stream_timeout": // GRE's two, in /proc
	default:
		p.note(key + "=")
	}
	return nil
}

func (p *parser) tuple() *Tuple {
	if p.tuples == 1 {
		return &p.entry.Original
	}
	return &p.entry.Reply
}

// source begins a tuple.
func (p *parser) source(value string) error {
	if p.tuples == 2 || p.tuples == 1 && !p.hasDestination {
		return fmt.Errorf("src=%s: more than one src= for a direction", value)
	}
	p.tuples++
	p.hasDestination, p.hasICMP, p.hasID = false, false, false
	return address(&p.tuple().Source, "src", value)
}

func (p *parser) ofTuple(key, value string) error {
	if p.tuples == 0 {
		return fmt.Errorf("%s=%s before src=", key, value)
	}
	t := p.tuple()
	switch key {
	case "dst":
		if p.hasDestination {
			return fmt.Errorf("dst=%s: more than one dst= for a direction", value)
		}
		p.hasDestination = true
		return address(&t.Destination, key, value)
	case "sport", "srckey":
		return number(&t.SourcePort, key, value)
	case "dport", "dstkey":
		return number(&t.DestinationPort, key, value)
	case "code":
		return number(&t.Code, key, value)
	}
	p.hasICMP = true
	return number(&t.Type, key, value)
}

// sameFamily says what is wrong where addresses contradict each other. NAT
// never changes the family.
func (p *parser) sameFamily() error {
	is4 := p.entry.Original.Source.Is4()
	if p.family != 0 && is4 != (p.family == 4) {
		return fmt.Errorf("%s isn't of the family that the line states, IPv%d", p.entry.Original.Source, p.family)
	}
	for _, a := range []netip.Addr{p.entry.Original.Destination, p.entry.Reply.Source, p.entry.Reply.Destination} {
		if a.Is4() != is4 {
			return fmt.Errorf("%s and %s are of different families", p.entry.Original.Source, a)
		}
	}
	return nil
}

func address(to *netip.Addr, key, value string) error {
	a, err := netip.ParseAddr(value)
	if err != nil || a.Zone() != "" {
		return fmt.Errorf("%s=%s: expected an address", key, value)
	}
	*to = a
	return nil
}

// number reads decimal digits, or hexadecimal ones behind 0x.
func number[T uint8 | uint16 | uint32 | uint64](to *T, key, value string) error {
	digits, base := value, 10
	if hex, ok := strings.CutPrefix(value, "0x"); ok {
		digits, base = hex, 16
	}
	most := uint64(^T(0))
	n, err := strconv.ParseUint(digits, base, 64)
	if err != nil || n > most {
		return fmt.Errorf("%s=%s: expected a number up to %d", key, value, most)
	}
	*to = T(n)
	return nil
}
