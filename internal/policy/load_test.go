package policy

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "write what is found into the want part of testdata/*/*.txtar")

// Each file in testdata/bad holds documents and, in its last part, the exact
// errors. A part named "node-labels" holds KEY=VALUE lines.
func TestBadDocuments(t *testing.T) {
	files := cases(t, "bad")
	if len(files) < 45 {
		t.Errorf("only %d malformed documents", len(files))
	}
	for _, file := range files {
		golden(t, file, func(t *testing.T, sources []Source, opts Options) string {
			loaded, err := Load(sources, opts)
			if err == nil {
				t.Fatal("loaded without an error")
			}
			if loaded != nil {
				t.Error("an error, and yet something is loaded")
			}
			fields, ok := errors.AsType[Errors](err)
			if !ok {
				t.Fatalf("error is %T, want Errors", err)
			}
			for _, e := range fields {
				if e.Line < 1 {
					t.Errorf("no line: %v", &e)
				}
			}
			return err.Error() + "\n"
		})
	}
}

// Each file in testdata/good holds documents and what is loaded from them.
func TestGoodDocuments(t *testing.T) {
	for _, file := range cases(t, "good") {
		golden(t, file, func(t *testing.T, sources []Source, opts Options) string {
			loaded, err := Load(sources, opts)
			if err != nil {
				t.Fatal(err)
			}
			return printed(loaded)
		})
	}
}

func cases(t *testing.T, directory string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", directory, "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases in testdata/%s: %v", directory, err)
	}
	return files
}

// golden compares what result makes of a case's sources with its want part.
func golden(t *testing.T, file string, result func(*testing.T, []Source, Options) string) {
	t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var sources []Source
		var opts Options
		want := -1
		for i, f := range archive.Files {
			switch f.Name {
			case "want":
				want = i
			case "node-labels":
				opts.NodeLabels = nodeLabels(t, string(f.Data))
			default:
				sources = append(sources, Source{Name: f.Name, Content: f.Data})
			}
		}
		if want < 0 {
			archive.Files = append(archive.Files, txtar.File{Name: "want"})
			want = len(archive.Files) - 1
		}
		got := result(t, sources, opts)
		if *update {
			archive.Files[want].Data = []byte(got)
			if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(string(archive.Files[want].Data), got); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	})
}

func nodeLabels(t *testing.T, text string) map[string]string {
	labels := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok {
			t.Fatalf("node-labels: %q", line)
		}
		labels[key] = value
	}
	return labels
}

// printed shows what is loaded, a line for each rule and fact.
func printed(l *Loaded) string {
	var b strings.Builder
	for i := range l.Policy.Rules {
		r := &l.Policy.Rules[i]
		from, to := Describe(r)
		fmt.Fprintf(&b, "%d %s: from %s to %s: %s", r.Number, r.ID(), from, to, r.Action)
		if r.Ports != (PortRange{}) {
			fmt.Fprintf(&b, " ports %d-%d", r.Ports.First, r.Ports.Last)
		}
		if r.FullyRandom {
			b.WriteString(" fully-random")
		}
		if len(r.Addresses) > 0 {
			fmt.Fprintf(&b, " %v", r.Addresses)
		}
		if r.OverrideServiceMasquerade {
			b.WriteString(" override")
		}
		fmt.Fprintf(&b, "\n  from %+v\n  to %+v via %q\n", r.From, r.To, r.OutInterfaces)
	}
	s := l.Stated
	printFact(&b, "podCIDRs", s.PodCIDRs)
	printFact(&b, "localPodCIDRs", s.LocalPodCIDRs)
	printFact(&b, "serviceCIDRs", s.ServiceCIDRs)
	printFact(&b, "nodeAddresses", s.NodeAddresses)
	printFact(&b, "nodes", s.Nodes)
	printFact(&b, "serviceMark", s.ServiceMark)
	printFact(&b, "hostPortMark", s.HostPortMark)
	printFact(&b, "pods", s.Pods)
	printFact(&b, "services", s.Services)
	return b.String()
}

func printFact[T any](b *strings.Builder, name string, v StatedValue[T]) {
	if v.Set {
		fmt.Fprintf(b, "%s %+v (%s)\n", name, v.Value, v.Origin)
	}
}

// The first errors are reported with later ones, and each is found by errors.As.
func TestErrorsAreFieldErrors(t *testing.T) {
	_, err := Load([]Source{{Name: "a.yaml", Content: []byte("kind: Pod\n")}}, Options{})
	e, ok := errors.AsType[*FieldError](err)
	if !ok || e.File != "a.yaml" || e.Line != 1 {
		t.Errorf("got %#v from %v", e, err)
	}
	if got := slices.Collect(strings.Lines(err.Error())); len(got) != 2 {
		t.Errorf("want two lines, got %q", got)
	}
}
