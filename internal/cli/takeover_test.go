package cli

import (
	"testing"

	"github.com/unmasq/unmasq/internal/kernel/capture"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// TestHalfRead: of which hosts the rules are all there.
func TestHalfRead(t *testing.T) {
	denied := "permission denied: iptables-nft-save needs CAP_NET_ADMIN (root, or sudo)"
	for name, c := range map[string]struct {
		missing    map[string]string
		file       string
		halfUnread bool
	}{
		"all":                       {nil, "", false},
		"one variant isn't there":   {map[string]string{snapshot.FileIPTablesLegacy: "iptables-legacy-save " + snapshot.NotInstalled}, "", false},
		"what isn't rules":          {map[string]string{snapshot.FileSysctl: "/proc/sys/net can't be read"}, "", false},
		"not root":                  {map[string]string{snapshot.FileNFT: "permission denied", snapshot.FileIPTables: denied}, snapshot.FileIPTables, true},
		"nft fails":                 {map[string]string{snapshot.FileNFT: "nft: exit status 1"}, snapshot.FileNFT, true},
		"no nft":                    {map[string]string{snapshot.FileNFT: capture.NoNFT + ": can't be told"}, snapshot.FileNFT, false},
		"no nft, and iptables fail": {map[string]string{snapshot.FileNFT: capture.NoNFT + ": can't be told", snapshot.FileIPTables: denied}, snapshot.FileIPTables, true},
	} {
		host := &snapshot.Host{Meta: &snapshot.Meta{Missing: c.missing}}
		file, _ := host.Meta.UnreadRules()
		if err := halfRead(host); file != c.file || (err != nil) != c.halfUnread {
			t.Errorf("%s: %q, %v", name, file, err)
		}
	}
}
