package nftables

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
)

// written are the values of a datatype as nft takes them, by number.
var written = map[string]struct {
	count int
	text  func(n int) string
}{
	"ipv4_addr":    {600, func(n int) string { return fmt.Sprintf("10.0.%d.%d", n>>8, n&255) }},
	"ipv6_addr":    {600, func(n int) string { return fmt.Sprintf("fd00::%x", n) }},
	"inet_service": {600, func(n int) string { return fmt.Sprint(n) }},
	"inet_proto":   {256, func(n int) string { return fmt.Sprint(n) }},
	"mark":         {600, func(n int) string { return fmt.Sprintf("0x%x", n) }},
	"ether_addr":   {600, func(n int) string { return fmt.Sprintf("02:00:00:00:%02x:%02x", n>>8, n&255) }},
	"ifname":       {60, func(n int) string { return fmt.Sprintf("e%d", n) }},
	"ct_state":     {5, func(n int) string { return []string{"invalid", "established", "related", "new", "untracked"}[n] }},
	"icmp_type":    {200, func(n int) string { return fmt.Sprint(n) }},
}

var kernelSets = []struct {
	types    string
	interval bool
}{
	{"ipv4_addr", false}, {"inet_service", false}, {"ct_state", false}, {"ifname", false},
	{"ipv4_addr . inet_proto . inet_service", false}, {"ipv6_addr . mark", false},
	{"ipv4_addr", true}, {"ipv6_addr", true}, {"inet_service", true}, {"mark", true}, {"ether_addr", true}, {"ifname", true},
	{"icmp_type", true},
	{"ipv4_addr . inet_service", true}, {"ipv6_addr . inet_proto . inet_service", true}, {"ipv4_addr . ipv4_addr", true},
	{"ipv4_addr . mark", true}, {"ifname . inet_service", true}, {"ether_addr . icmp_type . ifname", true},
}

