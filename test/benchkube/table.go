package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"
)

// row is one number, with its baseline and the goal it is held to.
type row struct {
	What   string `json:"what"`
	Value  string `json:"value"`
	Beside string `json:"beside,omitempty"`
	Goal   string `json:"goal,omitempty"`
	Load   string `json:"load"`
}

// table of all numbers.
type table struct {
	about string
	rows  []row
}

func (b *bench) add(what, value, beside, goal string) {
	b.table.rows = append(b.table.rows, row{what, value, beside, goal, load()})
	b.say("  %s: %s", what, value)
}

func (t *table) print(out io.Writer, file string) error {
	fmt.Fprintf(out, "\n%s; %d processors for all of it\n\n", t.about, runtime.NumCPU())
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "measured\tvalue\tgoal\tbeside it\tload")
	for _, r := range t.rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.What, r.Value, r.Goal, r.Beside, r.Load)
	}
	if err := w.Flush(); err != nil || file == "" {
		return err
	}
	text, err := json.MarshalIndent(map[string]any{"version": 1, "about": t.about, "rows": t.rows}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}

// spread of durations: "12 ms median, 30 ms p99, 31 ms at most".
func spread(all []time.Duration) string {
	return fmt.Sprintf("%s median, %s p99, %s at most", ms(quantile(all, 50)), ms(quantile(all, 99)), ms(quantile(all, 100)))
}

// quantile of 100; 50 is the median.
func quantile[T int64 | float64 | time.Duration](all []T, of int) T {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(len(sorted)*of/100, len(sorted)-1)]
}

func mean(all []time.Duration) time.Duration {
	sum := time.Duration(0)
	for _, d := range all {
		sum += d
	}
	return sum / time.Duration(max(1, len(all)))
}

func ms(d time.Duration) string {
	if d >= 10*time.Second {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return fmt.Sprintf("%d ms", d.Milliseconds())
}

func mb(bytes int64) string { return fmt.Sprintf("%.1f MB", float64(bytes)/1e6) }
func kb(bytes int64) string { return fmt.Sprintf("%.0f KB", float64(bytes)/1e3) }

// rate of bytes.
func rate(bytes int64, in time.Duration) string {
	return fmt.Sprintf("%.2f KB/s", float64(bytes)/1e3/in.Seconds())
}
