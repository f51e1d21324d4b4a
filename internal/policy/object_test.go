package policy

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestObjectSource(t *testing.T) {
	object := func(rule map[string]any) map[string]any {
		return map[string]any{
			"apiVersion": "unmasq.io/v1alpha1", "kind": "SourcePolicy",
			"metadata": map[string]any{"name": "default", "uid": "x", "ofTomorrow": map[string]any{}},
			"spec":     map[string]any{"order": int64(7), "nodeSelector": map[string]any{}, "rules": []any{rule}},
		}
	}
	selected := map[string]any{"pods": map[string]any{"podSelector": map[string]any{"matchLabels": map[string]any{"app": "web"}}}}
	for _, c := range []struct {
		name string
		rule map[string]any
		opts Options
		want string // the error; "" where it loads
	}{
		{"metadata that isn't known here", map[string]any{"action": "Keep"}, Options{}, ""},
		{"a selector", map[string]any{"action": "Keep", "from": selected}, Options{PodsKnown: true}, ""},
		{"a selector where pods aren't known", map[string]any{"action": "Keep", "from": selected}, Options{},
			"sourcepolicies/default: spec.rules[0].from.pods.podSelector: needs to know this node's pods; state them in spec.facts.pods"},
		{"a field of a newer schema", map[string]any{"action": "Keep", "unless": "raining"}, Options{},
			`sourcepolicies/default: spec.rules[0].unless: unknown field "unless"; expected action, from, masquerade, name, outInterfaces, overrideServiceMasquerade, snat or to`},
	} {
		t.Run(c.name, func(t *testing.T) {
			source, err := ObjectSource(object(c.rule))
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if _, err := Load([]Source{source}, c.opts); err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	services := Source{Name: "services.yaml", Content: []byte("apiVersion: unmasq.io/v1alpha1\nkind: SourcePolicy\nmetadata: {name: facts}\nspec: {facts: {serviceCIDRs: [10.96.0.0/12]}}\n")}
	source, err := ObjectSource(object(map[string]any{"action": "Keep", "to": map[string]any{"cidrs": []any{"10.96.0.0/16"}}}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Load([]Source{source, services}, Options{}); err != nil {
		t.Errorf("what a node's files say makes an object of the API wrong: %v", err)
	}
	if source, err := ObjectSource(map[string]any{"spec": func() {}}); err == nil {
		t.Errorf("what has no text became %s", source.Content)
	}
	source, _ = ObjectSource(map[string]any{})
	if _, err := Load([]Source{source}, Options{}); err == nil {
		t.Error("an empty object was loaded")
	}
}
