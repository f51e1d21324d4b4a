package ipset_test

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/unmasq/unmasq/internal/ipset"
)

// TestRead has one file a case: an input, the problems of reading it, and
// questions with their answers. An interface is - where the packet has none, ?
// where it isn't known.
//
//	-- input --
//	-- problems --
//	LINE: WHY
//	-- answers --
//	SET SIDES SOURCE DESTINATION [PROTOCOL SPORT DPORT [IN OUT MARK]] → ANSWER [WHY]
func TestRead(t *testing.T) {
	files, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".txtar") {
			continue
		}
		t.Run(strings.TrimSuffix(f.Name(), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile("testdata/" + f.Name())
			if err != nil {
				t.Fatal(err)
			}
			parts := map[string]string{}
			for _, part := range archive.Files {
				parts[part.Name] = string(part.Data)
			}
			sets, problems := ipset.Read(parts["input"], 1)
			var said strings.Builder
			for _, p := range problems {
				fmt.Fprintf(&said, "%d: %s\n", p.Line, p.Why)
			}
			if diff := cmp.Diff(parts["problems"], said.String()); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			asked := 0
			for line := range strings.Lines(parts["answers"]) {
				question, want, ok := strings.Cut(strings.TrimSpace(line), " → ")
				if !ok {
					continue
				}
				asked++
				if got := answerTo(t, sets, question); got != want {
					t.Errorf("%s → %s, want %s", question, got, want)
				}
			}
			if asked == 0 {
				t.Error("nothing is asked")
			}
		})
	}
}

// answerTo reads a question as TestRead writes them.
func answerTo(t *testing.T, sets ipset.Sets, question string) string {
	t.Helper()
	words := strings.Fields(question)
	set := sets[words[0]]
	if set == nil {
		return "no such set"
	}
	var sides []bool
	for side := range strings.SplitSeq(words[1], ",") {
		sides = append(sides, side == "src")
	}
	p := ipset.Packet{Source: netip.MustParseAddr(words[2]), Destination: netip.MustParseAddr(words[3]), SourcePort: -1, DestinationPort: -1}
	for i, to := range []any{&p.Protocol, &p.SourcePort, &p.DestinationPort, &p.InInterface, &p.OutInterface, &p.Mark} {
		if 4+i >= len(words) {
			break
		}
		if _, err := fmt.Sscan(words[4+i], to); err != nil {
			t.Fatalf("%s: %v", question, err)
		}
	}
	for _, name := range []*string{&p.InInterface, &p.OutInterface} {
		*name = strings.Trim(*name, "?")
	}
	if p.NoIn = p.InInterface == "-"; p.NoIn {
		p.InInterface = ""
	}
	if p.NoOut = p.OutInterface == "-"; p.NoOut {
		p.OutInterface = ""
	}
	answer, why := set.Contains(sets, p, sides)
	switch answer {
	case ipset.Yes:
		return "yes"
	case ipset.No:
		return "no"
	}
	return "unknown: " + why
}

const real = `create nodes hash:ip family inet hashsize 1024 maxelem 65536 timeout 0 bucketsize 12 initval 0x20b69f6d
add nodes 172.18.0.11 timeout 0
create ports hash:ip,port family inet6 hashsize 1024 maxelem 65536 bucketsize 12 initval 0x91c8f6a4
add ports fd00::1,ipv6-icmp:echo-request
add ports fd00::1,tcp:80 comment "one, with blanks"

Name: nets
Type: hash:net
Revision: 7
Header: family inet hashsize 1024 maxelem 65536 timeout 300 counters comment bucketsize 12 initval 0xd5fa205b
Size in memory: 712
References: 1
Number of entries: 2
Members:
10.0.0.0/8 timeout 299 packets 0 bytes 0 comment "hello, wor'ld x"
10.1.0.0/16 timeout 0 nomatch packets 0 bytes 0

Name: empty
Type: bitmap:port
Revision: 3
Header: range 10-2000
Size in memory: 328
References: 0
Number of entries: 0
Members:
`

// TestEveryLineCounts puts a line that means nothing at every place.
func TestEveryLineCounts(t *testing.T) {
	if _, problems := ipset.Read(real, 1); len(problems) != 0 {
		t.Fatal(problems)
	}
	lines := strings.Split(real, "\n")
	for i := range lines {
		text := strings.Join(slices.Insert(slices.Clone(lines), i, "  *** terminal cleared ***"), "\n")
		_, problems := ipset.Read(text, 100)
		if !slices.ContainsFunc(problems, func(p ipset.Problem) bool { return p.Line == 100+i && p.Text == "*** terminal cleared ***" }) {
			t.Errorf("inserted as line %d: %v", i, problems)
		}
	}
}

// TestLineEnds: all of them mean the same.
func TestLineEnds(t *testing.T) {
	for _, text := range []string{
		real,
		strings.ReplaceAll(real, "\n", "\r\n"),
		strings.ReplaceAll(real, "\n", "\r"),
		"\ufeff   " + strings.ReplaceAll(real, "\n", "  \n   "),
	} {
		sets, problems := ipset.Read(text, 1)
		if len(problems) != 0 || len(sets) != 4 || sets["nodes"].Len() != 1 || sets["ports"].Len() != 2 || sets["nets"].Len() != 2 {
			t.Errorf("%d sets, %v", len(sets), problems)
		}
	}
}

