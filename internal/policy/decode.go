package policy

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/unmasq/unmasq/api/v1alpha1"
)

// mostAliased bounds the values that one document repeats through aliases, so
// that a small text can't grow without end.
const mostAliased = 100_000

// decoder fills a document's object from its YAML, strictly: by the json tags
// of the types, with an error for whatever they don't have a place for.
type decoder struct {
	doc *document
	// inAlias counts the aliases around the current value, aliased the values seen in any.
	inAlias, aliased int
}

func decodeDocument(s *Source, root *yaml.Node) *document {
	d := &document{source: s.Name, noLines: s.NoLines, line: root.Line, lines: map[string]int{}, broken: map[string]bool{}}
	if root.Kind != yaml.MappingNode {
		d.fail("", "", "expected a mapping with apiVersion, kind, metadata and spec, found %s", Found(root))
		return d
	}
	if !checkHeader(d, root) {
		return d
	}
	decoder := &decoder{doc: d}
	decoder.value(root, reflect.ValueOf(&d.object).Elem(), "")
	if d.decoded = decoder.aliased <= mostAliased; !d.decoded {
		d.object = fileDocument{} // it has holes
	}
	return d
}

// checkHeader says whether the document is meant to be one of ours.
func checkHeader(d *document, root *yaml.Node) bool {
	ours := true
	for _, want := range []struct{ key, value string }{
		{"apiVersion", v1alpha1.APIVersion}, {"kind", v1alpha1.Kind},
	} {
		node := child(root, want.key)
		if node == nil {
			d.fail(want.key, "", "missing; expected %s", want.value)
			continue
		}
		if node.Kind != yaml.ScalarNode || node.Value != want.value {
			d.lines[want.key] = node.Line
			d.fail(want.key, Shown(node), "is not known here; expected %s", want.value)
			ours = false
		}
	}
	return ours
}

// child returns the value of a mapping's key, nil without.
func child(mapping *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return mapping.Content[i+1]
		}
	}
	return nil
}

// value decodes n into v, whose place in the document is path.
func (d *decoder) value(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind == yaml.AliasNode {
		d.inAlias++
		defer func() { d.inAlias-- }()
		n = n.Alias
	}
	if d.inAlias > 0 {
		if d.aliased++; d.aliased > mostAliased {
			if d.aliased == mostAliased+1 {
				d.broke(path, "", "aliases repeat more than %d values; write them out", mostAliased)
			}
			return
		}
	}
	if n.ShortTag() == "!!null" {
		d.null(v.Type(), path)
		return
	}
	if u, ok := v.Addr().Interface().(json.Unmarshaler); ok {
		d.unmarshal(n, u, path)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.value(n, v.Elem(), path)
	case reflect.Struct:
		d.structure(n, v, path)
	case reflect.Slice:
		d.list(n, v, path)
	case reflect.Map:
		d.mapping(n, v, path)
	default:
		d.scalar(n, v, path)
	}
}

// null is an error where it could be taken for {}: `pods:` means nothing, not all
// pods. What the API server itself writes as null is in metadata.
func (d *decoder) null(t reflect.Type, path string) {
	if strings.HasPrefix(path, "metadata.") {
		return
	}
	if e := expected(t); e == "a mapping" || e == "{}" {
		d.broke(path, "", "has no value; write {} or leave the field out")
	} else {
		d.broke(path, "", "has no value; expected %s", e)
	}
}

// unmarshal decodes a type that has a JSON form of its own: times in metadata.
func (d *decoder) unmarshal(n *yaml.Node, u json.Unmarshaler, path string) {
	var generic any
	err := n.Decode(&generic)
	if err == nil {
		var text []byte
		if text, err = json.Marshal(generic); err == nil {
			err = u.UnmarshalJSON(text)
		}
	}
	if err != nil {
		oneLine := strings.Join(strings.Fields(err.Error()), " ") // the YAML library's own can have several
		d.broke(path, Shown(n), "is not valid here: %s", oneLine)
	}
}

