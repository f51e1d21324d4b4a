package policy

import (
	"maps"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// fieldsOf returns the fields of a struct by their names in documents; those of
// embedded structs without a name are among them, as for encoding/json.
func fieldsOf(v reflect.Value) map[string]reflect.Value {
	out := map[string]reflect.Value{}
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		switch {
		case name == "" && v.Type().Field(i).Anonymous:
			maps.Copy(out, fieldsOf(v.Field(i)))
		case name != "" && name != "-":
			out[name] = v.Field(i)
		}
	}
	return out
}

// expected names what a type is written as.
func expected(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return expected(t.Elem())
	case reflect.Struct:
		if t.NumField() == 0 {
			return "{}"
		}
		return "a mapping"
	case reflect.Map:
		return "a mapping"
	case reflect.Slice:
		return "a list"
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	}
	return "a whole number"
}

// Found names what a node is.
func Found(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!str":
		return "a string"
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "a boolean"
	case "!!null":
		return "nothing"
	case "!!timestamp":
		return "a time"
	}
	return "of type " + n.ShortTag()
}

// Shown is a scalar as messages show it: strings quoted, others bare.
func Shown(n *yaml.Node) string {
	switch {
	case n.Kind != yaml.ScalarNode:
		return Found(n)
	case n.ShortTag() == "!!str":
		return quoted(n.Value)
	case n.ShortTag() == "!!null":
		return "null"
	}
	return strings.Trim(quoted(n.Value), `"`)
}

// nearest returns the known name that was probably meant, "" if none is near.
func nearest(name string, known map[string]reflect.Value) string {
	best, least := "", 1+max(1, len(name)/3)
	for _, k := range sortedKeys(known) {
		if d := distance(strings.ToLower(name), strings.ToLower(k)); d < least {
			best, least = k, d
		}
	}
	return best
}

// distance counts the letters to insert, delete or replace (Levenshtein).
func distance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// orList joins names: "a, b or c".
func orList(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}
