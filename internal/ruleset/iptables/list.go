package iptables

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/unmasq/unmasq/internal/ruleset"
)

// layout is which columns a listing has.
type layout struct {
	// known: a line of headings was seen.
	known bool
	// number with --line-numbers; verbose with -v: counters and interfaces.
	number, verbose bool
	// chain of the rows, empty where none was named.
	chain string
	// inChain: a line "Chain …" was seen since the last command.
	inChain bool
}

// listLine reads a line of iptables -L.
//
//	Chain POSTROUTING (policy ACCEPT 12 packets, 720 bytes)
//	num   pkts bytes target     prot opt in     out     source               destination
//	1      14M  814M MASQUERADE  all  --  *      !docker0  172.17.0.0/16        0.0.0.0/0
func (r *reader) listLine() {
	line := r.line
	switch {
	case line == "":
	case strings.HasPrefix(line, "Chain ") && r.listChain(line):
	case strings.HasPrefix(line, "Table: ") && named(line[len("Table: "):]) != 0: // service iptables status
		r.current()
		r.resume()
		r.origin.table = line[len("Table: "):]
		r.layout = layout{}
	case r.headings(line):
	case r.row(line):
	default:
		r.otherLine()
	}
}

// listChain reads Chain FORWARD (policy DROP 0 packets, 0 bytes), Chain DOCKER
// (2 references).
func (r *reader) listChain(line string) bool {
	name, rest, ok := strings.Cut(line[len("Chain "):], " (")
	if !ok || name == "" || strings.Contains(name, " ") || !strings.HasSuffix(rest, ")") {
		return false
	}
	policy := ""
	if words, ok := strings.CutPrefix(rest, "policy "); ok {
		policy, _, _ = strings.Cut(strings.TrimSuffix(words, ")"), " ")
	} else if !strings.Contains(rest, "references") {
		return false
	}
	r.declare(name, policy)
	r.layout = layout{chain: name, inChain: true}
	return true
}

// headings reads the names of the columns.
func (r *reader) headings(line string) bool {
	fields := strings.Fields(line[:min(len(line), 200)])
	if len(fields) < 4 || fields[len(fields)-1] != "destination" || fields[len(fields)-2] != "source" || !slices.Contains(fields, "prot") {
		return false
	}
	r.layout.known = true
	r.layout.number = fields[0] == "num"
	r.layout.verbose = slices.Contains(fields, "pkts")
	if !r.layout.inChain {
		r.layout.chain = r.current().chain
	}
	return true
}

// row is a line of a listing, its columns apart.
type row struct {
	index             int
	counters          counters
	interfaces        bool
	target            string
	protocol          string
	fragment          string
	in, out, src, dst string
	// extra is where the text of matches and target starts in the line.
	extra int
}

// row reads a rule; false where the line is none.
func (r *reader) row(line string) bool {
	if len(line) > maxRule {
		return false
	}
	w, ok := columns(line, r.layout)
	if !ok {
		return false
	}
	chain := r.layout.chain
	if chain == "" {
		chain = r.current().chain
	}
	s := &r.spec
	s.list(line, &w)
	if chain == "" {
		if chain = chainOf(w.target); chain == "" {
			r.problem("a rule of a chain that isn't named")
			return true
		}
		s.wrong("the chain isn't named; taken as " + chain)
	}
	r.append(chain, 0)
	return true
}

// chainOf is the built-in chain that a target stands in, where there is one only.
func chainOf(target string) string {
	switch target {
	case "MASQUERADE", "KUBE-POSTROUTING", "FLANNEL-POSTRTG", "IP-MASQ-AGENT", "IP-MASQ":
		return "POSTROUTING"
	}
	return ""
}

// columns splits a row. Blanks around them vary: names push them to the right,
// and older ip6tables leave the opt column empty.
func columns(line string, l layout) (w row, ok bool) {
	var words words
	words.reset(line)
	words.stray = true // quotation marks mean nothing here
	var fields [12]word
	n := 0
	for n < len(fields) {
		next, ok := words.next()
		if !ok {
			break
		}
		fields[n] = next
		n++
	}
	f := fields[:n]
	if !l.known {
		l.number, l.verbose = guess(f)
	}
	if l.number {
		if len(f) == 0 {
			return w, false
		}
		var err error
		if w.index, err = strconv.Atoi(f[0].value); err != nil || w.index < 1 {
			return w, false
		}
		f = f[1:]
	}
	if l.verbose {
		if len(f) < 2 {
			return w, false
		}
		packets, ok := rounded(f[0].value)
		bytes, ok2 := rounded(f[1].value)
		if !ok || !ok2 {
			return w, false
		}
		w.counters = counters{packets, bytes, true}
		f = f[2:]
	}
	return w.rest(f, l.verbose)
}

