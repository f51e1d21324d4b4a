package ipset

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/lines"
)

// Bounds of a text. The kernel has at most 65535 sets, and no line comes near
// the length; hostile text costs no more memory than a few times its size.
const (
	maxSets     = 1 << 16
	maxLine     = 4096
	maxProblems = 1000
	// longText is how much of a line a problem quotes.
	longText = 200
	// maxPlaced is how many members are passed, in all, to put others between them.
	maxPlaced = 1 << 26
	// maxSame is how often one name may be given, maxSpaced how many names may have a blank.
	maxSame, maxSpaced = 8, 16
)

// Read reads what `ipset save` and `ipset list` print, also `ipset list -t`,
// and commands for `ipset restore`; one after another in one text. Each line
// that isn't blank is read or a problem; beyond 1000 problems, the last one says
// how many more there are. Lines count from firstLine.
//
// A set that wasn't read wholly is there all the same, and knows it: it answers
// Unknown where what wasn't read could matter.
//
//	create nodes hash:ip family inet hashsize 1024 maxelem 65536 timeout 0 bucketsize 12 initval 0x20b69f6d
//	add nodes 172.18.0.11 timeout 0
//
//	Name: nodes
//	Type: hash:ip
//	Revision: 6
//	Header: family inet hashsize 1024 maxelem 65536 timeout 0 bucketsize 12 initval 0x20b69f6d
//	Size in memory: 256
//	References: 1
//	Number of entries: 1
//	Members:
//	172.18.0.11 timeout 0
func Read(text string, firstLine int) (sets Sets, problems []Problem) {
	r := &reader{sets: Sets{}, same: map[string]int{}, element: elementParser{ranges: maxRanges}}
	for number, line := range lines.Of(text, firstLine) {
		r.number, r.line = number, line
		r.read()
	}
	r.finish()
	return r.sets, r.problems
}

type reader struct {
	sets Sets
	// all sets in order, also those that others of the same name hide.
	all []*Set
	// spaced are names with blanks.
	spaced []string
	// same counts sets of a name.
	same map[string]int

	number int
	line   string
	// listing is the set that ipset list is printing; members: its elements, of
	// which seen were read.
	listing *Set
	members bool
	seen    int

	// long is the first line that was too long to read, flushed the last one that
	// flushes all sets; 0 for none.
	long, flushed int

	// placed counts the members passed to put others before or after them.
	placed int

	element  elementParser
	problems []Problem
	dropped  int
}

func (r *reader) problem(why string) {
	if len(r.problems) >= maxProblems {
		r.dropped++
		return
	}
	r.problems = append(r.problems, Problem{Line: r.number, Text: r.line[:min(len(r.line), longText)], Why: why})
}

func (r *reader) read() {
	switch {
	case r.line == "":
		r.listing = nil
	case len(r.line) > maxLine:
		r.problem(fmt.Sprintf("longer than %d bytes", maxLine))
		r.tooLong()
	case strings.HasPrefix(r.line, "Name: "):
		r.begin(strings.TrimPrefix(r.line, "Name: "))
	case r.listing != nil && r.members:
		r.member()
	case r.listing != nil:
		r.heading()
	default:
		r.command()
	}
}

// tooLong: it could be an element of any set.
func (r *reader) tooLong() {
	if r.listing != nil {
		r.listing.miss(fmt.Sprintf("line %d is too long", r.number), true)
	} else if r.long == 0 {
		r.long = r.number
	}
}

// member is a line behind Members. Behind as many as were announced, what
// doesn't look like one is a prompt or another program's output; more elements
// may have come while the kernel counted.
func (r *reader) member() {
	s := r.listing
	r.seen++
	switch {
	case isCommand(r.line):
		r.listing = nil
		r.command()
	case s.announced < 0 || r.seen <= s.announced:
		r.add(s, r.line)
	case s.kind.parts != nil && s.kind.parts[0] != set && r.addTo(s, r.line) == nil:
	default:
		r.listing = nil
		r.command()
	}
}

// begin a set that is listed.
func (r *reader) begin(name string) {
	r.members, r.seen = false, 0
	r.listing = r.create(name)
	if r.listing != nil {
		r.listing.doubt = "its Header line wasn't given"
	}
}

// create a set; nil where there are too many.
func (r *reader) create(name string) *Set {
	if len(r.all) >= maxSets {
		r.problem(fmt.Sprintf("more than %d sets", maxSets))
		return nil
	}
	s := newSet(name, r.number)
	if before := r.sets[name]; before != nil {
		if before.Type == "" {
			s.doubt = "it had elements before it was created"
		}
		r.same[name]++
		if r.same[name] < maxSame {
			s.other = before
		} else {
			s.doubt = "it was given too often"
		}
	} else if strings.Contains(name, " ") {
		if len(r.spaced) < maxSpaced {
			r.spaced = append(r.spaced, name)
		} else {
			s.doubt = "too many sets have a blank in their names"
		}
	}
	r.sets[name] = s
	r.all = append(r.all, s)
	return s
}

