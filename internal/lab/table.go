package lab

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/probe"
)

// Colours of a terminal (ECMA-48).
const (
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	plain  = "\x1b[0m"
)

// line is a row of the table of who is seen as whom: calls of one pair and
// family that were seen alike; calls to a service of both families.
type line struct {
	Sighting
	protocols []string
	wanted    Sight
}

// lines joins the sightings that were seen alike.
func lines(stage *StageResult) []line {
	var all []line
	for _, s := range stage.Sightings {
		wanted := stage.Wanted[s.Call].Of(s.Family)
		i := slices.IndexFunc(all, func(l line) bool { return l.like(&s) && l.wanted == wanted })
		if i < 0 {
			all = append(all, line{Sighting: s, wanted: wanted})
			i = len(all) - 1
		}
		protocol := s.Protocol
		if s.Service != "" && s.Family == packet.IPv6Family {
			protocol += "6"
		}
		all[i].protocols = append(all[i].protocols, protocol)
	}
	return all
}

func (l *line) like(s *Sighting) bool {
	alike := l.Call == s.Call && l.Sight == s.Sight && l.Expected == s.Expected && l.Note == s.Note
	if l.Service != "" {
		return alike // a service's addresses say little
	}
	return alike && l.Family == s.Family && l.Seen.Addr() == s.Seen.Addr()
}

// WriteTable writes who is seen as whom in a stage.
func WriteTable(w io.Writer, stage *StageResult, colour bool) error {
	if stage.Grid {
		return writeGrid(w, stage, colour)
	}
	return writeLines(w, stage, colour)
}

// writeLines writes a line for each pair.
//
//	FROM              TO                PROTOCOL      SEEN AS                VERDICT
//	pod1 172.5.138.2  pod2 172.5.139.2  tcp udp icmp  192.168.5.138 (host1)  hidden behind host1; wanted: its own address
//	pod1 172.5.138.2  pod2 by web 10.96.0.9:80  tcp udp tcp6 udp6  192.168.5.138 (host1)  hidden behind host1
func writeLines(w io.Writer, stage *StageResult, colour bool) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "  FROM\tTO\tPROTOCOL\tSEEN AS\tVERDICT") //nolint:errcheck // Flush tells
	for _, l := range lines(stage) {
		text, hue := l.verdict(stage.Policy != "")
		if colour && hue != "" {
			text = hue + text + plain // the last column: its width doesn't matter
		}
		fmt.Fprintf(table, "  %s %s\t%s\t%s\t%s\t%s\n", //nolint:errcheck // Flush tells
			l.From, l.Source.Addr(), l.to(), strings.Join(l.protocols, " "), l.seenAs(), text)
	}
	return table.Flush()
}

// to is who is called: "pod2 172.5.139.2", "web1 by web 10.96.0.9:80",
// "web1 by web node1:30080", "ping web 10.96.0.9".
func (l *line) to() string {
	switch {
	case l.Ping():
		return fmt.Sprintf("ping %s %s", l.Service, l.Target.Addr())
	case l.Node != "":
		return fmt.Sprintf("%s by %s %s:%d", l.To, l.Service, l.Node, l.Target.Port())
	case l.Service != "":
		return fmt.Sprintf("%s by %s %s", l.To, l.Service, l.Target)
	}
	return l.To + " " + l.Target.Addr().String()
}

// seenAs is the address that the peer saw, and whose it is.
func (l *line) seenAs() string {
	switch {
	case !l.Seen.IsValid():
		return "-"
	case l.Seen.Addr() == l.Source.Addr():
		return l.Seen.Addr().String()
	case l.Sight == Stranger || l.Sight == NoReply:
		return l.Seen.Addr().String()
	}
	return fmt.Sprintf("%s (%s)", l.Seen.Addr(), l.Sight)
}

// verdict says what a line means, with its colour.
func (l *line) verdict(enforced bool) (text, hue string) {
	text = l.Sight.words()
	if l.Note != "" {
		text += ": " + l.Note
	}
	switch {
	case !l.OK():
		return "✗ " + text + "; expected: " + l.Expected.words(), red
	case enforced:
		return "✓ " + text, green
	case l.wanted != "" && l.wanted != l.Sight:
		return text + "; wanted: " + l.wanted.words(), yellow
	}
	return text, ""
}

