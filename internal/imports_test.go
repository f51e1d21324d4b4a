// Package internal_test checks how the packages of this module stand to each
// other. It holds no code.
package internal_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/unmasq/unmasq/"

// layers from the ground up. A package may import packages of its own layer
// and of the layers before it. Every package stands in exactly one.
var layers = []struct {
	name string
	// why nothing here may import from further down this list.
	why      string
	packages []string
}{
	{
		"values", "the words that all others use depend on nobody",
		[]string{"api/v1alpha1", "docs/doctor", "internal/packet", "internal/cidr", "internal/lines"},
	},
	{
		"logic", "values in, values out: it runs on a bug report or a fixture as it runs on a live host",
		[]string{
			"internal/policy", "internal/policyfile", "internal/masqagent", "internal/importer", "internal/importer/rules", "internal/exporter", "internal/plan", "internal/render", "internal/facts", "internal/cni", "internal/cni/results", "internal/cluster", "internal/conflict",
			"internal/ruleset", "internal/ruleset/names", "internal/ruleset/iptables", "internal/ruleset/nftables", "internal/ipset", "internal/conntrack", "internal/route",
			"internal/snapshot", "internal/snapshot/redact", "internal/sim", "internal/owner", "internal/explain", "internal/flows", "internal/takeover", "internal/doctor", "internal/vicinity", "internal/matrix",
		},
	},
	{
		"kernel", "it reads and writes state as plain data, and knows nobody who decides when",
		[]string{
			"internal/kernel/link", "internal/kernel/netns", "internal/kernel/netns/netnstest", "internal/kernel/nft", "internal/kernel/others", "internal/kernel/wires",
			"internal/kernel/capture", "internal/kernel/programs", "internal/kernel/conntrack", "internal/discover",
		},
	},
	{
		"services", "processes that go on for a while; they serve any face, a command line or a browser",
		[]string{"internal/foreign", "internal/dockerd", "internal/agent", "internal/probe", "internal/lab", "internal/replay", "internal/kube", "internal/kubectl"},
	},
	{
		"faces", "what people and scripts see; nothing depends on how it looks",
		[]string{"internal/cli", "internal/web"},
	},
	{
		"real parts", "other people's programs, which tests and tools start; no part of unmasq does",
		[]string{"test/kube/parts", "test/kube/peer", "test/kube", "test/deploy"},
	},
	{
		"programs", "main calls a face and exits",
		[]string{"cmd/unmasq", "hack/gotest", "hack/judge", "hack/kernels", "hack/kernels/guest", "hack/dumps", "hack/fuzz", "test/kube/peer/pod", "test/benchkube"},
	},
	{
		"test support", "tests and benchmarks stand on it; no program imports it",
		[]string{"internal/policy/policytest", "internal/agent/agenttest", "internal/kernel/others/otherstest", "internal/ruleset/rulesettest", "internal/rig"},
	},
}

