package capture

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/unmasq/unmasq/internal/snapshot"
)

// devices of chains at ingress and egress, where there are such: nft's JSON may
// lack them.
func (c *capture) devices(ctx context.Context) {
	listed := c.files[snapshot.FileNFT]
	if bytes.Contains(listed, []byte(`"ingress"`)) || bytes.Contains(listed, []byte(`"egress"`)) {
		c.dump(ctx, dump{snapshot.FileNFTChains, "nft", [][]string{{"list", "chains"}}})
	}
}

// virtualServers prints IPVS's; ipvsadm would load the module to say that there are none.
func (c *capture) virtualServers(ctx context.Context) {
	if _, err := c.proc("/proc/thread-self/net/ip_vs"); errors.Is(err, os.ErrNotExist) {
		c.files[snapshot.FileIPVS] = []byte("# no virtual servers: ip_vs isn't loaded\n")
		return
	}
	c.dump(ctx, dump{snapshot.FileIPVS, "ipvsadm", [][]string{{"-Sn"}}})
}

// wireguard lists what peers may send, without any key.
//
//	allowed-ips wg0 peer-1 10.9.0.0/24 fd00:9::/64
func (c *capture) wireguard(ctx context.Context) {
	c.progress(snapshot.FileWireGuard)
	peers := map[string]string{}
	var text strings.Builder
	for _, what := range [...]string{"listen-port", "fwmark", "endpoints", "allowed-ips"} {
		stdout, stderr, err := c.run(ctx, "wg", "show", "all", what)
		if err != nil {
			c.meta.Missing[snapshot.FileWireGuard] = reason("wg", nil, stderr, err)
			return
		}
		for line := range strings.Lines(string(stdout)) {
			f := strings.Fields(line)
			if len(f) < 2 {
				continue
			}
			if what == "endpoints" || what == "allowed-ips" {
				if peers[f[1]] == "" {
					peers[f[1]] = fmt.Sprintf("peer-%d", len(peers)+1)
				}
				f[1] = peers[f[1]]
			}
			fmt.Fprintln(&text, what, strings.Join(f, " "))
		}
	}
	c.files[snapshot.FileWireGuard] = []byte(text.String())
}

// bpf lists the programs at interfaces, which may drop or translate packets
// outside netfilter: bpftool knows all of them, tc those of its own.
func (c *capture) bpf(ctx context.Context) {
	c.progress(snapshot.FileBPF)
	stdout, stderr, err := c.run(ctx, "bpftool", "-j", "net")
	if err == nil {
		c.files[snapshot.FileBPF] = stdout
		return
	}
	stdout, stderr2, err2 := c.run(ctx, "tc", "-j", "qdisc", "show")
	var disciplines []struct{ Kind, Dev string }
	if err2 != nil || json.Unmarshal(stdout, &disciplines) != nil {
		if err2 == nil {
			err2 = errors.New("no JSON")
		}
		c.meta.Missing[snapshot.FileBPF] = reason("bpftool", nil, stderr, err) + "; " + reason("tc", nil, stderr2, err2)
		return
	}
	type filters struct {
		Device  string          `json:"dev"`
		Hook    string          `json:"hook"`
		Filters json.RawMessage `json:"filters"`
	}
	all := []filters{}
	for _, d := range disciplines {
		hooks := []string{"ingress", "egress"}
		switch d.Kind {
		case "clsact":
		case "ingress":
			hooks = hooks[:1]
		default:
			continue
		}
		for _, hook := range hooks {
			out, _, err := c.run(ctx, "tc", "-j", "filter", "show", "dev", d.Dev, hook)
			if err == nil && json.Valid(out) && strings.Contains(string(out), "kind") {
				all = append(all, filters{d.Dev, hook, out})
			}
		}
	}
	text, err := json.MarshalIndent(all, "", " ")
	if err == nil {
		c.files[snapshot.FileBPF] = append(text, '\n')
	}
}

