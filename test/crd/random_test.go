package crd

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"strings"

	"pgregory.net/rapid"

	"github.com/unmasq/unmasq/api/v1alpha1"
)

// values that fields of a type, or of a name, can have: such as are right, and
// such as look right. Fields that aren't here have no values of their own.
var (
	rightValues = map[string][]any{
		"CIDR": {"0.0.0.0/0", "10.0.0.0/8", "10.244.0.0/16", "192.0.2.7/32", "::/0", "2001:db8::/32", "2001:DB8:0::/48", "fd00::1/128", "1:2:3:4:5:6:1.2.3.4/128"},
		"AddressRange": {"192.0.2.7", "192.0.2.16-192.0.2.23", "10.0.0.255-10.0.1.0", "10.0.0.0-10.0.3.255", "169.254.1.1",
			"2001:db8::7", "2001:db8::-2001:db8::3ff", "2001:db8::9-2001:db8::10", "2001:DB8:0::A-2001:db8::b", "fe80::1", "1:2:3:4:5:6:7:fffe-1:2:3:4:5:6:7:FFFF"},
		"InterfaceName": {"eth0", "eth+", "wg*", "a", "fifteen-letters", "fourteen-let.s+", "br-1", "a+b", "~", "..."},
		"LabelValue":    {"", "a", "web-1", "A.b_c", strings.Repeat("x", 63)},
		"Key":           {"app", "example.com/app", "a.b.c/D_e.f", strings.Repeat("x", 63), strings.Repeat("a.", 126) + "a/" + strings.Repeat("x", 63)},
		"Name":          {"one", "two", "rule-1", "rule-2", "rule-7", "rule-1000", "a-b", strings.Repeat("x", 63)},
		"Action":        {"Keep", "Masquerade", "SNAT", "Leave"},
		"Mode":          {"Enforce"},
		"Operator":      {"In", "NotIn", "Exists", "DoesNotExist"},
		"Backends":      {"Any", "Local", "Remote"},
		"Via":           {"ClusterIP", "NodePort", "LoadBalancer", "ExternalIP"},
		"ServiceName":   {"shop/web", "a/b", "0-a/9-b", strings.Repeat("x", 63) + "/" + strings.Repeat("y", 63)},
		"Protocol":      {"TCP", "UDP", "SCTP"},
		"Ports":         {"1024-29999", "1024", "1-65535", "00080-081", "7-7"},
		"Port":          {1, 80, 443, 65535},
		"EndPort":       {443, 445, 65535},
		"Order":         {0, 100, -5, 2147483647, -2147483648, 3.0},
	}
	wrongValues = map[string][]any{
		"CIDR": {"10.0.0.1/8", "10.0.0.1", "::ffff:10.0.0.0/104", "::FFFF:a00:0/128", "10.0.0.0/33", "10.0.0.0/08", "010.0.0.0/8", "10.0.0.0/8 ", "", "/", "/8", "::/129", "::1/127",
			"fe80::%eth0/64", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0/8", "10.0.0.0/8/8", "0.0.0.1/0", "internet", "２.0.0.0/8", "10.0.0.0/８", strings.Repeat("1", 99)},
		"AddressRange": {"192.0.2.23-192.0.2.16", "192.0.2.0/28", "192.0.2.7/32", "127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "::1", "ff02::1", "::ffff:192.0.2.1",
			"192.0.2.1-9", "192.0.2.1-", "-192.0.2.1", "-", "", "eth0", "fe80::1%eth0", "10.0.0.0-10.0.4.0", "10.0.255.255-10.1.0.0", "192.0.2.1-2001:db8::1", "2001:db8::1-192.0.2.1",
			"2001:db8::10-2001:db8::9", "2001:db8::-2001:db8::400", "2001:db8::ffff-2001:db8::1:0", "126.255.255.255-127.0.0.1", "1.1.1.1-1.1.1.2-1.1.1.3", "::1.2.3.4-::1.2.3.5",
			"192.0.2.1 - 192.0.2.2", " 192.0.2.1", "2001:db8::-2001:db8:ffff::", "192.0.2.1-192.0.2.1\u00a0", "1.2.3.4.5-1.2.3.4.6"},
		"InterfaceName": {"*", "+", "", "sixteen-letters-", "a b", "eth*0", "eth0/1", "eth++", "eth+*", ".", "..", ".+", "e\"0", "a:b", "a\\b", "é", "a\tb", "a\n", "\x7f"},
		"LabelValue":    {"not a label", "-a", "a-", strings.Repeat("x", 64), "é", "a\n"},
		"Key":           {"", "a b", "/a", "a/", "A/b", "a/b/c", "-a", strings.Repeat("x", 64), strings.Repeat("a.", 127) + "a/x", "a..b/c", "a\n"},
		"Name":          {"", "Not OK", "-a", "a-", "é", strings.Repeat("x", 64), "a.b", "one\n"},
		"Action":        {"keep", "", "Drop", "SNAT "},
		"Mode":          {"Audit", "enforce", ""},
		"Operator":      {"Is", "", "in", "Gt"},
		"Backends":      {"", "local"},
		"Via":           {"", "nodePort", "Any"},
		"ServiceName":   {"", "web", "/web", "shop/", "shop/web/80", "Shop/web", "shop/we.b", "-a/b", "a/b-", "a/*", "a/b\n", strings.Repeat("x", 64) + "/a"},
		"Protocol":      {"", "tcp", "ICMP"},
		"Ports":         {"", "2000-1000", "0-10", "1-65536", "http", "1-2-3", "-", "1-", "99999", "+1-2", "1 - 2", "１-２"},
		"Port":          {0, -1, 65536, 4294967296, 1.5},
		"EndPort":       {0, -1, 65536, 1},
		"Order":         {2147483648, -2147483649, 1.5, 1e30},
	}
	wrongTypes = []any{nil, "text", 7, 1.5, true, []any{}, map[string]any{}, []any{nil}}
)

// generator draws objects of the API's types, field by field, so that a new field
// is drawn too. Wrong is how many of a thousand values are meant to be wrong; dice
// decide which, as rapid itself draws small numbers more often.
type generator struct {
	*rapid.T
	dice  *rand.Rand
	wrong int
}

// drawPolicy draws a SourcePolicy, as JSON.
func drawPolicy(t *rapid.T) []byte {
	g := generator{t, rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "dice"), 0)), rapid.SampledFrom([]int{0, 10, 20, 20, 100}).Draw(t, "wrong")}
	object := map[string]any{
		"apiVersion": v1alpha1.APIVersion, "kind": v1alpha1.Kind, "metadata": map[string]any{"name": "default"},
		"spec": g.value(reflect.TypeFor[v1alpha1.SourcePolicySpec](), "Spec"),
	}
	text, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (g generator) mistake() bool { return g.dice.IntN(1000) < g.wrong }

