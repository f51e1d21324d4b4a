package nftables

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// walked is what Find must return, by walking through the elements. Parts of
// elements and keys are numbers of one byte.
func walked(s *Set, key []Part) (found []int, certain bool) {
	others := -1
	for i := range s.Elements {
		if _, star := s.Elements[i].Key.(Any); star && others < 0 {
			others = i
		}
	}
	done := false
	for i := range s.Elements {
		parts := partsOf(s.Elements[i].Key)
		if _, star := parts[0].(Any); star {
			continue
		}
		may, must := true, true
		for n, p := range parts {
			in, err := Parse(datatypes["inet_proto"], p)
			switch {
			case err != nil:
				must = false
			case !key[n].Open:
				may = may && in.Contains(key[n].Value)
			default:
				must = must && in.First == "\x00" && in.Last == "\xff"
			}
		}
		bad := strings.Contains(describe(s.Elements[i].Key), "bad")
		if !may || done && !bad {
			continue
		}
		found = append(found, i)
		done = done || must
	}
	if !done && others >= 0 {
		return append(found, others), len(found) == 0
	}
	return found, len(found) == 0 || done && len(found) == 1
}

// element draws a key of some parts, small numbers that meet often.
func element(r *rapid.T, parts int) Expr {
	var c Concat
	for range parts {
		from := rapid.IntRange(0, 20).Draw(r, "from")
		to := from + rapid.IntRange(0, 6).Draw(r, "length")
		switch rapid.IntRange(0, 15).Draw(r, "kind") {
		case 0:
			c.Parts = append(c.Parts, Literal{"bad"})
		case 1:
			c.Parts = append(c.Parts, Range{Literal{"0"}, Literal{"255"}})
		case 2, 3, 4, 5:
			c.Parts = append(c.Parts, Range{Literal{fmt.Sprint(from)}, Literal{fmt.Sprint(to)}})
		default:
			c.Parts = append(c.Parts, Literal{fmt.Sprint(from)})
		}
	}
	if rapid.IntRange(0, 30).Draw(r, "star") == 0 {
		return Any{}
	}
	if parts == 1 {
		return c.Parts[0]
	}
	return c
}

func TestFindIsAWalk(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		parts := rapid.IntRange(1, 3).Draw(r, "parts")
		s := &Set{Type: slices.Repeat([]string{"inet_proto"}, parts)}
		for range rapid.IntRange(0, 60).Draw(r, "elements") {
			s.Elements = append(s.Elements, Element{Key: element(r, parts)})
		}
		x, _ := (&Table{Family: "ip"}).IndexOf(s, nil)
		for range 10 {
			key := make([]Part, parts)
			for i := range key {
				key[i] = Part{Value: Value([]byte{byte(rapid.IntRange(0, 28).Draw(r, "value"))})}
				if rapid.IntRange(0, 4).Draw(r, "open") == 0 {
					key[i] = Part{Open: true}
				}
			}
			want, wantCertain := walked(s, key)
			entries, certain := x.Find(key)
			var got []int
			for _, e := range entries {
				got = append(got, indexOf(s, e.Element))
			}
			if !slices.Equal(got, want) || certain != wantCertain {
				r.Fatalf("%v: found %v, %v; want %v, %v", key, got, certain, want, wantCertain)
			}
		}
	})
}

func indexOf(s *Set, e *Element) int {
	for i := range s.Elements {
		if &s.Elements[i] == e {
			return i
		}
	}
	return -1
}

func TestFindSaysWhatItDoesNotKnow(t *testing.T) {
	key := []Part{{Value: "\x0a\x00\x00\x01"}}
	literal := func(text, timeout string) Element { return Element{Key: Literal{text}, Timeout: timeout} }
	for _, c := range []struct {
		name    string
		set     Set
		found   int
		certain bool
	}{
		{"there", Set{Elements: []Element{literal("10.0.0.1", "")}}, 1, true},
		{"not there", Set{Elements: []Element{literal("10.0.0.2", "")}}, 0, true},
		{"empty", Set{}, 0, true},
		{"expires", Set{Flags: []string{"timeout"}, Elements: []Element{literal("10.0.0.1", "5s")}}, 1, false},
		{"another expires", Set{Flags: []string{"timeout"}, Elements: []Element{literal("10.0.0.2", "5s")}}, 0, true},
		{"dynamic", Set{Flags: []string{"dynamic"}}, 0, false},
		{"dynamic, there", Set{Flags: []string{"dynamic"}, Elements: []Element{literal("10.0.0.1", "")}}, 1, false},
		{"unread", Set{Elements: []Element{literal("example.org", "")}}, 1, false},
		{"unread beside", Set{Elements: []Element{literal("10.0.0.1", ""), literal("example.org", "")}}, 2, false},
		{"for all others", Set{Elements: []Element{{Key: Any{}}, literal("10.0.0.2", "")}}, 1, true},
		{"for all others, if it has expired", Set{Elements: []Element{{Key: Any{}}, literal("10.0.0.1", "1s")}}, 2, false},
		{"types unknown", Set{Type: []string{"nonesuch"}, Elements: []Element{literal("10.0.0.2", "")}}, 1, false},
	} {
		if c.set.Type == nil {
			c.set.Type = []string{"ipv4_addr"}
		}
		x, _ := (&Table{Family: "ip"}).IndexOf(&c.set, nil)
		if found, certain := x.Find(key); len(found) != c.found || certain != c.certain {
			t.Errorf("%s: found %d, certain %v", c.name, len(found), certain)
		}
		if found, certain := x.Find([]Part{{Value: "\x0a"}}); certain && len(c.set.Elements) > 0 || len(found) > len(c.set.Elements) {
			t.Errorf("%s: a short key: %d, %v", c.name, len(found), certain)
		}
	}
}

