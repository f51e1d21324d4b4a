package nftables

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The files of testdata/describe are what nft 1.0.6 says to "nft describe NAME",
// for each datatype it knows and for each expression of its grammar.

func readDescribe(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "describe", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var (
	describedType = regexp.MustCompile(`datatype (\S+) \([^)]*\)( \(basetype ([^)]*)\))?, (\d+) (bits|characters)`)
	// meant differently here: by name instead of number; nft gives no length.
	otherBits = map[string]int{"iface_index": 128, "string": 128}
)

// sameType compares with a line of nft describe.
func sameType(t *testing.T, what, line string, got Datatype, known bool) {
	t.Helper()
	m := describedType.FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("%s: not understood: %s", what, line)
	}
	bits, _ := strconv.Atoi(m[4])
	if m[5] == "characters" {
		bits *= 8
	}
	if other, is := otherBits[m[1]]; is {
		bits = other
	}
	flags := strings.Contains(m[3], "bitmask") || m[1] == "bitmask"
	name := m[1]
	if name == "string" && strings.HasPrefix(what, "fib") { // nft since calls it so
		name = "ifname"
	}
	if what == "comp flags" { // nft knows no flag of it
		name, flags = "integer", false
	}
	if (what == "meta ipsec" || what == "rt ipsec") && bits == 8 {
		bits = 1
	}
	if !known || got.Name != name || got.width() != bits || got.Flags != flags {
		t.Errorf("%s: got %+v, known %v; nft says %s", what, got, known, line)
	}
}

func TestDatatypesAreThoseOfNft(t *testing.T) {
	described := map[string]bool{}
	for section := range strings.SplitSeq(readDescribe(t, "types.txt"), "## ") {
		name, rest, some := strings.Cut(section, "\n")
		if !some {
			continue
		}
		described[name] = true
		lines := strings.Split(rest, "\n")
		d, known := DatatypeOf(name)
		sameType(t, name, lines[0], d, known)
		for _, line := range lines[1:] {
			if word, value, is := strings.Cut(strings.TrimSpace(line), " "); is && strings.HasPrefix(line, "\t") {
				sameSymbol(t, d, word, strings.TrimSpace(value))
			}
		}
	}
	for name := range datatypes {
		if !described[name] && !slices.Contains([]string{"ecn", "ct_event", "ct_label"}, name) { // nft describes those of expressions only
			t.Errorf("%s isn't in testdata/describe/types.txt", name)
		}
	}
}

// sameSymbol: nft prints hexadecimal constants as they lie in memory, so those
// of two bytes in network order are read from the wrong end.
func sameSymbol(t *testing.T, d Datatype, word, value string) {
	t.Helper()
	n, err := strconv.ParseUint(value, 0, 64)
	if err != nil {
		t.Fatalf("%s %s: %v", d.Name, word, err)
	}
	if d.Bytes == 2 && d.Name != "iface_type" && strings.HasPrefix(value, "0x") {
		n = n>>8 | n&0xff<<8
	}
	want := fmt.Sprintf("%0*x", 2*d.Bytes, n)
	got, err := Parse(d, Literal{word})
	if err != nil || !got.Single() || hex.EncodeToString([]byte(got.First)) != want {
		t.Errorf("%s %s: got %x, %v; want %s", d.Name, word, got.First, err, want)
	}
}

// expressionOf reads a line's beginning as the readers would.
func expressionOf(text string) Expr {
	w := strings.Fields(text)
	switch w[0] {
	case "meta":
		return Meta{w[1]}
	case "fib":
		return FIB{Keys: []string{w[1]}, Result: w[2]}
	case "rt":
		if len(w) == 3 {
			return RT{Family: w[1], Key: w[2]}
		}
		return RT{Key: w[1]}
	case "ct":
		if len(w) == 4 {
			return CT{Direction: w[1], Family: w[2], Key: w[3]}
		}
		return CT{Key: w[1]}
	case "numgen":
		return Numgen{Modulus: 2}
	case "symhash":
		return SymHash{Modulus: 2}
	case "jhash":
		return JHash{Key: Payload{"ip", "saddr"}, Modulus: 2}
	}
	return Payload{w[0], strings.Join(w[1:], " ")}
}

