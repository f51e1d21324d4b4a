package route

import (
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
)

// ReadJSON reads what `ip -j` and `bridge -j` print, also with -d and -p, several
// outputs in one text too, and adds it. Lines are counted from firstLine;
// family is as for ReadText.
func (n *Network) ReadJSON(kind Kind, text string, firstLine int, family packet.Family) []Problem {
	r := newReader(n, kind, family)
	r.line = firstLine
	r.expect(strings.Count(text, `"dst"`))
	r.begin(Command{Kind: kind})
	lines := lineCounter{text: text, line: firstLine}
	scan := &scanner{text: text}
	err := r.jsonList(scan, &lines)
	if errors.Is(err, io.EOF) {
		err = errors.New("expected a list of objects, found nothing")
	}
	for err == nil {
		err = r.jsonList(scan, &lines)
	}
	if !errors.Is(err, io.EOF) {
		r.line = lines.at(scan.pos)
		r.problem(rest(text, scan.pos), "not valid JSON from here: %v", err)
		r.command.Partial = true
	}
	r.end()
	return r.problems
}

// rest is some of the text from an offset on.
func rest(text string, offset int) string {
	const most = 100
	text = text[min(len(text), offset):]
	return text[:min(len(text), most)]
}

// lineCounter finds the line of an offset; offsets grow.
type lineCounter struct {
	text   string
	line   int
	offset int
}

func (c *lineCounter) at(offset int) int {
	offset = min(offset, len(c.text))
	if offset > c.offset {
		c.line += strings.Count(c.text[c.offset:offset], "\n")
		c.offset = offset
	}
	return c.line
}

// jsonList reads one array of objects; io.EOF at the end of the text.
func (r *reader) jsonList(scan *scanner, lines *lineCounter) error {
	c, err := scan.next()
	if err != nil {
		return io.EOF
	}
	if c != '[' {
		return errors.New("expected a list of objects")
	}
	scan.pos++
	if c, err = scan.next(); err == nil && c == ']' {
		scan.pos++
		return nil
	}
	for {
		v, err := scan.element()
		if err != nil {
			return err
		}
		r.line = lines.at(scan.pos)
		if len(v.fields) > 0 { // ip prints {} for what its filters leave out
			r.object(v)
		}
		if c, err := scan.take(',', ']'); err != nil || c == ']' {
			return err
		}
	}
}

// value is JSON with the fields of an object in their order: that is the order
// of the words in the plain output, and some names occur twice.
type value struct {
	text   string // of strings and numbers
	isNull bool
	isTrue bool
	list   []value
	fields []field
}

type field struct {
	name string
	value
}

// get is the first field of that name.
func (v value) get(name string) value {
	i := slices.IndexFunc(v.fields, func(f field) bool { return f.name == name })
	if i < 0 {
		return value{isNull: true}
	}
	return v.fields[i].value
}

func (v value) has(name string) bool {
	return slices.ContainsFunc(v.fields, func(f field) bool { return f.name == name })
}

// texts of a list.
func (v value) texts() []string {
	texts := make([]string, 0, len(v.list))
	for _, e := range v.list {
		texts = append(texts, e.text)
	}
	return texts
}

// object reads one entry. Routes, rules and neighbours are turned into the words
// of the plain output, which is read as that.
func (r *reader) object(v value) {
	words := r.words[:0]
	switch r.kind {
	case Links, Addresses, BridgeLinks:
		r.linkObject(v)
		return
	case Routes:
		words = routeWords(words, v)
	case Rules:
		words = ruleWords(v)
	case Neighbors:
		words = append(words, v.get("dst").text, "dev", v.get("dev").text)
		if v.has("lladdr") {
			words = append(words, "lladdr", v.get("lladdr").text)
		}
	case FDB:
		words = append(words, v.get("mac").text, "dev", v.get("ifname").text)
		if v.has("dst") {
			words = append(words, "dst", v.get("dst").text)
		}
	}
	r.words = words
	if len(words) > 0 {
		r.part(words, "")
	}
}
