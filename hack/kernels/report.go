package main

import (
	"bufio"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"text/tabwriter"
)

// mark begins the lines that hack/kernels/guest itself writes among the output
// of tests:
//
//	### kernel ownership=false ipsec=true
//	### start PACKAGE
//	### end PACKAGE SECONDS STATUS
//	### done
const mark = "### "

// report is what became of the tests on one kernel.
type report struct {
	release string
	probed  string
	results map[string]*result // by package
	ended   bool
}

type result struct {
	passed, failed, skipped int
	seconds                 int
	ok                      bool
}

func newReport(release string) report {
	return report{release: release, results: map[string]*result{}}
}

var (
	verdict = regexp.MustCompile(`^ *--- (PASS|FAIL|SKIP): `)
	checked = regexp.MustCompile(`^ *\S+\.go:\d+: (checked: .*)$`)
)

// read follows a machine's output to its end, and passes on what a person wants
// to see: packages, what was checked, and everything of tests that fail.
func (r *report) read(from io.Reader, out io.Writer) {
	lines := bufio.NewReader(from)
	var current *result
	var pkg string
	var kept strings.Builder // of the test that runs
	for {
		line, err := lines.ReadString('\n')
		line = strings.TrimRight(line, "\r\n")
		if said, ours := strings.CutPrefix(line, mark); ours {
			pkg, current = r.marked(strings.Fields(said), pkg, current, out)
			if current != nil && strings.HasPrefix(said, "end ") && !current.ok {
				io.WriteString(out, kept.String())
			}
			kept.Reset()
		} else if current != nil {
			current.line(line, &kept, out)
		}
		if err != nil {
			return
		}
	}
}

// line reads a line of a test's output. Results of subtests come after those of
// the test that they are part of, indented.
func (x *result) line(line string, kept *strings.Builder, out io.Writer) {
	if strings.HasPrefix(line, "=== RUN") && !strings.Contains(line, "/") {
		kept.Reset() // the test before it passed, or was the reason to keep this
	}
	m := verdict.FindStringSubmatch(line)
	if m == nil || m[1] == "FAIL" {
		fmt.Fprintln(kept, line)
	}
	if m := checked.FindStringSubmatch(line); m != nil {
		fmt.Fprintln(out, "    "+m[1])
	}
	if m == nil {
		return
	}
	switch m[1] {
	case "PASS":
		x.passed++
		if strings.HasPrefix(line, "---") {
			kept.Reset()
		}
	case "FAIL":
		x.failed++
		io.WriteString(out, kept.String())
		kept.Reset()
	case "SKIP":
		x.skipped++
		fmt.Fprintln(out, line)
	}
}

func (r *report) marked(words []string, pkg string, current *result, out io.Writer) (string, *result) {
	switch {
	case len(words) > 1 && words[0] == "kernel":
		r.probed = strings.Join(words[1:], " ")
		fmt.Fprintln(out, "probed:", r.probed)
	case len(words) == 2 && words[0] == "start":
		current = &result{}
		r.results[words[1]] = current
		return words[1], current
	case len(words) >= 4 && words[0] == "end" && current != nil:
		current.seconds, _ = strconv.Atoi(words[2]) // 0 where the guest wrote none
		current.ok = words[3] == "ok"
		fmt.Fprintf(out, "%s: %s\n", pkg, current)
	case len(words) == 1 && words[0] == "done":
		r.ended = true
	default:
		fmt.Fprintln(out, strings.Join(words, " "))
	}
	return pkg, current
}

func (x *result) String() string {
	if x == nil {
		return "not run"
	}
	s := fmt.Sprintf("%d passed", x.passed)
	if x.failed > 0 {
		s += fmt.Sprintf(", %d FAILED", x.failed)
	}
	if x.skipped > 0 {
		s += fmt.Sprintf(", %d SKIPPED", x.skipped)
	}
	if !x.ok && x.failed == 0 {
		s += ", CUT SHORT"
	}
	return fmt.Sprintf("%s (%d s)", s, x.seconds)
}

// ok says whether every test ran and passed.
func (r report) ok(jobs []Job) bool {
	for _, j := range jobs {
		if x := r.results[j.Package]; x == nil || !x.ok || x.failed+x.skipped > 0 {
			return false
		}
	}
	return r.ended
}

// printTable has a column for each kernel.
func printTable(out io.Writer, jobs []Job, reports []report) {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	row := func(name string, cell func(r report) string) {
		fmt.Fprint(w, name)
		for _, r := range reports {
			fmt.Fprint(w, "\t", cell(r))
		}
		fmt.Fprintln(w)
	}
	row("kernel", func(r report) string { return r.release })
	row("probed", func(r report) string { return r.probed })
	for _, j := range jobs {
		row(j.Package, func(r report) string { return r.results[j.Package].String() })
	}
	w.Flush()
}
