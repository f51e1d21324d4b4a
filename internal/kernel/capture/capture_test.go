package capture_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unmasq/unmasq/internal/conntrack"
	"github.com/unmasq/unmasq/internal/kernel/capture"
	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/snapshot"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

const nftRules = `*nat
:KUBE-MARK-MASQ - [0:0]
-A POSTROUTING -s 10.244.0.0/16 ! -d 10.244.0.0/16 -m set --match-set nodes src -j MASQUERADE --random-fully
-A KUBE-MARK-MASQ -m comment --comment "ns/web:http -> \"x\"" -j MARK --set-xmark 0x4000/0x4000
COMMIT
*filter
:FORWARD DROP [0:0]
-A FORWARD -i cni0 -j ACCEPT
COMMIT
`

const legacyRules = `*nat
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
COMMIT
`

const v6Rules = `*nat
-A POSTROUTING -s fd00:10:244::/64 ! -d fd00:10:244::/64 -j MASQUERADE
COMMIT
`

const nativeRules = `table inet guard {
	set blocked {
		type ipv4_addr
		elements = { 192.0.2.66 }
	}
	chain late {
		type nat hook postrouting priority srcnat + 10; policy accept;
		ip daddr @blocked snat ip to 192.0.2.9
	}
}
`

// node makes a namespace with some of everything, by the real programs.
func node(t *testing.T) *netns.NS {
	t.Helper()
	n := netnstest.Test(t, "node")
	p := netip.MustParsePrefix
	peer := netnstest.Test(t, "peer")
	err := errors.Join(
		n.Bridge("cni0"), netns.Veth(n, "eth0", peer, "eth0"), netns.Veth(n, "veth0", peer, "pod"), n.Enslave("veth0", "cni0"),
		n.Addr("eth0", p("192.0.2.7/24")), n.Addr("cni0", p("10.244.1.1/24")), n.Addr("cni0", p("fd00:10:244::1/64")),
		n.Route(p("0.0.0.0/0"), netip.MustParseAddr("192.0.2.1"), ""), n.Route(p("2001:db8::/32"), netip.Addr{}, "eth0"),
		n.Sysctl("net.ipv4.ip_forward", "1"), n.Sysctl("net/ipv4/conf/eth0/rp_filter", "2"),
	)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ stdin, command string }{
		{"create nodes hash:ip\nadd nodes 192.0.2.8\n", "ipset restore"},
		{nftRules, "iptables-nft-restore"}, {v6Rules, "ip6tables-nft-restore"}, {legacyRules, "iptables-legacy-restore"},
		{nativeRules, "nft -f -"},
		{"", "ip route add default via 192.0.2.254 table 101"}, {"", "ip rule add fwmark 0x1/0x1 lookup 101 priority 100"},
		{"", "ip neigh add 192.0.2.8 lladdr 0a:59:75:53:a7:1a dev eth0"},
		{"", "ip xfrm policy add dst 10.9.0.0/16 dir out tmpl src 192.0.2.7 dst 192.0.2.8 proto esp mode tunnel"},
		{"", "conntrack -I -p tcp -s 10.244.1.7 -d 198.51.100.9 --sport 1000 --dport 80 --state ESTABLISHED -t 600"},
	} {
		f := strings.Fields(c.command)
		if _, err := n.Run(c.stdin, f[0], f[1:]...); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func take(t *testing.T, o capture.Options) (map[string][]byte, snapshot.Meta) {
	t.Helper()
	files, err := capture.Take(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	var m snapshot.Meta
	if err := json.Unmarshal(files[snapshot.FileMeta], &m); err != nil {
		t.Fatal(err)
	}
	return files, m
}

func TestTakeAndRead(t *testing.T) {
	n := node(t)
	before := state(t, n)
	files, meta := take(t, capture.Options{Namespace: n, Connections: true, Version: "v9"})
	if diff := cmp.Diff(before, state(t, n)); diff != "" {
		t.Errorf("taking a snapshot changed the node: %s", diff)
	}
	for file, why := range meta.Missing {
		if !strings.HasSuffix(why, snapshot.NotInstalled) {
			t.Errorf("missing %s: %s", file, why)
		}
	}
	if meta.Unmasq != "v9" || meta.Kernel == "" || meta.Host == "" || !strings.Contains(meta.Programs["iptables-nft-save"], "nf_tables") {
		t.Errorf("meta: %+v", meta)
	}
	direct, err := snapshot.FromFiles(files)
	if err != nil {
		t.Fatal(err)
	}
	check(t, direct)

	dir := t.TempDir()
	for _, c := range []struct {
		path  string
		write func(string, map[string][]byte) error
	}{
		{filepath.Join(dir, "node"), snapshot.WriteDir}, {filepath.Join(dir, "node.tar.gz"), snapshot.WriteTarGz}, {filepath.Join(dir, "node.tgz"), snapshot.WriteTarGz},
	} {
		if err := c.write(c.path, files); err != nil {
			t.Fatal(err)
		}
		if err := c.write(c.path, files); err != nil {
			t.Errorf("a second time: %v", err)
		}
		back, err := snapshot.Read([]string{c.path}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range back.Rules.Tables {
			x.File = filepath.Base(strings.ReplaceAll(x.File, ":", "/"))
			if x.Native != nil {
				x.Native.File = x.File
			}
		}
		for i := range back.Notes {
			back.Notes[i].File = filepath.Base(strings.ReplaceAll(back.Notes[i].File, ":", "/"))
		}
		if !reflect.DeepEqual(direct, back) {
			t.Errorf("%s: read back as\n%+v\nwas\n%+v", c.path, back, direct)
		}
	}
}

// state is what could be changed by looking.
func state(t *testing.T, n *netns.NS) string {
	t.Helper()
	var all strings.Builder
	for _, command := range []string{"nft list ruleset", "ipset save", "cat /proc/net/ip_tables_names", "cat /proc/net/ip6_tables_names"} {
		f := strings.Fields(command)
		out, err := n.Run("", f[0], f[1:]...)
		if err != nil && f[0] != "cat" {
			t.Fatal(err)
		}
		fmt.Fprintln(&all, command)
		fmt.Fprintln(&all, out)
	}
	return all.String()
}

// check looks for each thing that node made.
func check(t *testing.T, h *snapshot.Host) {
	t.Helper()
	if !h.IPTables[packet.IPv4Family] || !h.IPTables[packet.IPv6Family] || !h.AllSysctls || !h.NFTGiven || !h.ConnectionsGiven || !h.VirtualServersGiven {
		t.Errorf("given: iptables %v, sysctls %t, nft %t, connections %t, IPVS %t", h.IPTables, h.AllSysctls, h.NFTGiven, h.ConnectionsGiven, h.VirtualServersGiven)
	}
	var tables []string
	for _, x := range h.Rules.Tables {
		rules := 0
		for _, c := range x.Chains {
			rules += len(c.Rules)
		}
		tables = append(tables, fmt.Sprintf("%s %s %s %d %t", x.Variant, x.Family, x.Name, rules, x.Excerpt))
	}
	slices.Sort(tables)
	want := []string{
		"iptables-legacy IPv4 nat 1 false", "iptables-nft IPv4 filter 1 false", "iptables-nft IPv4 nat 2 false", "iptables-nft IPv6 nat 1 false",
		"nftables IPv6 guard 1 false",
	}
	if diff := cmp.Diff(want, tables); diff != "" {
		t.Errorf("tables: -want +got\n%s", diff)
	}
	if s := h.Sets["nodes"]; s == nil || s.Len() != 1 {
		t.Errorf("sets: %v", h.Sets)
	}
	known := h.Network.Of(packet.IPv4Family)
	if !known.Main || !known.AllTables || !known.Rules || !h.Network.KnownAddresses || !h.Network.KnownLinks || *h.Network.Of(packet.IPv6Family) != *known {
		t.Errorf("network: %+v", h.Network.IPv4)
	}
	if l := h.Network.Link("veth0"); l == nil || l.Master != "cni0" || l.Kind != "veth" {
		t.Errorf("veth0: %+v", l)
	}
	if len(h.Network.Rules) != 6 || len(h.Network.Neighbors) == 0 {
		t.Errorf("%d rules, neighbours %v", len(h.Network.Rules), h.Network.Neighbors)
	}
	if h.Sysctls["net.ipv4.ip_forward"] != "1" || h.Sysctls["net.ipv4.conf.eth0.rp_filter"] != "2" {
		t.Errorf("sysctls: %v", h.Sysctls)
	}
	source := netip.MustParseAddr("10.244.1.7")
	if !slices.ContainsFunc(h.Connections, func(e conntrack.Entry) bool { return e.Original.Source == source }) {
		t.Errorf("connections: %+v", h.Connections)
	}
	if _, counted := h.Counters["insert_failed"]; !counted || h.Counters["entries"] < 1 {
		t.Errorf("counters: %v", h.Counters)
	}
	if len(h.Notes) != 1 || !strings.Contains(h.Notes[0].Why, "IPsec") {
		t.Errorf("notes: %+v", h.Notes)
	}
}

// TestAnEmptyNode: nothing is loaded or made by looking, and all is known to be empty.
func TestAnEmptyNode(t *testing.T) {
	n := netnstest.Test(t, "empty")
	before := state(t, n)
	files, meta := take(t, capture.Options{Namespace: n})
	if diff := cmp.Diff(before, state(t, n)); diff != "" {
		t.Errorf("taking a snapshot changed the node: %s", diff)
	}
	if _, taken := files[snapshot.FileConntrack]; taken || meta.Missing[snapshot.FileConntrack] != "" {
		t.Error("connections were taken without being asked for")
	}
	h, err := snapshot.FromFiles(files)
	if err != nil {
		t.Fatal(err)
	}
	if !h.IPTables[packet.IPv4Family] || !h.IPTables[packet.IPv6Family] || h.Sets == nil || len(h.Notes) != 0 || len(h.Rules.Tables) != 0 {
		t.Errorf("host: %+v", h)
	}
}

// failing runs real programs but those that it has an answer for.
type answer struct {
	stdout, stderr string
	err            error
}

func failing(n *netns.NS, answers map[string]answer) capture.Runner {
	return func(ctx context.Context, program string, args ...string) ([]byte, []byte, error) {
		for _, key := range []string{program + " " + strings.Join(args, " "), program} {
			if a, ok := answers[key]; ok {
				return []byte(a.stdout), []byte(a.stderr), a.err
			}
		}
		out, err := n.Run("", program, args...)
		return []byte(out), nil, err
	}
}

func TestFailures(t *testing.T) {
	n := node(t)
	exit := errors.New("exit status 1")
	gone := answer{err: exec.ErrNotFound}
	const text = "1: lo: <LOOPBACK,UP> mtu 65536 qdisc noqueue state UNKNOWN\n    link/loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00\n"
	for _, c := range []struct {
		name    string
		answers map[string]answer
		file    string
		missing string
		content string
	}{
		{"not installed", map[string]answer{"ipset": gone}, snapshot.FileIPSet, "ipset is not installed", ""},
		{"no privilege", map[string]answer{"nft": {stderr: "netlink: Error: cache initialization failed: Operation not permitted\n", err: exit}}, snapshot.FileNFT, "permission denied: nft needs CAP_NET_ADMIN", ""},
		{"fails", map[string]answer{"ipset": {stderr: "ipset v7: Kernel support protocol versions 6-6\n", err: exit}}, snapshot.FileIPSet, "ipset failed: ipset v7: Kernel support", ""},
		{"fails without a word", map[string]answer{"ipset": {err: exit}}, snapshot.FileIPSet, "ipset failed: exit status 1", ""},
		{"error text, status 0", map[string]answer{"iptables-nft-save": {stdout: nftRules, stderr: "iptables-save: Table nat is incompatible\n"}}, snapshot.FileIPTables, "Table nat is incompatible", "*nat"},
		{"error text alone, status 0", map[string]answer{"iptables-nft-save": {stdout: "iptables-save: Table nat is incompatible\n"}}, snapshot.FileIPTables, "Table nat is incompatible", ""},
		{"error text among tables", map[string]answer{"iptables-nft-save": {stdout: nftRules + "iptables-save: out of memory\n"}}, snapshot.FileIPTables, "out of memory", "*nat"},
		{"broken JSON", map[string]answer{"nft -j list ruleset": {stdout: `{"nftables": [{`}}, snapshot.FileNFT, "", "table inet guard { # handle "},
		{"nothing but broken", map[string]answer{"nft -j list ruleset": {stdout: `{"nftables": [{`}, "nft -a list ruleset": {err: exit}}, snapshot.FileNFT, "nft failed: it printed no valid JSON", ""},
		{"breaks down", map[string]answer{"nft -j list ruleset": {stderr: "BUG: invalid bitwise operation 3\n", err: errors.New("signal: aborted")}}, snapshot.FileNFT, "", "table inet guard { # handle "},
		{"a hint is no error", map[string]answer{"iptables-nft-save": {stdout: nftRules, stderr: "# Warning: iptables-legacy tables present, use iptables-legacy-save to see them\n"}}, snapshot.FileIPTables, "", "*nat"},
		{"ip without JSON", map[string]answer{
			"ip -j -d link show": {stderr: `Option "-j" is unknown, try "ip -help".`, err: exit}, "ip -d link show": {stdout: text},
		}, snapshot.FileLinks, "", text},
		{"nft without JSON", map[string]answer{
			"nft -j list ruleset": {stderr: "Error: JSON support not compiled-in", err: exit}, "nft -a list ruleset": {stdout: nativeRules},
		}, snapshot.FileNFT, "", nativeRules},
		{"legacy tables, no program", map[string]answer{"iptables-legacy-save": gone, "iptables-save": gone}, snapshot.FileIPTablesLegacy, "tables are loaded (nat), and iptables-legacy-save isn't there", ""},
		{"one old iptables", map[string]answer{
			"iptables-legacy-save": gone, "iptables-save --version": {stdout: "iptables-save v1.6.1\n"}, "iptables-save -c": {stdout: legacyRules},
		}, snapshot.FileIPTablesLegacy, "", legacyRules},
		{"one new iptables", map[string]answer{
			"iptables-nft-save": gone, "iptables-save --version": {stdout: "iptables-save v1.8.9 (nf_tables)\n"}, "iptables-save -c": {stdout: nftRules},
		}, snapshot.FileIPTables, "", nftRules},
		{"no nft", map[string]answer{"nft": gone}, snapshot.FileNFT, "nft is not installed: whether there are tables that aren't iptables' can't be told", ""},
		{"nothing lists nftables", map[string]answer{"nft": gone, "iptables-nft-save": gone, "iptables-save": gone}, snapshot.FileIPTables,
			"iptables-nft-save is not installed, and nft lists nothing: which rules there are can't be told", ""},
		{"wireguard", map[string]answer{
			"wg show all listen-port": {stdout: "wg0\t51820\n"}, "wg show all fwmark": {stdout: "wg0\toff\n"},
			"wg show all endpoints": {stdout: "wg0\tSECRETKEY=\t192.0.2.8:51820\n"}, "wg show all allowed-ips": {stdout: "wg0\tSECRETKEY=\t10.9.0.0/24 fd00:9::/64\n"},
		}, snapshot.FileWireGuard, "", "listen-port wg0 51820\nfwmark wg0 off\nendpoints wg0 peer-1 192.0.2.8:51820\nallowed-ips wg0 peer-1 10.9.0.0/24 fd00:9::/64\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			files, meta := take(t, capture.Options{Namespace: n, Run: failing(n, c.answers)})
			if got := meta.Missing[c.file]; !strings.Contains(got, c.missing) || c.missing == "" && got != "" {
				t.Errorf("missing %s: %q, want %q", c.file, got, c.missing)
			}
			if got := string(files[c.file]); !strings.Contains(got, c.content) || c.content == "" && got != "" {
				t.Errorf("%s: %q, want %q", c.file, got, c.content)
			}
			if len(files) < 10 {
				t.Errorf("one failure stopped the rest: %d files", len(files))
			}
			for name, content := range files {
				if strings.Contains(string(content), "SECRETKEY") {
					t.Errorf("a key in %s", name)
				}
			}
			h, err := snapshot.FromFiles(files)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(c.file, "tables") && c.missing != "" && h.IPTables[packet.IPv4Family] {
				t.Error("all IPv4 tables seem to be known")
			}
		})
	}
}

func TestNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if files, err := capture.Take(ctx, capture.Options{}); err == nil || files != nil {
		t.Errorf("cancelled: %v, %v", files, err)
	}
}

func TestWriteRefuses(t *testing.T) {
	dir := t.TempDir()
	files := map[string][]byte{snapshot.FileMeta: []byte("{}")}
	work := filepath.Join(dir, "work")
	if err := errors.Join(os.Mkdir(work, 0o700), os.WriteFile(filepath.Join(work, "thesis.tex"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := snapshot.WriteDir(work, files); err == nil || !strings.Contains(err.Error(), "holds thesis.tex") {
		t.Errorf("over a directory that is something else: %v", err)
	}
	if err := snapshot.WriteDir(filepath.Join(dir, "none", "x"), files); err == nil {
		t.Error("into a directory that isn't there")
	}
	if err := snapshot.WriteTarGz(filepath.Join(dir, "none", "x.tgz"), files); err == nil {
		t.Error("an archive in a directory that isn't there")
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v %v", left, err)
	}
	if err := snapshot.WriteDir(filepath.Join(dir, "new"), files); err != nil {
		t.Fatal(err)
	}
	stat, err := os.Stat(filepath.Join(dir, "new", snapshot.FileMeta))
	if err != nil || stat.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v: want it readable by its owner alone", stat.Mode(), err)
	}
}
