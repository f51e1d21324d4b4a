package cni_test

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unmasq/unmasq/internal/cni"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		name, content string
		network       string
		want          string // prefixes, separated by blanks
		warnings      []string
	}{
		{
			name:    "bridge with a subnet",
			content: `{"cniVersion":"0.3.1","name":"mynet","type":"bridge","bridge":"cni0","ipam":{"type":"host-local","subnet":"10.22.0.0/16","routes":[{"dst":"0.0.0.0/0"}]}}`,
			network: "mynet", want: "10.22.0.0/16",
		},
		{
			name: "conflist, dual stack",
			content: `{"name":"kindnet","plugins":[
				{"type":"ptp","ipMasq":false,"ipam":{"type":"host-local","dataDir":"/run/x","ranges":[[{"subnet":"10.244.1.0/24"}],[{"subnet":"fd00:10:244:1::/64"}]]}},
				{"type":"portmap","capabilities":{"portMappings":true}}]}`,
			network: "kindnet", want: "10.244.1.0/24 fd00:10:244:1::/64",
		},
		{
			name:    "several ranges in a set, and the old field beside them",
			content: `{"name":"n","type":"bridge","ipam":{"type":"host-local","subnet":"10.1.0.0/24","ranges":[[{"subnet":"10.1.0.0/24","rangeStart":"10.1.0.9"},{"subnet":"10.2.0.0/24"}]]}}`,
			network: "n", want: "10.1.0.0/24 10.2.0.0/24",
		},
		{
			name:    "flannel delegates without a subnet",
			content: `{"name":"cbr0","plugins":[{"type":"flannel","delegate":{"hairpinMode":true,"isDefaultGateway":true}},{"type":"portmap"}]}`,
			network: "cbr0",
		},
		{
			name:    "delegate with a subnet",
			content: `{"name":"d","type":"flannel","delegate":{"type":"bridge","ipam":{"type":"host-local","subnet":"10.3.0.0/24"}}}`,
			network: "d", want: "10.3.0.0/24",
		},
		{
			name:    "multus",
			content: `{"name":"multus","type":"multus","delegates":[{"name":"a","plugins":[{"type":"bridge","ipam":{"type":"host-local","subnet":"10.4.0.0/24"}}]}]}`,
			network: "multus", want: "10.4.0.0/24",
		},
		{name: "no addresses of its own", content: `{"name":"cilium","plugins":[{"type":"cilium-cni"}]}`, network: "cilium"},
		{name: "another IPAM", content: `{"name":"calico","type":"calico","ipam":{"type":"calico-ipam","subnet":"10.0.0.0/8"}}`, network: "calico"},
		{
			name:    "a subnet that is a template",
			content: `{"name":"calico","type":"calico","ipam":{"type":"host-local","subnet":"usePodCidr"}}`,
			network: "calico", warnings: []string{`subnet "usePodCidr": expected a prefix such as 10.244.1.0/24`},
		},
		{
			name:    "host bits",
			content: `{"name":"n","type":"bridge","ipam":{"type":"host-local","ranges":[[{"subnet":"10.1.0.1/24"}],[{"subnet":"10.2.0.0/24"}]]}}`,
			network: "n", want: "10.2.0.0/24", warnings: []string{"subnet 10.1.0.1/24 has host bits set; the network is 10.1.0.0/24"},
		},
		{
			name:    "IPv4 as IPv6",
			content: `{"name":"n","type":"bridge","ipam":{"type":"host-local","subnet":"::ffff:10.0.0.0/112"}}`,
			network: "n", warnings: []string{"subnet ::ffff:10.0.0.0/112 is an IPv4 prefix written as IPv6"},
		},
		{
			name:    "macvlan shares the host's network",
			content: `{"name":"lan","type":"macvlan","ipam":{"type":"host-local","subnet":"192.168.1.0/24"}}`,
			network: "lan", warnings: []string{"subnet 192.168.1.0/24 of plugin macvlan is shared with the network outside; not taken for pods'"},
		},
		{
			name:    "one strange plugin does not hide the next",
			content: `{"name":"n","plugins":[{"type":"a","ipam":7},{"type":"bridge","ipam":{"type":"host-local","subnet":"10.2.0.0/24"}}]}`,
			network: "n", want: "10.2.0.0/24", warnings: []string{"ipam: json: cannot unmarshal number into Go value of type cni.ipam"},
		},
		{name: "null fields", content: `{"name":"n","plugins":null,"delegate":null,"ipam":null}`, network: "n"},
		{name: "not JSON", content: `subnet: 10.0.0.0/8`, warnings: []string{"invalid character 's' looking for beginning of value"}},
		{name: "empty", content: ``, warnings: []string{"unexpected end of JSON input"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			network, prefixes, warnings := cni.Parse([]byte(c.content))
			var got []string
			for _, p := range prefixes {
				got = append(got, p.String())
			}
			if network != c.network || strings.Join(got, " ") != c.want {
				t.Errorf("network %q with %v, want %q with %s", network, got, c.network, c.want)
			}
			if diff := cmp.Diff(c.warnings, warnings); diff != "" {
				t.Errorf("warnings -want +got:\n%s", diff)
			}
		})
	}
}