// restricted imports: what may be used by some packages alone.
var restricted = []struct {
	name string
	why  string
	// imports: a path, or a prefix that ends in a slash.
	imports []string
	// allowed: packages, and "layer NAME" for all of a layer.
	allowed []string
}{
	{
		"kernel interfaces", "one place talks to the kernel in each of its languages, so that all else can be tested without",
		[]string{"github.com/mdlayher/", "github.com/vishvananda/", "github.com/google/nftables", "github.com/google/nftables/", "golang.org/x/sys/unix"},
		[]string{"layer kernel", "layer test support", "internal/dockerd", "test/kube", "hack/kernels/guest"}, // daemons need mounts and processes of their own beside a namespace
	},
	{
		"processes", "programs are started inside a namespace, by internal/kernel/netns",
		[]string{"os/exec"},
		[]string{"layer kernel", "internal/dockerd", "hack/gotest", "hack/judge", "hack/dumps", "hack/fuzz", "hack/kernels", "hack/kernels/guest", "internal/agent/agenttest", "layer real parts"},
	},
	{
		"the world outside", "logic has no clock, no dice, no network, no signals: the same input gives the same output",
		[]string{"net", "net/http", "time", "math/rand", "math/rand/v2", "crypto/rand", "syscall", "os/signal", "log", "log/slog"},
		[]string{"layer kernel", "layer services", "layer faces", "layer real parts", "layer programs", "layer test support"},
	},
	{
		"a cluster", "tests and tools bring one up; the program never does",
		[]string{module + "test/kube", module + "test/kube/"},
		[]string{"layer real parts", "hack/dumps", "test/kube/peer/pod", "test/benchkube", "layer test support"},
	},
	{
		"clients of Kubernetes", "one place speaks to the API server, on each side; what it says is plain data for all others",
		[]string{"k8s.io/client-go/"},
		[]string{"internal/kube", "internal/kubectl", "layer real parts", "layer programs"},
	},
	{
		"the command line's library", "a service takes options, not flags",
		[]string{"github.com/spf13/"},
		[]string{"layer faces"},
	},
	{
		"tests", "what a test needs is no part of the program",
		[]string{"testing", "pgregory.net/rapid", "github.com/google/go-cmp/", module + "internal/kernel/netns/netnstest"},
		[]string{"internal/kernel/netns/netnstest", "layer test support"},
	},
}

func TestImportsGoDown(t *testing.T) {
	rank := map[string]int{}
	for i, l := range layers {
		for _, p := range l.packages {
			if before, twice := rank[p]; twice {
				t.Errorf("%s stands in layer %s and in layer %s", p, layers[before].name, l.name)
			}
			rank[p] = i
		}
	}
	for pkg, imports := range packages(t) {
		mine, known := rank[pkg]
		if !known {
			t.Errorf("%s stands in no layer: place it in internal/imports_test.go", pkg)
			continue
		}
		for _, i := range imports {
			own, ours := strings.CutPrefix(i, module)
			theirs, known := rank[own]
			if ours && known && theirs > mine {
				t.Errorf("%s (%s) imports %s (%s), against the order of layers: %s",
					pkg, layers[mine].name, own, layers[theirs].name, layers[mine].why)
			}
		}
	}
}

func TestRestrictedImports(t *testing.T) {
	for pkg, imports := range packages(t) {
		for _, r := range restricted {
			if slices.Contains(r.allowed, pkg) || slices.Contains(r.allowed, "layer "+layerOf(pkg)) {
				continue
			}
			for _, i := range imports {
				if slices.ContainsFunc(r.imports, func(pattern string) bool { return matches(i, pattern) }) {
					t.Errorf("%s imports %s (%s): %s", pkg, i, r.name, r.why)
				}
			}
		}
	}
}

func matches(path, pattern string) bool {
	return path == pattern || strings.HasSuffix(pattern, "/") && strings.HasPrefix(path, pattern)
}

func layerOf(pkg string) string {
	for _, l := range layers {
		if slices.Contains(l.packages, pkg) {
			return l.name
		}
	}
	return ""
}

// packages maps every package of the module, by its folder, to what its files
// other than tests import.
func packages(t *testing.T) map[string][]string {
	t.Helper()
	root := os.DirFS("..")
	found := map[string][]string{}
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return skip(root, name)
		}
		if path.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", name), nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		dir := path.Dir(name)
		if _, known := found[dir]; !known {
			found[dir] = nil // also a package that imports nothing
		}
		for _, i := range file.Imports {
			imported, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			if !slices.Contains(found[dir], imported) {
				found[dir] = append(found[dir], imported)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		t.Fatal("no packages found")
	}
	return found
}

// skip leaves out what the go command does: hidden folders, testdata, other modules.
func skip(root fs.FS, dir string) error {
	if dir == "." {
		return nil
	}
	base := path.Base(dir)
	if base == "testdata" || base == "vendor" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") {
		return fs.SkipDir
	}
	if _, err := fs.Stat(root, path.Join(dir, "go.mod")); err == nil {
		return fs.SkipDir
	}
	return nil
}
