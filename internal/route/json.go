package route

import (
	"encoding/json"
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
	r.begin(Command{Kind: kind})
	lines := lineCounter{text: text, line: firstLine}
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	err := r.jsonList(dec, &lines)
	if errors.Is(err, io.EOF) {
		err = errors.New("expected a list of objects, found nothing")
	}
	for err == nil {
		err = r.jsonList(dec, &lines)
	}
	if !errors.Is(err, io.EOF) {
		r.line = lines.at(dec.InputOffset())
		r.problem(rest(text, dec.InputOffset()), "not valid JSON from here: %v", err)
		r.command.Partial = true
	}
	r.end()
	return r.problems
}

// rest is some of the text from an offset on.
func rest(text string, offset int64) string {
	const most = 100
	text = text[min(int64(len(text)), offset):]
	return text[:min(len(text), most)]
}

// lineCounter finds the line of an offset; offsets grow.
type lineCounter struct {
	text   string
	line   int
	offset int64
}

func (c *lineCounter) at(offset int64) int {
	offset = min(offset, int64(len(c.text)))
	if offset > c.offset {
		c.line += strings.Count(c.text[c.offset:offset], "\n")
		c.offset = offset
	}
	return c.line
}

// jsonList reads one array of objects; io.EOF at the end of the text.
func (r *reader) jsonList(dec *json.Decoder, lines *lineCounter) error {
	t, err := dec.Token()
	if err != nil {
		return err
	}
	if t != json.Delim('[') {
		return errors.New("expected a list of objects")
	}
	for dec.More() {
		v, err := decode(dec, 0)
		if err != nil {
			return cutOff(err)
		}
		r.line = lines.at(dec.InputOffset())
		if len(v.fields) > 0 { // ip prints {} for what its filters leave out
			r.object(v)
		}
	}
	_, err = dec.Token()
	return cutOff(err)
}

// cutOff: within a list, the end of the text is an error.
func cutOff(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
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

func decode(dec *json.Decoder, depth int) (value, error) {
	const deepest = 20
	t, err := dec.Token()
	if err != nil {
		return value{}, err
	}
	switch t := t.(type) {
	case json.Delim:
		if depth == deepest {
			return value{}, errors.New("nested too deep")
		}
		return decodeInside(dec, t, depth+1)
	case string:
		return value{text: t}, nil
	case json.Number:
		return value{text: t.String()}, nil
	case bool:
		return value{isTrue: t}, nil
	}
	return value{isNull: true}, nil
}

// decodeInside reads what a list or an object holds.
func decodeInside(dec *json.Decoder, open json.Delim, depth int) (value, error) {
	var v value
	for dec.More() {
		name := ""
		if open == '{' {
			t, err := dec.Token()
			if err != nil {
				return v, err
			}
			name, _ = t.(string)
		}
		inner, err := decode(dec, depth)
		if err != nil {
			return v, err
		}
		if open == '{' {
			v.fields = append(v.fields, field{name, inner})
		} else {
			v.list = append(v.list, inner)
		}
	}
	_, err := dec.Token()
	return v, err
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
	var words []string
	switch r.kind {
	case Links, Addresses, BridgeLinks:
		r.linkObject(v)
		return
	case Routes:
		words = routeWords(v)
	case Rules:
		words = ruleWords(v)
	case Neighbors:
		words = []string{v.get("dst").text, "dev", v.get("dev").text}
		if v.has("lladdr") {
			words = append(words, "lladdr", v.get("lladdr").text)
		}
	case FDB:
		words = []string{v.get("mac").text, "dev", v.get("ifname").text}
		if v.has("dst") {
			words = append(words, "dst", v.get("dst").text)
		}
	}
	if len(words) > 0 {
		r.part(words, strings.Join(words, " "))
	}
}
