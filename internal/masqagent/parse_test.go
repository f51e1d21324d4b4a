package masqagent_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unmasq/unmasq/internal/masqagent"
	"github.com/unmasq/unmasq/internal/policy"
)

// Lists of the agents themselves.
const (
	rfc1918   = "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16"
	allRanges = rfc1918 + " 100.64.0.0/10 192.0.0.0/24 192.0.2.0/24 192.88.99.0/24 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 240.0.0.0/4"
	nothing   = "-" // all is masqueraded but link-local
)

// come is what files come to: the list with the switches that are on, or the errors.
func come(s masqagent.Settings, files ...masqagent.File) string {
	c, warnings, err := masqagent.Parse(files, s)
	if err != nil {
		return "error: " + err.Error()
	}
	var words []string
	for _, d := range c.Destinations {
		words = append(words, d.String())
	}
	if len(words) == 0 {
		words = append(words, nothing)
	}
	if c.MasqLinkLocal {
		words = append(words, "link-local")
	}
	if c.MasqLinkLocalIPv6 {
		words = append(words, "link-local-ipv6")
	}
	if text := c.ResyncInterval.Duration.String(); text != "1m0s" {
		words = append(words, text)
	}
	for _, w := range warnings {
		words = append(words, "("+w.String()+")")
	}
	return strings.Join(words, " ")
}

func file(name, text string) masqagent.File {
	return masqagent.File{Name: name, Data: []byte(text)}
}

// three are the same for each dialect.
type three struct{ kubernetes, azure, cilium string }

func all(text string) three { return three{text, text, text} }

func (x three) of(d masqagent.Dialect) string {
	return map[masqagent.Dialect]string{masqagent.Kubernetes: x.kubernetes, masqagent.Azure: x.azure, masqagent.Cilium: x.cilium}[d]
}

// many CIDRs as a list.
func many(n int) string {
	var b strings.Builder
	b.WriteString("nonMasqueradeCIDRs:\n")
	for i := range n {
		fmt.Fprintf(&b, "- 10.%d.0.0/16\n", i)
	}
	return b.String()
}

// manyRead is what they are read as.
func manyRead(n int) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(many(n))[2:], " "), "- ", "")
}

