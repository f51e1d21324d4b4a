package importer

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/unmasq/unmasq/internal/policy"
)

var update = flag.Bool("update", false, "write what comes out into testdata")

// TestImport: testdata/KIND-WHAT.txtar has a kind's files, the options in its
// comment, a line each, and what is printed on both outputs.
func TestImport(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("%d cases: %v", len(paths), err)
	}
	tried := map[string]bool{}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			kind, opts := setting(t, string(a.Comment))
			tried[kind.Name] = true
			files, rest := inputs(a)
			stdout, stderr := printed(t, kind, files, opts)
			got := &txtar.Archive{Comment: a.Comment, Files: slices.Concat(rest, []txtar.File{{Name: "stdout", Data: stdout}, {Name: "stderr", Data: stderr}})}
			if *update {
				if err := os.WriteFile(path, txtar.Format(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(txtar.Format(a)), string(txtar.Format(got))); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	for _, k := range Kinds() {
		if !tried[k.Name] {
			t.Errorf("kind %s has no case in testdata", k.Name)
		}
	}
}

func inputs(a *txtar.Archive) (files []File, rest []txtar.File) {
	for _, f := range a.Files {
		if f.Name != "stdout" && f.Name != "stderr" {
			files = append(files, File{f.Name, f.Data})
			rest = append(rest, f)
		}
	}
	return files, rest
}

// printed as the command prints it. What is printed is read back, as it is and with
// what is commented out.
func printed(t *testing.T, kind Kind, files []File, opts Options) (stdout, stderr []byte) {
	result, err := Run(kind, files, opts)
	if err != nil {
		if result != nil {
			t.Error("an error and a result")
		}
		return nil, []byte(err.Error() + "\n")
	}
	var out, log bytes.Buffer
	if err := result.WriteYAML(&out); err != nil {
		t.Fatal(err)
	}
	for _, w := range result.Warnings {
		log.WriteString(w.String() + "\n")
	}
	var value any
	var text bytes.Buffer
	if err := result.WriteJSON(&text, kind.Name); err != nil || json.Unmarshal(text.Bytes(), &value) != nil {
		t.Errorf("JSON: %v", err)
	}
	readBack(t, result, out.Bytes())
	if found, err := Recognise(files); err != nil || found.Name != kind.Name {
		t.Errorf("the files are taken for %q: %v", found.Name, err)
	}
	return out.Bytes(), log.Bytes()
}

func readBack(t *testing.T, result *Result, text []byte) {
	rules := 0
	for _, d := range result.Documents {
		if !d.Off && (d.NodeSelector == nil || d.NodeSelector.MatchLabels == nil) { // others are other nodes'
			rules += len(d.Rules)
		}
	}
	if !slices.ContainsFunc(result.Documents, func(d *Document) bool { return !d.Off }) {
		return
	}
	opts := policy.Options{ServiceCIDRsKnown: true, ServicesKnown: true, PodsKnown: true, NodeLabels: map[string]string{}}
	loaded, err := policy.Load([]policy.Source{{Name: "printed.yaml", Content: text}}, opts)
	if err != nil || len(loaded.Policy.Rules) != rules {
		t.Errorf("what is printed has other rules than %d: %v", rules, err)
	}
}

// setting reads lines such as "kind kube-router", "cluster", "pod-cidrs 10.0.0.0/8".
func setting(t *testing.T, comment string) (kind Kind, opts Options) {
	for line := range strings.Lines(comment) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if key == "" || key == "#" || strings.ToLower(key) != key {
			continue // words about the case
		}
		switch key {
		case "kind":
			var ok bool
			if kind, ok = Named(value); !ok {
				t.Fatalf("no kind %q", value)
			}
		case "cluster":
			opts.Cluster = true
		case "name":
			opts.Name = value
		case "masquerade-all":
			opts.MasqueradeAll = value
		case "pod-cidrs":
			opts.PodCIDRs = prefixes(value)
		case "local-pod-cidrs":
			opts.LocalPodCIDRs = prefixes(value)
		case "service-cidrs":
			opts.ServiceCIDRs = prefixes(value)
		case "vpc-cidrs":
			opts.VPCCIDRs = prefixes(value)
		default:
			t.Fatalf("no option %q", key)
		}
	}
	return kind, opts
}

func prefixes(list string) (all []netip.Prefix) {
	for text := range strings.SplitSeq(list, ",") {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}