func (d *decoder) structure(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.wrongType(n, v.Type(), path)
		return
	}
	fields := fieldsOf(v)
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		at, ok := d.key(key, path, seen)
		if !ok || path == "" && key.Value == "status" {
			continue // status is in what kubectl prints
		}
		if field, known := fields[key.Value]; known {
			d.value(value, field, at)
		} else {
			d.unknownField(key.Value, at, fields)
		}
	}
}

// key notes the place of a key; false for one that can't be used.
func (d *decoder) key(key *yaml.Node, parent string, seen map[string]int) (path string, ok bool) {
	if key.Kind != yaml.ScalarNode || key.ShortTag() == "!!merge" {
		path = keyPath(parent, key.Value)
		if key.Kind != yaml.ScalarNode {
			path = keyPath(parent, "?")
		}
		d.doc.lines[path] = key.Line
		d.broke(path, "", "expected a field's name; merge keys, aliases, lists and mappings as keys aren't supported")
		return "", false
	}
	path = keyPath(parent, key.Value)
	if first, twice := seen[key.Value]; twice {
		d.doc.errs = append(d.doc.errs, FieldError{File: d.doc.source, Line: key.Line, Path: path,
			Message: fmt.Sprintf("stated twice, first in line %d", first)})
		return "", false
	}
	seen[key.Value] = key.Line
	d.doc.lines[path] = key.Line
	return path, true
}

func (d *decoder) unknownField(key, path string, fields map[string]reflect.Value) {
	message := fmt.Sprintf("unknown field %s", quoted(key))
	if near := nearest(key, fields); near != "" {
		message += fmt.Sprintf(", did you mean %q?", near)
	} else if names := sortedKeys(fields); len(names) == 0 {
		message += "; expected {}"
	} else if len(names) <= 10 {
		message += "; expected " + orList(names)
	}
	d.broke(path, "", "%s", message)
}

func (d *decoder) list(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.SequenceNode {
		d.wrongType(n, v.Type(), path)
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, element := range n.Content {
		at := indexPath(path, i)
		d.doc.lines[at] = element.Line
		d.value(element, v.Index(i), at)
	}
}

func (d *decoder) mapping(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.wrongType(n, v.Type(), path)
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		at, ok := d.key(n.Content[i], path, seen)
		if !ok {
			continue
		}
		value := reflect.New(v.Type().Elem()).Elem()
		d.value(n.Content[i+1], value, at)
		v.SetMapIndex(reflect.ValueOf(n.Content[i].Value).Convert(v.Type().Key()), value)
	}
}

func (d *decoder) scalar(n *yaml.Node, v reflect.Value, path string) {
	tag := n.ShortTag()
	switch {
	case n.Kind != yaml.ScalarNode:
	case v.Kind() == reflect.String && tag == "!!str":
		v.SetString(n.Value)
		return
	case v.Kind() == reflect.Bool && tag == "!!bool":
		v.SetBool(strings.EqualFold(n.Value, "true"))
		return
	case v.CanInt() && tag == "!!int":
		i, err := strconv.ParseInt(n.Value, 0, v.Type().Bits())
		if err != nil {
			d.broke(path, Shown(n), "is too large; expected a whole number of at most %d bits", v.Type().Bits())
			return
		}
		v.SetInt(i)
		return
	}
	d.wrongType(n, v.Type(), path)
}

func (d *decoder) wrongType(n *yaml.Node, t reflect.Type, path string) {
	switch {
	case n.Kind != yaml.ScalarNode:
		d.broke(path, "", "expected %s, found %s", expected(t), Found(n))
	case t.Kind() == reflect.String:
		d.broke(path, Shown(n), "is %s; expected a string: write %s", Found(n), quoted(n.Value))
	default:
		d.broke(path, Shown(n), "is %s; expected %s", Found(n), expected(t))
	}
}

// broke notes an error after which nothing more can be said about the field.
func (d *decoder) broke(path, value, format string, args ...any) {
	d.doc.fail(path, value, format, args...)
	d.doc.broken[path] = true
}
