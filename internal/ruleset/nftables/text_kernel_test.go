package nftables_test

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

// loaded is a namespace with the corpus in it.
func loaded(t *testing.T) *netns.NS {
	t.Helper()
	ns := netnstest.Test(t, "text")
	runIn(t, ns, "", "ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1")
	runIn(t, ns, corpus(t), "nft", "-f", "-")
	return ns
}

func corpus(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile("testdata/corpus.nft")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func runIn(t *testing.T, ns *netns.NS, stdin, name string, args ...string) string {
	t.Helper()
	out, err := ns.Run(stdin, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// readWell reads text in which nothing is a problem or not understood, apart
// from what the model doesn't follow.
func readWell(t *testing.T, what, text string) *nftables.Ruleset {
	t.Helper()
	rs, problems := nftables.ReadText(text, 1)
	for _, p := range problems {
		t.Errorf("%s: %+v", what, p)
	}
	for _, u := range unknowns(rs) {
		t.Errorf("%s: %s", what, u)
	}
	return rs
}

// unknowns are the parts of a model that weren't understood.
func unknowns(rs *nftables.Ruleset) []string {
	var out []string
	walkModel(reflect.ValueOf(rs.Tables), func(v reflect.Value) {
		switch x := v.Interface().(type) {
		case nftables.UnknownStatement:
			switch x.Name {
			case "tproxy", "synproxy", "fwd", "flow add":
			default:
				out = append(out, fmt.Sprintf("statement %+v", x))
			}
		case nftables.UnknownExpr:
			switch x.Name {
			case "tcp option", "ip option", "exthdr", "sctp chunk", "socket", "osf", "ipsec":
			default:
				out = append(out, fmt.Sprintf("expression %+v", x))
			}
		}
	})
	return out
}

// differ compares models, each made alike before: without what stands in only
// one of them.
func differ(t *testing.T, what string, want, got *nftables.Ruleset, alike func(line string) string) {
	t.Helper()
	a, b := modelLines(want, alike), modelLines(got, alike)
	shownDiffs := 0
	for i := range max(len(a), len(b)) {
		var x, y string
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if x == y {
			continue
		}
		t.Errorf("%s:\n  %s\n  %s", what, x, y)
		if shownDiffs++; shownDiffs > 40 {
			return
		}
	}
}

// modelLines is a model as text, without lines and handles.
func modelLines(rs *nftables.Ruleset, alike func(line string) string) []string {
	for _, table := range rs.Tables {
		table.Line, table.Handle, table.Excerpt = 0, 0, false
		for i := range table.Objects {
			table.Objects[i].Handle = 0
		}
		for _, s := range table.Sets {
			s.Line, s.Handle = 0, 0
			for i := range s.Elements {
				if s.Elements[i].Timeout != "" { // which goes on between two listings
					s.Elements[i].Timeout = "T"
				}
			}
		}
		for _, c := range table.Chains {
			c.Handle = 0
			for _, r := range c.Rules {
				r.Line, r.Handle = 0, 0
			}
		}
	}
	lines := strings.Split(shown(rs, nil), "\n")
	for i := range lines {
		if alike != nil {
			lines[i] = alike(lines[i])
		}
	}
	return lines
}

// TestTextListings: nft's own ways to list one ruleset give one model.
func TestTextListings(t *testing.T) {
	ns := loaded(t)
	listing := runIn(t, ns, "", "nft", "list", "ruleset")
	want := readWell(t, "list", listing)
	rules := 0
	for _, table := range want.Tables {
		for _, c := range table.Chains {
			rules += len(c.Rules)
		}
	}
	if n := strings.Count(corpus(t), "\nadd rule "); rules < n {
		t.Errorf("%d rules of %d were read", rules, n)
	}
	withHandles := readWell(t, "-a", runIn(t, ns, "", "nft", "-a", "list", "ruleset"))
	checkHandles(t, withHandles)
	differ(t, "-a", want, withHandles, nil)
	differ(t, "command form", want, readWell(t, "command form", commands(want)), nil)
	differ(t, "quoted, with CR LF", want, readWell(t, "quoted", "> "+strings.ReplaceAll(listing, "\n", "\r\n> ")), nil)
	numeric := readWell(t, "numeric", runIn(t, ns, "", "nft", "-nn", "-y", "list", "ruleset"))
	differ(t, "numeric", want, numeric, shapeOnly)
}

// checkHandles: nft -a gives everything one but the elements.
func checkHandles(t *testing.T, rs *nftables.Ruleset) {
	t.Helper()
	for _, table := range rs.Tables {
		if table.Handle == 0 {
			t.Errorf("table %s has no handle", table.Name)
		}
		for _, s := range table.Sets {
			if s.Handle == 0 {
				t.Errorf("set %s has no handle", s.Name)
			}
		}
		for _, c := range table.Chains {
			if c.Handle == 0 {
				t.Errorf("chain %s has no handle", c.Name)
			}
			for _, r := range c.Rules {
				if r.Handle == 0 || strings.Contains(r.Text, "handle") {
					t.Errorf("rule %q has handle %d", r.Text, r.Handle)
				}
			}
		}
	}
}

// shapeOnly leaves the structure of rules, without values: names of protocols
// are numbers in one of the listings.
func shapeOnly(line string) string {
	line = regexp.MustCompile(`^    \d+ .*|^  object .*`).ReplaceAllString(line, "")
	line = regexp.MustCompile(`Literal\{Text:[^}]*\}`).ReplaceAllString(line, "L")
	line = regexp.MustCompile(`Binary\{Op:\| Left:L Right:L\}`).ReplaceAllString(line, "List{Values:[L L]}")
	return regexp.MustCompile(`(Text|Code|Timeout|timeout)[: ][^}]*`).ReplaceAllString(line, "")
}

// withoutLost leaves out what nft's JSON hasn't: comments, typeof, devices,
// objects as they are written; and why something isn't followed.
func withoutLost(line string) string {
	switch {
	case strings.HasPrefix(line, "table "), strings.HasPrefix(line, "  chain "):
		return regexp.MustCompile(` comment ".*"|Devices:\[.*\]`).ReplaceAllString(line, "")
	case strings.HasPrefix(line, "  set "):
		line = regexp.MustCompile(`(comment|type|data) .* flags`).ReplaceAllString(line, "flags")
		flags := regexp.MustCompile(`flags \[(.*)\]`).FindStringSubmatch(line)
		words := strings.Fields(flags[1])
		slices.Sort(words)
		return strings.Replace(line, flags[0], strings.Join(words, " "), 1)
	}
	// Numbers of sets whose type nft lost are hexadecimal in its text only.
	line = strings.ReplaceAll(line, " [invalid type]", "")
	line = regexp.MustCompile(`\b0x[0-9a-f]{1,8}\b`).ReplaceAllStringFunc(line, func(hex string) string {
		n, err := strconv.ParseUint(hex, 0, 64)
		if err != nil {
			return hex
		}
		return strconv.FormatUint(n, 10)
	})
	// nft's own text lacks the port's map of tproxy.
	line = regexp.MustCompile(`(tproxy ip to) :symhash mod 2 map \{.*\d \}`).ReplaceAllString(line, "$1")
	line = regexp.MustCompile(`^(  object .*) Text:.*`).ReplaceAllString(line, "$1")
	return regexp.MustCompile(` Why:[^}]*\}`).ReplaceAllString(line, "}")
}

// commands writes a model's declarations and rules as nft commands, from the
// texts that were read.
func commands(rs *nftables.Ruleset) string {
	var out strings.Builder
	for _, t := range rs.Tables {
		name := t.Family + " " + t.Name
		fmt.Fprintf(&out, "add table %s {%s%s }\n", name, option(" comment %q ;", t.Comment), option(" flags %s ;", strings.Join(t.Flags, ",")))
		for _, o := range t.Objects {
			fmt.Fprintf(&out, "add %s %s %s { %s ; }\n", o.Kind, name, o.Name, o.Text)
		}
		for _, c := range t.Chains {
			fmt.Fprintf(&out, "add chain %s %s { %s%s }\n", name, c.Name, baseText(c.Base), option(" comment %q ;", c.Comment))
		}
		for _, s := range t.Sets {
			writeSet(&out, name, s)
		}
		for _, c := range t.Chains {
			for _, r := range c.Rules {
				fmt.Fprintf(&out, "add rule %s %s %s\n", name, c.Name, r.Text)
			}
		}
	}
	return out.String()
}

func option(format, value string) string {
	if value == "" {
		return ""
	}
	return fmt.Sprintf(format, value)
}

func baseText(b *nftables.Base) string {
	if b == nil {
		return ""
	}
	devices := ""
	if len(b.Devices) > 0 {
		devices = " devices = { " + strings.Join(b.Devices, ", ") + " }"
	}
	policy := "accept"
	if b.Drop {
		policy = "drop"
	}
	return fmt.Sprintf("type %s hook %s%s priority %d ; policy %s ;", b.Type, b.Hook, devices, b.Priority, policy)
}

func writeSet(out *strings.Builder, table string, s *nftables.Set) {
	kind, declared := "set", "type "+strings.Join(s.Type, " . ")
	if s.TypeOf != nil {
		declared = "typeof " + exprText(s.TypeOf)
	}
	if s.Map {
		kind = "map"
		declared += " : " + strings.Join(s.DataType, " . ")
		if s.DataTypeOf != nil {
			declared += exprText(s.DataTypeOf)
		}
	}
	fmt.Fprintf(out, "add %s %s %s { %s ;%s%s%s }\n", kind, table, s.Name, declared,
		option(" flags %s ;", strings.Join(s.Flags, ",")), option(" timeout %s ;", s.Timeout), option(" comment %q ;", s.Comment))
	for _, e := range s.Elements {
		fmt.Fprintf(out, "add element %s %s { %s }\n", table, s.Name, elementText(e))
	}
}

func elementText(e nftables.Element) string {
	text := exprText(e.Key)
	text += option(" timeout %s", e.Timeout)
	text += option(" comment %q", e.Comment)
	for _, s := range e.Statements {
		switch s := s.(type) {
		case nftables.Inert:
			text += " " + s.Text
		case nftables.Stateful:
			text += " " + s.Text
		}
	}
	if e.Data != nil {
		text += " : " + exprText(e.Data)
	}
	return text
}

// exprText writes what stands in sets.
func exprText(e nftables.Expr) string {
	switch e := e.(type) {
	case nftables.Literal:
		return e.Text
	case nftables.Prefix:
		return fmt.Sprintf("%s/%d", exprText(e.Address), e.Length)
	case nftables.Range:
		return exprText(e.First) + "-" + exprText(e.Last)
	case nftables.Concat:
		return joined(e.Parts, " . ")
	case nftables.List:
		return joined(e.Values, " | ")
	case nftables.Any:
		return "*"
	case nftables.VerdictValue:
		return strings.TrimSpace(e.Verdict.Kind.String() + " " + e.Verdict.Chain)
	case nftables.Payload:
		return e.Protocol + " " + e.Field
	case nftables.Meta:
		return "meta " + e.Key
	case nftables.CT:
		return strings.Join(strings.Fields("ct "+e.Direction+" "+e.Family+" "+e.Key), " ")
	case nftables.RawPayload:
		return fmt.Sprintf("@%s,%d,%d", e.Base, e.Offset, e.Length)
	case nftables.UnknownExpr:
		return e.Text
	case nftables.FIB:
		return "fib " + strings.Join(e.Keys, " . ") + " " + e.Result
	}
	return nftables.ExprText(e)
}

func joined(list []nftables.Expr, with string) string {
	var out []string
	for _, e := range list {
		out = append(out, exprText(e))
	}
	return strings.Join(out, with)
}

// TestTextAndJSON: nft's text and JSON of one ruleset give one model, but for
// what nft leaves out of its JSON.
func TestTextAndJSON(t *testing.T) {
	ns := loaded(t)
	text := readWell(t, "list", runIn(t, ns, "", "nft", "-a", "list", "ruleset"))
	fromJSON, problems := nftables.ReadJSON(runIn(t, ns, "", "nft", "-j", "list", "ruleset"), 1)
	for _, p := range problems {
		t.Errorf("JSON: %+v", p)
	}
	differ(t, "JSON", text, fromJSON, withoutLost)
}
