package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
)

// kubeVersions that are built.
var kubeVersions = []string{"v1.34.4", "v1.37.1"}

const (
	apiAddress = "127.0.0.1:6443"
	nodeName   = "node1"
)

// kubeProxy runs the program in the node, beside an API server of our own that
// serves what it reads, until it says that it has written its rules.
func kubeProxy(version string, flags ...string) func(context.Context, *host) error {
	return func(ctx context.Context, h *host) error {
		program, err := kubeProxyProgram(ctx, version)
		if err != nil {
			return err
		}
		stop, err := serveAPI(h)
		if err != nil {
			return err
		}
		defer stop()
		config := filepath.Join(h.bin, "kubeconfig")
		if err := os.WriteFile(config, fmt.Appendf(nil, kubeconfig, apiAddress), 0o600); err != nil {
			return err
		}
		return h.runUntil(ctx, []string{"KUBE-SVC-", "KUBE-SEP-", "--random-fully"}, program, append([]string{"--kubeconfig=" + config,
			"--hostname-override=" + nodeName, "--proxy-mode=iptables", "--cluster-cidr=10.244.0.0/16,fd00:10:244::/48", "--detect-local-mode=ClusterCIDR",
			"--conntrack-max-per-core=0", "--conntrack-min=0", "--healthz-bind-address=127.0.0.1:10256", "--metrics-bind-address=127.0.0.1:10249"}, flags...)...)
	}
}

const kubeconfig = `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "http://%s"}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
users: [{name: u, user: {}}]
current-context: c
`

// serveAPI serves in the node's namespace until stop is called.
func serveAPI(h *host) (stop func(), err error) {
	var listener net.Listener
	err = h.ns.Do(func() (err error) { listener, err = net.Listen("tcp", apiAddress); return err })
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: newAPI(cluster())}
	go server.Serve(listener)
	return func() { server.Close() }, nil
}
