package plan

import (
	"net/netip"
	"testing"
)

// What a packet under way could see half of is no change by differences.
func TestDiffRefuses(t *testing.T) {
	ip := func(last byte) Element {
		return Element{First: "\x0a\x00\x00" + string(last), Last: "\x0a\x00\x00" + string(last)}
	}
	set := func(name string, interval bool, elements ...Element) Set {
		return Set{Name: name, Key: IPv4Addr, Interval: interval, Elements: elements}
	}
	chain := func(comment string, statements ...Statement) Table {
		return Table{Chains: []Chain{{Name: "c", Rules: []Rule{{Statements: statements, Comment: comment}}}}}
	}
	with := func(t Table, s Set) Table {
		t.Sets = append(t.Sets, s)
		return t
	}
	tests := []struct {
		name     string
		old, new Table
		want     bool
	}{
		{"one set", Table{Sets: []Set{set("a", true, ip(1))}}, Table{Sets: []Set{set("a", true, ip(2))}}, true},
		{"an interval's verdict",
			Table{Sets: []Set{set("a", true, Element{"1111", "1119", goTo("x")})}},
			Table{Sets: []Set{set("a", true, Element{"1111", "1119", goTo("y")})}}, false},
		{"a hash key's verdict",
			Table{Sets: []Set{set("a", false, Element{"1111", "1111", goTo("x")})}},
			Table{Sets: []Set{set("a", false, Element{"1111", "1111", goTo("y")})}}, true},
		{"from one lookup to the next",
			Table{Sets: []Set{set("a", true), set("b", true, ip(1))}},
			Table{Sets: []Set{set("a", true, ip(1)), set("b", true)}}, false},
		{"a pod more",
			Table{Sets: []Set{set("from-pods-ip", false), {Name: "own-ip", Key: IPv4Pair}}},
			Table{Sets: []Set{set("from-pods-ip", false, ip(1)), {Name: "own-ip", Key: IPv4Pair, Elements: []Element{{First: "11112222", Last: "11112222"}}}}}, true},
		{"both families",
			Table{Sets: []Set{set("a", true), {Name: "b", Key: IPv6Addr}}},
			Table{Sets: []Set{set("a", true, ip(1)), {Name: "b", Key: IPv6Addr, Elements: []Element{{First: "1234567890123456", Last: "1234567890123456"}}}}}, true},
		{"addresses and ports",
			Table{Sets: []Set{set("a", true), {Name: "p", Key: InetService, Interval: true}}},
			Table{Sets: []Set{set("a", true, ip(1)), {Name: "p", Key: InetService, Interval: true, Elements: []Element{{First: "\x00\x50", Last: "\x00\x50"}}}}}, false},
		{"a comment", chain("rule 1", Keep{4}), chain("rule 2", Keep{4}), true},
		{"a statement", chain("", Keep{4}), chain("", Masquerade{}), true},
		{"a statement with constants", chain("", L4Proto{[]uint8{6, 17}}), chain("", Masquerade{}), false},
		{"a statement that gets constants", chain("", Keep{4}), chain("", SNAT{Family: 4, Addresses: make([]netip.Addr, 2)}), false},
		{"a statement and a set", with(chain("", Keep{4}), set("a", true)), with(chain("", Masquerade{}), set("a", true, ip(1))), false},
		{"a statement and a new set", chain("", Keep{4}), with(chain("", Masquerade{}), set("a", true, ip(1))), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, got := Diff(&tt.old, &tt.new); got != tt.want {
				t.Errorf("by differences: %t, want %t", got, tt.want)
			}
		})
	}
}

// Chains are equal that say the same, whatever their statements are made of.
func TestChainEqual(t *testing.T) {
	addr := netip.MustParseAddr("192.0.2.1")
	chains := func() []Chain {
		return []Chain{
			{Name: "c"}, {Name: "c", Base: true}, {Name: "d"},
			{Name: "c", Rules: []Rule{{Comment: "x", Statements: []Statement{accept}}}},
			{Name: "c", Rules: []Rule{{Comment: "y", Statements: []Statement{accept}}}},
			{Name: "c", Rules: []Rule{{Comment: "x", Statements: []Statement{goTo("d")}}}},
			{Name: "c", Rules: []Rule{{Comment: "x", Statements: []Statement{DNATed{}}}}},
			{Name: "c", Rules: []Rule{{Comment: "x", Statements: []Statement{DNATed{}, accept}}}},
			{Name: "c", Rules: []Rule{{Statements: []Statement{L4Proto{[]uint8{6, 17}}}}}},
			{Name: "c", Rules: []Rule{{Statements: []Statement{L4Proto{[]uint8{6, 18}}}}}},
			{Name: "c", Rules: []Rule{{Statements: []Statement{SNAT{Addresses: []netip.Addr{addr}}}}}},
			{Name: "c", Rules: []Rule{{Statements: []Statement{SNAT{Addresses: []netip.Addr{addr.Next()}}}}}},
		}
	}
	again := chains()
	for i, a := range chains() {
		for j := range again {
			if got := a.equal(&again[j]); got != (i == j) {
				t.Errorf("%+v and %+v: %t", a, again[j], got)
			}
		}
	}
}
