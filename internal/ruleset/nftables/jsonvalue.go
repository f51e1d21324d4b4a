package nftables

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// jsonKind of a value.
type jsonKind uint8

const (
	jsonNull jsonKind = iota
	jsonBool
	jsonNumber
	jsonString
	jsonArray
	jsonObject
)

// jsonValue is a JSON value as it stood: objects keep the order of their keys,
// numbers their digits.
type jsonValue struct {
	kind jsonKind
	// text of a string, digits of a number, "true" or "false".
	text string
	// items of an array, or the values of an object, whose keys stand in keys.
	items []jsonValue
	keys  []string
	// long: an array that is read when it is asked for, by [jsonValue.each]; text
	// has it as it stood.
	long bool
}

// jsonDepth bounds what a hostile file may nest. nft itself stays below 20.
const jsonDepth = 64

// maxJSONValues bounds what is held of one element of the list: a rule of a
// hundred thousand addresses has half a million.
const maxJSONValues = 1 << 21

// errJSONCut: the text ends in the middle of a value.
var errJSONCut = errors.New("the JSON ends in the middle: the file was cut off")

// jsonScanner reads JSON values one after the other, so that of a long list only
// one element is held. It counts lines.
type jsonScanner struct {
	text string
	pos  int
	line int
	// Of the arrays and objects that aren't closed: their values and keys.
	values []jsonValue
	names  []string
	// Memory of the element that is held; the next one's when it is done.
	kept      []jsonValue
	keptNames []string
}

// nextElement gives the memory of the element before free.
func (s *jsonScanner) nextElement() { s.kept, s.keptNames = s.kept[:0], s.keptNames[:0] }

// closed takes the values behind the first of them from the open ones.
func (s *jsonScanner) closed(first int) []jsonValue {
	start := len(s.kept)
	s.kept = append(s.kept, s.values[first:]...)
	s.values = s.values[:first]
	return s.kept[start:len(s.kept):len(s.kept)]
}

func (s *jsonScanner) closedNames(first int) []string {
	start := len(s.keptNames)
	s.keptNames = append(s.keptNames, s.names[first:]...)
	s.names = s.names[:first]
	return s.keptNames[start:len(s.keptNames):len(s.keptNames)]
}

func (s *jsonScanner) blanks() {
	for s.pos < len(s.text) {
		switch s.text[s.pos] {
		case '\n':
			s.line++
		case ' ', '\t', '\r':
		default:
			return
		}
		s.pos++
	}
}

// peek is the next byte that isn't blank, 0 at the end.
func (s *jsonScanner) peek() byte {
	s.blanks()
	if s.pos >= len(s.text) {
		return 0
	}
	return s.text[s.pos]
}

// more says whether anything but blanks is left.
func (s *jsonScanner) more() bool {
	s.blanks()
	return s.pos < len(s.text)
}

// take takes one of the bytes given, and says which.
func (s *jsonScanner) take(of string) (byte, error) {
	c := s.peek()
	if c == 0 && s.pos >= len(s.text) {
		return 0, errJSONCut
	}
	if strings.IndexByte(of, c) < 0 {
		return 0, fmt.Errorf("not valid JSON: %q where one of %q was expected", c, of)
	}
	s.pos++
	return c, nil
}

func (s *jsonScanner) value(depth int) (jsonValue, error) {
	if depth > jsonDepth {
		return jsonValue{}, fmt.Errorf("more than %d values within each other", jsonDepth)
	}
	switch c := s.peek(); {
	case c == '{':
		return s.object(depth)
	case c == '[':
		return s.array(depth)
	case c == '"':
		text, err := s.string()
		return jsonValue{kind: jsonString, text: text}, err
	default:
		return s.word()
	}
}

func (s *jsonScanner) array(depth int) (jsonValue, error) {
	v := jsonValue{kind: jsonArray}
	first := len(s.values)
	s.pos++
	if s.peek() == ']' {
		s.pos++
		return v, nil
	}
	for {
		item, err := s.value(depth + 1)
		if err != nil {
			return v, err
		}
		s.values = append(s.values, item)
		c, err := s.take(",]")
		if err != nil || c == ']' {
			v.items = s.closed(first)
			return v, err
		}
		if len(s.values)+len(s.kept) > maxJSONValues {
			return v, fmt.Errorf("more than %d values in one object", maxJSONValues)
		}
	}
}