// words is a sight as a person reads it.
func (s Sight) words() string {
	switch s {
	case Itself:
		return "its own address"
	case NoReply, Stranger:
		return string(s)
	}
	return "hidden behind " + string(s)
}

// Title of a run: "flannel/old (iptables-nft)".
func (r *Result) Title() string {
	title := r.Scenario
	if r.Form != "" {
		title += "/" + r.Form
	}
	if r.Variant != "" {
		title += " (iptables-" + string(r.Variant) + ")"
	}
	return title
}

// Counts are how many calls were made, and how many were not seen as expected.
func (r *Result) Counts() (calls, wrong int) {
	for i := range r.Stages {
		for j := range r.Stages[i].Sightings {
			calls++
			if !r.Stages[i].Sightings[j].OK() {
				wrong++
			}
		}
	}
	return calls, wrong
}

// joinWords is "a", "a and b", "a, b and c".
func joinWords(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " and " + words[last]
}

// JSON is a run as `-o json` prints it. Fields are only ever added.
type JSON struct {
	Scenario string      `json:"scenario"`
	Form     string      `json:"form,omitempty"`
	Variant  string      `json:"variant,omitempty"`
	OK       bool        `json:"ok"`
	Error    string      `json:"error,omitempty"`
	Seconds  float64     `json:"seconds"`
	Stages   []JSONStage `json:"stages"`
}

// JSONStage is one stage of a run.
type JSONStage struct {
	Title  string     `json:"title"`
	Policy string     `json:"policy,omitempty"`
	OK     bool       `json:"ok"`
	Calls  []JSONCall `json:"calls"`
}

// JSONCall is one call of a stage.
type JSONCall struct {
	From        string `json:"from"`
	To          string `json:"to"`
	Family      string `json:"family"`
	Protocol    string `json:"protocol"`
	Source      string `json:"source"`
	SourcePort  uint16 `json:"sourcePort,omitempty"`
	Destination string `json:"destination"`
	// DestinationPort, Service and Node are of calls to a service: its name, and the
	// node whose port was called.
	DestinationPort uint16 `json:"destinationPort,omitempty"`
	Service         string `json:"service,omitempty"`
	Node            string `json:"node,omitempty"`
	// SeenAs is "" where nothing arrived.
	SeenAs   string `json:"seenAs,omitempty"`
	SeenPort uint16 `json:"seenPort,omitempty"`
	Replied  bool   `json:"replied"`
	// Sight: "itself", "no reply", "unknown address", or a space's name.
	Sight    Sight  `json:"sight"`
	Expected Sight  `json:"expected,omitempty"`
	OK       bool   `json:"ok"`
	Note     string `json:"note,omitempty"`
}

// JSON returns the run as it is printed.
func (r *Result) JSON() JSON {
	out := JSON{Scenario: r.Scenario, Form: r.Form, Variant: string(r.Variant), OK: r.OK(),
		Seconds: r.Took.Seconds(), Stages: []JSONStage{}}
	for i := range r.Stages {
		out.Stages = append(out.Stages, r.Stages[i].JSON())
	}
	return out
}

// JSON returns the stage as it is printed.
func (r *StageResult) JSON() JSONStage {
	out := JSONStage{Title: r.Title, Policy: r.Policy, OK: r.OK(), Calls: []JSONCall{}}
	for i := range r.Sightings {
		s := &r.Sightings[i]
		call := JSONCall{From: s.From, To: s.To, Family: familyName(s.Family), Protocol: s.Protocol,
			Source: s.Source.Addr().String(), SourcePort: s.Source.Port(), Destination: s.Target.Addr().String(), Service: s.Service, Node: s.Node,
			Replied: s.Replied, Sight: s.Sight, Expected: s.Expected, OK: s.OK(), Note: s.Note}
		if s.Protocol != probe.ICMP {
			call.DestinationPort = s.Target.Port()
		}
		if s.Seen.IsValid() {
			call.SeenAs, call.SeenPort = s.Seen.Addr().String(), s.Seen.Port()
		}
		out.Calls = append(out.Calls, call)
	}
	return out
}

func familyName(f packet.Family) string { return strings.ToLower(f.String()) }
