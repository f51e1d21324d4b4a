package iptables_test

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/iptables"
)

// show writes tables so that a person can compare them: a line a rule, fields
// that are zero left out.
func show(tables []*ruleset.Table, problems []iptables.Problem) string {
	var b strings.Builder
	for _, t := range tables {
		excerpt := ""
		if t.Excerpt {
			excerpt = " excerpt"
		}
		fmt.Fprintf(&b, "%s %s %s%s\n", t.Family, t.Variant, t.Name, excerpt)
		for _, c := range t.Chains {
			fmt.Fprintf(&b, "  %s %s\n", c.Name, c.Policy)
			for _, r := range c.Rules {
				fmt.Fprintf(&b, "    %d: %s\n", r.Line, showRule(r))
			}
		}
	}
	for _, p := range problems {
		fmt.Fprintf(&b, "line %d: %s: %q\n", p.Line, p.Why, p.Text)
	}
	return b.String()
}

func showRule(r ruleset.Rule) string {
	r.Text, r.Line = "", 0
	return strings.TrimPrefix(value(reflect.ValueOf(r)), "Rule")
}

// value writes a value without its zero fields, pointers as what they point to.
type reader = func(string, iptables.Options) ([]*ruleset.Table, []iptables.Problem)

func value(v reflect.Value) string {
	if s, ok := v.Interface().(fmt.Stringer); ok && v.Kind() != reflect.Pointer && v.Kind() != reflect.Interface {
		return s.String()
	}
	switch v.Kind() {
	case reflect.Pointer:
		return value(v.Elem())
	case reflect.Interface:
		return value(v.Elem())
	case reflect.Slice, reflect.Array:
		all := make([]string, v.Len())
		for i := range all {
			all[i] = value(v.Index(i))
		}
		return "[" + strings.Join(all, " ") + "]"
	case reflect.Struct:
		var fields []string
		for i := range v.NumField() {
			name := v.Type().Field(i).Name
			f := v.Field(i)
			if f.IsZero() {
				continue
			}
			fields = append(fields, name+":"+value(f))
		}
		return v.Type().Name() + "{" + strings.Join(fields, " ") + "}"
	case reflect.Uint32:
		return fmt.Sprintf("%#x", v.Uint())
	case reflect.String:
		return fmt.Sprintf("%q", v.String())
	}
	return fmt.Sprint(v.Interface())
}