// longArray goes over an array and keeps its text alone: the elements of a set
// may be millions.
func (s *jsonScanner) longArray(depth int) (jsonValue, error) {
	start, kept, names := s.pos, len(s.kept), len(s.keptNames)
	s.pos++
	if s.peek() == ']' {
		s.pos++
		return jsonValue{kind: jsonArray}, nil
	}
	for {
		if _, err := s.value(depth + 1); err != nil {
			return jsonValue{}, err
		}
		s.kept, s.keptNames = s.kept[:kept], s.keptNames[:names]
		if c, err := s.take(",]"); err != nil || c == ']' {
			return jsonValue{kind: jsonArray, long: true, text: s.text[start:s.pos]}, err
		}
	}
}

// each gives the array's elements one after the other; they are good until the
// next.
func (v *jsonValue) each(use func(*jsonValue)) {
	if !v.long {
		for i := range v.items {
			use(&v.items[i])
		}
		return
	}
	s := jsonScanner{text: v.text, pos: 1}
	for {
		s.nextElement()
		item, err := s.value(1)
		if err != nil {
			return // it was read before, without one
		}
		use(&item)
		if c, err := s.take(",]"); err != nil || c == ']' {
			return
		}
	}
}

func (s *jsonScanner) object(depth int) (jsonValue, error) {
	v := jsonValue{kind: jsonObject}
	first, firstName := len(s.values), len(s.names)
	s.pos++
	if s.peek() == '}' {
		s.pos++
		return v, nil
	}
	for {
		key, err := s.objectKey()
		if err != nil {
			return v, err
		}
		item, err := s.member(key, depth)
		if err != nil {
			return v, err
		}
		s.names, s.values = append(s.names, key), append(s.values, item)
		c, err := s.take(",}")
		if err != nil || c == '}' {
			v.keys, v.items = s.closedNames(firstName), s.closed(first)
			return v, err
		}
		if len(s.values)+len(s.kept) > maxJSONValues {
			return v, fmt.Errorf("more than %d values in one object", maxJSONValues)
		}
	}
}

// member reads the value of an object's key. The elements of a set stand two or,
// in a command, three objects deep.
func (s *jsonScanner) member(key string, depth int) (jsonValue, error) {
	if key == "elem" && depth <= 3 && s.peek() == '[' {
		return s.longArray(depth + 1)
	}
	return s.value(depth + 1)
}

// objectKey takes "key":.
func (s *jsonScanner) objectKey() (string, error) {
	if c := s.peek(); c != '"' {
		if c == 0 && s.pos >= len(s.text) {
			return "", errJSONCut
		}
		return "", fmt.Errorf("not valid JSON: %q where a key was expected", c)
	}
	key, err := s.string()
	if err == nil {
		_, err = s.take(":")
	}
	return key, err
}

func (s *jsonScanner) string() (string, error) {
	start := s.pos
	plain := true
	for i := start + 1; i < len(s.text); i++ {
		switch c := s.text[i]; {
		case c == '\\':
			plain = false
			i++
		case c == '"':
			s.pos = i + 1
			if plain {
				return s.text[start+1 : i], nil
			}
			var text string
			err := json.Unmarshal([]byte(s.text[start:i+1]), &text)
			if err != nil {
				return "", fmt.Errorf("not valid JSON: %w", err)
			}
			return text, nil
		case c < ' ':
			if strings.TrimLeft(s.text[i:], " \t\r\n") == "" {
				return "", errJSONCut
			}
			return "", fmt.Errorf("not valid JSON: %q within a string", c)
		}
	}
	s.pos = len(s.text)
	return "", errJSONCut
}

// word takes a number, true, false or null.
func (s *jsonScanner) word() (jsonValue, error) {
	start := s.pos
	for s.pos < len(s.text) && strings.IndexByte("+-.0123456789abcdefghijklmnopqrstuvwxyzE", s.text[s.pos]) >= 0 {
		s.pos++
	}
	switch word := s.text[start:s.pos]; {
	case s.pos == len(s.text):
		return jsonValue{}, errJSONCut // no value ends a list
	case word == "null":
		return jsonValue{}, nil
	case word == "true", word == "false":
		return jsonValue{kind: jsonBool, text: word}, nil
	case word != "" && json.Valid([]byte(word)):
		return jsonValue{kind: jsonNumber, text: word}, nil
	default:
		if word == "" {
			word = s.text[start : start+1]
		}
		return jsonValue{}, fmt.Errorf("not valid JSON: %q where a value was expected", word)
	}
}