// TestDialects is where the three agents read one file in different ways.
func TestDialects(t *testing.T) {
	const misaligned = `error: f:1: nonMasqueradeCIDRs[0]: "10.0.0.1/8" has host bits set; the network is 10.0.0.0/8`
	for _, tt := range []struct {
		name string
		text *string // nil: no file
		want three
	}{
		{"no file", nil, three{rfc1918, rfc1918, allRanges}},
		{"empty file", new(""), three{rfc1918, nothing, allRanges}},
		{"nothing but comments", new("# later\n\n"), three{rfc1918, nothing, nothing}},
		{"null", new("null\n"), three{rfc1918, nothing, nothing}},
		{"an empty mapping", new("{}"), three{rfc1918, nothing, nothing}},
		{"no list", new("masqLinkLocal: true"), three{rfc1918 + " link-local", "- link-local", "- link-local"}},
		{"list without a value", new("nonMasqueradeCIDRs:"), all(nothing)},
		{"list is null", new(`{"nonMasqueradeCIDRs": null}`), all(nothing)},
		{"empty list", new("nonMasqueradeCIDRs: []"), all(nothing)},
		{"switches without a value", new("masqLinkLocal:\nmasqLinkLocalIPv6: ~\nnonMasqueradeCIDRs: [10.0.0.0/8]"), all("10.0.0.0/8")},
		{"misaligned", new("nonMasqueradeCIDRs: [10.0.0.1/8]"),
			three{misaligned, misaligned, "10.0.0.0/8 (f:1: 10.0.0.1/8 has host bits set; 10.0.0.0/8 is meant)"}},
		{"IPv6 where it is off", new("nonMasqueradeCIDRs:\n- 10.0.0.0/8\n- fc00::/7"), three{
			`error: f:3: nonMasqueradeCIDRs[1]: "fc00::/7" is IPv6, which needs --enable-ipv6`,
			`error: f:3: nonMasqueradeCIDRs[1]: "fc00::/7" is IPv6, which needs --enable-ipv6`,
			"10.0.0.0/8 fc00::/7 (f:3: fc00::/7 has no effect without --enable-ipv6)"}},
		{"null entry", new("nonMasqueradeCIDRs:\n- 10.0.0.0/8\n-\n"), all("error: f:3: nonMasqueradeCIDRs[1]: null has no value; expected a CIDR, or no entry")},
		{"empty entry", new("nonMasqueradeCIDRs: [\"\"]"), all(`error: f:1: nonMasqueradeCIDRs[0]: "" is not a CIDR; expected one such as 10.0.0.0/8`)},
		{"65 CIDRs", new(many(65)), three{
			"error: f:2: nonMasqueradeCIDRs: has 65 entries; expected at most 64 (cidrLimit)",
			"error: f:2: nonMasqueradeCIDRs: has 65 entries; expected at most 64 in a file",
			manyRead(65)}},
		{"as many as cidrLimit", new("cidrLimit: 1\nnonMasqueradeCIDRs: [10.0.0.0/8, 172.16.0.0/12]"), three{
			"error: f:2: nonMasqueradeCIDRs: has 2 entries; expected at most 1 (cidrLimit)",
			"10.0.0.0/8 172.16.0.0/12 (f:1: cidrLimit is not read in the dialect azure)",
			"10.0.0.0/8 172.16.0.0/12 (f:1: cidrLimit is not read in the dialect cilium)"}},
		{"order", new("nonMasqueradeCIDRs: [192.168.0.0/16, 10.0.0.0/8, 10.1.0.0/16, 10.0.0.0/8]"), all("192.168.0.0/16 10.0.0.0/8 10.1.0.0/16")},
		{"resyncInterval is a number", new("resyncInterval: 60"), three{
			`error: f:1: resyncInterval: 60 is a number; expected a string such as "60s"`,
			"- (f:1: resyncInterval is not read in the dialect azure)", "- (f:1: resyncInterval is not read in the dialect cilium)"}},
		{"bad", new("nonMasqueradeCIDRs: 10.0.0.0/8"), all(`error: f:1: nonMasqueradeCIDRs: "10.0.0.0/8" is a string; expected a list of CIDRs`)},
	} {
		for _, d := range masqagent.Dialects {
			t.Run(tt.name+"/"+string(d), func(t *testing.T) {
				var files []masqagent.File
				if tt.text != nil {
					files = append(files, file("f", *tt.text))
				}
				if diff := cmp.Diff(tt.want.of(d), come(masqagent.Settings{Dialect: d}, files...)); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
			})
		}
	}
}

