package main

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"

	"github.com/unmasq/unmasq/test/kube"
	"github.com/unmasq/unmasq/test/kube/parts"
)

const newestKube = parts.NewestKube

// kubeVersions that run in iptables mode, and in nftables mode, which changed
// more between them.
var (
	kubeVersions       = []string{"v1.34.4", newestKube}
	kubeNativeVersions = []string{"v1.34.4", "v1.35.4", "v1.36.3", newestKube}
)

const nodeName = "node1"

// kubeProxy runs the program in iptables mode until it has written its rules.
func kubeProxy(version string, flags ...string) func(context.Context, *host) error {
	return runKubeProxy(version, []string{"KUBE-SVC-", "KUBE-SEP-", "--random-fully"}, append(flags, "--proxy-mode=iptables"))
}

// kubeProxyNative does so in nftables mode.
func kubeProxyNative(version string, flags ...string) func(context.Context, *host) error {
	return runKubeProxy(version, []string{"table ip kube-proxy", "table ip6 kube-proxy", "masquerade fully-random", "dnat to 10.244.", "dnat to [fd00:10:244:"}, append(flags, "--proxy-mode=nftables"))
}

// runKubeProxy runs the program on the usual node until its rules hold the words.
func runKubeProxy(version string, words, flags []string) func(context.Context, *host) error {
	return func(ctx context.Context, h *host) error {
		p := proxy{version: version, node: nodeName, address: netip.MustParseAddr("192.168.5.10"), objects: cluster(), words: words,
			flags: append(flags, "--cluster-cidr=10.244.0.0/16,fd00:10:244::/48", "--detect-local-mode=ClusterCIDR")}
		return p.run(ctx, h)
	}
}

// proxy is a kube-proxy of a node.
type proxy struct {
	version string
	// node and an address of it, at which there is an API server with the objects.
	node    string
	address netip.Addr
	objects map[string][]object
	// words that its rules hold once they are written.
	words []string
	flags []string
}

// run it in the node until it has written its rules.
func (p proxy) run(ctx context.Context, h *host) (err error) {
	program, err := kubeProgram(ctx, p.version, "kube-proxy")
	if err != nil {
		return err
	}
	a, err := startAPI(ctx, h, p.address, p.objects)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	config := filepath.Join(h.bin, "kubeconfig")
	if err := kube.WriteKubeconfig(config, a.Admin()); err != nil {
		return err
	}
	return h.runUntil(ctx, p.words, program, append([]string{"--kubeconfig=" + config, "--hostname-override=" + p.node,
		"--conntrack-max-per-core=0", "--conntrack-min=0", "--healthz-bind-address=127.0.0.1:10256", "--metrics-bind-address=127.0.0.1:10249"}, p.flags...)...)
}
