package route

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// scanner reads JSON values one after the other. A router with the whole
// Internet's routes prints a million: what an object holds lies in memory that
// the next one takes over, and texts are parts of the whole text.
type scanner struct {
	text string
	pos  int
	// Of lists and objects that aren't closed, and of those that are.
	openList, list     []value
	openFields, fields []field
}

// deepest is how far values may lie within each other; those of ip stay below 8.
const deepest = 20

// next is the following byte that isn't blank.
func (s *scanner) next() (byte, error) {
	for s.pos < len(s.text) {
		switch c := s.text[s.pos]; c {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return c, nil
		}
	}
	return 0, io.ErrUnexpectedEOF
}

// take goes over one of two bytes and says which it was.
func (s *scanner) take(one, other byte) (byte, error) {
	c, err := s.next()
	if err != nil {
		return 0, err
	}
	if c != one && c != other {
		return 0, fmt.Errorf("%q where %q or %q was expected", c, one, other)
	}
	s.pos++
	return c, nil
}

// element reads a value in the memory of the one before.
func (s *scanner) element() (value, error) {
	s.openList, s.list = s.openList[:0], s.list[:0]
	s.openFields, s.fields = s.openFields[:0], s.fields[:0]
	return s.value(0)
}

func (s *scanner) value(depth int) (value, error) {
	c, err := s.next()
	switch {
	case err != nil:
		return value{}, err
	case (c == '[' || c == '{') && depth == deepest:
		return value{}, errors.New("nested too deep")
	case c == '[':
		return s.array(depth + 1)
	case c == '{':
		return s.object(depth + 1)
	case c == '"':
		text, err := s.string()
		return value{text: text}, err
	}
	return s.word()
}

func (s *scanner) array(depth int) (value, error) {
	first := len(s.openList)
	s.pos++
	if c, err := s.next(); err == nil && c == ']' {
		s.pos++
		return value{}, nil
	}
	for {
		v, err := s.value(depth)
		if err != nil {
			return value{}, err
		}
		s.openList = append(s.openList, v)
		c, err := s.take(',', ']')
		if err != nil {
			return value{}, err
		}
		if c == ']' {
			start := len(s.list)
			s.list = append(s.list, s.openList[first:]...)
			s.openList = s.openList[:first]
			return value{list: s.list[start:len(s.list):len(s.list)]}, nil
		}
	}
}

func (s *scanner) object(depth int) (value, error) {
	first := len(s.openFields)
	s.pos++
	if c, err := s.next(); err == nil && c == '}' {
		s.pos++
		return value{}, nil
	}
	for {
		f, err := s.field(depth)
		if err != nil {
			return value{}, err
		}
		s.openFields = append(s.openFields, f)
		c, err := s.take(',', '}')
		if err != nil {
			return value{}, err
		}
		if c == '}' {
			start := len(s.fields)
			s.fields = append(s.fields, s.openFields[first:]...)
			s.openFields = s.openFields[:first]
			return value{fields: s.fields[start:len(s.fields):len(s.fields)]}, nil
		}
	}
}

func (s *scanner) field(depth int) (field, error) {
	c, err := s.next()
	if err != nil {
		return field{}, err
	}
	if c != '"' {
		return field{}, fmt.Errorf("%q where a field's name was expected", c)
	}
	name, err := s.string()
	if err != nil {
		return field{}, err
	}
	if _, err = s.take(':', ':'); err != nil {
		return field{}, err
	}
	v, err := s.value(depth)
	return field{name, v}, err
}

// string reads what stands in quotes.
func (s *scanner) string() (string, error) {
	start := s.pos
	escaped := false
	for i := start + 1; i < len(s.text); i++ {
		switch c := s.text[i]; {
		case c == '\\':
			escaped = true
			i++
		case c == '"':
			s.pos = i + 1
			text := s.text[start+1 : i]
			if !escaped && utf8.ValidString(text) {
				return text, nil
			}
			return unescaped(s.text[start:s.pos])
		case c < ' ':
			s.pos = i
			return "", fmt.Errorf("%q within a text", c)
		}
	}
	s.pos = len(s.text)
	return "", io.ErrUnexpectedEOF
}

// unescaped is the text that stands in quotes.
func unescaped(quoted string) (string, error) {
	var text string
	err := json.Unmarshal([]byte(quoted), &text)
	return text, err
}

// word reads a number, true, false or null.
func (s *scanner) word() (value, error) {
	rest := s.text[s.pos:]
	length := len(rest) - len(strings.TrimLeft(rest, "+-.0123456789abcdefghijklmnopqrstuvwxyzE"))
	word := rest[:length]
	switch {
	case word == "null", word == "true", word == "false":
		s.pos += length
		return value{isNull: word == "null", isTrue: word == "true"}, nil
	case isJSONNumber(word):
		s.pos += length
		return value{text: word}, nil
	case length == len(rest):
		return value{}, io.ErrUnexpectedEOF
	case word == "":
		word = rest[:1]
	}
	return value{}, fmt.Errorf("%q where a value was expected", word)
}

// isJSONNumber says whether a word is one of JSON's numbers; most are digits alone.
func isJSONNumber(word string) bool {
	if word == "" || word[0] == '0' && len(word) > 1 || strings.Trim(word, "0123456789") != "" {
		return json.Valid([]byte(word)) && word != ""
	}
	return true
}