func TestIndexProblems(t *testing.T) {
	verdict := func(v VerdictKind) Expr { return VerdictValue{Verdict{Kind: v}} }
	s := &Set{Name: "m", Line: 7, Map: true, Type: []string{"ipv4_addr"}, DataType: []string{"verdict"}, Elements: []Element{
		{Key: Prefix{Literal{"10.0.0.0"}, 8}, Data: verdict(Accept)},
		{Key: Literal{"10.1.0.1"}, Data: verdict(Drop)},
		{Key: Literal{"10.1.0.2"}, Data: verdict(Accept)},
		{Key: Concat{[]Expr{Literal{"1"}, Literal{"2"}}}, Data: verdict(Drop)},
		{Key: Literal{"x"}, Data: verdict(Drop)},
	}}
	_, problems := (&Table{Family: "ip"}).IndexOf(s, nil)
	var got []string
	for _, p := range problems {
		got = append(got, fmt.Sprintf("%d %s: %s", p.Line, p.Text, p.Why))
	}
	want := []string{
		`7 "1" . "2": 2 parts, not the 1 of the set's type`,
		`7 "x": "x" as ipv4_addr: no address`,
		`7 "10.1.0.1": overlaps "10.0.0.0"/8, which the kernel would refuse`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for range 100 {
		s.Elements = append(s.Elements, Element{Key: Literal{"x"}})
	}
	if _, problems = (&Table{Family: "ip"}).IndexOf(s, nil); len(problems) > maxToldOfSet+1 {
		t.Errorf("%d problems", len(problems))
	}
}

func TestMapData(t *testing.T) {
	s := &Set{Name: "m", Map: true, Type: []string{"mark"}, DataType: []string{"ipv4_addr", "inet_service"}, Elements: []Element{
		{Key: Literal{"1"}, Data: Concat{[]Expr{Literal{"10.0.0.1"}, Range{Literal{"80"}, Literal{"90"}}}}},
		{Key: Literal{"2"}, Data: Literal{"10.0.0.1"}},
	}}
	x, problems := (&Table{Family: "ip"}).IndexOf(s, nil)
	if len(problems) != 1 || problems[0].Why != `data "10.0.0.1" has 1 parts, not the 2 of its type` {
		t.Errorf("%v", problems)
	}
	found, certain := x.Find([]Part{{Value: "\x00\x00\x00\x01"}})
	if want := []Interval{{"\x0a\x00\x00\x01", "\x0a\x00\x00\x01"}, {"\x00\x50", "\x00\x5a"}}; len(found) != 1 || !certain || !slices.Equal(found[0].Data, want) {
		t.Errorf("%v %v", found, certain)
	}
	literal := &Set{Map: true, Elements: []Element{{Key: Literal{"tcp"}, Data: Literal{"0x10"}}}}
	x, problems = (&Table{}).IndexOf(literal, []Datatype{datatypes["inet_proto"]}, datatypes["mark"])
	if found, _ := x.Find([]Part{{Value: "\x06"}}); len(problems) > 0 || len(found) != 1 || found[0].Data[0].First != "\x00\x00\x00\x10" {
		t.Errorf("%v %v", found, problems)
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"10.0.0.1", "10.0.0.0/8", "::/0", "80-90", "0x4000", `"eth*"`, "eth0", "established", "2h30m", "1:a", "02:00:00:00:00:01",
		"cs1", "*", "0x0123456789abcdef0123456789abcdef", "010", "-", "/", `"`, `\*`, "1-", "0/128", "99999999999999999999",
	} {
		f.Add(text)
	}
	table := &Table{Family: "ip"}
	f.Fuzz(func(t *testing.T, text string) {
		for _, d := range datatypes {
			i, err := Parse(d, Literal{text})
			if err != nil {
				if i != (Interval{}) || !strings.Contains(err.Error(), d.Name) {
					t.Errorf("%s: %v %v", d.Name, i, err)
				}
				continue
			}
			if len(i.First) != d.Bytes || len(i.Last) != d.Bytes || i.First > i.Last || i.Last > d.All().Last {
				t.Errorf("%q as %s: %x", text, d.Name, i)
			}
			s := &Set{Type: []string{d.Name}, Elements: []Element{{Key: Literal{text}}}}
			x, problems := table.IndexOf(s, nil)
			if found, certain := x.Find([]Part{{Value: i.Last}}); len(found) != 1 || !certain || len(problems) > 0 {
				t.Errorf("%q as %s isn't in its own set: %v", text, d.Name, problems)
			}
		}
	})
}
