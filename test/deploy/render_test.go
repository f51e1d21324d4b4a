// Package deploy holds what operators install, the manifests of deploy/, against what
// they should be: kustomize and the Helm chart say the same, no privilege is there
// that isn't listed here, values of the wrong kind are refused, and the dashboard
// asks for metrics that there are.
package deploy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

const root, chart = "../..", "../../deploy/chart/unmasq"

// tool is the path of a program of test/tools, which Go's cache keeps.
func tool(name string) (string, error) {
	out, err := exec.Command("go", "tool", "-C", "../tools", "-n", name).Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		err = fmt.Errorf("%w: %s", err, failed.Stderr)
	}
	if err != nil {
		return "", fmt.Errorf("build %s (where there is no network: fetch it first with `go build -C test/tools -o /dev/null tool`): %w", name, err)
	}
	return strings.TrimSpace(string(out)), nil
}

var (
	helmProgram      = sync.OnceValues(func() (string, error) { return tool("helm") })
	kustomizeProgram = sync.OnceValues(func() (string, error) { return tool("kustomize") })
)

// run a program with nothing of the user's configuration.
func run(program func() (string, error), args ...string) (stdout string, err error) {
	file, err := program()
	if err != nil {
		return "", err
	}
	var out, said bytes.Buffer
	c := exec.Command(file, args...)
	c.Stdout, c.Stderr = &out, &said
	c.Env = []string{"HOME=/nonexistent", "PATH=/usr/bin:/bin"}
	if err = c.Run(); err != nil {
		err = fmt.Errorf("%s %s: %w: %s", filepath.Base(file), strings.Join(args, " "), err, said.String())
	}
	return out.String(), err
}

// helm renders the chart with values, a YAML document.
func helm(t *testing.T, values string) (string, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "values.yaml")
	write(t, file, values)
	return run(helmProgram, "template", "unmasq", chart, "--namespace", "unmasq", "--include-crds", "--values", file)
}

// object of Kubernetes.
type object = map[string]any

// objects of a rendering by kind and name.
type objects map[string]object

func read(t *testing.T, text string, err error) objects {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	all := objects{}
	d := yaml.NewDecoder(strings.NewReader(text))
	for {
		var o object
		if err := d.Decode(&o); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		if o == nil {
			continue
		}
		key := fmt.Sprintf("%v %v", o["kind"], at(o, "metadata", "name"))
		if all[key] != nil {
			t.Errorf("rendered twice: %s", key)
		}
		all[key] = o
	}
}

func kustomized(t *testing.T, dir string) objects {
	t.Helper()
	text, err := run(kustomizeProgram, "build", filepath.Join(root, dir))
	return read(t, text, err)
}

func helmed(t *testing.T, values string) objects {
	t.Helper()
	text, err := helm(t, values)
	return read(t, text, err)
}

// at follows field names, and indexes of lists, into a value; nil where it ends.
func at(v any, path ...any) any {
	for _, step := range path {
		switch key := step.(type) {
		case string:
			m, _ := v.(object)
			v = m[key]
		case int:
			list, _ := v.([]any)
			if key >= len(list) {
				return nil
			}
			v = list[key]
		}
	}
	return v
}
