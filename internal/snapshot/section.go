package snapshot

import (
	"fmt"
	"strings"

	"github.com/unmasq/unmasq/internal/route"
)

// format of some lines of a file.
type format uint8

const (
	unrecognised format = iota
	formatSave          // iptables-save, iptables -S
	formatList          // iptables -L
	formatIPSet
	formatLinks // ip link, ip addr
	formatBridgeLinks
	formatRoutes
	formatRules
	formatNeighbors
	formatFDB
	formatSysctl
	formatConntrack
	formatCounters
	formatIPVS
	formatNFT
	formatJSON
)

// section is some lines of one format.
type section struct {
	format format
	// start and end are offsets in the text; line is the number of the first line.
	start, end, line int
	// command above the output, where a line shows one.
	command command
	// content: there is more than the command.
	content bool
	// heading is the command's line where other lines stand between it and the
	// output, such as a sentence.
	heading     string
	headingLine int
}

// output is the text of a section with the command above it, and its first line.
func (s *section) output(text string) (string, int) {
	if s.heading == "" {
		return text[s.start:s.end], s.line
	}
	return s.heading + strings.Repeat("\n", s.line-s.headingLine) + text[s.start:s.end], s.headingLine
}

// Bounds of a text: no dump changes its format as often, nor has as many lines
// that belong to none.
const (
	maxSections = 20_000
	maxNotes    = 1000
	maxIdle     = 1_000_000
)

// splitter cuts a text into sections.
type splitter struct {
	name   string
	text   string
	limits limits

	// of the current line.
	pos, next, number int

	sections []section
	// open: the last section goes on; blank: an empty line came since.
	open, blank bool
	// said is the command that was shown last.
	said             command
	block            block
	notes            []Note
	strays, overflow int
	// idle lines are of no format.
	idle int
}

// split finds the sections of a text. Lines of no format become notes.
func split(f *file, text string, l limits) ([]section, []Note, error) {
	s := &splitter{name: f.name, text: text, limits: l, number: -boolInt(f.under)}
	for s.pos < len(text) {
		s.number++
		s.next = len(text)
		if i := strings.IndexByte(text[s.pos:], '\n'); i >= 0 {
			s.next = s.pos + i + 1
		}
		if err := s.line(text[s.pos:s.next]); err != nil {
			return nil, nil, err
		}
		s.pos = s.next
	}
	if s.overflow > 0 {
		s.notes = append(s.notes, Note{File: f.name, Why: fmt.Sprintf("%d more passages belong to no format that is known", s.overflow)})
	}
	return s.sections, s.notes, nil
}

// blanks around a line, also those that editors and web pages put there.
const blanks = " \t\n\f\v\u00a0"

func (s *splitter) line(raw string) error {
	line := strings.Trim(raw, blanks)
	if line == "" {
		s.blank = true
		s.strays = 0
		s.block.blank()
		return nil
	}
	if s.block.depth == 0 && (line[0] == '[' || line[0] == '{') && looksJSON(s.text[s.pos+strings.IndexByte(raw, line[0]):]) {
		return s.json()
	}
	if int64(len(raw)) > s.limits.line {
		return fmt.Errorf("%s:%d: a line longer than %s, which no dump has", s.name, s.number, size(s.limits.line))
	}
	f := s.recognise(raw, line)
	if f == unrecognised {
		if s.idle++; s.idle > maxIdle {
			return fmt.Errorf("%s:%d: more than %d lines belong to no format: this is no dump", s.name, s.number, maxIdle)
		}
		if c, ok := parseCommand(line); ok {
			return s.command(c)
		}
		switch {
		case isFence(line):
			if s.open && s.sections[len(s.sections)-1].content {
				s.close()
			}
			return nil
		case isPrompt(line):
			s.close()
			s.said, s.strays = command{}, 0
			return nil
		case s.open && !s.blank && s.sections[len(s.sections)-1].content && s.sections[len(s.sections)-1].format != formatNFT:
			f = s.sections[len(s.sections)-1].format // its reader says what is wrong with it
		case line[0] == '#' || isRule(line):
			s.strays = 0
			return nil
		default:
			s.stray(line)
			return nil
		}
	}
	return s.extend(f)
}

