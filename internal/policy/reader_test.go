package policy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/labels"
	"pgregory.net/rapid"
)

// A Reader says of any sequence of sources and options what Load says of each.
func TestReaderIsLoad(t *testing.T) {
	variants := []string{
		"rules: [{action: Keep}]",
		"rules: [{action: Keep, to: {nodes: {}}}]",
		"rules: [{action: Keep, from: {pods: {podSelector: {}}}}]",
		"nodeSelector: {matchLabels: {a: b}}, rules: [{action: Leave}]",
		"facts: {podCIDRs: [10.0.0.0/8]}",
		"rules: [{action: Drop}]",
		"order: 7, rules: [{name: x, action: Leave}]",
	}
	comparers := cmp.Options{cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b labels.Selector) bool { return a.String() == b.String() })}
	rapid.Check(t, func(t *rapid.T) {
		var r Reader
		for range rapid.IntRange(1, 6).Draw(t, "loads") {
			var sources []Source
			for i := range rapid.IntRange(0, 4).Draw(t, "sources") {
				spec := rapid.SampledFrom(variants).Draw(t, "spec")
				name := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "name")
				sources = append(sources, Source{Name: fmt.Sprintf("%d.yaml", i), NoLines: rapid.Bool().Draw(t, "noLines"),
					Content: fmt.Appendf(nil, "{apiVersion: unmasq.io/v1alpha1, kind: SourcePolicy, metadata: {name: %s}, spec: {%s}}", name, spec)})
			}
			var opts Options
			if opts.PodsKnown = rapid.Bool().Draw(t, "podsKnown"); rapid.Bool().Draw(t, "labels") {
				opts.NodeLabels = map[string]string{"a": rapid.SampledFrom([]string{"b", "c"}).Draw(t, "label")}
			}
			opts.NoNodes = rapid.SampledFrom([]string{"", "nobody knows"}).Draw(t, "noNodes")
			got, gotErr := r.Load(sources, opts)
			want, wantErr := Load(sources, opts)
			if diff := cmp.Diff(fmt.Sprint(wantErr), fmt.Sprint(gotErr)); diff != "" {
				t.Fatalf("error, -want +got:\n%s", diff)
			}
			if diff := cmp.Diff(want, got, comparers); diff != "" {
				t.Fatalf("-want +got:\n%s", diff)
			}
		}
	})
}

func TestNoNodes(t *testing.T) {
	document := func(spec string) []Source {
		return []Source{{Name: "p.yaml", Content: []byte("{apiVersion: unmasq.io/v1alpha1, kind: SourcePolicy, metadata: {name: a}, spec: {" + spec + "}}")}}
	}
	opts := Options{NoNodes: "needs the nodes' networks: state them with --node-cidrs"}
	_, err := Load(document("rules: [{to: {nodes: {}}, action: Keep}]"), opts)
	want := "p.yaml:1: spec.rules[0].to.nodes: needs the nodes' networks: state them with --node-cidrs"
	if err == nil || err.Error() != want {
		t.Errorf("error: %v, want %s", err, want)
	}
	for _, spec := range []string{"rules: [{to: {pods: {}}, action: Keep}]", "facts: {nodes: [192.0.2.1]}, rules: [{to: {nodes: {}}, action: Keep}]"} {
		if _, err := Load(document(spec), opts); err != nil {
			t.Errorf("%s: %v", spec, err)
		}
	}
}

func BenchmarkReader(b *testing.B) {
	var sources []Source
	for i := range 1000 {
		sources = append(sources, Source{Name: fmt.Sprintf("sourcepolicies/p%d", i), NoLines: true, Content: fmt.Appendf(nil,
			`{"apiVersion":"unmasq.io/v1alpha1","kind":"SourcePolicy","metadata":{"name":"p%d"},"spec":{"rules":[{"name":"a","action":"Keep","from":{"pods":{"podSelector":{"matchLabels":{"app":"a%d"}}}},"to":{"cidrs":["10.%d.%d.0/24"]}}]}}`, i, i%50, i>>8, i&255)})
	}
	var r Reader
	change := []string{"Keep", "Leave"}
	for i := 0; b.Loop(); i++ {
		sources[500].Content = []byte(strings.ReplaceAll(string(sources[500].Content), change[i%2], change[1-i%2]))
		if _, err := r.Load(sources, Options{PodsKnown: true}); err != nil {
			b.Fatal(err)
		}
	}
}