func conf(subnet string) string {
	return `{"name":"net","type":"bridge","ipam":{"type":"host-local","subnet":"` + subnet + `"}}`
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"10-first.conflist": conf("10.1.0.0/24"),
		"20-second.conf":    conf("10.2.0.0/24"),
		"30-third.json":     conf("10.3.0.0/24"),
		"40-old.conf.bak":   conf("10.4.0.0/24"),
		"50-broken.conf":    `{`,
		"60-large.conf":     strings.Repeat(" ", 1<<20) + conf("10.6.0.0/24"),
		"README":            "nothing",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "70-gone.conf")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("40-old.conf.bak", filepath.Join(dir, "71-link.conf")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "80-pipe.conf"), 0o600); err != nil {
		t.Fatal(err)
	}
	found, warnings := cni.Read(dir)
	var got []string
	for _, f := range found {
		got = append(got, f.Value.String()+" "+strings.ReplaceAll(f.Origin, dir, "DIR"))
	}
	if diff := cmp.Diff([]string{
		"10.1.0.0/24 CNI network net in DIR/10-first.conflist",
		"10.2.0.0/24 CNI network net in DIR/20-second.conf",
		"10.3.0.0/24 CNI network net in DIR/30-third.json",
		"10.4.0.0/24 CNI network net in DIR/71-link.conf",
	}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for i, w := range warnings {
		warnings[i] = strings.ReplaceAll(w, dir, "DIR")
	}
	if diff := cmp.Diff([]string{
		"CNI configuration DIR/50-broken.conf: unexpected end of JSON input",
		"CNI configuration DIR/60-large.conf: larger than 1048576 bytes",
		"CNI configuration DIR/70-gone.conf: no such file or directory",
		"CNI configuration DIR/80-pipe.conf: not a regular file",
	}, warnings); diff != "" {
		t.Errorf("warnings -want +got:\n%s", diff)
	}
}

func TestReadWithoutDirectory(t *testing.T) {
	if found, warnings := cni.Read(filepath.Join(t.TempDir(), "absent")); found != nil || warnings != nil {
		t.Errorf("absent: %v, %v, want nothing", found, warnings)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if found, warnings := cni.Read(file); found != nil || len(warnings) != 1 {
		t.Errorf("a file: %v, %v, want one warning", found, warnings)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(conf("10.1.0.0/24")))
	f.Add([]byte(`{"name":"n","plugins":[{"type":"flannel","delegate":{"ipam":{"type":"host-local","ranges":[[{"subnet":"fd00::/64"}]]}}}]}`))
	f.Add([]byte(`{"delegates":[{"delegate":{"plugins":[]}}]}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		_, prefixes, warnings := cni.Parse(content)
		for _, p := range prefixes {
			if p != p.Masked() || !p.IsValid() || netip.MustParsePrefix(p.String()) != p {
				t.Errorf("prefix %v is not masked", p)
			}
		}
		if !json.Valid(content) && (prefixes != nil || len(warnings) == 0) {
			t.Errorf("invalid JSON gave %v and warnings %v", prefixes, warnings)
		}
	})
}