func TestOptions(t *testing.T) {
	sets, _ := ipset.Read(real+"\ncreate marks hash:ip,mark markmask 0xff\ncreate b bitmap:ip range 10.0.0.0/24 netmask 26\n", 1)
	nets, empty, b := sets["nets"].Options, sets["empty"].Options, sets["b"].Options
	if !nets.Timeout || !nets.Counters || !nets.Comment || nets.SKBInfo {
		t.Errorf("%+v", nets)
	}
	if empty.FirstPort != 10 || empty.LastPort != 2000 {
		t.Errorf("%+v", empty)
	}
	if sets["marks"].Options.MarkMask != 0xff {
		t.Errorf("%+v", sets["marks"].Options)
	}
	if b.Mask.String() != "255.255.255.192" || b.Range.First.String() != "10.0.0.0" || b.Range.Last.String() != "10.0.0.255" {
		t.Errorf("%+v", b)
	}
}

func TestMembers(t *testing.T) {
	sets, _ := ipset.Read("create l list:set size 8\nadd l a\nadd l b timeout 3\nadd l c before a\nadd l d timeout 0 after a\nadd l e after x\n", 1)
	if got := fmt.Sprint(sets["l"].Members); got != "[c a d b e]" {
		t.Error(got)
	}
}

// A list within a list, which no kernel allows, is no reason to ask for ever.
func TestListOfItself(t *testing.T) {
	sets, _ := ipset.Read("create l list:set\nadd l l\ncreate m list:set\nadd m m\ncreate m hash:ip\nadd m 10.0.0.1\nadd l m\n", 1)
	p := ipset.Packet{Source: netip.MustParseAddr("10.0.0.1"), Destination: netip.MustParseAddr("10.0.0.2")}
	for name, s := range sets {
		if a, why := s.Contains(sets, p, []bool{true}); a != ipset.Unknown {
			t.Errorf("%s: %d %s", name, a, why)
		}
	}
}

func TestAddresses(t *testing.T) {
	sets, problems := ipset.Read(`create n hash:net
add n 10.0.0.0/8
add n 10.1.0.0/16 nomatch
add n 192.168.0.0/24
add n 192.168.1.0/24
create m hash:ip netmask 24
add m 10.0.0.0
create p hash:ip,port,net family inet6
add p fd00::1,tcp:80,fd00:1::/64
add p fd00::1,tcp:81,fd00:1::/64
create x hash:ip bitmask 255.0.255.0
add x 10.0.1.0
create b bitmap:port range 0-100
add b 80
`, 1)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, tt := range []struct {
		set       string
		dimension int
		want      string
	}{
		{"n", 0, "[{10.0.0.0 10.255.255.255} {192.168.0.0 192.168.0.255} {192.168.1.0 192.168.1.255}]"},
		{"n", 1, "[]"},
		{"m", 0, "[{10.0.0.0 10.0.0.255}]"},
		{"p", 0, "[{fd00::1 fd00::1}]"},
		{"p", 1, "[]"},
		{"p", 2, "[{fd00:1:: fd00:1::ffff:ffff:ffff:ffff}]"},
		{"x", 0, "[{10.0.0.0 10.255.255.255}]"},
		{"b", 0, "[]"},
	} {
		if got := fmt.Sprint(sets[tt.set].Addresses(tt.dimension)); got != tt.want {
			t.Errorf("%s, %d: %s, want %s", tt.set, tt.dimension, got, tt.want)
		}
	}
}

// TestJoin: sets of several files answer where they agree.
func TestJoin(t *testing.T) {
	const create = "create s hash:ip family inet\n"
	for _, tt := range []struct {
		name, first, second string
		differ              string
		one, two            ipset.Answer // whether 10.0.0.1 and 10.0.0.2 are in it
	}{
		{"the same", create + "add s 10.0.0.1\n", create + "add s 10.0.0.1\n", "[]", ipset.Yes, ipset.No},
		{"another element", create + "add s 10.0.0.1\n", create + "add s 10.0.0.2\n", "[]", ipset.Unknown, ipset.Unknown},
		{"more elements", create + "add s 10.0.0.1\n", create + "add s 10.0.0.1\nadd s 10.0.0.2\n", "[s]", ipset.Yes, ipset.Unknown},
		{"another type", create + "add s 10.0.0.1\n", "create s hash:net family inet\nadd s 10.0.0.0/24\n", "[s]", ipset.Yes, ipset.Unknown},
		{"another set", create + "add s 10.0.0.1\n", "create x hash:ip family inet\n", "[]", ipset.Yes, ipset.No},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sets, _ := ipset.Read(tt.first, 1)
			more, _ := ipset.Read(tt.second, 1)
			if differ := fmt.Sprint(sets.Join(more)); differ != tt.differ {
				t.Errorf("%s differ, want %s", differ, tt.differ)
			}
			for text, want := range map[string]ipset.Answer{"10.0.0.1": tt.one, "10.0.0.2": tt.two} {
				p := ipset.Packet{Source: netip.MustParseAddr(text)}
				if got, why := sets["s"].Contains(sets, p, []bool{true}); got != want {
					t.Errorf("%s: %v %q, want %v", text, got, why, want)
				}
			}
		})
	}
	sets := ipset.Sets{}
	for range 20 {
		more, _ := ipset.Read(create, 1)
		sets.Join(more)
	}
	if got, why := sets["s"].Contains(sets, ipset.Packet{Source: netip.MustParseAddr("10.0.0.1")}, []bool{true}); got == ipset.Yes || got == ipset.Unknown && why == "" {
		t.Errorf("of 20 empty sets: %v %q", got, why)
	}
}
