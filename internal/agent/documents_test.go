package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/unmasq/unmasq/api/v1alpha1"
	"github.com/unmasq/unmasq/internal/cluster"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/policy"
)

func file(name, spec string) policy.Source {
	return policy.Source{Name: name + ".yaml", Content: fmt.Appendf(nil, "{apiVersion: unmasq.io/v1alpha1, kind: SourcePolicy, metadata: {name: %s}, spec: {%s}}", name, spec)}
}

func object(name string, generation int64, spec string) cluster.Policy {
	s := file(name, spec)
	return cluster.Policy{Name: name, Generation: generation, Source: policy.Source{Name: "sourcepolicies/" + name, NoLines: true, Content: s.Content}}
}

const (
	good  = "rules: [{name: x, action: Keep}]"
	other = "rules: [{name: y, action: Leave}]"
	wrong = "rules: [{name: x, action: Drop}]"
	nodes = "rules: [{name: x, to: {nodes: {}}, action: Keep}]"
)

// inForce is "a/x b/y; refused API c 2 (1)".
func inForce(a *answer) string {
	var out []string
	if a.loaded == nil {
		out = append(out, "nothing")
	} else {
		for i := range a.loaded.Policy.Rules {
			out = append(out, a.loaded.Policy.Rules[i].ID())
		}
	}
	text := strings.Join(out, " ")
	for _, r := range a.refused {
		text += fmt.Sprintf("; refused %s %s %d (%d)", r.origin, r.name, r.generation, r.inForce)
	}
	return text
}

func TestDocuments(t *testing.T) {
	type step struct {
		files    []policy.Source
		filesErr error
		api      []cluster.Policy
		want     string
	}
	opts := policy.Options{NodeLabels: map[string]string{}, PodsKnown: true, NoNodes: "needs the nodes"}
	for _, tt := range []struct {
		name  string
		steps []step
	}{
		{"files and API in one order", []step{{files: []policy.Source{file("b", good)}, api: []cluster.Policy{object("a", 1, good), object("c", 1, good)}, want: "a/x b/x c/x"}}},
		{"a wrong one leaves its last good one in force, and all others as they are", []step{
			{api: []cluster.Policy{object("a", 1, good), object("b", 1, good)}, want: "a/x b/x"},
			{api: []cluster.Policy{object("a", 2, wrong), object("b", 2, other)}, want: "a/x b/y; refused API a 2 (1)"},
			{api: []cluster.Policy{object("a", 3, nodes), object("b", 2, other)}, want: "a/x b/y; refused API a 3 (1)"},
			{api: []cluster.Policy{object("a", 4, other), object("b", 2, other)}, want: "a/y b/y"}}},
		{"one that was never good is left out", []step{{api: []cluster.Policy{object("a", 1, wrong), object("b", 1, good)}, want: "b/x; refused API a 1 (0)"}}},
		{"one that is deleted takes its last good one along", []step{
			{api: []cluster.Policy{object("a", 1, good)}, want: "a/x"},
			{api: []cluster.Policy{object("a", 2, wrong)}, want: "a/x; refused API a 2 (1)"},
			{want: ""},
			{api: []cluster.Policy{object("a", 2, wrong)}, want: "; refused API a 2 (0)"}}},
		{"the name of a file's", []step{
			{files: []policy.Source{file("a", good)}, api: []cluster.Policy{object("a", 1, other), object("b", 1, good)}, want: "a/x b/x; refused API a 1 (0)"},
			{api: []cluster.Policy{object("a", 1, other), object("b", 1, good)}, want: "a/y b/x"},
			{files: []policy.Source{file("a", good)}, api: []cluster.Policy{object("a", 1, other), object("b", 1, good)}, want: "a/x b/x; refused API a 1 (0)"}}},
		{"a wrong file leaves all files as they were", []step{
			{files: []policy.Source{file("a", good), file("b", good)}, api: []cluster.Policy{object("c", 1, good)}, want: "a/x b/x c/x"},
			{files: []policy.Source{file("a", wrong), file("b", other)}, api: []cluster.Policy{object("c", 2, other)}, want: "a/x b/x c/y; refused File a.yaml 0 (0)"},
			{filesErr: errors.New("no such file"), api: []cluster.Policy{object("c", 2, other)}, want: "a/x b/x c/y; refused File  0 (0)"}}},
		{"a wrong file with the name of a good policy", []step{
			{api: []cluster.Policy{object("a", 1, good)}, want: "a/x"},
			{files: []policy.Source{file("a", wrong)}, api: []cluster.Policy{object("a", 1, good)}, want: "a/x; refused File a.yaml 0 (0)"}}},
		{"files wrong from the start", []step{
			{files: []policy.Source{file("a", wrong)}, api: []cluster.Policy{object("c", 1, good)}, want: "nothing; refused File a.yaml 0 (0)"},
			{files: []policy.Source{file("a", good)}, api: []cluster.Policy{object("c", 1, good)}, want: "a/x c/x"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var d documents
			for i, s := range tt.steps {
				if got := inForce(d.load(s.files, s.filesErr, s.api, opts)); got != s.want {
					t.Errorf("step %d: %q, want %q", i+1, got, s.want)
				}
			}
		})
	}
}

// What an agent enforced before stands in for what the next one refuses, unless it's
// of another policy of the name, or wrong as well.
func TestDocumentsAfterRestart(t *testing.T) {
	opts := policy.Options{NodeLabels: map[string]string{}, PodsKnown: true, NoNodes: "needs the nodes"}
	of := func(uid string, p cluster.Policy) cluster.Policy { p.UID = uid; return p }
	before := []cluster.Policy{of("u", object("a", 1, good)), of("u", object("b", 4, nodes))}
	for _, tt := range []struct {
		name string
		api  cluster.Policy
		want string
	}{
		{"refused now", of("u", object("a", 2, wrong)), "a/x; refused API a 2 (1)"},
		{"good now", of("u", object("a", 2, other)), "a/y"},
		{"another policy of the name", of("other", object("a", 2, wrong)), "; refused API a 2 (0)"},
		{"wrong before too", of("u", object("b", 5, wrong)), "; refused API b 5 (0)"},
		{"not known before", of("u", object("c", 1, wrong)), "; refused API c 1 (0)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var d documents
			d.remember(before)
			if got := inForce(d.load(nil, nil, []cluster.Policy{tt.api}, opts)); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
			if got := inForce(d.load(nil, nil, nil, opts)); got != "" {
				t.Errorf("deleted: %q", got)
			}
			d.remember(before)
			if got := inForce(d.load(nil, nil, []cluster.Policy{of("u", object("a", 3, wrong))}, opts)); got != "; refused API a 3 (0)" {
				t.Errorf("made anew: %q", got)
			}
		})
	}
}

