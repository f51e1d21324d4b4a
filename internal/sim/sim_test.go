package sim_test

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/sim"
	"github.com/unmasq/unmasq/internal/snapshot"
)

var update = flag.Bool("update", false, "write the answers into testdata")

// TestAnswers: each file of testdata holds dumps of one node and questions, each
// with its outcomes indented below.
//
//	tcp 10.244.1.7:40000 192.168.200.253:443 in=cni0
//		accepted masqueraded 192.168.5.138:40000 -> 192.168.200.253:443 out=eth0 by nat FLANNEL-POSTRTG 5
func TestAnswers(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { answers(t, file) })
	}
}

func answers(t *testing.T, file string) {
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	dir, questions := t.TempDir(), -1
	for i, f := range archive.Files {
		if f.Name == "questions" {
			questions = i
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, f.Name), f.Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	host, err := snapshot.Read([]string{dir}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range host.Notes {
		t.Errorf("%s:%d: %s: %s", n.File, n.Line, n.Why, n.Text)
	}
	node := sim.New(host)
	want := string(archive.Files[questions].Data)
	var got strings.Builder
	for line := range strings.Lines(want) {
		line = strings.TrimRight(line, "\n")
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
			fmt.Fprintln(&got, line)
		case !strings.HasPrefix(line, "\t"):
			fmt.Fprintln(&got, line)
			for _, o := range node.Run(question(t, line), sim.Options{}) {
				write(&got, &o, "\t")
			}
		}
	}
	if diff := cmp.Diff(want, got.String()); diff != "" && !*update {
		t.Errorf("-want +got\n%s", diff)
	}
	if *update {
		archive.Files[questions].Data = []byte(got.String())
		if err := os.WriteFile(file, txtar.Format(archive), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// question reads "PROTOCOL SRC[:PORT] DST[:PORT] [in=IF] [out=IF] [via=IP] [mark=N] [local]".
func question(t *testing.T, line string) sim.Question {
	t.Helper()
	words := strings.Fields(line)
	q := sim.Question{Protocol: map[string]uint8{"tcp": packet.TCP, "udp": packet.UDP, "sctp": packet.SCTP, "icmp": packet.ICMP, "icmpv6": packet.ICMPv6, "any": 0}[words[0]]}
	q.Source, q.SourcePort = end(t, words[1])
	q.Destination, q.DestinationPort = end(t, words[2])
	for _, w := range words[3:] {
		key, value, _ := strings.Cut(w, "=")
		switch key {
		case "in":
			q.InInterface = value
		case "out":
			q.OutInterface = value
		case "via":
			q.Via = netip.MustParseAddr(value)
		case "mark":
			n, err := strconv.ParseUint(value, 0, 32)
			if err != nil {
				t.Fatal(err)
			}
			q.Mark = uint32(n)
		case "local":
			q.Local = true
		default:
			t.Fatalf("%q in %q", w, line)
		}
	}
	return q
}

func end(t *testing.T, s string) (netip.Addr, int) {
	t.Helper()
	if a, err := netip.ParseAddr(s); err == nil {
		return a, sim.UnknownPort
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		t.Fatal(err)
	}
	return ap.Addr(), int(ap.Port())
}

func write(b *strings.Builder, o *sim.Outcome, indent string) {
	fmt.Fprint(b, indent)
	if o.Probability != 1 {
		fmt.Fprintf(b, "%.3g ", o.Probability)
	}
	fmt.Fprintf(b, "%s %s ", o.Verdict, o.SourceKind)
	if o.Protocol != 0 && o.Protocol != packet.TCP && o.Protocol != packet.UDP {
		fmt.Fprintf(b, "protocol %d ", o.Protocol)
	}
	if o.Source.IsValid() {
		fmt.Fprint(b, o.Source)
	} else {
		fmt.Fprint(b, "?")
	}
	switch p := o.SourcePort; {
	case p.Random:
		fmt.Fprint(b, ":random")
	case p.Known && p.First == p.Last:
		fmt.Fprintf(b, ":%d", p.First)
	case p.Known:
		fmt.Fprintf(b, ":%d-%d", p.First, p.Last)
	}
	fmt.Fprintf(b, " -> %s", o.Destination)
	if o.DestinationPort != sim.UnknownPort {
		fmt.Fprintf(b, ":%d", o.DestinationPort)
	}
	switch {
	case o.ToNode:
		fmt.Fprint(b, " here")
	case o.OutInterface != "":
		fmt.Fprintf(b, " out=%s", o.OutInterface)
	}
	if d := o.DecidedBy; d != nil {
		fmt.Fprint(b, " by "+decider(d))
	}
	fmt.Fprintln(b)
	for _, d := range o.DependsOn {
		fmt.Fprintf(b, "%s\tdepends on %s: %s\n", indent, d.What, d.Text())
	}
	if e := o.Encapsulated; e != nil {
		fmt.Fprintf(b, "%s\tin %s: %s\n", indent, e.Interface, e.Question.Destination)
		for i := range e.Outcomes {
			write(b, &e.Outcomes[i], indent+"\t\t")
		}
	}
}

func decider(d *sim.Decider) string {
	switch {
	case d.Connection != nil:
		return "connection"
	case d.Route != nil:
		return "route " + d.Route.Text
	case d.Rule != nil && d.Rule.Rule != nil:
		return fmt.Sprintf("%s %s %d", d.Rule.Table.Name, d.Rule.Chain.Name, d.Rule.Rule.Index)
	case d.Rule != nil:
		return fmt.Sprintf("policy of %s %s", d.Rule.Table.Name, d.Rule.Chain.Name)
	}
	return d.Text
}