// TestFindsWhatTheKernelFinds fills sets with random elements and asks for keys
// at their borders: nft get element reads the kernel's own set.
func TestFindsWhatTheKernelFinds(t *testing.T) {
	host := netnstest.Test(t, "host")
	if _, err := host.Run("add table inet t", "nft", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	hits, misses := 0, 0
	for i, kind := range kernelSets {
		d := &kernelSet{
			t: t, host: host, name: fmt.Sprintf("s%d", i), types: strings.Split(kind.types, " . "),
			interval: kind.interval, dice: rand.New(rand.NewPCG(4, uint64(i))),
		}
		d.fill(24)
		d.list()
		d.ask(40)
		hits, misses = hits+d.hits, misses+d.misses
	}
	t.Logf("%d keys found, %d not", hits, misses)
	if hits < 200 || misses < 100 {
		t.Errorf("%d keys found, %d not: too few to tell anything", hits, misses)
	}
}

type kernelSet struct {
	t            *testing.T
	host         *netns.NS
	name         string
	types        []string
	interval     bool
	dice         *rand.Rand
	keys         [][]int // the beginnings and ends of elements
	index        *Index
	hits, misses int
}

func (s *kernelSet) nft(command string) (string, error) {
	return s.host.Run(command+"\n", "nft", "-f", "-")
}

// fill adds elements one by one: those that the kernel refuses, because they
// overlap, don't come in.
func (s *kernelSet) fill(n int) {
	flags := ""
	if s.interval {
		flags = "flags interval;"
	}
	if _, err := s.nft(fmt.Sprintf("add set inet t %s { type %s; %s }", s.name, strings.Join(s.types, " . "), flags)); err != nil {
		s.t.Fatal(err)
	}
	for range n {
		var parts []string
		var first, last []int
		for _, name := range s.types {
			text, from, to := s.part(name)
			parts, first, last = append(parts, text), append(first, from), append(last, to)
		}
		if _, err := s.nft(fmt.Sprintf("add element inet t %s { %s }", s.name, strings.Join(parts, " . "))); err == nil {
			s.keys = append(s.keys, first, last)
		}
	}
	if len(s.keys) == 0 {
		s.t.Fatalf("%s: no element", s.types)
	}
}

// part makes one part of an element, from a few numbers that meet often.
func (s *kernelSet) part(name string) (text string, from, to int) {
	w := written[name]
	from = s.dice.IntN(w.count)
	to = from
	if s.interval && s.dice.IntN(3) > 0 {
		to = min(w.count-1, from+s.dice.IntN(1+w.count/8))
	}
	switch {
	case name == "ifname" && s.interval && s.dice.IntN(2) == 0:
		from = 1 + from%5
		return fmt.Sprintf(`"e%d*"`, from), from, 10*from + 9
	case name == "ifname":
		return `"` + w.text(from) + `"`, from, from
	case name == "ipv4_addr" && s.interval && s.dice.IntN(3) == 0:
		bits := 22 + s.dice.IntN(11)
		from &^= 1<<(32-bits) - 1
		return fmt.Sprintf("%s/%d", w.text(from), bits), from, min(w.count-1, from+1<<(32-bits)-1)
	case from == to:
		return w.text(from), from, to
	}
	return w.text(from) + "-" + w.text(to), from, to
}

// list makes the index of what the kernel lists, in its order.
func (s *kernelSet) list() {
	out, err := s.nft("list set inet t " + s.name)
	if err != nil {
		s.t.Fatal(err)
	}
	set := &Set{Name: s.name, Type: s.types, Elements: elementsOf(out)}
	var problems []Problem
	if s.index, problems = (&Table{Family: "inet"}).IndexOf(set, nil); len(problems) > 0 {
		s.t.Fatal(problems)
	}
}

// elementsOf reads elements = { … } of sets, without their statements.
func elementsOf(out string) []Element {
	_, rest, _ := strings.Cut(out, "elements = {")
	rest, _, _ = strings.Cut(rest, "}")
	var elements []Element
	for text := range strings.SplitSeq(rest, ",") {
		var c Concat
		for part := range strings.SplitSeq(text, " . ") {
			c.Parts = append(c.Parts, Literal{strings.TrimSpace(part)})
		}
		elements = append(elements, Element{Key: c})
	}
	return elements
}

// ask compares for keys at, and one beside, the borders of elements.
func (s *kernelSet) ask(n int) {
	for range n {
		key := slices.Clone(s.keys[s.dice.IntN(len(s.keys))])
		if other := s.keys[s.dice.IntN(len(s.keys))]; s.dice.IntN(4) == 0 {
			copy(key[len(key)-1:], other[len(key)-1:])
		}
		for i, name := range s.types {
			key[i] = min(max(0, key[i]+[...]int{0, 0, 0, -1, 1}[s.dice.IntN(5)]), written[name].count-1)
		}
		s.compare(key)
	}
}

func (s *kernelSet) compare(key []int) {
	var asked []string
	var parts []Part
	for i, name := range s.types {
		text := written[name].text(key[i])
		d, _ := DatatypeOf(name)
		v, err := Parse(d, Literal{text})
		if err != nil {
			s.t.Fatal(err)
		}
		parts = append(parts, Part{Value: v.First})
		if name == "ifname" {
			text = `"` + text + `"`
		}
		if name == "mark" && s.interval && len(s.types) > 1 {
			// nft 1.0.6 asks for it from the wrong end; its rules do it right.
			text = fmt.Sprintf("0x%x", uint32(key[i])<<24|uint32(key[i])>>8&0xff<<16)
		}
		asked = append(asked, text)
	}
	out, err := s.nft(fmt.Sprintf("get element inet t %s { %s }", s.name, strings.Join(asked, " . ")))
	if err != nil && !strings.Contains(err.Error(), "No such file or directory") {
		s.t.Fatal(err)
	}
	found, certain := s.index.Find(parts)
	if !certain || len(found) == 1 != (err == nil) {
		s.t.Errorf("%s { %s }: found %d, certain %v; nft: %s %v", s.types, strings.Join(asked, " . "), len(found), certain, out, err)
		return
	}
	if err != nil {
		s.misses++
		return
	}
	s.hits++
	if found[0].Key[0].Single() && s.interval && s.types[0] == "ifname" && len(s.types) == 1 {
		out = strings.Replace(out, `*" }`, `" }`, 1) // nft 1.0.6 prints the name that was asked for so
	}
	theirs, err := ParseKey(s.index.types, elementsOf(out)[0].Key)
	if err != nil || !slices.Equal(theirs, found[0].Key) {
		s.t.Errorf("%s { %s }: found %s, %v; nft: %s", s.types, strings.Join(asked, " . "), describe(found[0].Element.Key), err, out)
	}
}

// TestFirstOfCrossingIntervalsCounts: the kernel takes elements of several parts
// that cross each other, though neither begins or ends in the other. The one
// added first is found, and listed first.
func TestFirstOfCrossingIntervalsCounts(t *testing.T) {
	host := netnstest.Test(t, "host")
	for i, elements := range []string{"1-10 . 5, 5 . 1-10", "5 . 1-10, 1-10 . 5", "5 . 5, 1-10 . 1-10"} {
		s := &kernelSet{
			t: t, host: host, name: fmt.Sprintf("s%d", i), types: []string{"inet_service", "inet_service"}, interval: true,
		}
		if _, err := s.nft(fmt.Sprintf("add table inet t\nadd set inet t %s { type inet_service . inet_service; flags interval; }\n"+
			"add element inet t %s { %s }", s.name, s.name, elements)); err != nil {
			t.Fatal(err)
		}
		s.list()
		for _, key := range [][]int{{5, 5}, {5, 6}, {6, 5}, {5, 10}, {10, 5}, {4, 4}} {
			s.compare(key)
		}
		if s.hits < 3 {
			t.Errorf("{ %s }: %d found", elements, s.hits)
		}
	}
	// One that lies within another is refused, and so are overlaps of one part.
	for _, refused := range []string{
		"add set inet t r { type inet_service . inet_service; flags interval; elements = { 1-10 . 1-10, 5 . 5 }; }",
		"add map inet t r { type ipv4_addr : verdict; flags interval; elements = { 10.0.0.0/8 : accept, 10.1.0.0/16 : drop }; }",
	} {
		if out, err := host.Run(refused, "nft", "-f", "-"); err == nil {
			t.Errorf("%s: taken: %s", refused, out)
		}
	}
}
