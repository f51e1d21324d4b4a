// Command fuzz fuzzes each target of internal/ for a while, one after the other.
//
// Before Go 1.27 a run may end as failed at its very end though nothing was found:
// "context deadline exceeded" escapes the coordinator when the time is over
// (https://go.dev/issue/75804). Such an end, and no other, is taken for a pass.
//
//	go run ./hack/fuzz 1m
package main

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go run ./hack/fuzz TIME, such as 1m")
		os.Exit(2)
	}
	targets, err := find("internal")
	if err == nil && len(targets) == 0 {
		err = fmt.Errorf("internal: no fuzz target")
	}
	for _, t := range targets {
		if err == nil {
			err = t.run(os.Args[1])
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fuzz:", err)
		os.Exit(1)
	}
}

type target struct{ name, dir string }

var declared = regexp.MustCompile(`(?m)^func (Fuzz\w*)\(`)

func find(root string) (all []target, err error) {
	err = filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range declared.FindAllSubmatch(text, -1) {
			all = append(all, target{string(m[1]), filepath.Dir(path)})
		}
		return err
	})
	return all, err
}

func (t target) run(time string) error {
	fmt.Println(t.name, "in", t.dir)
	var said bytes.Buffer
	cmd := exec.Command("go", "test", "-run", "^$", "-fuzz", "^"+t.name+"$", "-fuzztime", time, "-fuzzminimizetime", "20x", "./"+t.dir)
	cmd.Stdout = io.MultiWriter(os.Stdout, &said)
	cmd.Stderr = cmd.Stdout
	err := cmd.Run()
	if err != nil && onlyLate(said.String()) {
		fmt.Println("nothing found: the time was over (https://go.dev/issue/75804)")
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s in %s: %w", t.name, t.dir, err)
	}
	return nil
}

// late is all that the coordinator says when the end of the time escapes it. What
// was found stands between its lines, with the file that it was written to.
var late = regexp.MustCompile(`(?m)^--- FAIL: Fuzz\w+ \([\d.]+s\)\n    context deadline exceeded\nFAIL\nexit status 1\nFAIL\t`)

func onlyLate(said string) bool {
	return late.MatchString(said) && strings.Count(said, "--- FAIL: ") == 1 && !strings.Contains(said, "Failing input")
}
