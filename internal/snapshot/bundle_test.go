package snapshot_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/snapshot"
)

// TestBundleLines: lines of a bundle's files are counted as its reader sees them in an
// editor, those of files above which a command was put too.
func TestBundleLines(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"sos_commands/networking/ip_route_show_table_all": "default via 192.0.2.2 dev eth0\nnonsense\n",
		"sos_commands/networking/ip_-d_address":           "1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 qdisc noqueue state UNKNOWN\n    inet 127.0.0.1/8 scope host lo\n",
		"sos_commands/firewall_tables/iptables_-t_nat_-nvL": "Chain POSTROUTING (policy ACCEPT 0 packets, 0 bytes)\n pkts bytes target     prot opt in     out     source               destination\n" +
			"    0     0 MASQUERADE  all  --  *      eth0    10.244.1.0/24        0.0.0.0/0\n",
	} {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	host, err := snapshot.Read([]string{dir}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(host.Notes) != 1 || host.Notes[0].Line != 2 || host.Notes[0].Text != "nonsense" {
		t.Errorf("notes %+v; expected one of line 2", host.Notes)
	}
	if rules := host.Rules.Tables[0].Chain("POSTROUTING").Rules; len(rules) != 1 || rules[0].Line != 3 || !strings.Contains(rules[0].Text, "MASQUERADE") {
		t.Errorf("rules %+v; expected one of line 3", rules)
	}
}