// heading is a line between Name and Members.
func (r *reader) heading() {
	s := r.listing
	key, value, ok := strings.Cut(r.line, ":")
	value = strings.TrimSpace(value)
	if !ok {
		r.listing = nil
		r.command()
		return
	}
	switch key {
	case "Type":
		s.setType(value)
		if s.kind.parts == nil {
			r.problem("sets of type " + value + " aren't known")
		}
	case "Header":
		s.doubt = ""
		r.takeOptions(s, value)
	case "Number of entries":
		if _, err := fmt.Sscanf(value, "%d", &s.announced); err != nil || s.announced < 0 {
			s.announced = -1
			r.problem("expected a number")
		}
	case "Members":
		s.listed, r.members = true, true
	case "Revision", "Size in memory", "References", "Default binding", "Bindings":
	default:
		r.problem("no line of ipset list that is known")
	}
}

func (r *reader) takeOptions(s *Set, text string) {
	if s.kind.parts == nil {
		s.Options.Text = text
		return
	}
	if err := s.options(text); err != nil {
		r.problem("an option isn't understood: " + err.Error())
	}
}

// command is a line of ipset save, or what a person wrote for ipset restore.
func (r *reader) command() {
	line := withoutPrompt(strings.ReplaceAll(r.line, "\t", " "))
	verb, rest, _ := strings.Cut(line, " ")
	rest = strings.TrimSpace(rest)
	switch verb {
	case "create", "-N", "--create", "n", "new":
		r.createLine(rest)
	case "add", "-A", "--add", "a":
		r.addLine(rest)
	case "flush", "-F", "--flush":
		r.flush(rest)
	case "destroy", "-X", "--destroy", "x":
		r.destroy(rest)
	case "del", "-D", "--del", "d", "rename", "-E", "--rename", "e", "swap", "-W", "--swap", "w":
		r.problem("what it changes isn't followed")
		for _, name := range strings.Fields(rest) {
			if s := r.sets[name]; s != nil {
				s.doubt = fmt.Sprintf("line %d changes it: %s", r.number, r.line)
			}
		}
	case "COMMIT", "quit", "save", "-S", "list", "-L", "restore", "-R":
	default:
		if !strings.HasPrefix(line, "#") && line != "" {
			r.problem("no line of ipset save or ipset list")
		}
	}
}

// withoutPrompt leaves the command of a line such as
//
//	root@node:~# ipset -exist add nodes 172.18.0.11
func withoutPrompt(line string) string {
	const program = "ipset "
	if rest, ok := strings.CutPrefix(line, program); ok {
		line = rest
	} else if prompt, rest, ok := strings.Cut(line, program); ok && isPrompt(prompt) {
		line = rest
	}
	for _, option := range []string{"-exist ", "--exist ", "-! "} {
		line = strings.TrimPrefix(line, option)
	}
	return line
}

// isCommand tells commands behind a prompt, and ipset's errors, from elements.
func isCommand(line string) bool {
	return strings.Contains(line, "ipset ") && !strings.Contains(line, `"`) && withoutPrompt(line) != line
}

func isPrompt(text string) bool {
	text = strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(text), "sudo"))
	return text == "" || strings.HasSuffix(text, "#") || strings.HasSuffix(text, "$")
}

// createLine reads NAME TYPE OPTIONS. A name may have blanks, unquoted.
func (r *reader) createLine(text string) {
	words := strings.Fields(text)
	at := slices.IndexFunc(words, func(word string) bool { _, k := kindOf(word); return k.parts != nil })
	if at < 1 {
		at = 1 // a type that isn't known
	}
	if len(words) <= at {
		r.problem("expected a name and a type")
		return
	}
	typeName := words[at]
	before, options, _ := strings.Cut(text, " "+typeName)
	name := strings.TrimSpace(before)
	s := r.existing(name, typeName, options)
	if s == nil {
		if s = r.create(name); s == nil {
			return
		}
		s.listed = true
		s.setType(typeName)
	}
	if s.kind.parts == nil {
		r.problem("sets of type " + typeName + " aren't known")
	}
	r.takeOptions(s, options)
}

