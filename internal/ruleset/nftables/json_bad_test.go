package nftables_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

// document around what a case changes of it.
func document(objects ...string) string {
	return `{"nftables": [` + strings.Join(objects, ",\n") + `]}`
}

const (
	goodTable = `{"table": {"family": "ip", "name": "t", "handle": 1}}`
	goodChain = `{"chain": {"family": "ip", "table": "t", "name": "c", "handle": 1, "type": "nat", "hook": "postrouting", "prio": 100, "policy": "accept"}}`
	goodRule  = `{"rule": {"family": "ip", "table": "t", "chain": "c", "handle": 2, "expr": [{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": {"prefix": {"addr": "10.0.0.0", "len": 8}}}}, {"masquerade": null}]}}`
	goodSet   = `{"set": {"family": "ip", "table": "t", "name": "s", "type": "ipv4_addr", "handle": 3, "elem": ["10.0.0.5"]}}`
)

// TestJSONWrongTypes: a value of another type than nft's, or a key that it
// doesn't have, makes the table a part with a problem that says what was
// expected.
func TestJSONWrongTypes(t *testing.T) {
	if rs, problems := nftables.ReadJSON(document(goodTable, goodSet, goodChain, goodRule), 1); len(problems) > 0 || rs.Excerpt || rs.Tables[0].Excerpt {
		t.Fatal("the whole document:", problems)
	}
	for _, c := range [][3]string{ // what is replaced, by what, what the problem says
		{`"postrouting"`, `5`, "a hook that isn't known"},
		{`"postrouting"`, `["postrouting"]`, "a hook that isn't known"},
		{`"postrouting"`, `null`, "a hook that isn't known"},
		{`"postrouting"`, `"afterwards"`, "a hook that isn't known"},
		{`"hook": "postrouting", `, ``, "a hook that isn't known"},
		{`"nat"`, `["nat"]`, "expected filter, nat or route"},
		{`"nat"`, `"gnat"`, "expected filter, nat or route"},
		{`100`, `1.5`, "a priority that isn't known"},
		{`100`, `[100]`, "a priority that isn't known"},
		{`100`, `99999999999`, "a priority that isn't known"},
		{`"accept"`, `["drop"]`, "a policy that isn't known"},
		{`"accept"`, `true`, "a policy that isn't known"},
		{`"accept"`, `null`, "a policy that isn't known"},
		{`"accept"`, `"accept", "colour": "red"`, `"colour" isn't known here`},
		{`"accept"`, `"accept", "hook": "input"`, `"hook" isn't known here, or is there twice`},
		{`"name": "c"`, `"name": 5`, "a chain without a name"},
		{`"name": "t", "handle": 1`, `"name": "t", "flags": {"dormant": 1}`, "flags that aren't known"},
		{`"name": "t", "handle": 1`, `"name": "t", "flags": ["dormant", 5]`, "flags that aren't known"},
		{`"name": "t", "handle": 1`, `"name": "t", "owner": 5`, `"owner" isn't known here`},
		{`"table": "t", "chain"`, `"table": 5, "chain"`, "it names no family and table"},
		{`"chain": "c"`, `"chain": ["c"]`, "a rule without a chain"},
		{`"type": "ipv4_addr"`, `"type": {}`, "a set without a type"},
		{`"type": "ipv4_addr"`, `"type": "ipv4_addr", "flags": 5`, "flags that aren't known"},
		{`"type": "ipv4_addr"`, `"type": "ipv4_addr", "weight": 5`, `"weight" isn't known here`},
		{goodRule, `5`, "not an object of nft's"},
		{goodRule, `{}`, "not an object of nft's"},
		{goodRule, `{"gadget": {"family": "ip", "table": "t"}}`, `"gadget" is nothing of nft's`},
		{goodRule, `{"gadget": 5}`, "nothing of nft's that is known"},
		{goodRule, `{"delete": {"rule": {"family": "ip", "table": "t", "chain": "c", "handle": 9}}}`, "a command that isn't followed"},
	} {
		text := document(goodTable, goodSet, goodChain, goodRule)
		if !strings.Contains(text, c[0]) {
			t.Fatalf("%q isn't in the document", c[0])
		}
		rs, problems := nftables.ReadJSON(strings.Replace(text, c[0], c[1], 1), 1)
		if len(problems) != 1 || !strings.Contains(problems[0].Why, c[2]) || problems[0].Line == 0 {
			t.Errorf("%s for %s: %+v", c[1], c[0], problems)
		}
		if !rs.Tables[0].Excerpt {
			t.Errorf("%s for %s: the table counts as whole", c[1], c[0])
		}
	}
}