// get is the value of an object's key, null where it has none.
func (v *jsonValue) get(key string) *jsonValue {
	if v.kind == jsonObject {
		for i, k := range v.keys {
			if k == key {
				return &v.items[i]
			}
		}
	}
	return &jsonValue{}
}

// onlyHas says whether an object has no other keys than those, and none twice.
func (v *jsonValue) onlyHas(keys ...string) bool {
	if len(v.keys) > len(keys) {
		return false
	}
	for i, k := range v.keys {
		if !slices.Contains(keys, k) || slices.Contains(v.keys[:i], k) {
			return false
		}
	}
	return v.kind == jsonObject
}

// has says whether an object has the key.
func (v *jsonValue) has(key string) bool {
	for _, k := range v.keys {
		if k == key {
			return true
		}
	}
	return false
}

// only gives key and value of an object that has one key.
func (v *jsonValue) only() (string, *jsonValue, bool) {
	if v.kind != jsonObject || len(v.items) != 1 {
		return "", nil, false
	}
	return v.keys[0], &v.items[0], true
}

// str is the text of a string or a number, else "".
func (v *jsonValue) str() string {
	if v.kind == jsonString || v.kind == jsonNumber {
		return v.text
	}
	return ""
}

// name is the text of a string, else "": nft prints no name as a number.
func (v *jsonValue) name() string {
	if v.kind == jsonString {
		return v.text
	}
	return ""
}

// digits of a number, 0 for all else.
func digits(v *jsonValue) string {
	if v.kind == jsonNumber {
		return v.text
	}
	return "0"
}

// areWords says whether the value is a word, a list of words, or missing.
func (v *jsonValue) areWords() bool {
	if v.kind == jsonArray {
		return len(v.items) <= maxWords && !slices.ContainsFunc(v.items, func(i jsonValue) bool { return i.name() == "" })
	}
	return v.kind == jsonNull || v.name() != ""
}

// maxWords of a list of flags, types or devices; nft has fewer by far.
const maxWords = 256

// strings of a list, or of one.
func (v *jsonValue) strings() []string {
	if s := v.str(); s != "" {
		return []string{s}
	}
	var all []string
	if v.kind == jsonArray {
		for i := range min(len(v.items), maxWords) {
			if s := v.items[i].str(); s != "" {
				all = append(all, s)
			}
		}
	}
	return all
}

// maxCompact bounds the text of what isn't understood.
const maxCompact = 1 << 12

// compact is the value as JSON on one line; of a long one the beginning.
func (v *jsonValue) compact() string {
	var b strings.Builder
	v.write(&b)
	if b.Len() > maxCompact {
		return strings.ToValidUTF8(b.String()[:maxCompact], "") + "…"
	}
	return b.String()
}

func (v *jsonValue) write(b *strings.Builder) {
	if b.Len() > maxCompact {
		return
	}
	switch v.kind {
	case jsonNull:
		b.WriteString("null")
	case jsonBool, jsonNumber:
		b.WriteString(v.text)
	case jsonString:
		writeJSONString(b, v.text)
	case jsonArray:
		if v.long {
			b.WriteString(v.text[:min(len(v.text), maxCompact+1)])
			return
		}
		b.WriteByte('[')
		for i := range v.items {
			if b.Len() > maxCompact {
				return
			}
			if i > 0 {
				b.WriteByte(',')
			}
			v.items[i].write(b)
		}
		b.WriteByte(']')
	case jsonObject:
		b.WriteByte('{')
		for i := range v.items {
			if b.Len() > maxCompact {
				return
			}
			if i > 0 {
				b.WriteByte(',')
			}
			writeJSONString(b, v.keys[i])
			b.WriteByte(':')
			v.items[i].write(b)
		}
		b.WriteByte('}')
	}
}

func writeJSONString(b *strings.Builder, s string) {
	if len(s) > maxCompact+1 {
		s = s[:maxCompact+1]
	}
	if encoded, err := json.Marshal(s); err == nil {
		b.Write(encoded)
	}
}
