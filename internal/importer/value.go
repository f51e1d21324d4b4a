package importer

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/unmasq/unmasq/internal/policy"
)

// Value is what stands at a place of a YAML or JSON text. The zero Value, and null,
// are absent: everything below them is absent too.
type Value struct {
	node *yaml.Node
	// file and path of the value, such as data.config.
	file, path string
	// before are the lines before the text that the node was read from, where that
	// text stands in another. inOneLine: all of it stands in the line before.
	before    int
	inOneLine bool
}

// Documents reads the documents of a file, YAML or JSON: of a List, and of a JSON
// array, each item is one.
func Documents(f File) ([]Value, error) {
	roots, err := policy.YAML(policy.Source{Name: f.Name, Content: f.Data})
	if err != nil {
		return nil, err
	}
	var all []Value
	for _, root := range roots {
		v := Value{node: root, file: f.Name}
		if v.node.Kind == yaml.SequenceNode {
			all = append(all, v.Items()...)
		} else if items := v.Get("items"); strings.HasSuffix(v.Get("kind").Text(), "List") && items.Is() {
			all = append(all, items.Items()...)
		} else {
			all = append(all, v)
		}
	}
	return all, nil
}

// Is says whether there is a value.
func (v Value) Is() bool { return v.node != nil && v.node.ShortTag() != "!!null" }

// Line of the value in its file.
func (v Value) Line() int {
	if v.node == nil {
		return 0
	}
	if v.inOneLine {
		return v.before
	}
	return v.before + v.node.Line
}

// Place of the value, for notes and warnings.
func (v Value) Place() Place { return Place{v.file, v.Line(), v.path} }

// Wrong is an error about the value: message says what was expected.
func (v Value) Wrong(message string, args ...any) error {
	e := &policy.FieldError{File: v.file, Line: v.Line(), Path: v.path, Message: fmt.Sprintf(message, args...)}
	if v.node != nil && v.node.Kind == yaml.ScalarNode {
		e.Value = shown(v.node.Value)
	}
	return e
}

// shown is a value in a message, quoted; long ones are cut.
func shown(s string) string {
	const most = 80
	if len(s) > most {
		return strconv.Quote(strings.ToValidUTF8(s[:most], "")) + "…"
	}
	return strconv.Quote(s)
}

// at is a value of the same text.
func (v Value) at(n *yaml.Node, path string) Value {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	v.node, v.path = n, path
	return v
}

// Get follows keys of mappings. What isn't there is absent, with the place of what
// is around it.
func (v Value) Get(keys ...string) Value {
	for _, key := range keys {
		next := Value{file: v.file, path: strings.TrimPrefix(v.path+"."+key, ".")}
		if v.Is() && v.node.Kind == yaml.MappingNode {
			for i := 0; i+1 < len(v.node.Content); i += 2 {
				if v.node.Content[i].Value == key {
					next = v.at(v.node.Content[i+1], next.path)
					break
				}
			}
		}
		v = next
	}
	return v
}

// Fold is as Get, for one key whose case doesn't matter, as Go's encoding/json has it.
func (v Value) Fold(key string) Value {
	for _, k := range v.Keys() {
		if strings.EqualFold(k, key) {
			return v.Get(k)
		}
	}
	return v.Get(key)
}

// Keys of a mapping, in order; of anything else none.
func (v Value) Keys() (keys []string) {
	if v.Is() && v.node.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(v.node.Content); i += 2 {
			keys = append(keys, v.node.Content[i].Value)
		}
	}
	return keys
}

// Items of a sequence; of anything else none.
func (v Value) Items() (items []Value) {
	if v.Is() && v.node.Kind == yaml.SequenceNode {
		for i, n := range v.node.Content {
			items = append(items, v.at(n, fmt.Sprintf("%s[%d]", v.path, i)))
		}
	}
	return items
}

// IsMap and IsList say what is there.
func (v Value) IsMap() bool  { return v.Is() && v.node.Kind == yaml.MappingNode }
func (v Value) IsList() bool { return v.Is() && v.node.Kind == yaml.SequenceNode }

// Text of a scalar, as it stands; of anything else "".
func (v Value) Text() string {
	if v.Is() && v.node.Kind == yaml.ScalarNode {
		return v.node.Value
	}
	return ""
}

// String of a value that has to be one.
func (v Value) String() (string, error) {
	if v.Is() && (v.node.Kind != yaml.ScalarNode || v.node.ShortTag() != "!!str") {
		return "", v.Wrong("is not text; expected a string")
	}
	return v.Text(), nil
}

// Bool of a value that has to be true or false; absent: the default.
func (v Value) Bool(otherwise bool) (bool, error) {
	if !v.Is() {
		return otherwise, nil
	}
	if v.node.ShortTag() == "!!bool" {
		return strconv.ParseBool(strings.ToLower(v.node.Value))
	}
	return false, v.Wrong("is neither true nor false")
}

// Int of a value that has to be a number in a range; absent: the default.
func (v Value) Int(otherwise, least, most int) (int, error) {
	if !v.Is() {
		return otherwise, nil
	}
	n, err := strconv.ParseInt(v.Text(), 0, 64)
	if err != nil || v.node.ShortTag() != "!!int" || n < int64(least) || n > int64(most) {
		if most == math.MaxInt {
			return 0, v.Wrong("is not a number of at least %d", least)
		}
		return 0, v.Wrong("is not a number from %d to %d", least, most)
	}
	return int(n), nil
}

// Prefix of a value that has to be a CIDR; host bits are cut off.
func (v Value) Prefix() (Network, error) {
	p, err := netip.ParsePrefix(strings.TrimSpace(v.Text()))
	if err != nil || p.Addr().Is4In6() {
		return Network{}, v.Wrong("is not a CIDR; expected one such as 10.244.0.0/16 or fd00:10:244::/48")
	}
	return Network{p.Masked(), v.Place()}, nil
}

// block says whether the value is a text whose lines are lines of the file too.
func (v Value) block() bool {
	return v.node != nil && v.node.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 && !v.inOneLine
}

// Inner reads the YAML or JSON in a string, such as a key of a ConfigMap, as
// Documents does with a file. Errors and places name the outer file's lines.
func (v Value) Inner() ([]Value, error) {
	text, err := v.String()
	if err != nil {
		return nil, err
	}
	roots, bad := policy.YAML(policy.Source{Name: v.file, Content: []byte(text)})
	inner := Value{file: v.file, path: v.path, before: v.Line()}
	inner.inOneLine = !v.block()
	if bad != nil {
		bad.Path = v.path
		if inner.inOneLine {
			bad.Line = 0
		}
		bad.Line += v.Line()
		return nil, bad
	}
	var all []Value
	for _, root := range roots {
		all = append(all, inner.at(root, v.path))
	}
	return all, nil
}