// value of a type, in a field of the name.
func (g generator) value(t reflect.Type, name string) any {
	if g.mistake() && g.dice.IntN(3) == 0 {
		return rapid.SampledFrom(wrongTypes).Draw(g.T, "of any type")
	}
	switch t.Kind() {
	case reflect.Pointer:
		return g.value(t.Elem(), name)
	case reflect.Bool:
		return rapid.Bool().Draw(g.T, name)
	case reflect.Struct:
		return g.object(t)
	case reflect.Slice:
		return g.list(t.Elem(), name)
	case reflect.Map:
		return g.labels(t.Elem())
	}
	return g.scalar(t, name)
}

// scalar has values by its type's name or, where that says nothing, the field's.
func (g generator) scalar(t reflect.Type, name string) any {
	if rightValues[t.Name()] != nil {
		name = t.Name()
	}
	values := rightValues[name]
	if g.mistake() {
		values = wrongValues[name]
	}
	if values == nil {
		g.Fatalf("no values for fields named %s: add some", name)
	}
	return rapid.SampledFrom(values).Draw(g.T, name)
}

func (g generator) list(element reflect.Type, name string) any {
	least := 1
	if g.mistake() || name == "Values" {
		least = 0
	}
	out := []any{}
	for range rapid.IntRange(least, 3).Draw(g.T, "entries") {
		out = append(out, g.value(element, name))
	}
	return out
}

func (g generator) labels(value reflect.Type) any {
	out := map[string]any{}
	for range rapid.IntRange(0, 2).Draw(g.T, "labels") {
		key, _ := g.scalar(reflect.TypeFor[string](), "Key").(string)
		out[key] = g.value(value, "")
	}
	return out
}

// object has its required fields, and others now and then; mostly such as go together.
func (g generator) object(t reflect.Type) any {
	out := map[string]any{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, optional, _ := strings.Cut(f.Tag.Get("json"), ",")
		needed := optional == "" || f.Name == "Rules" || f.Name == "Addresses"
		if needed && !g.mistake() || !needed && rapid.Bool().Draw(g.T, f.Name) {
			out[name] = g.value(f.Type, f.Name)
		}
	}
	if g.mistake() {
		out[rapid.SampledFrom([]string{"unless", "podz", "", "status", "Name"}).Draw(g.T, "unknown")] = map[string]any{}
	}
	if !g.mistake() {
		fit(t.Name(), out)
	}
	return out
}

// fit takes out what doesn't go together.
func fit(kind string, o map[string]any) {
	switch kind {
	case "Rule":
		if o["action"] != "Masquerade" {
			delete(o, "masquerade")
		}
		if o["action"] != "SNAT" {
			delete(o, "snat")
		} else if o["snat"] == nil {
			o["action"] = "Leave"
		}
	case "Services":
		if o["cidrs"] != nil && o["via"] != "ClusterIP" {
			delete(o, "via")
		}
	case "Port":
		first, _ := o["port"].(int)
		if last, _ := o["endPort"].(int); first == 0 || last < first {
			delete(o, "endPort")
		}
	case "LabelRequirement":
		values, _ := o["values"].([]any)
		if list := o["operator"] == "In" || o["operator"] == "NotIn"; list && len(values) == 0 {
			o["operator"] = "Exists"
			delete(o, "values")
		} else if !list {
			delete(o, "values")
		}
	}
}
