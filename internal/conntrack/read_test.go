package conntrack_test

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/unmasq/unmasq/internal/conntrack"
)

// show writes an entry as the tests' files have it.
func show(e *conntrack.Entry) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d: %d", e.Line, e.Protocol)
	for _, t := range []conntrack.Tuple{e.Original, e.Reply} {
		fmt.Fprintf(&b, " %s→%s", netip.AddrPortFrom(t.Source, t.SourcePort), netip.AddrPortFrom(t.Destination, t.DestinationPort))
		if t.ID != 0 || t.Type != 0 || t.Code != 0 {
			fmt.Fprintf(&b, " %d/%d #%d", t.Type, t.Code, t.ID)
		}
	}
	for _, word := range []struct {
		text string
		is   bool
	}{
		{e.State, e.State != ""}, {"seen", e.SeenReply}, {"assured", e.Assured}, {"offloaded", e.Offloaded},
		{fmt.Sprintf("mark %#x", e.Mark), e.Mark != 0},
		{fmt.Sprintf("zone %d %d/%d", e.Zone, e.OriginalZone, e.ReplyZone), e.OriginalZone != 0 || e.ReplyZone != 0},
	} {
		if word.is {
			b.WriteString(" " + word.text)
		}
	}
	return b.String() + "\n"
}

var update = flag.Bool("update", false, "write what was read to testdata")

