package conntrack

import (
	"strconv"
	"strings"

	"github.com/unmasq/unmasq/internal/lines"
)

// Counters are what the kernel has counted of its table since the network namespace
// was made, over all processors, by the kernel's own names. Those that tell of loss:
//
//	early_drop     entries that had to make room in a full table
//	insert_failed  first packets that were dropped since another connection had their tuple
//	drop           packets that were dropped: by a full table, and those of insert_failed
type Counters map[string]uint64

// countersHeader begins /proc/net/stat/nf_conntrack.
func countersHeader(line string) bool {
	return strings.HasPrefix(line, "entries ") && strings.Contains(line, " insert_failed ")
}

// IsCounters says whether a line is one of those that [ReadCounters] reads.
func IsCounters(line string) bool {
	return countersHeader(line) || strings.HasPrefix(line, "cpu=") && strings.Contains(line, "found=") || isRow(strings.Fields(line))
}

// isRow: hexadecimal numbers of eight digits, of one processor.
func isRow(f []string) bool {
	const fewest = 15 // Linux has had 16 and 17
	if len(f) < fewest {
		return false
	}
	for _, word := range f {
		if len(word) != 8 || strings.Trim(word, "0123456789abcdef") != "" {
			return false
		}
	}
	return true
}

// ReadCounters reads /proc/net/stat/nf_conntrack, and what conntrack -S prints. It
// returns nil where there are none.
//
//	entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop …
//	00000007  00000000 00000000 00000000 00000002 00000000 00000000 00000000 00000000 00000003 00000003 00000000 …
//
//	cpu=0   	found=0 invalid=2 insert=0 insert_failed=3 drop=3 early_drop=0 error=0 search_restart=0 clash_resolve=0 chaintoolong=0
func ReadCounters(text string, firstLine int) (Counters, []Problem) {
	var all Counters
	var names []string
	var problems []Problem
	for number, line := range lines.Of(text, firstLine) {
		f := strings.Fields(line)
		why := ""
		switch {
		case line == "" || line[0] == '#' || len(problems) >= maxProblems:
			continue
		case countersHeader(line):
			names = f
			continue
		case strings.HasPrefix(line, "cpu="):
			all, why = all.addPairs(f[1:])
		case isRow(f) && len(f) == len(names):
			all = all.addRow(names, f)
		default:
			why = "no counters of connection tracking: expected as many numbers as /proc/net/stat/nf_conntrack has names above them, or NAME=NUMBER"
		}
		if why != "" {
			problems = append(problems, Problem{Line: number, Text: line[:min(len(line), longText)], Why: why})
		}
	}
	return all, problems
}

func (c Counters) addPairs(pairs []string) (Counters, string) {
	for _, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		n, err := strconv.ParseUint(value, 10, 64)
		if err != nil {
			return c, "no number: " + pair
		}
		c = c.add(name, n)
	}
	return c, ""
}

func (c Counters) addRow(names, row []string) Counters {
	for i, name := range names {
		n, _ := strconv.ParseUint(row[i], 16, 32) // isRow has looked at it
		if name == "entries" {
			n -= min(n, c[name]) // each row has the sum
		}
		c = c.add(name, n)
	}
	return c
}

func (c Counters) add(name string, n uint64) Counters {
	if c == nil {
		c = Counters{}
	}
	c[name] += n
	return c
}
