package nftables_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

// loadCorpus in a namespace of its own.
func loadCorpus(t *testing.T) *netns.NS {
	t.Helper()
	ns := netnstest.Test(t, "corpus")
	runNft(t, ns, "ip", "link", "set", "lo", "up")
	runNft(t, ns, "ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1")
	text, err := os.ReadFile("testdata/corpus.nft")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ns.Run(string(text), "nft", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	return ns
}

func runNft(t *testing.T, ns *netns.NS, name string, args ...string) string {
	t.Helper()
	out, err := ns.Run("", name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// listedRules are the lines of nft list ruleset that are rules, by table and chain.
func listedRules(text string) map[string][]string {
	rules := map[string][]string{}
	table, chain := "", ""
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		bare := strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "table "):
			table = strings.TrimSuffix(bare, " {")
		case strings.HasPrefix(line, "\tchain "):
			chain = table + " " + strings.TrimSuffix(bare, " {")
		case line == "\t}":
			chain = ""
		case chain != "" && !strings.HasPrefix(bare, "type ") && !strings.HasPrefix(bare, "comment "):
			rules[chain] = append(rules[chain], bare)
		}
	}
	return rules
}

// otherwise printed: nft's JSON doesn't have what its text has.
var otherwise = map[string]string{
	// nft 1.0 prints a number's type where it lost it.
	"tcp dport 80 ct reply proto-src { 0x50 [invalid type], 0x1bb [invalid type] } accept": "tcp dport 80 ct reply proto-src { 0x50, 0x1bb } accept",
	// It prints the set's elements by the raw field's type.
	"ip protocol { 0x6, 0x11 } accept": "ip protocol { 6, 17 } accept",
	// It prints no port that is looked up.
	"meta l4proto udp tproxy ip to": "meta l4proto udp tproxy ip to :symhash mod 2 map { 0 : 23, 1 : 42 }",
}

func TestRuleTextIsNftsOwn(t *testing.T) {
	ns := loadCorpus(t)
	listed := listedRules(runNft(t, ns, "nft", "list", "ruleset"))
	ruleset, problems := nftables.ReadJSON(runNft(t, ns, "nft", "-j", "list", "ruleset"), 1)
	for _, p := range problems {
		t.Errorf("%+v", p)
	}
	rules := 0
	for _, table := range ruleset.Tables {
		if table.Excerpt {
			t.Errorf("table %s is an excerpt", table.Name)
		}
		for _, chain := range table.Chains {
			name := "table " + table.Family + " " + table.Name + " chain " + chain.Name
			var got []string
			for _, r := range chain.Rules {
				got = append(got, r.Text)
			}
			want := slices.Clone(listed[name])
			for i, w := range want {
				if o, is := otherwise[w]; is {
					want[i] = o
				}
			}
			rules += len(want)
			for i := range max(len(got), len(want)) {
				g, w := "none", "none"
				if i < len(got) {
					g = got[i]
				}
				if i < len(want) {
					w = want[i]
				}
				if g != w {
					t.Errorf("%s, rule %d\n-want %s\n+got  %s", name, i+1, w, g)
				}
			}
		}
	}
	if rules < 700 {
		t.Errorf("%d rules", rules)
	}
}
