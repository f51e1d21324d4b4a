package ipset_test

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/ipset"
)

// FuzzRead reads anything: nothing is lost without a word, a second reading is
// the same, and sets can be asked.
func FuzzRead(f *testing.F) {
	f.Add(real)
	f.Add(strings.ReplaceAll(real, "\n", "\r\n"))
	files, err := os.ReadDir("testdata")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		if text, err := os.ReadFile("testdata/" + file.Name()); err == nil {
			f.Add(string(text))
		}
	}
	packets := []ipset.Packet{
		{},
		{Source: netip.MustParseAddr("10.0.0.1"), Destination: netip.MustParseAddr("10.1.0.1"), Protocol: 6, SourcePort: 80, DestinationPort: 443, InInterface: "eth0", NoOut: true},
		{Source: netip.MustParseAddr("10.0.0.1"), Destination: netip.MustParseAddr("10.1.0.1"), Protocol: 17, SourcePort: -1, DestinationPort: -1},
		{Source: netip.MustParseAddr("fd00::1"), Destination: netip.MustParseAddr("fd00::2"), Protocol: 58, SourcePort: 128 << 8, DestinationPort: 128 << 8},
	}
	f.Fuzz(func(t *testing.T, text string) {
		sets, problems := ipset.Read(text, 1)
		again, _ := ipset.Read(text, 1)
		for _, p := range problems {
			if p.Why == "" || len(p.Text) > 200 || !strings.Contains(text, p.Text) && p.Text[:min(len(p.Text), 5)] != "Name:" {
				t.Errorf("problem %+v", p)
			}
		}
		for name, s := range sets {
			if s.Name != name || s.Len() > strings.Count(text, "\n")+strings.Count(text, "\r")+1 {
				t.Errorf("set %q: %q, %d elements", name, s.Name, s.Len())
			}
			s.Addresses(0)
			s.Addresses(2)
			for _, p := range packets {
				for _, sides := range [][]bool{{true}, {false, true}, {true, false, true}} {
					a, why := s.Contains(sets, p, sides)
					b, _ := again[name].Contains(again, p, sides)
					if a != b || (a == ipset.Unknown) != (why != "") {
						t.Errorf("%s %v: %d (%q), then %d", name, sides, a, why, b)
					}
				}
			}
		}
		// Behind a blank line no list is open: what means nothing is a problem.
		_, more := ipset.Read(text+"\n\n???\n", 1)
		if len(problems) < 1000 && len(more) != len(problems)+1 {
			t.Errorf("%d problems, with another line %d", len(problems), len(more))
		}
	})
}