// settings are the sysctls that decide where packets go, as paths below /proc/sys/net.
var settings = []string{
	"ipv4/ip_forward", "ipv4/ip_local_port_range", "ipv4/ip_local_reserved_ports", "ipv4/ip_nonlocal_bind",
	"ipv4/fib_multipath_hash_policy", "ipv4/fib_multipath_use_neigh", "ipv4/fwmark_reflect", "ipv4/ip_early_demux",
	"ipv4/conf/*/forwarding", "ipv4/conf/*/rp_filter", "ipv4/conf/*/route_localnet", "ipv4/conf/*/src_valid_mark",
	"ipv4/conf/*/accept_local", "ipv4/conf/*/send_redirects", "ipv4/conf/*/proxy_arp", "ipv4/conf/*/disable_policy",
	"ipv4/vs/conntrack",
	"ipv6/conf/*/forwarding", "ipv6/conf/*/disable_ipv6", "ipv6/conf/*/use_tempaddr", "ipv6/conf/*/proxy_ndp",
	"ipv6/fib_multipath_hash_policy", "ipv6/ip_nonlocal_bind",
	"bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-ip6tables", "bridge/bridge-nf-call-arptables",
	"bridge/bridge-nf-filter-vlan-tagged", "bridge/bridge-nf-pass-vlan-input-dev",
	"netfilter/nf_conntrack_max", "netfilter/nf_conntrack_count", "netfilter/nf_conntrack_tcp_loose",
	"netfilter/nf_conntrack_tcp_be_liberal", "netfilter/nf_conntrack_helper",
}

// sysctls reads the settings. What isn't there (a module that isn't loaded) is
// left out.
func (c *capture) sysctls() {
	c.progress(snapshot.FileSysctl)
	var text strings.Builder
	err := c.inside(func() error {
		const root = "/proc/sys/"
		for _, s := range settings {
			paths, err := filepath.Glob(root + "net/" + s)
			if err != nil {
				return err
			}
			for _, p := range paths {
				value, err := os.ReadFile(p)
				if err != nil {
					continue // an interface that has just gone
				}
				fmt.Fprintf(&text, "%s = %s\n", sysctlName(p[len(root):]), strings.Join(strings.Fields(string(value)), " "))
			}
		}
		return nil
	})
	if err != nil || text.Len() == 0 {
		c.meta.Missing[snapshot.FileSysctl] = fmt.Sprintf("/proc/sys/net can't be read: %v", err)
		return
	}
	c.files[snapshot.FileSysctl] = []byte(text.String())
}

// counters of connection tracking. conntrack(8) has them where /proc hasn't; where
// nothing is tracked it isn't asked, since that would load the module.
func (c *capture) counters(ctx context.Context) {
	text, err := c.proc("/proc/thread-self/net/stat/nf_conntrack")
	if errors.Is(err, os.ErrNotExist) {
		if _, err := c.proc("/proc/sys/net/netfilter/nf_conntrack_count"); err == nil {
			c.dump(ctx, dump{snapshot.FileConntrackStat, "conntrack", [][]string{{"-S"}}})
			return
		}
		text, err = "# connection tracking isn't loaded\n", nil
	}
	c.progress(snapshot.FileConntrackStat)
	if err != nil {
		c.meta.Missing[snapshot.FileConntrackStat] = fmt.Sprintf("/proc/net/stat/nf_conntrack can't be read: %v", err)
		return
	}
	c.files[snapshot.FileConntrackStat] = []byte(text)
}

// sysctlName is how sysctl(8) prints a path: dots for slashes, and slashes for
// the dots in an interface's name.
func sysctlName(path string) string {
	return strings.Map(func(r rune) rune {
		switch r {
		case '/':
			return '.'
		case '.':
			return '/'
		}
		return r
	}, path)
}

// proc reads a file of the namespace.
func (c *capture) proc(path string) (text string, err error) {
	err = c.inside(func() error {
		content, err := os.ReadFile(path)
		text = string(content)
		return err
	})
	return text, err
}