// Whatever comes, a policy is in force or refused, good ones are in force as they
// are, and what was asked before is answered without work.
func TestDocumentsProperties(t *testing.T) {
	opts := policy.Options{NodeLabels: map[string]string{}, PodsKnown: true, NoNodes: "needs the nodes"}
	specs := []string{good, other, wrong, nodes}
	rapid.Check(t, func(t *rapid.T) {
		var d documents
		for step := range rapid.IntRange(1, 6).Draw(t, "steps") {
			var files []policy.Source
			if rapid.Bool().Draw(t, "file") {
				files = append(files, file(rapid.SampledFrom([]string{"a", "f"}).Draw(t, "name"), rapid.SampledFrom(specs).Draw(t, "spec")))
			}
			var api []cluster.Policy
			specOf := map[string]string{}
			for _, name := range []string{"a", "b", "c"} {
				if rapid.Bool().Draw(t, name) {
					specOf[name] = rapid.SampledFrom(specs).Draw(t, "spec of "+name)
					api = append(api, object(name, int64(step+1), specOf[name]))
				}
			}
			a := d.load(files, nil, api, opts)
			if again := d.load(files, nil, slices.Clone(api), opts); again != a {
				t.Fatal("the same again was loaded again")
			}
			if a.loaded == nil {
				if len(files) == 0 {
					t.Fatal("nothing is loaded, without a file that is wrong")
				}
				continue
			}
			fileNames := map[string]bool{}
			for _, f := range d.goodFiles {
				fileNames[strings.TrimSuffix(f.Name, ".yaml")] = true
			}
			for name, spec := range specOf {
				refused := slices.ContainsFunc(a.refused, func(r refusal) bool { return r.origin == v1alpha1.OriginAPI && r.name == name })
				if isGood := (spec == good || spec == other) && !fileNames[name]; isGood == refused {
					t.Fatalf("%s (%s): refused %t: %s", name, spec, refused, inForce(a))
				}
				if from, there := a.api[name]; !refused && (!there || from.Generation != int64(step+1)) {
					t.Fatalf("%s is in force as %v", name, from)
				}
			}
		}
	})
}