// existing is the set that -exist lets stand.
func (r *reader) existing(name, typeName, options string) *Set {
	s := r.sets[name]
	if s == nil || !slices.ContainsFunc(strings.Fields(options), isExist) {
		return nil
	}
	if canonical, _ := kindOf(typeName); canonical != s.Type {
		return nil
	}
	return s
}

func isExist(word string) bool { return word == "-exist" || word == "--exist" || word == "-!" }

// addLine reads NAME ELEMENT OPTIONS.
func (r *reader) addLine(text string) {
	name, element, _ := strings.Cut(text, " ")
	for _, spaced := range r.spaced {
		if rest, ok := strings.CutPrefix(text, spaced+" "); ok && len(spaced) > len(name) {
			name, element = spaced, rest
		}
	}
	element = strings.TrimSpace(element)
	if element == "" {
		r.problem("expected a set and an element")
		return
	}
	s := r.sets[name]
	if s == nil {
		if s = r.create(name); s == nil {
			return
		}
		r.problem("the line that creates the set " + name + " wasn't given")
	}
	if s.Type != "" {
		r.add(s, element)
	}
}

// add an element with its options.
func (r *reader) add(s *Set, text string) {
	if s.kind.parts == nil {
		return // said where it was created
	}
	if err := r.addTo(s, text); err != nil {
		r.problem(err.Error())
		negates := s.kind.parts[len(s.kind.parts)-1] == iface || strings.Contains(text, "nomatch")
		s.miss(fmt.Sprintf("an element isn't understood, line %d: %s", r.number, r.line[:min(len(r.line), longText)]), negates)
	}
}

func (r *reader) addTo(s *Set, text string) error {
	element, options, _ := strings.Cut(text, " ")
	if s.kind.parts[0] == set {
		return r.addMember(s, text)
	}
	e := &r.element
	e.set, e.name, e.rest = s, "", rest{}
	if err := e.options(options); err != nil {
		return err
	}
	if err := e.parse(element); err != nil {
		return err
	}
	return e.add()
}

// addMember adds to a list:set.
//
//	trusted timeout 20 before nodes
//
// No list has more members than there can be sets.
func (r *reader) addMember(s *Set, text string) error {
	name, options, _ := strings.Cut(text, " ")
	for _, spaced := range r.spaced {
		if text == spaced || strings.HasPrefix(text, spaced+" ") {
			name, options = spaced, text[len(spaced):]
		}
	}
	if len(s.Members) >= maxSets {
		return fmt.Errorf("more than %d members", maxSets)
	}
	r.element.rest = rest{}
	if err := r.element.options(options); err != nil {
		return err
	}
	if options != "" {
		if r.placed += len(s.Members); r.placed > maxPlaced {
			return errors.New("too many members are put between others")
		}
	}
	s.Members = slices.Insert(s.Members, place(s.Members, options), name)
	s.length++
	return nil
}

// place of a new member: before or after another, else the last.
func place(members []string, options string) int {
	words := strings.Fields(options)
	for i := 0; i+1 < len(words); i++ {
		at := slices.Index(members, words[i+1])
		switch {
		case at < 0:
		case words[i] == "before":
			return at
		case words[i] == "after":
			return at + 1
		}
	}
	return len(members)
}

// flush removes elements, of all sets where none is named.
func (r *reader) flush(name string) {
	if name == "" {
		r.flushed = r.number
		r.problem("what it changes isn't followed; name the set")
		return
	}
	if s := r.sets[name]; s != nil {
		s.tables, s.byBits, s.more, s.Members = nil, nil, nil, nil
		s.missing, s.missingNegates, s.length = "", false, 0
	}
}

// destroy removes a set, or all.
func (r *reader) destroy(name string) {
	if name == "" {
		r.sets = Sets{}
		return
	}
	delete(r.sets, name)
}

// finish sorts what was read, and sees what was left out.
func (r *reader) finish() {
	for _, s := range r.all {
		s.sort()
		if r.long > 0 {
			s.miss(fmt.Sprintf("line %d is too long", r.long), true)
		}
		if s.Line < r.flushed {
			s.doubt = fmt.Sprintf("line %d flushes it", r.flushed)
		}
		switch {
		case !s.listed && s.announced != 0 && s.doubt == "":
			s.miss("its members weren't listed (ipset list -t)", true)
		case s.announced > s.length && s.missing == "":
			s.miss(fmt.Sprintf("it has %d elements, of which %d are shown", s.announced, s.length), true)
			r.number, r.line = s.Line, "Name: "+s.Name
			r.problem(s.missing)
		}
		s.byBits, s.numbers = nil, nil
	}
	if r.dropped > 0 {
		r.problems = append(r.problems, Problem{Why: fmt.Sprintf("%d more lines weren't understood", r.dropped)})
	}
}
