package shield_test

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/owner"
)

// kindnetTable as kindnet writes it, and a rule of somebody's behind.
const kindnetTable = `table inet kindnet-ipmasq {
	set noMasqV4 {
		type ipv4_addr
		flags interval
		elements = { 10.244.0.0/16 }
	}

	chain postrouting {
		type nat hook postrouting priority srcnat - 10; policy accept;
		ct state established,related accept
		fib daddr type local accept
		ip daddr @noMasqV4 accept
		masquerade
		meta l4proto tcp accept
	}
}
`

// TestTakeoverOfNative: of rules that docker ≥ 29 with its nftables backend wrote, and of
// kindnet's, those that hide networks are gone and come back; the lists of nft are equal.
func TestTakeoverOfNative(t *testing.T) {
	binary := build(t)
	docker, err := txtar.ParseFile("../judge/testdata/dumps/docker-published-nftables.txt")
	must(t, err)
	for _, tc := range []struct {
		owner, rules, taken string
		count               int
	}{
		{owner.Docker, string(docker.Files[len(docker.Files)-1].Data), `masquerade comment "MASQUERADE"`, 4},
		{owner.Kindnet, kindnetTable, "masquerade", 1},
	} {
		t.Run(tc.owner, func(t *testing.T) {
			node := netnstest.Test(t, "node")
			run := func(stdin, program string, args ...string) string {
				t.Helper()
				out, err := node.Run(stdin, program, args...)
				must(t, err)
				return out
			}
			run(tc.rules, "nft", "-f", "-")
			before := run("", "nft", "list", "ruleset")
			unmasq := []string{"takeover", "--force", "--record", filepath.Join(t.TempDir(), "takeover.json"), "--owner", tc.owner}
			run("", binary, unmasq...)
			var kept strings.Builder
			taken := 0
			for line := range strings.Lines(before) {
				if strings.HasSuffix(strings.TrimSpace(line), tc.taken) {
					taken++
					continue
				}
				kept.WriteString(line)
			}
			equalRules(t, "taken over", kept.String(), run("", "nft", "list", "ruleset"))
			if taken != tc.count {
				t.Errorf("%d rules were taken, expected %d", taken, tc.count)
			}
			run("", binary, append(unmasq, "--handback")...)
			equalRules(t, "handed back", before, run("", "nft", "list", "ruleset"))
		})
	}
}
