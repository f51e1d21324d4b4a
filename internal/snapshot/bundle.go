package snapshot

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// bundle is the layout of a support tool's archive: what of it is a node's state.
// Such an archive has thousands of files, and among logs and configuration much that
// looks like a dump.
type bundle struct {
	tool string
	// told by a file that the tool always writes: its path below the root.
	told string
	// files below the root, path.Match patterns.
	files []bundleFile
}

type bundleFile struct {
	pattern string
	// command that printed it, where its lines don't tell: above them it says family
	// and table. "{}" stands for what the pattern's star was, such as a table's name.
	command string
	// unless a file of this pattern is there, which says the same, and more.
	unless string
}

// bundles that are known, by the tools' own sources: sosreport 4, EKS log collector
// 0.7, cilium-bugtool (as a sysdump has it of each node) 1.9 to 1.18, antctl supportbundle
// 1.2 to 2.5.
var bundles = []bundle{
	{"sosreport", "sos_commands/networking/ip_route_show_table_all", []bundleFile{
		{pattern: "sos_commands/networking/ip_-d_address", command: "ip -d address"},
		{pattern: "sos_commands/networking/ip_-s_-d_link", command: "ip -s -d link"},
		{pattern: "sos_commands/networking/ip_route_show_table_all", command: "ip route show table all"},
		{pattern: "sos_commands/networking/ip_-6_route_show_table_all", command: "ip -6 route show table all"},
		{pattern: "sos_commands/networking/ip_-4_rule*", command: "ip -4 rule"},
		{pattern: "sos_commands/networking/ip_-6_rule*", command: "ip -6 rule"},
		{pattern: "sos_commands/networking/ip_-s_-s_neigh_show", command: "ip -s -s neigh show"},
		{pattern: "sos_commands/firewall_tables/iptables_-t_*_-nvL", command: "iptables -t {} -nvL"},
		{pattern: "sos_commands/firewall_tables/ip6tables_-t_*_-nvL", command: "ip6tables -t {} -nvL"},
		{pattern: "sos_commands/firewall_tables/nft_list_ruleset"},
		{pattern: "sos_commands/kernel/sysctl_-a"},
		{pattern: "sos_commands/conntrack/conntrack_-L_-o_extended"},
		{pattern: "sos_commands/conntrack/conntrack_-S"},
	}},
	{"EKS log collector", "networking/iptables-save.txt", []bundleFile{
		{pattern: "networking/iptables-save.txt"},
		{pattern: "networking/iproute.txt", command: "ip route show table all"},
		{pattern: "networking/iprule.txt", command: "ip -4 rule show"},
		{pattern: "sysctls/sysctl_all.txt"},
		{pattern: "networking/conntrack.txt"},
		{pattern: "networking/conntrack6.txt"},
	}},
	{"cilium-bugtool", "cmd/ip--d--s-l.md", []bundleFile{
		{pattern: "cmd/ip-a.md", command: "ip a"},
		{pattern: "cmd/ip--d--s-l.md", command: "ip -d -s l"},
		{pattern: "cmd/ip--4-r.md", command: "ip -4 r"},
		{pattern: "cmd/ip--6-r.md", command: "ip -6 r"},
		{pattern: "cmd/ip--4-route-show-table-*.md", command: "ip -4 route show table {}"},
		{pattern: "cmd/ip--6-route-show-table-*.md", command: "ip -6 route show table {}"},
		{pattern: "cmd/ip-rule.md", command: "ip -4 rule"},
		{pattern: "cmd/ip--4-n.md", command: "ip -4 n"},
		{pattern: "cmd/ip--6-n.md", command: "ip -6 n"},
		{pattern: "cmd/iptables-save--c.md", unless: "cmd/iptables-nft-save--c.md"},
		{pattern: "cmd/iptables-nft-save--c.md"},
		{pattern: "cmd/iptables-legacy-save--c.md"},
		{pattern: "cmd/ip6tables-save--c.md", unless: "cmd/ip6tables-nft-save--c.md"},
		{pattern: "cmd/ip6tables-nft-save--c.md"},
		{pattern: "cmd/ip6tables-legacy-save--c.md"},
		{pattern: "cmd/ipset-list.md"},
		{pattern: "cmd/sysctl--a.md"},
	}},
	{"antctl supportbundle", "agentinfo", []bundleFile{
		{pattern: "iptables"},
		{pattern: "ipset"},
		{pattern: "nftables"},
		{pattern: "link", command: "ip link"},
		{pattern: "address", command: "ip address"},
		{pattern: "rule", command: "ip -4 rule show"},
		{pattern: "route", command: "ip route show table all"},
	}},
}

// picked are the files of a bundle that are read: by their names, with the command
// that goes above them. It is nil where the names are no bundle's.
func picked(names []string) (map[string]string, error) {
	for i := range bundles {
		roots := bundles[i].roots(names)
		switch {
		case len(roots) > 1:
			return nil, fmt.Errorf("holds the %s of %d nodes: give one of them: %s", bundles[i].tool, len(roots), strings.Join(roots[:min(len(roots), 5)], ", "))
		case len(roots) == 1:
			return bundles[i].pick(roots[0], names), nil
		}
	}
	return nil, nil
}

// roots are the folders in which the tool's own file lies.
func (b *bundle) roots(names []string) []string {
	var roots []string
	for _, name := range names {
		if root, ok := strings.CutSuffix(name, b.told); ok && (root == "" || strings.HasSuffix(root, "/")) && b.has(root, names) {
			roots = append(roots, root)
		}
	}
	slices.Sort(roots)
	return roots
}

// has: besides the file that tells it there is another one of the tool's.
func (b *bundle) has(root string, names []string) bool {
	found := 0
	for i := range b.files {
		if slices.ContainsFunc(names, func(name string) bool { return b.files[i].is(root, name) }) {
			found++
		}
	}
	return found > 1
}

func (f *bundleFile) is(root, name string) bool {
	below, ok := strings.CutPrefix(name, root)
	if !ok {
		return false
	}
	matched, _ := path.Match(f.pattern, below)
	return matched
}

func (b *bundle) pick(root string, names []string) map[string]string {
	picks := map[string]string{}
	for _, name := range names {
		i := slices.IndexFunc(b.files, func(f bundleFile) bool { return f.is(root, name) })
		if i < 0 {
			continue
		}
		f := &b.files[i]
		if f.unless != "" && slices.Contains(names, root+f.unless) {
			continue
		}
		before, after, _ := strings.Cut(f.pattern, "*")
		star := strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(name, root), before), after)
		picks[name] = strings.Replace(f.command, "{}", star, 1)
	}
	return picks
}

// put the command above its output, as a shell session shows it. It isn't counted as
// a line.
func (f *file) put(command string) {
	if command != "" {
		f.content, f.under = append([]byte("$ "+command+"\n"), f.content...), true
	}
}
