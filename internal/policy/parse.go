package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/unmasq/unmasq/api/v1alpha1"
)

// parse reads the documents of a source. Those that come before a syntax error
// are returned with it.
func parse(s Source) ([]*document, Errors) {
	var docs []*document
	roots, err := YAML(s)
	for _, root := range roots {
		docs = append(docs, decodeDocument(&s, root))
	}
	if err != nil {
		return docs, Errors{*err}
	}
	if len(docs) == 0 {
		return nil, Errors{{File: s.Name, Line: 1, Message: fmt.Sprintf(
			"no document here; expected apiVersion: %s, kind: %s", v1alpha1.APIVersion, v1alpha1.Kind)}}
	}
	return docs, nil
}

// YAML reads the documents of a text, YAML or JSON, as trees that know their lines,
// whatever they are about. Documents of nothing but comments are left out; those that
// come before a syntax error are returned with it.
func YAML(s Source) (roots []*yaml.Node, bad *FieldError) {
	content, bad := readable(s)
	if bad != nil {
		return nil, bad
	}
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	for {
		var node yaml.Node
		err := decoder.Decode(&node)
		if errors.Is(err, io.EOF) {
			return roots, nil
		}
		if err != nil {
			e := syntaxError(s.Name, content, err)
			return roots, &e
		}
		if len(node.Content) > 0 && node.Content[0].ShortTag() != "!!null" {
			roots = append(roots, node.Content[0])
		}
	}
}

// readable checks that the YAML reader gets characters that it knows, since it
// names no line for others.
func readable(s Source) ([]byte, *FieldError) {
	content := bytes.TrimPrefix(s.Content, []byte("\ufeff"))
	for i, line := 0, 1; i < len(content); {
		r, size := utf8.DecodeRune(content[i:])
		if r == utf8.RuneError && size == 1 {
			return nil, &FieldError{File: s.Name, Line: line, Message: fmt.Sprintf("byte 0x%02x is not UTF-8", content[i])}
		}
		if !printable(r) {
			return nil, &FieldError{File: s.Name, Line: line, Message: fmt.Sprintf("control character U+%04X is not allowed", r)}
		}
		if r == '\n' {
			line++
		}
		i += size
	}
	if json.Valid(content) {
		content = jsonAsYAML(content)
	}
	return content, nil
}

// jsonAsYAML changes what JSON allows and the YAML library doesn't: tabs between
// values, and \/ in strings. Lines stay where they are.
func jsonAsYAML(content []byte) []byte {
	out := make([]byte, 0, len(content))
	for i := 0; i < len(content); i++ {
		switch c := content[i]; {
		case c == '\t':
			out = append(out, ' ')
		case c == '\\' && content[i+1] == '/':
			out = append(out, '/')
			i++
		case c == '\\':
			out = append(out, c, content[i+1])
			i++
		default:
			out = append(out, c)
		}
	}
	return out
}

// printable says whether YAML allows the character.
func printable(r rune) bool {
	switch {
	case r == '\t', r == '\n', r == '\r', r == 0x85:
		return true
	case r < ' ', r >= 0x7f && r < 0xa0, r == 0xfeff, r == 0xfffe, r == 0xffff:
		return false
	}
	return true
}

// syntaxError gives the line of an error such as
//
//	yaml: line 2: found character that cannot start any token
func syntaxError(name string, content []byte, err error) FieldError {
	e := FieldError{File: name, Line: 1}
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	if m := regexp.MustCompile(`^line (\d+): (.*)$`).FindStringSubmatch(message); m != nil {
		e.Line, _ = strconv.Atoi(m[1])
		message = m[2]
		if fromParser(message) {
			e.Line++ // the library counts from 0 here
		}
	}
	if m := regexp.MustCompile(`^unknown anchor '(.*)' referenced$`).FindStringSubmatch(message); m != nil {
		before, _, _ := bytes.Cut(content, []byte("*"+m[1]))
		e.Line = 1 + bytes.Count(before, []byte("\n"))
	}
	lines := strings.Split(string(content), "\n")
	e.Line = min(e.Line, max(1, len(lines)))
	e.Message = "not valid YAML: " + message + hint(lines[e.Line-1])
	return e
}

// fromParser says whether the message is the YAML library's parser's, not its scanner's.
func fromParser(message string) bool {
	what, ok := strings.CutPrefix(message, "did not find expected ")
	return ok && regexp.MustCompile(`^(node content|key|'-' indicator|',' or|<|'<)`).MatchString(what)
}

// hint names the two usual causes.
func hint(line string) string {
	switch indent := line[:len(line)-len(strings.TrimLeft(line, " \t"))]; {
	case strings.Contains(indent, "\t"):
		return " (the line is indented with a tab; YAML wants spaces)"
	case regexp.MustCompile(`[\[,{ ]::`).MatchString(line):
		return ` (an IPv6 address that starts with a colon needs quotes: "::/0")`
	}
	return ""
}
