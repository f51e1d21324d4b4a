package policy

import (
	"fmt"
	"strings"
)

// document is one SourcePolicy with the places of its fields, and what is wrong with it.
type document struct {
	// source is the name of the file; line is where the document starts.
	source string
	line   int
	// noLines: what the source says of lines is of no use to anybody.
	noLines bool
	// lines of the fields that the document has, by path.
	lines map[string]int
	// broken are the paths whose values could not be decoded: nothing more is
	// said about them or what is below them.
	broken map[string]bool
	errs   Errors

	// decoded: it is one of ours, and object holds it.
	decoded bool
	object  fileDocument
}

// fail notes that a field is wrong. Value is shown before the message, as it is.
func (d *document) fail(path, value, format string, args ...any) {
	for p := path; p != ""; p = parentPath(p) {
		if d.broken[p] {
			return
		}
	}
	d.errs = append(d.errs, FieldError{
		File: d.source, Line: d.lineOf(path), Path: path, Value: value, Message: fmt.Sprintf(format, args...),
	})
}

// has says whether the document states the field, with whatever value.
func (d *document) has(path string) bool {
	_, ok := d.lines[path]
	return ok
}

// lineOf returns the line of a field, or of the nearest one around it.
func (d *document) lineOf(path string) int {
	if d.noLines {
		return 0
	}
	for p := path; p != ""; p = parentPath(p) {
		if line, ok := d.lines[p]; ok {
			return line
		}
	}
	return d.line
}

// origin of a field is "file:line".
func (d *document) origin(path string) string {
	if line := d.lineOf(path); line > 0 {
		return fmt.Sprintf("%s:%d", d.source, line)
	}
	return d.source
}

// parentPath cuts the last step off: "a.b[0]" gives "a.b", `a["x.y"]` gives "a".
func parentPath(path string) string {
	if strings.HasSuffix(path, `"]`) {
		if i := strings.LastIndex(path, `["`); i >= 0 {
			return path[:i]
		}
	}
	return path[:max(0, strings.LastIndexAny(path, ".["))]
}

func keyPath(parent, key string) string {
	plain := key != "" && !strings.ContainsFunc(key, func(r rune) bool {
		return !(r == '-' || r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z')
	})
	switch {
	case !plain:
		return parent + "[" + quoted(key) + "]"
	case parent == "":
		return key
	}
	return parent + "." + key
}

func indexPath(parent string, i int) string { return fmt.Sprintf("%s[%d]", parent, i) }