// TestJSONUnknownInRule: what isn't known within a rule or a set is an unknown
// statement, expression or element.
func TestJSONUnknownInRule(t *testing.T) {
	for _, c := range [][2]string{
		{`"handle": 2`, `"handle": 2, "colour": 1`},
		{`"op": "=="`, `"op": "==", "colour": 1`},
		{`"op": "=="`, `"op": 5`},
		{`"field": "saddr"`, `"field": "saddr", "colour": 1`},
		{`"field": "saddr"`, `"field": "saddr", "field": "daddr"`},
		{`"len": 8`, `"len": 8, "colour": 1`},
		{`"len": 8`, `"len": [8]`},
		{`{"masquerade": null}`, `{"masquerade": 5}`},
		{`{"masquerade": null}`, `{"accept": 5}`},
		{`{"masquerade": null}`, `{"notrack": 5}`},
		{`{"masquerade": null}`, `{"jump": {"target": "d", "colour": 1}}`},
		{`{"masquerade": null}`, `{"snat": null}`},
		{`{"masquerade": null}`, `{"snat": {"addr": "192.0.2.1", "flags": {"random": 1}}}`},
		{`{"masquerade": null}`, `{"vmap": {"key": {"payload": {"protocol": "ip", "field": "daddr"}}, "data": {"set": ["192.0.2.9"]}}}`},
		{`[{"match"`, `[[], {"match"`},
		{`["10.0.0.5"]`, `[{"elem": {"val": "10.0.0.5", "colour": 1}}]`},
		{`["10.0.0.5"]`, `[null]`},
		{`["10.0.0.5"]`, `[{"elem": {}}]`},
	} {
		text := document(goodTable, goodSet, goodChain, goodRule)
		if !strings.Contains(text, c[0]) {
			t.Fatalf("%q isn't in the document", c[0])
		}
		rs, problems := nftables.ReadJSON(strings.Replace(text, c[0], c[1], 1), 1)
		if shown := shown(rs, problems); !strings.Contains(shown, "Unknown") {
			t.Errorf("%s for %s: nothing is unknown:\n%s", c[1], c[0], shown)
		}
	}
}

// TestJSONLongSets: the elements of a set are read one by one, in whatever order
// the set's keys stand.
func TestJSONLongSets(t *testing.T) {
	const many = 50_000
	var elements strings.Builder
	for i := range many {
		fmt.Fprintf(&elements, `{"prefix": {"addr": "10.%d.%d.0", "len": 24}}, `, i>>8, i&255)
	}
	list := "[" + elements.String() + `"1.2.3.4"]`
	for _, set := range []string{
		`{"set": {"family": "ip", "table": "t", "name": "s", "type": "ipv4_addr", "flags": ["interval"], "elem": ` + list + `}}`,
		`{"set": {"elem": ` + list + `, "family": "ip", "table": "t", "name": "s", "type": "ipv4_addr", "flags": ["interval"]}}`,
		`{"add": {"set": {"family": "ip", "table": "t", "name": "s", "type": "ipv4_addr", "elem": []}}}, {"add": {"element": {"family": "ip", "table": "t", "name": "s", "elem": ` + list + `}}}`,
	} {
		var rs *nftables.Ruleset
		var problems []nftables.Problem
		text := document(goodTable, set)
		allocations := testing.AllocsPerRun(1, func() { rs, problems = nftables.ReadJSON(text, 1) })
		if len(problems) > 0 || len(rs.Tables[0].Sets) != 1 || len(rs.Tables[0].Sets[0].Elements) != many+1 {
			t.Fatalf("%.80s: %v", set, problems)
		}
		if last := rs.Tables[0].Sets[0].Elements[many].Key; last != (nftables.Literal{Text: "1.2.3.4"}) {
			t.Errorf("%.80s: the last is %v", set, last)
		}
		if each := allocations / many; each > 3.1 {
			t.Errorf("%.80s: %.1f allocations an element", set, each)
		}
	}
}

// TestJSONCostly: commands that each look at all there is are given up, and said.
func TestJSONCostly(t *testing.T) {
	const many = 17_000
	each := func(format string) string {
		var b strings.Builder
		for i := range many {
			b.WriteString(",\n" + strings.ReplaceAll(format, "%d", fmt.Sprint(i+1)))
		}
		return b.String()
	}
	const rule = `{"rule": {"family": "ip", "table": "t", "chain": "c", "handle": %d, "expr": [{"accept": null}]}}`
	for name, text := range map[string]string{
		"inserts":   each(`{"insert": {"rule": {"family": "ip", "table": "t", "chain": "c", "expr": [{"accept": null}]}}}`),
		"positions": each(rule) + each(`{"add": {"rule": {"family": "ip", "table": "t", "chain": "c", "handle": 17000, "expr": [{"accept": null}]}}}`),
		"rules":     each(rule) + each(`{"delete": {"rule": {"family": "ip", "table": "t", "chain": "c", "handle": 9999999}}}`),
		"chains":    each(`{"chain": {"family": "ip", "table": "t", "name": "c%d"}}`) + each(`{"delete": {"chain": {"family": "ip", "table": "t", "name": "c%d"}}}`),
		"tables":    each(`{"table": {"family": "ip", "name": "t%d"}}`) + each(`{"delete": {"table": {"family": "ip", "name": "t%d"}}}`),
		"families":  each(`{"table": {"family": "ip", "name": "t%d"}}`) + each(`{"flush": {"ruleset": {"family": "ip6"}}}`),
		"renames":   each(`{"table": {"family": "ip", "name": "t%d"}}`) + each(`{"rename": {"chain": {"family": "ip", "table": "t%d"}}}`),
	} {
		rs, problems := nftables.ReadJSON(document(goodTable, goodChain)[:len(document(goodTable, goodChain))-2]+text+"]}", 1)
		if len(problems) == 0 || len(rs.Tables) == 0 || !rs.Tables[0].Excerpt {
			t.Errorf("%s: %d problems, %d tables", name, len(problems), len(rs.Tables))
		}
	}
}