// rest reads the columns from target on.
func (w row) rest(f []word, verbose bool) (row, bool) {
	opt := func(i int) bool {
		return i < len(f) && (f[i].value == "--" || f[i].value == "-f" || f[i].value == "!f")
	}
	isProtocol := func(i int) bool {
		if i >= len(f) {
			return false
		}
		_, ok := protocol(strings.TrimPrefix(f[i].value, "!"))
		return ok
	}
	at := 0
	switch {
	case opt(2):
		w.target, w.protocol, w.fragment, at = f[0].value, f[1].value, f[2].value, 3
	case opt(1):
		w.protocol, w.fragment, at = f[0].value, f[1].value, 2
	case isProtocol(1):
		w.target, w.protocol, at = f[0].value, f[1].value, 2
	case isProtocol(0):
		w.protocol, at = f[0].value, 1
	default:
		return w, false
	}
	f = f[at:]
	if w.interfaces = verbose; verbose {
		if len(f) < 2 {
			return w, false
		}
		w.in, w.out = f[0].value, f[1].value
		f = f[2:]
	}
	if len(f) < 2 || w.fragment == "" && (!addressLike(f[0].value) || !addressLike(f[1].value)) {
		return w, false
	}
	w.src, w.dst, w.extra = f[0].value, f[1].value, f[1].end
	return w, true
}

// addressLike keeps sentences from being taken for rows without an opt column.
func addressLike(s string) bool {
	s = strings.TrimPrefix(s, "!")
	return s == "anywhere" || s == "localhost" || strings.ContainsAny(s, ".:/")
}

// guess finds the layout of a row without headings: numbers in front of the
// target are the rule's, or the two counters, or all three.
func guess(f []word) (number, verbose bool) {
	n := 0
	for n < len(f) && n < 3 {
		if _, ok := rounded(f[n].value); !ok {
			break
		}
		n++
	}
	// The protocol is a number too where there is no target.
	if n > 0 && n < len(f) && (f[n].value == "--" || f[n].value == "-f" || f[n].value == "!f") {
		n--
	}
	return n == 1 || n == 3, n >= 2
}

// rounded reads a counter: 814M is 814,000,000 or a little more.
func rounded(s string) (uint64, bool) {
	factor := uint64(1)
	if s != "" {
		if i := strings.IndexByte("KMGTP", s[len(s)-1]); i >= 0 {
			for range i + 1 {
				factor *= 1000
			}
			s = s[:len(s)-1]
		}
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > math.MaxUint64/factor {
		return 0, false
	}
	return n * factor, true
}

// list reads the columns of a row into the rule, and the text behind them.
func (s *spec) list(line string, w *row) {
	s.clear()
	s.words.reset(line)
	s.rule.Text = line
	s.rule.Index = w.index
	s.rule.Packets, s.rule.Bytes, s.rule.Counted = w.counters.packets, w.counters.bytes, w.counters.ok
	s.rule.NoInterfaces = !w.interfaces
	if w.interfaces {
		s.rule.In, s.rule.Out = listInterface(w.in), listInterface(w.out)
	}
	s.listAddress(ruleset.Source, w.src)
	s.listAddress(ruleset.Destination, w.dst)
	name, not := strings.CutPrefix(w.protocol, "!")
	p, ok := protocol(name)
	if !ok {
		s.wrong("no protocol of that name is known")
		s.add(ruleset.Unknown{Name: "protocol", Text: w.protocol, Why: whyUnknown})
	}
	p.Not = not && p.Is
	s.rule.Protocol = p
	if w.fragment == "-f" || w.fragment == "!f" {
		s.add(ruleset.Unknown{Name: "fragment", Text: w.fragment, Why: whyUnknown})
	}
	s.target = w.target
	s.targetStart = max(strings.Index(line, w.target), 0)
	s.targetEnd = s.targetStart + len(w.target)
	s.extras(w.extra)
	if len(s.matches) > 0 {
		s.rule.Matches = slices.Clone(s.matches)
	}
}

func listInterface(s string) ruleset.Interface {
	if s == "*" || s == "any" {
		return ruleset.Interface{}
	}
	name, not := strings.CutPrefix(s, "!")
	return interfaceName(name, not)
}

func (s *spec) listAddress(side ruleset.Side, text string) {
	value, not := strings.CutPrefix(text, "!")
	if value == "anywhere" && !not {
		return
	}
	if m := s.setAddress(side, value, not, text); m != nil {
		s.add(m)
	}
}
