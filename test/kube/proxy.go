package kube

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/test/kube/parts"
)

// Modes of kube-proxy.
const (
	IPTables = "iptables"
	NFTables = "nftables"
)

// Proxy is a kube-proxy.
type Proxy struct {
	// Mode; empty: there is none.
	Mode string
	// Version; empty: the cluster's.
	Version string
	// Variant of the iptables programs; empty: the machine's choice.
	Variant foreign.Variant
	// NoClusterCIDR: it isn't told the cluster's networks, and so translates no client
	// for being from outside.
	NoClusterCIDR bool
	// Flags besides.
	Flags []string
}

func (p Proxy) version(clusters string) string {
	if p.Version != "" {
		return p.Version
	}
	return clusters
}

// startProxy returns when kube-proxy has written its rules.
func (n *Node) startProxy(ctx context.Context) error {
	o := n.config.Proxy
	if o.Mode == "" {
		return nil
	}
	version := o.version(n.cluster.config.Version)
	programs, err := parts.Kube(ctx, version, "kube-proxy")
	if err != nil {
		return err
	}
	kubeconfig, err := n.cluster.Kubeconfig("system:kube-proxy")
	if err != nil {
		return err
	}
	path, err := n.iptables(o.Variant)
	if err != nil {
		return err
	}
	flags := o.Flags
	if !o.NoClusterCIDR {
		flags = append([]string{"--cluster-cidr=" + clusterCIDRs, "--detect-local-mode=ClusterCIDR"}, o.Flags...)
	}
	n.Proxy = newProcess(n.NS, n.Dir, Program{Name: "kube-proxy", Path: programs["kube-proxy"], Env: []string{"PATH=" + path}, Ready: n.proxyReady,
		Args: append([]string{"--kubeconfig=" + kubeconfig, "--hostname-override=" + n.Name, "--proxy-mode=" + o.Mode,
			// The size of the connection table is the machine's.
			"--conntrack-max-per-core=0", "--conntrack-min=0",
			"--healthz-bind-address=127.0.0.1:10256", "--metrics-bind-address=127.0.0.1:10249"}, flags...)})
	n.atEnd(n.Proxy.Kill)
	return n.Proxy.Start(ctx)
}

func (n *Node) restartProxy(ctx context.Context) error {
	if n.Proxy == nil {
		return nil
	}
	return n.Proxy.Start(ctx)
}

func (n *Node) proxyReady(ctx context.Context) error {
	text, err := n.Get(ctx, "http://127.0.0.1:10249/metrics")
	if err != nil {
		return err
	}
	return synced(text)
}

// synced reads kube-proxy's metrics: when did it write its rules last? It says that
// it's healthy before it has written any.
//
//	kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv4"} 1.7632e+09
//
// Versions up to 1.33 say so once, without a family.
func synced(metrics string) error {
	const metric = "kubeproxy_sync_proxy_rules_last_timestamp_seconds"
	families := 2
	for line := range strings.Lines(metrics) {
		rest, ours := strings.CutPrefix(line, metric)
		if !ours || strings.HasSuffix(rest, " 0\n") {
			continue
		}
		if families--; rest[0] != '{' {
			families = 0
		}
	}
	if families > 0 {
		return fmt.Errorf("%s: rules of %d address families are not written yet", metric, families)
	}
	return nil
}

// iptables is a PATH in which iptables is the variant's.
func (n *Node) iptables(v foreign.Variant) (string, error) {
	path := os.Getenv("PATH") + ":/usr/sbin:/sbin"
	if v == "" {
		return path, nil
	}
	dir := filepath.Join(n.Dir, "bin")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	for _, name := range []string{"iptables", "ip6tables"} {
		for _, suffix := range []string{"", "-save", "-restore"} {
			program, err := exec.LookPath("/usr/sbin/" + name + "-" + string(v) + suffix)
			if err != nil {
				return "", fmt.Errorf("kube-proxy of node %s: %w", n.Name, err)
			}
			if err := os.Symlink(program, filepath.Join(dir, name+suffix)); err != nil {
				return "", err
			}
		}
	}
	return dir + ":" + path, nil
}
