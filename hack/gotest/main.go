// Command gotest runs `go test` for make test: quietly while tests pass, with
// all output of those that fail, and with a summary as its last line.
//
// A test that logs a line starting with "checked: " has that line shown when it
// passes too ("checked: 2000000 connections, 0 wrong"). A skipped test is a failure: what
// is not checked must not look checked.
//
//	go run ./hack/gotest -count=1 ./...
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"
)

func main() {
	ok, err := run(os.Args[1:], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
	}
	if !ok || err != nil {
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) (ok bool, err error) {
	start := time.Now()
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return false, err
	}
	if err := cmd.Start(); err != nil {
		return false, err
	}
	s := summary{out: out, output: map[test]string{}}
	lines := bufio.NewReader(stdout)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			break
		}
		var e event
		if json.Unmarshal(line, &e) != nil {
			out.Write(line) // not go test's: pass it on
			continue
		}
		s.add(e)
	}
	failed := cmd.Wait()
	fmt.Fprintf(out, "%s: %d packages in %.0f s\n", verdict(failed == nil && s.skipped == 0), s.packages, time.Since(start).Seconds())
	fmt.Fprintf(out, "tests: %d passed, %d failed, %d skipped\n", s.passed, s.failed, s.skipped)
	return failed == nil && s.skipped == 0, nil
}

func verdict(ok bool) string {
	if ok {
		return "PASS"
	}
	return "FAIL"
}

// event is a line of `go test -json` (go doc test2json).
type event struct {
	Action, Package, Test, Output, ImportPath string
	Elapsed                                   float64
}

type test struct{ pkg, name string }

type summary struct {
	out io.Writer
	// output of tests, and of packages outside any test, that haven't ended.
	output                            map[test]string
	packages, passed, failed, skipped int
}

// checked finds the lines that are shown always. t.Log puts file and line before them.
var checked = regexp.MustCompile(`(?m)^(?:\s*\S+\.go:\d+: )?(checked: .*)$`)

func (s *summary) add(e event) {
	t := test{e.Package, e.Test}
	switch e.Action {
	case "output":
		s.output[t] += e.Output
		return
	case "build-output":
		io.WriteString(s.out, e.Output)
		return
	case "pass", "fail", "skip":
	default:
		return
	}
	if e.Test == "" {
		s.packageEnded(e, t)
		return
	}
	s.testEnded(e, t)
}

func (s *summary) testEnded(e event, t test) {
	switch e.Action {
	case "pass":
		s.passed++
		for _, m := range checked.FindAllStringSubmatch(s.output[t], -1) {
			fmt.Fprintf(s.out, "    %s: %s\n", t.name, m[1])
		}
	case "fail":
		s.failed++
		io.WriteString(s.out, s.output[t])
	case "skip":
		s.skipped++
		io.WriteString(s.out, s.output[t])
	}
	delete(s.output, t)
}

func (s *summary) packageEnded(e event, t test) {
	switch e.Action { // "skip": a package without tests
	case "pass":
		s.packages++
		fmt.Fprintf(s.out, "ok   %s (%.1f s)\n", e.Package, e.Elapsed)
	case "fail":
		s.packages++
		// With what tests wrote that never ended: a crash, or the time limit.
		for left, output := range s.output {
			if left.pkg == e.Package && left != t {
				io.WriteString(s.out, output)
			}
		}
		fmt.Fprintf(s.out, "%sFAIL %s (%.1f s)\n", strings.TrimSuffix(s.output[t], "FAIL\n"), e.Package, e.Elapsed)
	}
	for left := range s.output {
		if left.pkg == e.Package {
			delete(s.output, left)
		}
	}
}
