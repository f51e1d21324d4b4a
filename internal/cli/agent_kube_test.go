package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Flags about a cluster are refused before anything is written.
func TestKubeFlags(t *testing.T) {
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, []byte("{apiVersion: v1, kind: Config, clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}], contexts: [{name: x, context: {cluster: c}}], current-context: x}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args string
		want string // part of the error
	}{
		{"", "no policy given: name files or directories with --config, or a cluster with --kube"},
		{"--config p.yaml --pod-cidrs 10.0.0.0/8", "--pod-cidrs needs --kube"},
		{"--config p.yaml --watch-nodes", "--watch-nodes needs --kube"},
		{"--kube --node-labels a=b", "--node-labels: not expected with --kube"},
		{"--kube --pod-cidrs 10.0.0.1/8", "--pod-cidrs 10.0.0.1/8 has host bits set; the network is 10.0.0.0/8"},
		{"--kube --node-cidrs 10.0.0.1", `--node-cidrs "10.0.0.1": expected CIDRs such as`},
		{"--kube --service-cidrs ::ffff:10.0.0.0/104", "--service-cidrs"},
		{"--config p.yaml --daemon-set unmasq/unmasq-agent", "--daemon-set needs --kube"},
		{"--kube --daemon-set unmasq-agent", `--daemon-set "unmasq-agent": expected NAMESPACE/NAME`},
		{"--kube --daemon-set unmasq/", "expected NAMESPACE/NAME"},
		{"--config p.yaml --health-address 9808", `--health-address "9808": expected ADDRESS:PORT`},
		{"--kube --kubeconfig /no/such/file", "which cluster?"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			args := strings.Fields(tt.args)
			if !strings.Contains(tt.args, "--kubeconfig") && strings.Contains(tt.args, "--kube") && !strings.Contains(tt.args, "--config") {
				args = append(args, "--kubeconfig", kubeconfig)
			}
			var out bytes.Buffer
			status := Main("v", append([]string{"agent"}, args...), nil, &out, &out)
			if status != statusUsage || !strings.Contains(out.String(), tt.want) {
				t.Errorf("exit %d: %s; want %d, %s", status, out.String(), statusUsage, tt.want)
			}
		})
	}
}
