package doctor_test

import (
	"archive/tar"
	"compress/gzip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/doctor"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// bundle is a support tool: the commands that it runs on a node, by the file that each
// one's output goes to, as the tools' own sources have them.
type bundle struct {
	tool     string
	commands map[string]string
	// others are files that must not be taken for the node's state.
	others map[string]string
	// wants are the codes that the bundle suffices for.
	wants []string
	// tracked: it has connections, and what the kernel has counted of them.
	tracked bool
}

var everyCode = []string{"families-differ", "forwarding-off", "pods-masqueraded", "two-masqueraders"}

var bundles = []bundle{
	{
		tool: "sosreport",
		commands: map[string]string{
			"host/sos_commands/networking/ip_-d_address":                     "ip -d address",
			"host/sos_commands/networking/ip_-s_-d_link":                     "ip -s -d link",
			"host/sos_commands/networking/ip_route_show_table_all":           "ip route show table all",
			"host/sos_commands/networking/ip_-6_route_show_table_all":        "ip -6 route show table all",
			"host/sos_commands/networking/ip_-4_rule_list":                   "ip -4 rule list",
			"host/sos_commands/networking/ip_-6_rule_list":                   "ip -6 rule list",
			"host/sos_commands/networking/ip_-s_-s_neigh_show":               "ip -s -s neigh show",
			"host/sos_commands/firewall_tables/iptables_-t_nat_-nvL":         "iptables -t nat -nvL",
			"host/sos_commands/firewall_tables/ip6tables_-t_nat_-nvL":        "ip6tables -t nat -nvL",
			"host/sos_commands/firewall_tables/nft_list_ruleset":             "nft list ruleset",
			"host/sos_commands/kernel/sysctl_-a":                             "sysctl -a",
			"host/sos_commands/conntrack/conntrack_-L_-o_extended":           "conntrack -L -o extended 2>/dev/null",
			"host/sos_commands/conntrack/conntrack_-S":                       "conntrack -S",
			"host/sos_commands/networking/namespaces/x/ip_netns_exec_x_ip_r": "echo default via 9.9.9.9 dev eth9",
		},
		others: map[string]string{
			"host/etc/sysconfig/iptables": "*nat\n-A POSTROUTING -j MASQUERADE\nCOMMIT\n", "host/var/log/messages": "ip route show table all\ndefault via 9.9.9.9 dev eth9\n",
		},
		wants: everyCode, tracked: true,
	},
	{
		tool: "EKS log collector",
		commands: map[string]string{
			"networking/iptables-save.txt": "iptables-save",
			"networking/iptables-nat.txt":  "iptables --wait 1 --numeric --verbose --list --table nat",
			"networking/iproute.txt":       "ip route show table all",
			"networking/iprule.txt":        "ip rule show",
			"networking/conntrack.txt":     "echo '*** Output of conntrack -S *** '; conntrack -S; echo '*** Output of conntrack -L ***'; conntrack -L 2>/dev/null",
			"networking/ifconfig.txt":      "echo eth0: flags=4163; echo inet 9.9.9.9",
			"sysctls/sysctl_all.txt":       "sysctl --all 2>/dev/null",
		},
		others:  map[string]string{"ipamd/enis.json": "{}", "var_log/messages": "-A POSTROUTING -j MASQUERADE\n"},
		wants:   []string{"two-masqueraders"},
		tracked: true,
	},
	{
		tool: "cilium-bugtool",
		commands: map[string]string{
			"cilium-bugtool-1/cmd/ip-a.md":                       "ip a",
			"cilium-bugtool-1/cmd/ip--d--s-l.md":                 "ip -d -s l",
			"cilium-bugtool-1/cmd/ip--4-r.md":                    "ip -4 r",
			"cilium-bugtool-1/cmd/ip--6-r.md":                    "printf '# ip -6 r\\n\\n```\\n'; ip -6 r; printf '```\\n'",
			"cilium-bugtool-1/cmd/ip--4-route-show-table-255.md": "ip -4 route show table 255",
			"cilium-bugtool-1/cmd/ip-rule.md":                    "ip rule",
			"cilium-bugtool-1/cmd/ip--4-n.md":                    "ip -4 n",
			"cilium-bugtool-1/cmd/iptables-save--c.md":           "iptables-save -c",
			"cilium-bugtool-1/cmd/iptables-nft-save--c.md":       "iptables-nft-save -c",
			"cilium-bugtool-1/cmd/ip6tables-save--c.md":          "ip6tables-save -c",
			"cilium-bugtool-1/cmd/sysctl--a.md":                  "sysctl -a 2>/dev/null",
			"cilium-bugtool-1/cmd/cilium-bpf-nat-list.md":        "echo TCP OUT 10.244.1.2",
			"cilium-bugtool-1/cmd/iptables--L--v.md":             "iptables -L -v",
			"cilium-bugtool-1/cmd/cilium-debuginfo-1.md":         "echo '# ip route'; echo default via 9.9.9.9 dev eth9",
		},
		wants: everyCode,
	},
	{
		tool: "antctl supportbundle",
		commands: map[string]string{
			"iptables": "iptables-save; ip6tables-save", "ipset": "true", "nftables": "nft list ruleset",
			"link": "ip link", "address": "ip address", "rule": "ip rule show", "route": "ip route show table all",
			"agentinfo": "echo 'version: v2.5'", "flows": "echo 'cookie=0x1, table=0, priority=200 actions=drop'",
		},
		others: map[string]string{"logs/agent/antrea-agent.log": "*nat\n-A POSTROUTING -j MASQUERADE\nCOMMIT\n"},
		wants:  []string{"pods-masqueraded", "two-masqueraders"},
	},
}

// TestBundles: what support tools collect of a node in trouble tells of it what the
// node itself does, as far as they collect it; as a folder and as an archive.
func TestBundles(t *testing.T) {
	l := newLab(t, noIPv4+docker+flannel+`
iptables -t nat -D FLANNEL-POSTRTG 2
ip6tables -t nat -F; ip route add 10.244.2.0/24 via 192.0.2.2; sysctl -qw net.ipv4.conf.eth0.forwarding=0
conntrack -I -p tcp -s 10.244.1.7 -d 198.51.100.9 --sport 1000 --dport 80 --state ESTABLISHED -t 600`)
	for _, b := range bundles {
		t.Run(b.tool, func(t *testing.T) {
			l.t = t
			dir := t.TempDir()
			for name, command := range b.commands {
				out, err := l.node.Run(command, "sh")
				must(t, err)
				write(t, dir, name, out)
			}
			for name, text := range b.others {
				write(t, dir, name, text)
			}
			archive := filepath.Join(t.TempDir(), "bundle.tar.gz")
			pack(t, dir, archive)
			for _, path := range []string{dir, archive} {
				host, err := snapshot.Read([]string{path}, nil)
				must(t, err)
				r := doctor.Examine(doctor.Node{Host: host})
				if got := codes(&r); !slices.Equal(slices.Sorted(slices.Values(got)), b.wants) {
					t.Errorf("%s: %v; expected %v\n%s", filepath.Base(path), got, b.wants, text(&r))
				}
				if _, counted := host.Counters["insert_failed"]; counted != b.tracked || (len(host.Connections) > 0) != b.tracked {
					t.Errorf("%s: %d connections, counters %v; expected some: %t", filepath.Base(path), len(host.Connections), host.Counters, b.tracked)
				}
				for _, n := range host.Notes {
					t.Logf("note: %s:%d: %s: %s", filepath.Base(n.File), n.Line, n.Why, n.Text)
				}
			}
		})
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	file := filepath.Join(dir, filepath.FromSlash(name))
	must(t, os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o600))
}

func pack(t *testing.T, dir, archive string) {
	t.Helper()
	f, err := os.Create(archive)
	must(t, err)
	z := gzip.NewWriter(f)
	w := tar.NewWriter(z)
	must(t, w.AddFS(os.DirFS(dir)), w.Close(), z.Close(), f.Close())
}

// TestBundlesOfSeveralNodes: which one is meant must be said.
func TestBundlesOfSeveralNodes(t *testing.T) {
	dir := t.TempDir()
	for _, node := range []string{"a", "b"} {
		write(t, dir, node+"/cmd/ip-a.md", "1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 qdisc noqueue state UNKNOWN\n    inet 127.0.0.1/8 scope host lo\n")
		write(t, dir, node+"/cmd/ip--d--s-l.md", "1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 qdisc noqueue state UNKNOWN\n")
	}
	if _, err := snapshot.Read([]string{dir}, nil); err == nil || !strings.Contains(err.Error(), "holds the cilium-bugtool of 2 nodes: give one of them: a/, b/") {
		t.Errorf("%v", err)
	}
}