// TestRead has one file a case: an input, its entries and its problems.
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
			want := map[string]string{}
			for _, part := range archive.Files {
				want[part.Name] = string(part.Data)
			}
			entries, problems := conntrack.Read(want["input"], 1)
			var read, said strings.Builder
			for i := range entries {
				read.WriteString(show(&entries[i]))
			}
			for _, p := range problems {
				fmt.Fprintf(&said, "%d: %s\n", p.Line, p.Why)
			}
			if *update {
				archive.Files = []txtar.File{{Name: "input", Data: []byte(want["input"])}, {Name: "entries", Data: []byte(read.String())}, {Name: "problems", Data: []byte(said.String())}}
				if err := os.WriteFile("testdata/"+f.Name(), txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(want["entries"], read.String()); diff != "" {
				t.Errorf("entries (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(want["problems"], said.String()); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

// real is what conntrack 1.4.7 printed.
const real = `udp      17 29 src=10.9.0.1 dst=10.9.0.9 sport=56545 dport=53 packets=1 bytes=29 [UNREPLIED] src=10.9.0.2 dst=10.9.0.7 sport=7001 dport=56545 packets=0 bytes=0 mark=0 use=1
ipv4     2 udp      17 29 src=10.9.0.1 dst=10.9.0.2 sport=56545 dport=99 packets=1 bytes=29 [UNREPLIED] src=10.9.0.2 dst=10.9.0.7 sport=99 dport=56545 packets=0 bytes=0 mark=0 zone=7 use=1 id=34673083
gre      47 29 src=10.9.0.2 dst=10.9.0.2 srckey=0x0 dstkey=0x1 [UNREPLIED] src=10.9.0.2 dst=10.9.0.2 srckey=0x1 dstkey=0x0 mark=0 use=1
tcp      6 431999 ESTABLISHED src=10.9.0.1 dst=10.9.0.9 sport=5555 dport=80 packets=2 bytes=112 src=10.9.0.2 dst=10.9.0.7 sport=7000 dport=5555 packets=1 bytes=60 [ASSURED] mark=4660 use=1
icmp     1 29 src=10.9.0.1 dst=10.9.0.2 type=8 code=0 id=77 src=10.9.0.2 dst=10.9.0.7 type=0 code=0 id=77 mark=0 use=1
conntrack v1.4.7 (conntrack-tools): 5 flow entries have been shown.
`

func TestLineEnds(t *testing.T) {
	for _, text := range []string{real, strings.ReplaceAll(real, "\n", "\r\n"), strings.ReplaceAll(real, "\n", "\r"), strings.ReplaceAll(real, "\n", " \n\n \t")} {
		if entries, problems := conntrack.Read(text, 1); len(entries) != 5 || len(problems) != 0 {
			t.Errorf("%d entries, %v", len(entries), problems)
		}
	}
}

func TestFind(t *testing.T) {
	entries, _ := conntrack.Read(real, 1)
	table := conntrack.NewTable(entries)
	addr := netip.MustParseAddr
	tuple := func(source string, sport uint16, destination string, dport uint16) conntrack.Tuple {
		return conntrack.Tuple{Source: addr(source), SourcePort: sport, Destination: addr(destination), DestinationPort: dport}
	}
	echo := conntrack.Tuple{Source: addr("10.9.0.2"), Destination: addr("10.9.0.7"), ID: 77}
	for _, tt := range []struct {
		protocol uint8
		tuple    conntrack.Tuple
		zone     uint16
		line     int
		reply    bool
	}{
		{6, tuple("10.9.0.1", 5555, "10.9.0.9", 80), 0, 4, false},
		{6, tuple("10.9.0.2", 7000, "10.9.0.7", 5555), 0, 4, true},
		{6, tuple("10.9.0.1", 5555, "10.9.0.9", 80), 7, 0, false},
		{6, tuple("10.9.0.1", 5556, "10.9.0.9", 80), 0, 0, false},
		{17, tuple("10.9.0.1", 5555, "10.9.0.9", 80), 0, 0, false},
		{17, tuple("10.9.0.1", 56545, "10.9.0.2", 99), 7, 2, false},
		{17, tuple("10.9.0.1", 56545, "10.9.0.2", 99), 0, 0, false},
		{1, echo, 0, 5, true},
	} {
		e, reply := table.Find(tt.protocol, tt.tuple, tt.zone)
		line := 0
		if e != nil {
			line = e.Line
		}
		if line != tt.line || reply != tt.reply {
			t.Errorf("%d %+v in zone %d: line %d, reply %v", tt.protocol, tt.tuple, tt.zone, line, reply)
		}
	}
	loose := func(port int, zone uint16) int {
		return len(table.FindLoose(17, addr("10.9.0.1"), addr("10.9.0.2"), port, zone))
	}
	if loose(99, 7) != 1 || loose(-1, 7) != 1 || loose(98, 7) != 0 || loose(99, 0) != 0 {
		t.Error(loose(99, 7), loose(-1, 7), loose(98, 7), loose(99, 0))
	}
}

// Zones of one direction, and the order of two dumps.
func TestFindZones(t *testing.T) {
	const line = "udp 17 29 src=10.9.0.1 dst=10.9.0.2 sport=1 dport=2 %s src=10.9.0.2 dst=10.9.0.1 sport=2 dport=1 %s mark=%d use=1\n"
	entries, problems := conntrack.Read(fmt.Sprintf(line, "zone-orig=5", "", 1)+fmt.Sprintf(line, "", "zone-reply=6", 2)+fmt.Sprintf(line, "zone-orig=5", "", 3), 1)
	if len(problems) != 0 {
		t.Fatal(problems)
	}
	table := conntrack.NewTable(entries)
	for _, tt := range []struct {
		tuple conntrack.Tuple
		zone  uint16
		mark  uint32
	}{
		{entries[0].Original, 5, 3}, {entries[0].Original, 0, 2}, {entries[0].Original, 6, 0},
		{entries[0].Reply, 6, 2}, {entries[0].Reply, 0, 3}, {entries[0].Reply, 5, 0},
	} {
		mark := uint32(0)
		if e, _ := table.Find(17, tt.tuple, tt.zone); e != nil {
			mark = e.Mark
		}
		if mark != tt.mark {
			t.Errorf("%+v in zone %d: mark %d, want %d", tt.tuple, tt.zone, mark, tt.mark)
		}
	}
}

// TestHostile reads text that is made to cost much.
func TestHostile(t *testing.T) {
	size := 2 << 20
	if os.Getenv("HOSTILE") != "" {
		size = 100 << 20
	}
	for _, unit := range []string{"\n", "\r", " ", "x\n", "x", "tcp 6 ", "src=", real, "tcp 6 src=1.1.1.1 dst=1.1.1.1 src=1.1.1.1 dst=1.1.1.1 x=\n", "tcp 6 [a \n"} {
		text := strings.Repeat(unit, size/len(unit))
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		entries, problems := conntrack.Read(text, 1)
		conntrack.NewTable(entries)
		runtime.ReadMemStats(&after)
		if times := (after.TotalAlloc - before.TotalAlloc) / uint64(size); times > 32 || len(problems) > 1001 {
			t.Errorf("%.20q: allocates %d times its size, %d problems", unit, times, len(problems))
		}
	}
}

// FuzzRead reads anything: each line is an entry, a problem, or says nothing.
func FuzzRead(f *testing.F) {
	for line := range strings.Lines(real) {
		f.Add(line)
	}
	f.Add("tcp 6 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 [OFFLOAD] [start=Tue Nov 24 10:01:02 2026] zone-orig=3 use=1")
	f.Add("ipv6     10 icmpv6 58 29 src=fd00::1 dst=fd00::2 type=128 code=0 id=7 src=fd00::2 dst=fd00::1 type=129 code=0 id=7 mark=0x10 secctx=a:b use=2 id=5")
	f.Fuzz(func(t *testing.T, text string) {
		entries, problems := conntrack.Read(text, 1)
		spoken := map[int]bool{}
		for i := range entries {
			e := &entries[i]
			spoken[e.Line] = true
			if !e.Original.Source.IsValid() || !e.Original.Destination.IsValid() || !e.Reply.Source.IsValid() || !e.Reply.Destination.IsValid() {
				t.Errorf("entry %+v", e)
			}
			again, _ := conntrack.Read(e.Text, e.Line)
			if len(again) != 1 || again[0] != *e {
				t.Errorf("read again:\n%+v\n%+v", e, again)
			}
		}
		for _, p := range problems {
			spoken[p.Line] = true
			if p.Why == "" || len(p.Text) > 200 || !strings.Contains(text, p.Text) {
				t.Errorf("problem %+v", p)
			}
		}
		for i, line := range strings.Split(strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n"), "\n") {
			line = strings.Trim(line, " \t\f\v\u00a0\ufeff")
			if line != "" && !spoken[i+1] && !strings.Contains(line, "conntrack") && len(problems) < 1000 {
				t.Errorf("nothing is said of line %d: %q", i+1, line)
			}
		}
		table := conntrack.NewTable(entries)
		for i := range entries {
			e := &entries[i]
			if found, _ := table.Find(e.Protocol, e.Original, e.OriginalZone); found == nil {
				t.Errorf("not found: %+v", e)
			}
			if len(table.FindLoose(e.Protocol, e.Original.Source, e.Original.Destination, -1, e.OriginalZone)) == 0 {
				t.Errorf("not found without ports: %+v", e)
			}
		}
	})
}

func BenchmarkRead(b *testing.B) {
	text := strings.Repeat(real, 20_000) // 100,000 entries
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		conntrack.Read(text, 1)
	}
}