func TestTags(t *testing.T) {
	var tags tags
	p := func(names ...string) *policy.Policy {
		out := &policy.Policy{}
		for _, n := range names {
			out.Rules = append(out.Rules, policy.Rule{Document: n, Name: "x"})
		}
		return out
	}
	first := tags.of(p("b", "d"))
	second := tags.of(p("a", "b", "c", "d"))
	for id, tag := range first {
		if second[id] != tag {
			t.Errorf("%s had tag %d, and has %d", id, tag, second[id])
		}
	}
	third := tags.of(p("e", "a"))
	for _, m := range []map[string]int{first, second, third} {
		seen := map[int]string{}
		for id, tag := range m {
			if other, twice := seen[tag]; twice || tag == 0 {
				t.Errorf("tag %d of %s and %s", tag, id, other)
			}
			seen[tag] = id
		}
	}
	if third["e/x"] > 4 {
		t.Errorf("tag %d: those of rules that are gone aren't used again", third["e/x"])
	}
}

// A node of a cluster, from nothing known to paused, as /readyz and the report say it.
func TestClusterLife(t *testing.T) {
	must(t, netnstest.Test(t, "cluster").Do(func() error {
		f := &fakeCluster{stale: "pods: not known yet"}
		a, err := New(Options{Cluster: f, Log: slog.New(slog.DiscardHandler), Version: "v1"})
		if err != nil {
			return err
		}
		defer a.closeTable()
		a.status.setCluster(f.Stale)
		check := func(when, wantReady, enforced, degraded, policies string) {
			t.Helper()
			a.reloadCluster()
			f.reports = nil
			a.report()
			a.report() // nothing changed
			if len(f.reports) != 1 {
				t.Fatalf("%s: %d reports", when, len(f.reports))
			}
			notes, problem := a.status.ready()
			if got := strings.Join(notes, "|"); problem != nil || !strings.Contains(got, wantReady) || wantReady == "" && got != "" {
				t.Errorf("%s: ready %q, %v; want %q", when, got, problem, wantReady)
			}
			r := f.reports[0]
			var names []string
			for _, p := range r.Policies {
				names = append(names, fmt.Sprint(p.Name, " ", p.Generation))
			}
			got := []string{r.Conditions[0].Reason, r.Conditions[1].Reason, strings.Join(names, ",")}
			if diff := cmp.Diff([]string{enforced, degraded, policies}, got); diff != "" {
				t.Errorf("%s: report -want +got:\n%s", when, diff)
			}
		}
		a.reloadCluster()
		a.report()
		if _, problem := a.status.ready(); len(f.reports) != 0 || problem == nil || !strings.Contains(problem.Error(), "the cluster isn't known:\npods: not known yet") {
			t.Errorf("before anything is known: %v, reports %v", problem, f.reports)
		}
		in := large(3, 2)
		in.NoResults = "no directory"
		show := func() { f.view = cluster.Join(in) }
		f.stale = ""
		show()
		check("known", "", "InForce", "AsWanted", "policy-0000 1,policy-0001 1")
		if c := f.reports[0].Conditions[3]; c.Type != "EarlyPodFacts" || c.Status != "False" || c.Reason != "NoResults" {
			t.Errorf("without results: %+v", c)
		}
		f.stale = "pods: not followed since noon"
		check("API away", "not followed since noon", "InForce", "ClusterNotFollowed", "policy-0000 1,policy-0001 1")
		f.stale = ""
		in.Pods[0].Addresses = []netip.Addr{netip.MustParseAddr("192.0.2.7")}
		show()
		check("pod outside", "", "InForce", "PodsOutsideCIDRs", "policy-0000 1,policy-0001 1")
		in.Policies[1] = largePolicy(1, "Drop")
		in.Policies[1].Generation = 2
		show()
		check("wrong", "policy refused", "InForce", "PoliciesRefused", "policy-0000 1,policy-0001 1")
		if r := f.reports[0].Refusals[0]; r.Generation != 2 || r.InForce != 1 || !strings.Contains(r.Message, `"Drop" is not an action`) {
			t.Errorf("refusal %+v", r)
		}
		if p, refused := f.instead["policy-0001"]; !refused || p == nil || p.Generation != 1 || len(f.instead) != 1 {
			t.Errorf("told of what is in force instead: %v", f.instead)
		}
		in.Node.Paused = true
		show()
		check("paused", "paused", "Paused", "PoliciesRefused", "")
		if n := len(a.inForce.Counters); n != 0 {
			t.Errorf("paused: %d rules stand in the kernel", n)
		}
		in.Node.Paused = false
		show()
		check("on again", "policy refused", "InForce", "PoliciesRefused", "policy-0000 1,policy-0001 1")
		return nil
	}))
}