func TestTypesOfExpressionsAreThoseOfNft(t *testing.T) {
	table := &Table{Family: "inet"}
	n := 0
	for line := range strings.Lines(readDescribe(t, "expressions.txt")) {
		text, says, _ := strings.Cut(line, ": ")
		types, known := table.TypeOf(expressionOf(text))
		if len(types) != 1 {
			t.Errorf("%s: %v; nft says %s", text, types, says)
			continue
		}
		sameType(t, text, says, types[0], known)
		n++
	}
	if n < 150 {
		t.Errorf("only %d expressions", n)
	}
}

func TestTypeOf(t *testing.T) {
	table := &Table{Family: "ip", Sets: []*Set{
		{Name: "s", Type: []string{"ipv4_addr", "inet_service", "mark"}},
		{Name: "one", Type: []string{"ipv4_addr . inet_service"}},
		{Name: "m", Type: []string{"ipv4_addr"}, Map: true, DataType: []string{"ipv4_addr", "inet_service"}},
		{Name: "v", Type: []string{"mark"}, Map: true, DataType: []string{"verdict"}},
		{Name: "of", TypeOf: Concat{[]Expr{Payload{"ip", "dscp"}, Meta{"iifname"}}}},
		{Name: "self", TypeOf: SetRef{"self"}},
		{Name: "bare", Type: []string{"integer"}},
	}}
	for _, c := range []struct {
		e    Expr
		want string
	}{
		{SetRef{"s"}, "ipv4_addr inet_service mark"},
		{SetRef{"one"}, "ipv4_addr inet_service"},
		{SetRef{"of"}, "dscp ifname"},
		{SetRef{"self"}, ""},
		{SetRef{"bare"}, ""},
		{SetRef{"none"}, ""},
		{Lookup{Meta{"mark"}, SetRef{"m"}}, "ipv4_addr inet_service"},
		{Lookup{Meta{"mark"}, SetRef{"v"}}, "verdict"},
		{Lookup{Meta{"mark"}, SetRef{"s"}}, ""},
		{Binary{"&", Meta{"mark"}, Literal{"0xff"}}, "mark"},
		{Binary{"|", Literal{"0xff"}, CT{Key: "mark"}}, "mark"},
		{CT{Key: "saddr", Direction: "original"}, "ipv4_addr"},
		{CT{Key: "nonesuch"}, ""},
		{Concat{[]Expr{Payload{"ip", "saddr"}, Literal{"1"}}}, ""},
		{Concat{[]Expr{Payload{"ip", "saddr"}, Payload{"th", "dport"}}}, "ipv4_addr inet_service"},
		{RawPayload{"nh", 96, 32}, "integer"},
		{RawPayload{"nh", 0, 0}, ""},
		{UnknownExpr{Name: "osf"}, ""},
		{Literal{"1"}, ""},
	} {
		types, known := table.TypeOf(c.e)
		var got []string
		for _, d := range types {
			got = append(got, d.Name)
		}
		if s := strings.Join(got, " "); s != c.want || known != (c.want != "") {
			t.Errorf("%s: %q, %v; want %q", describe(c.e), s, known, c.want)
		}
	}
	for right, want := range map[string]string{"exists": "boolean", "missing": "boolean", `"eth0"`: "iface_index", "1": "iface_index"} {
		types, _ := table.TypeOfMatch(Match{Op: "==", Left: FIB{Keys: []string{"saddr"}, Result: "oif"}, Right: Literal{right}})
		if len(types) != 1 || types[0].Name != want {
			t.Errorf("fib saddr oif %s: %v", right, types)
		}
	}
}