// TestOneFile are Kubernetes' agent's own cases, and others like them.
func TestOneFile(t *testing.T) {
	const yaml11 = "is a string; expected true or false"
	for _, tt := range []struct{ name, text, want string }{
		// TestConfigValidate
		{"not a CIDR", "nonMasqueradeCIDRs: [abcdefg]", `error: f:1: nonMasqueradeCIDRs[0]: "abcdefg" is not a CIDR; expected one such as 10.0.0.0/8 or fd00::/8`},
		{"one of two", "nonMasqueradeCIDRs: [10.0.0.0/8, abcdefg]", `error: f:1: nonMasqueradeCIDRs[1]: "abcdefg" is not a CIDR; expected one such as 10.0.0.0/8 or fd00::/8`},
		{"no such address", "nonMasqueradeCIDRs: [10.256.0.0/16]", `error: f:1: nonMasqueradeCIDRs[0]: "10.256.0.0/16" is not a CIDR; expected one such as 10.0.0.0/8 or fd00::/8`},
		{"misaligned", "nonMasqueradeCIDRs: [10.0.0.1/8]", `error: f:1: nonMasqueradeCIDRs[0]: "10.0.0.1/8" has host bits set; the network is 10.0.0.0/8`},
		// TestSyncConfig
		{"yaml, all keys", "\nnonMasqueradeCIDRs:\n  - 172.16.0.0/12\n  - 10.0.0.0/8\ncidrLimit: 64\nmasqLinkLocal: true\nresyncInterval: 5s\n", "172.16.0.0/12 10.0.0.0/8 link-local 5s"},
		{"yaml, just the list", "\nnonMasqueradeCIDRs:\n  - 192.168.0.0/16\n", "192.168.0.0/16"},
		{"yaml, just masqLinkLocal", "\nmasqLinkLocal: true\n", rfc1918 + " link-local"},
		{"yaml, just resyncInterval", "\nresyncInterval: 5m\n", rfc1918 + " 5m0s"},
		{"no yaml", "*", "error: f:1: not valid YAML: did not find expected alphabetic or numeric character"},
		{"json, all keys", "\n{\n  \"nonMasqueradeCIDRs\": [\"172.16.0.0/12\", \"10.0.0.0/8\"],\n  \"masqLinkLocal\": true,\n  \"resyncInterval\": \"5s\"\n}\n", "172.16.0.0/12 10.0.0.0/8 link-local 5s"},
		{"json, just the list", "\n{\n\t\"nonMasqueradeCIDRs\": [\"192.168.0.0/16\"]\n}\n", "192.168.0.0/16"},
		{"json, just masqLinkLocal", "\n{\n\t\"masqLinkLocal\": true\n}\n", rfc1918 + " link-local"},
		{"json, just resyncInterval", `{"resyncInterval": "5m"}`, rfc1918 + " 5m0s"},
		{"json, escaped", `{"resyncInterval": "\u0035\u006d"}`, rfc1918 + " 5m0s"},
		{"no json", "{*", "error: f:1: not valid JSON: invalid character '*' looking for beginning of object key string"},
		{"json with IPv6", `{"nonMasqueradeCIDRs": ["172.16.0.0/12", "10.0.0.0/8", "fc00::/7"], "masqLinkLocal": true, "resyncInterval": "5s"}`, "172.16.0.0/12 10.0.0.0/8 fc00::/7 link-local 5s"},

		{"cut off", "{\n \"masqLinkLocal\": true,\n", "error: f:3: not valid JSON: unexpected end of JSON input"},
		{"YAML in braces", "{masqLinkLocal: true}", "error: f:1: not valid JSON: invalid character 'm' looking for beginning of object key string"},
		{"more than JSON", "{} {}", "error: f:1: not valid JSON: invalid character '{' after top-level value"},
		{"indented with a tab", "nonMasqueradeCIDRs:\n\t- 10.0.0.0/8", "error: f:2: not valid YAML: found character that cannot start any token (the line is indented with a tab; YAML wants spaces)"},
		{"not text", "masqLinkLocal: \x00", "error: f:1: control character U+0000 is not allowed"},
		{"a list", "- 10.0.0.0/8", "error: f:1: expected a mapping with nonMasqueradeCIDRs, cidrLimit, masqLinkLocal, masqLinkLocalIPv6 and resyncInterval, found a list"},
		{"a word", "masquerade", "error: f:1: expected a mapping with nonMasqueradeCIDRs, cidrLimit, masqLinkLocal, masqLinkLocalIPv6 and resyncInterval, found a string"},
		{"small letters", "nonmasqueradecidrs: [10.0.0.0/8]\nMASQLINKLOCALIPV6: true", "10.0.0.0/8 link-local-ipv6"},
		{"unknown keys", "nonMasqueradeCIDR: [10.0.0.0/8]\nx: {y: [1]}", rfc1918 +
			` (f:1: unknown key "nonMasqueradeCIDR" is ignored; known are nonMasqueradeCIDRs, cidrLimit, masqLinkLocal, masqLinkLocalIPv6 and resyncInterval)` +
			` (f:2: unknown key "x" is ignored; known are nonMasqueradeCIDRs, cidrLimit, masqLinkLocal, masqLinkLocalIPv6 and resyncInterval)`},
		{"twice", "masqLinkLocal: true\nmasqLinkLocal: false", rfc1918 + " (f:2: masqLinkLocal is stated in line 1 too; the last one counts)"},
		{"two documents", "masqLinkLocal: true\n---\nmasqLinkLocalIPv6: true", rfc1918 + " link-local (f:3: only the first document of a file is read)"},
		{"words of YAML 1.1", "masqLinkLocal: Yes\nmasqLinkLocalIPv6: on", rfc1918 + " link-local link-local-ipv6"},
		{"quoted", `masqLinkLocal: "true"`, `error: f:1: masqLinkLocal: "true" ` + yaml11},
		{"no boolean", "masqLinkLocal: 1", "error: f:1: masqLinkLocal: 1 is a number; expected true or false"},
		{"limit in words", "cidrLimit: many", `error: f:1: cidrLimit: "many" is a string; expected a whole number`},
		{"limit without a value", "cidrLimit:", rfc1918},
		{"limit of nothing", "cidrLimit: 0\nnonMasqueradeCIDRs: [10.0.0.0/8]", "error: f:2: nonMasqueradeCIDRs: has 1 entries; expected at most 0 (cidrLimit)"},
		{"limit below the default list", "masqLinkLocal: true\ncidrLimit: 2", "error: f:2: cidrLimit: 2 is less than the 3 CIDRs that hold without nonMasqueradeCIDRs"},
		{"limit raised", "cidrLimit: 65\n" + many(65), manyRead(65)},
		{"interval without a value", "resyncInterval:", `error: f:1: resyncInterval: null is nothing; expected a string such as "60s"`},
		{"interval without a unit", `resyncInterval: "60"`, `error: f:1: resyncInterval: "60" is not a duration; expected a string such as "60s"`},
		{"a number in the list", "nonMasqueradeCIDRs: [10]", "error: f:1: nonMasqueradeCIDRs[0]: 10 is a number; expected a CIDR such as 10.0.0.0/8"},
		{"a list in the list", "nonMasqueradeCIDRs: [[10.0.0.0/8]]", "error: f:1: nonMasqueradeCIDRs[0]: expected a CIDR, found a list"},
		{"an address", "nonMasqueradeCIDRs: [10.0.0.1]", `error: f:1: nonMasqueradeCIDRs[0]: "10.0.0.1" is not a CIDR; expected one such as 10.0.0.0/8 or fd00::/8`},
		{"IPv4 in IPv6", `nonMasqueradeCIDRs: ["::ffff:10.0.0.0/104"]`, `error: f:1: nonMasqueradeCIDRs[0]: "::ffff:10.0.0.0/104" is IPv4 written as IPv6; expected it as IPv4`},
		{"aliases", "x: &a 10.0.0.0/8\nnonMasqueradeCIDRs: [*a]", `10.0.0.0/8 (f:1: unknown key "x" is ignored; known are nonMasqueradeCIDRs, cidrLimit, masqLinkLocal, masqLinkLocalIPv6 and resyncInterval)`},
		{"itself", "nonMasqueradeCIDRs: &a [*a]", "error: f:1: nonMasqueradeCIDRs[0]: expected a CIDR, found a list"},
		{"all that is wrong", "masqLinkLocal: 1\nnonMasqueradeCIDRs:\n- 10.0.0.1/8\n- x\n", "error: f:1: masqLinkLocal: 1 is a number; expected true or false\n" +
			"f:3: nonMasqueradeCIDRs[0]: \"10.0.0.1/8\" has host bits set; the network is 10.0.0.0/8\n" +
			`f:4: nonMasqueradeCIDRs[1]: "x" is not a CIDR; expected one such as 10.0.0.0/8 or fd00::/8`},
		{"too long", "#" + strings.Repeat("x", masqagent.MostBytes), "error: f: more than 1048576 bytes; expected at most as many as a ConfigMap holds"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := come(masqagent.Settings{Dialect: masqagent.Kubernetes, EnableIPv6: true}, file("f", tt.text))
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestSeveralFiles are Azure's agent's own cases.
func TestSeveralFiles(t *testing.T) {
	const noValue = "null has no value; expected a CIDR, or no entry"
	for _, tt := range []struct {
		name  string
		files []masqagent.File
		want  string
	}{
		{"one, all keys", []masqagent.File{file("0", "nonMasqueradeCIDRs:\n  - 172.16.0.0/12\n  - 10.0.0.0/8\nmasqLinkLocal: true\nmasqLinkLocalIPv6: true\n")},
			"172.16.0.0/12 10.0.0.0/8 link-local link-local-ipv6"},
		{"one, just the list", []masqagent.File{file("0", "nonMasqueradeCIDRs: [192.168.0.0/16]")}, "192.168.0.0/16"},
		{"one, just masqLinkLocal", []masqagent.File{file("0", "{\n\"masqLinkLocal\": true\n}")}, "- link-local"},
		{"two of JSON", []masqagent.File{
			file("0", `{"nonMasqueradeCIDRs": ["172.16.0.0/12", "10.0.0.0/8", "fc00::/7"], "masqLinkLocal": false, "masqLinkLocalIPv6": false}`),
			file("1", `{"nonMasqueradeCIDRs": ["1.0.0.0/8", "2.2.0.0/16"], "masqLinkLocal": true, "masqLinkLocalIPv6": false}`)},
			"172.16.0.0/12 10.0.0.0/8 fc00::/7 1.0.0.0/8 2.2.0.0/16 link-local"},
		{"three, duplicates", []masqagent.File{
			file("0", "nonMasqueradeCIDRs:\n  - 155.128.0.0/9\n  - 10.0.0.0/8\nmasqLinkLocal: false\n"),
			file("1", "masqLinkLocalIPv6: true\n"),
			file("2", "nonMasqueradeCIDRs:\n  - 10.240.0.0/16\n  - 10.0.0.0/8\n  - 180.132.128.0/18\n")},
			"155.128.0.0/9 10.0.0.0/8 10.240.0.0/16 180.132.128.0/18 link-local-ipv6"},
		{"none", nil, rfc1918},
		{"no json", []masqagent.File{file("0", "{*")}, "error: 0:1: not valid JSON: invalid character '*' looking for beginning of object key string"},
		{"no yaml", []masqagent.File{file("0", "*")}, "error: 0:1: not valid YAML: did not find expected alphabetic or numeric character"},
		{"null entry", []masqagent.File{file("0", "nonMasqueradeCIDRs:\n  - \n")}, "error: 0:2: nonMasqueradeCIDRs[0]: " + noValue},
		{"null among others", []masqagent.File{file("0", "nonMasqueradeCIDRs:\n  - 192.168.0.0/24\n  - \n  - fd88:1234::/80\nmasqLinkLocal: true\n")}, "error: 0:3: nonMasqueradeCIDRs[1]: " + noValue},
		{"empty entry", []masqagent.File{file("0", "nonMasqueradeCIDRs:\n  - \"\"\n")}, `error: 0:2: nonMasqueradeCIDRs[0]: "" is not a CIDR; expected one such as 10.0.0.0/8 or fd00::/8`},
		{"the first is bad", []masqagent.File{file("0", "nonMasqueradeCIDRs:\n  -\n"), file("1", "nonMasqueradeCIDRs: [192.168.0.0/24]")}, "error: 0:2: nonMasqueradeCIDRs[0]: " + noValue},
		{"the second is bad", []masqagent.File{file("0", `{"nonMasqueradeCIDRs": ["111.254.0.0/15", "8.0.0.0/8"]}`), file("1", `{"nonMasqueradeCIDRs": [null, "172.168.0.0/16"]}`)},
			"error: 1:1: nonMasqueradeCIDRs[0]: " + noValue},
		{"both are bad", []masqagent.File{file("0", "*"), file("1", "nonMasqueradeCIDRs: 3")},
			"error: 0:1: not valid YAML: did not find expected alphabetic or numeric character\n1:1: nonMasqueradeCIDRs: 3 is a number; expected a list of CIDRs"},
		{"64 in each", []masqagent.File{file("0", many(64)), file("1", "nonMasqueradeCIDRs: [172.16.0.0/12]")},
			manyRead(64) + " 172.16.0.0/12"},
		{"one is empty", []masqagent.File{file("0", ""), file("1", "nonMasqueradeCIDRs: [172.16.0.0/12]")}, "172.16.0.0/12"},
		{"too many", slices.Repeat([]masqagent.File{file("0", "")}, masqagent.MostFiles+1), "error: 0: 65 files; expected at most 64"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, come(masqagent.Settings{Dialect: masqagent.Azure, EnableIPv6: true}, tt.files...)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestCiliumsFile are Cilium's own cases, one after the other as its test has them.
func TestCiliumsFile(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"nonMasqueradeCIDRs:\n- 1.1.1.1/32\n- 2.2.2.2/16", "1.1.1.1/32 2.2.0.0/16 (f:3: 2.2.2.2/16 has host bits set; 2.2.0.0/16 is meant)"},
		{"nonMasqueradeCIDRs:\n- 8.8.0.0/16\n- 2.2.2.2/16", "8.8.0.0/16 2.2.0.0/16 (f:3: 2.2.2.2/16 has host bits set; 2.2.0.0/16 is meant)"},
		{"nonMasqueradeCIDRs:\n", nothing},
		{`{"nonMasqueradeCIDRs": ["8.8.0.0/16", "fd00::/8"], "masqLinkLocal": true}`, "8.8.0.0/16 fd00::/8 link-local"},
		{"", allRanges},
		{"masqLinkLocalIPv6: true", "- link-local-ipv6"},
	} {
		if diff := cmp.Diff(tt.want, come(masqagent.Settings{Dialect: masqagent.Cilium, EnableIPv6: true}, file("f", tt.text))); diff != "" {
			t.Errorf("%q: -want +got:\n%s", tt.text, diff)
		}
	}
}

// TestAllReserved: the flag widens the default list, and no other.
func TestAllReserved(t *testing.T) {
	for text, want := range map[string]string{"": allRanges, "masqLinkLocal: false": allRanges, "nonMasqueradeCIDRs: [10.0.0.0/8]": "10.0.0.0/8", "nonMasqueradeCIDRs:": nothing} {
		if got := come(masqagent.Settings{Dialect: masqagent.Kubernetes, AllReserved: true}, file("f", text)); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
	if got := come(masqagent.Settings{Dialect: masqagent.Azure, AllReserved: true}); got != allRanges {
		t.Errorf("azure, no file: %s", got)
	}
	if got := come(masqagent.Settings{Dialect: masqagent.Azure, AllReserved: true}, file("f", "")); got != nothing {
		t.Errorf("azure, empty file: %s", got)
	}
}

// TestParsePorts are the agent's own cases; of several ranges the widest is taken.
func TestParsePorts(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"", "{0 0} []"},
		{"42-44", "{42 44} []"},
		{"42", "{42 42} []"},
		{"42-42", "{42 42} []"},
		{"1024-29999,32768-65535", "{32768 65535} [{1024 29999}]"},
		{"1024-29999,32768-49151,61000-65535", "{1024 29999} [{32768 49151} {61000 65535}]"},
		{"1024,65535", "{1024 1024} [{65535 65535}]"},
		{"30000-40000,1024-29999", "{1024 40000} []"}, // they touch
		{"10-20,15-30,12-13", "{10 30} []"},           // they overlap
		{"42 - 44", `error: "42 - 44" is not a range of ports`},
		{"42-43-44", `error: "42-43-44" is not a range of ports`},
		{"-44", `error: "-44" is not a range of ports`},
		{"42-", `error: "42-" is not a range of ports`},
		{"44-42", `error: "44-42" is reversed`},
		{"a", `error: "a" is not a range of ports`},
		{"42,", `error: "" is not a range of ports`},
		{",42", `error: "" is not a range of ports`},
		{"0-42", `error: "0-42" is not a range of ports`},
		{"1-65536", `error: "1-65536" is not a range of ports`},
		{"+42", `error: "+42" is not a range of ports`},
	} {
		widest, rest, err := masqagent.ParsePorts(tt.text)
		got := fmt.Sprintf("%v %v", widest, rest)
		if err != nil {
			message, _, _ := strings.Cut(err.Error(), ";")
			got = "error: " + message
			if widest != (policy.PortRange{}) || rest != nil {
				t.Errorf("%q: an error and %v %v", tt.text, widest, rest)
			}
		}
		if got != tt.want {
			t.Errorf("%q: %s, want %s", tt.text, got, tt.want)
		}
	}
}

// TestFind: whose flags and files they are.
func TestFind(t *testing.T) {
	for _, tt := range []struct {
		name     string
		evidence masqagent.Evidence
		want     masqagent.Dialect
		why      string
	}{
		{"nothing", masqagent.Evidence{Program: "unmasq"}, masqagent.Kubernetes, "by default"},
		{"the one file", masqagent.Evidence{Flags: []string{"v", "enable-ipv6"}, Files: []string{"..data", "config", "ip-masq-agent"}}, masqagent.Kubernetes, "by default"},
		{"another file", masqagent.Evidence{Files: []string{"ip-masq-agent", "ip-masq-agent-reconciled"}}, masqagent.Azure, "only ip-masq-agent-v2 reads ip-masq-agent-reconciled"},
		{"Azure's flag", masqagent.Evidence{Flags: []string{"resync-interval"}}, masqagent.Azure, "only ip-masq-agent-v2 has --resync-interval"},
		{"Azure's name", masqagent.Evidence{Program: "ip-masq-agent-v2"}, masqagent.Azure, "started as ip-masq-agent-v2"},
		{"Kubernetes' flag beats files", masqagent.Evidence{Flags: []string{"random-fully"}, Files: []string{"ip-masq-x"}}, masqagent.Kubernetes, "only Kubernetes' ip-masq-agent has --random-fully"},
		{"flags of both", masqagent.Evidence{Flags: []string{"resync-interval", "to-ports"}}, "", "--resync-interval is Azure's ip-masq-agent-v2's, --to-ports is Kubernetes' ip-masq-agent's; say --dialect azure or --dialect kubernetes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, why, err := tt.evidence.Find()
			if err != nil {
				why = err.Error()
			}
			if got != tt.want || why != tt.why {
				t.Errorf("%s, %s; want %s, %s", got, why, tt.want, tt.why)
			}
		})
	}
	names := []string{"zz", "ip-masq-agent-reconciled", "ip-masq", "ip-masq-agent", "bad-ip-masq"}
	if got := masqagent.Reads(masqagent.Azure, names); !slices.Equal(got, []string{"ip-masq", "ip-masq-agent", "ip-masq-agent-reconciled"}) {
		t.Errorf("azure reads %v", got)
	}
	for _, d := range []masqagent.Dialect{masqagent.Kubernetes, masqagent.Cilium} {
		if got := masqagent.Reads(d, names); !slices.Equal(got, []string{"ip-masq-agent"}) {
			t.Errorf("%s reads %v", d, got)
		}
	}
}