// extend adds the current line to the section, or begins one.
func (s *splitter) extend(f format) error {
	s.strays = 0
	last := len(s.sections) - 1
	if s.open && (s.sections[last].format == f || !s.sections[last].content && goesWith(s.sections[last].format, f)) {
		if !s.sections[last].content && !showsCommand(f) {
			s.sections[last].start, s.sections[last].line = s.pos, s.number
		}
		s.sections[last].format = f
		s.sections[last].end = s.next
		s.sections[last].content = true
		s.blank = false
		return nil
	}
	if len(s.sections) >= maxSections {
		return fmt.Errorf("%s:%d: the format changed more than %d times: this is no dump", s.name, s.number, maxSections)
	}
	n := section{format: f, start: s.pos, end: s.next, line: s.number, content: true, command: s.under()}
	if last >= 0 && !s.sections[last].content && goesWith(s.sections[last].format, f) {
		c := &s.sections[last]
		n.command = c.command
		if f.kind() != 0 {
			n.heading, n.headingLine = strings.TrimRight(s.text[c.start:c.end], "\n"), c.line
			s.sections = s.sections[:last]
		}
	}
	s.sections = append(s.sections, n)
	s.open, s.blank = true, false
	return nil
}

// under is what is known of a command of another kind above the lines: the
// namespace that it looked into.
func (s *splitter) under() command { return command{namespace: s.said.namespace} }

// showsCommand says whether the format's reader looks at the command above.
func showsCommand(f format) bool { return f == formatSave || f == formatList || f.kind() != 0 }

// goesWith says whether lines of a format can be the output of a command for
// another one: iptables -t nat -S and -L print what their options say.
func goesWith(said, f format) bool {
	tables := func(f format) bool { return f == formatSave || f == formatList }
	return said == f || tables(said) && tables(f)
}

// command begins the output of a command that a line shows.
func (s *splitter) command(c command) error {
	s.close()
	s.said, s.strays = c, 0
	if c.format == unrecognised {
		return nil
	}
	if n := len(s.sections); n > 0 && !s.sections[n-1].content {
		s.sections = s.sections[:n-1] // a command without output
	}
	if len(s.sections) >= maxSections {
		return fmt.Errorf("%s:%d: the format changed more than %d times: this is no dump", s.name, s.number, maxSections)
	}
	s.sections = append(s.sections, section{format: c.format, start: s.pos, end: s.next, line: s.number, command: c})
	s.open, s.blank = true, false
	return nil
}

func (s *splitter) close() {
	s.open = false
	s.block = block{}
}

// stray notes a line that belongs to nothing; a passage of them is one note.
func (s *splitter) stray(line string) {
	s.open = false
	const long = 200
	switch {
	case s.strays > 0:
		s.strays++
		if s.overflow == 0 {
			n := &s.notes[len(s.notes)-1]
			n.Why = fmt.Sprintf("belongs to no format that is known, with the %d lines that follow it", s.strays-1)
			if s.strays == 2 {
				n.Why = "belongs to no format that is known, as the next line"
			}
		}
	case len(s.notes) == maxNotes:
		s.strays = 1
		s.overflow++
	default:
		s.strays = 1
		why := "belongs to no format that is known"
		if failure := programFailed(line); failure != "" {
			why = failure
		}
		s.notes = append(s.notes, Note{File: s.name, Line: s.number, Text: line[:min(len(line), long)], Why: why})
		if why[0] != 'b' {
			s.strays = 0 // a note by itself
		}
	}
}

// json takes a JSON value as a section of its own.
func (s *splitter) json() error {
	s.pos += len(s.text[s.pos:]) - len(strings.TrimLeft(s.text[s.pos:], blanks))
	length, err := jsonLength(s.text[s.pos:])
	if err != nil {
		return fmt.Errorf("%s:%d: %w", s.name, s.number+err.line, err.error)
	}
	c := s.said
	if n := len(s.sections); n > 0 && !s.sections[n-1].content {
		s.sections = s.sections[:n-1]
	}
	s.close()
	if len(s.sections) >= maxSections {
		return fmt.Errorf("%s:%d: more than %d JSON values: this is no dump", s.name, s.number, maxSections)
	}
	s.sections = append(s.sections, section{format: formatJSON, start: s.pos, end: s.pos + length, line: s.number, content: true, command: c})
	end := s.pos + length
	s.number += strings.Count(s.text[s.pos:end], "\n")
	// What follows on the same line is looked at only if it's another value.
	s.next = end + len(s.text[end:]) - len(strings.TrimLeft(s.text[end:], " \t"))
	if s.next < len(s.text) && s.text[s.next] == '\n' {
		s.next++
	} else if s.next < len(s.text) {
		s.number--
	}
	s.said, s.strays = command{}, 0
	return nil
}

// kind of the ip command whose output the format is.
func (f format) kind() route.Kind {
	switch f {
	case formatLinks:
		return route.Addresses
	case formatBridgeLinks:
		return route.BridgeLinks
	case formatRoutes:
		return route.Routes
	case formatRules:
		return route.Rules
	case formatNeighbors:
		return route.Neighbors
	case formatFDB:
		return route.FDB
	}
	return 0
}
