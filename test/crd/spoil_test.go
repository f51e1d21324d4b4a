package crd

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/unmasq/unmasq/api/v1alpha1"
)

// whole is a spec with every field that can stand in a document.
const whole = `
order: 7
mode: Enforce
nodeSelector: &selector
  matchLabels: {app: web, example.com/tier: ""}
  matchExpressions: [{key: app, operator: In, values: [a, b]}, {key: zone, operator: Exists}]
rules:
- name: one
  from: {pods: {podSelector: *selector, namespaceSelector: *selector}, cidrs: [10.0.0.0/8, "fd00::/8"], except: [10.1.0.0/16], node: {}}
  to:
    cidrs: [0.0.0.0/0, "::/0"]
    except: [192.0.2.0/24]
    pods: {}
    nodes: {}
    services: {names: [shop/web], serviceSelector: *selector, namespaceSelector: *selector, cidrs: [10.96.0.0/12], ports: [{port: 80, endPort: 81}], backends: Remote, via: ClusterIP}
    ports: [{protocol: TCP, port: 443, endPort: 445}, {protocol: UDP}]
  outInterfaces: [eth0, wg+]
  action: Masquerade
  masquerade: {fullyRandom: true, ports: 1024-29999}
  overrideServiceMasquerade: true
- name: two
  action: SNAT
  snat: {addresses: [192.0.2.7, "2001:db8:1::10-2001:db8:1::17"], fullyRandom: true}
- action: Keep
- action: Leave
`

// place is a value of a document: its steps from spec, its type and its field's name.
type place struct {
	steps []any
	t     reflect.Type
	name  string
}

// places of all values below v.
func places(v any, p place) []place {
	out := []place{p}
	next := func(step any, v any, t reflect.Type, name string) {
		out = append(out, places(v, place{append(append([]any(nil), p.steps...), step), t, name})...)
	}
	t := p.t
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch v := v.(type) {
	case []any:
		for i := range v {
			next(i, v[i], t.Elem(), p.name)
		}
	case map[string]any:
		if t.Kind() == reflect.Map {
			for key := range v {
				next(key, v[key], t.Elem(), p.name)
			}
			break
		}
		for i := range t.NumField() {
			f := t.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if value, there := v[name]; there {
				next(name, value, f.Type, f.Name)
			}
		}
	}
	return out
}

// spoiled are the documents that differ from a right one in one value.
func spoiled(t *testing.T) []document {
	t.Helper()
	var spec any
	if err := yaml.Unmarshal([]byte(whole), &spec); err != nil {
		t.Fatal(err)
	}
	var out []document
	add := func(p place, change string, value any, common bool) {
		text := fmt.Sprintf(`{"apiVersion": %q, "kind": %q, "metadata": {"name": "default"}, "spec": %s}`,
			v1alpha1.APIVersion, v1alpha1.Kind, changed(t, spec, p.steps, change, value))
		out = append(out, document{fmt.Sprintf("%v %s %v", p.steps, change, value), []byte(text), common})
	}
	for _, p := range places(spec, place{t: reflect.TypeFor[v1alpha1.SourcePolicySpec]()}) {
		for _, value := range append(wrongTypes, valuesOf(wrongValues, p)...) {
			add(p, "is", value, false)
		}
		for _, value := range valuesOf(rightValues, p) {
			add(p, "is", value, true)
		}
		if len(p.steps) > 0 {
			add(p, "is not", nil, false)
		}
		switch p.t.Kind() {
		case reflect.Map:
			for _, key := range append(wrongValues["Key"], rightValues["Key"]...) {
				add(p, "has", key, false)
			}
		case reflect.Pointer, reflect.Struct:
			add(p, "has", "unless", false)
		}
	}
	return out
}

func valuesOf(values map[string][]any, p place) []any {
	t := p.t
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if known := values[t.Name()]; known != nil {
		return known
	}
	if k := t.Kind(); k == reflect.String || k == reflect.Int32 {
		return values[p.name]
	}
	return nil
}

// changed returns a copy in which the value at the steps is another, is not there, or
// has one more key.
func changed(t *testing.T, spec any, steps []any, change string, value any) string {
	t.Helper()
	var step func(v any, steps []any) any
	step = func(v any, steps []any) any {
		if len(steps) == 0 {
			if m, ok := v.(map[string]any); ok && change == "has" {
				m[value.(string)] = "x"
				return m
			}
			return value
		}
		switch v := v.(type) {
		case []any:
			i := steps[0].(int)
			if len(steps) == 1 && change == "is not" {
				return append(v[:i], v[i+1:]...)
			}
			v[i] = step(v[i], steps[1:])
		case map[string]any:
			key := steps[0].(string)
			if len(steps) == 1 && change == "is not" {
				delete(v, key)
				return v
			}
			v[key] = step(v[key], steps[1:])
		}
		return v
	}
	text, err := json.Marshal(spec)
	var copied any
	if err == nil {
		err = json.Unmarshal(text, &copied)
	}
	if err == nil {
		text, err = json.Marshal(step(copied, steps))
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// checkSpoiled: of documents that differ from a right one in one value, those are
// taken that a file may have.
func checkSpoiled(t *testing.T, create creator) {
	all := spoiled(t)
	taken := 0
	for _, d := range all {
		if agreement(t, create, d) {
			taken++
		}
	}
	if taken < 100 || len(all)-taken < 500 {
		t.Errorf("%d of %d documents were taken; expected more of both kinds", taken, len(all))
	}
	t.Logf("checked: %d documents with one value changed, %d of them taken by API server and agent", len(all), taken)
}
