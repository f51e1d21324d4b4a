package doctor

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// Text prints the report for people.
//
//	error    forwarding-off: IPv4 packets that come in by cni0 aren't forwarded
//	  seen   net.ipv4.ip_forward = 0
//	  so     10.244.1.0/24 and the world beyond this node lose each other's packets.
//	  mend   sysctl -w net.ipv4.ip_forward=1
func (r *Report) Text(out io.Writer) error {
	var b strings.Builder
	var last []string
	for i := range r.Findings {
		f := &r.Findings[i]
		mend := f.Mend
		if len(mend) > 1 && slices.Equal(mend, last) { // of the other family, say
			mend = []string{"# the same as above"}
		}
		last = f.Mend
		f.text(&b, mend)
	}
	b.WriteString(r.sum() + "\n")
	for _, u := range r.NotLookedAt {
		on := ""
		if u.Node != "" {
			on = " on node " + u.Node
		}
		what := strings.Join(u.Codes, ", ")
		if len(u.Codes) == len(checks) {
			what = "everything"
		}
		fmt.Fprintf(&b, "not looked at%s: %s (%s)\n", on, what, u.Why)
	}
	if len(r.Findings) > 0 {
		fmt.Fprintf(&b, "more of each: unmasq doctor --explain %s\n", r.Findings[0].Code)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func (f *Finding) text(b *strings.Builder, mend []string) {
	on := ""
	if f.Node != "" {
		on = "node " + f.Node + ": "
	}
	fmt.Fprintf(b, "%-8s %s%s: %s\n", f.Severity, on, f.Code, f.Summary)
	lines(b, "seen", f.Evidence)
	lines(b, "so", []string{f.Consequence})
	lines(b, "mend", mend)
	b.WriteString("\n")
}

// lines of a word; those after the first stand below it.
func lines(b *strings.Builder, word string, all []string) {
	for _, text := range all {
		for line := range strings.Lines(text) {
			fmt.Fprintf(b, "  %-6s %s\n", word, strings.TrimRight(line, "\n"))
			word = ""
		}
	}
}

// sum counts the findings.
func (r *Report) sum() string {
	if len(r.Findings) == 0 {
		return "no findings"
	}
	var parts []string
	for _, s := range []Severity{Error, Warning, Info} {
		n := 0
		for i := range r.Findings {
			if r.Findings[i].Severity == s {
				n++
			}
		}
		word := map[Severity]string{Error: "error", Warning: "warning", Info: "note"}[s]
		switch {
		case n == 1:
			parts = append(parts, "1 "+word)
		case n > 1:
			parts = append(parts, fmt.Sprintf("%d %ss", n, word))
		}
	}
	return strings.Join(parts, ", ")
}
