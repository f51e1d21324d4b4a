// Command judge runs the tests that hold sim against the kernel, and prints a
// table: of each source of cases, how many packets were predicted right, how
// many the prediction says that it can't tell, how many wrong. It fails where
// a test does.
//
//	go run ./hack/judge                       # dumps of real programs, explain --replay of them, random rulesets
//	go run ./hack/judge -run RandomRulesets   # UNMASQ_RULESETS=2200: how many
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
)

// replays is how many questions of each dump are asked of explain --replay,
// unless the environment says.
const replays = "UNMASQ_REPLAYS=14"

func main() {
	args := append([]string{"test", "-count=1", "-v", "-timeout", "12h", "./test/judge"}, os.Args[1:]...)
	cmd := exec.Command("go", args...)
	cmd.Env = append([]string{replays}, os.Environ()...) // of two the last one counts
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "judge:", err)
		os.Exit(1)
	}
	t := read(stdout, os.Stdout)
	err = cmd.Wait()
	t.print(os.Stdout)
	if err != nil || len(t.rows) == 0 {
		fmt.Println("FAIL")
		os.Exit(1)
	}
}

// row is what a test reports of one source: a tally of test/judge.
type row struct {
	Source                                                         string
	Rulesets, Packets, Right, Depends, Conditional, Unknown, Wrong int
	Connections                                                    int
	Reasons, Conditions                                            map[string]int
}

type table struct{ rows []row }

// read takes the reports out of what the tests print, shows how far they are,
// and all that failed.
func read(in io.Reader, out io.Writer) *table {
	t := &table{}
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return t
		}
		t.line(line, out)
	}
}

func (t *table) line(line string, out io.Writer) {
	if _, report, ok := strings.Cut(line, " judged: "); ok {
		var r row
		if json.Unmarshal([]byte(report), &r) == nil {
			t.rows = append(t.rows, r)
			return
		}
	}
	if _, far, ok := strings.Cut(line, " progress: "); ok {
		io.WriteString(out, "  "+far)
		return
	}
	trimmed := strings.TrimSpace(line)
	for _, quiet := range []string{"=== ", "--- PASS", "ok  ", "PASS"} {
		if strings.HasPrefix(trimmed, quiet) {
			return
		}
	}
	if inTable.MatchString(line) {
		return
	}
	io.WriteString(out, line)
}

// inTable is what tests say of reasons, which the table has.
var inTable = regexp.MustCompile(`: (unknown|conditional) \d+ times: `)

// print prints a row for each source, their sum, and why answers were unknown.
func (t *table) print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "rulesets\tpackets\tright\tof several\tconditional\tunknown\twrong\t  source")
	sum := row{Source: "all"}
	unknown, conditional := map[string]int{}, map[string]int{}
	for _, r := range t.rows {
		r.print(w)
		sum.add(r)
		for why, n := range r.Reasons {
			unknown[r.Source+": "+why] += n
		}
		for why, n := range r.Conditions { // of many sources the same
			conditional[why] += n
		}
	}
	sum.print(w)
	w.Flush()
	printReasons(out, "honestly unknown, for how many packets each reason was given", unknown)
	printReasons(out, "right under a condition that the answer names, for how many packets each", conditional)
}

func printReasons(out io.Writer, title string, reasons map[string]int) {
	if len(reasons) == 0 {
		return
	}
	fmt.Fprintf(out, "\n%s\n", title)
	for _, why := range slices.Sorted(maps.Keys(reasons)) {
		fmt.Fprintf(out, "  %d  %s\n", reasons[why], why)
	}
}

func (r row) print(w io.Writer) {
	fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%d\t%d\t%d\t  %s\n", r.Rulesets, r.Packets, r.Right, r.Depends, r.Conditional, r.Unknown, r.Wrong, r.Source)
}

func (r *row) add(more row) {
	r.Rulesets += more.Rulesets
	r.Packets += more.Packets
	r.Right += more.Right
	r.Depends += more.Depends
	r.Conditional += more.Conditional
	r.Unknown += more.Unknown
	r.Wrong += more.Wrong
}
