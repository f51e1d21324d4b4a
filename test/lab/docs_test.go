package lab_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/lab"
)

const (
	document = "../../docs/lab.md"
	// shown is the folder in the document, in place of the test's.
	shown = lab.DefaultDir
)

// command of the document, with what it says is printed.
type command struct{ text, output string }

// commands are the lines of console blocks that begin with "# ".
func commands(t *testing.T) (all []command) {
	t.Helper()
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range regexp.MustCompile("(?ms)^```console\n(.*?)^```").FindAllStringSubmatch(string(text), -1) {
		for _, part := range strings.Split("\n"+block[1], "\n# ")[1:] {
			line, output, _ := strings.Cut(part, "\n")
			all = append(all, command{line, output})
		}
	}
	return all
}

// prints says whether the output is what the document shows: a line "…" stands for
// any lines, "…" in a line for anything.
func (c command) prints(output string) bool {
	var pattern strings.Builder
	for line := range strings.Lines(strings.TrimSuffix(c.output, "\n") + "\n") {
		if line == "…\n" {
			pattern.WriteString("(?:.*\n)*")
			continue
		}
		pattern.WriteString(strings.ReplaceAll(regexp.QuoteMeta(line), "…", ".*"))
	}
	return regexp.MustCompile("^" + pattern.String() + "$").MatchString(output)
}

// TestDocument runs each command of docs/lab.md in its order.
func TestDocument(t *testing.T) {
	bin, dir := filepath.Dir(program(t)), filepath.Join(t.TempDir(), "state")
	run := func(text string) (string, error) {
		text = strings.ReplaceAll(text, "unmasq lab ", "unmasq lab --state-dir "+dir+" ")
		cmd := exec.Command("bash", "-c", strings.ReplaceAll(text, shown, dir))
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		return strings.ReplaceAll(string(out), dir, shown), err
	}
	t.Cleanup(func() {
		if out, err := run("unmasq lab down"); err != nil {
			t.Errorf("down: %v\n%s", err, out)
		}
		checkNothingLeft(t)
	})
	all := commands(t)
	for _, c := range all {
		output, err := run(c.text)
		if err != nil || !c.prints(output) {
			t.Errorf("# %s: %v\nprints\n%s\nthe document has\n%s", c.text, err, output, c.output)
		}
	}
	if len(all) < 8 {
		t.Errorf("found %d commands", len(all))
	}
}
