//go:build e2e

package crd

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/test/kube"
	"github.com/unmasq/unmasq/test/kube/parts"
)

var kubeVersion = flag.String("kube", parts.NewestKube, "version of Kubernetes")

// cluster is a real API server, with deploy/base applied by a real kubectl.
type cluster struct {
	*kube.API
	ns         *netns.NS
	kubectlBin string
	kubeconfig string
}

func startCluster(t *testing.T) *cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Minute) // the first build
	defer cancel()
	programs, err := parts.Kube(ctx, parts.NewestKube, "kubectl")
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{ns: netnstest.Test(t, "api"), kubectlBin: programs["kubectl"]}
	address := netip.MustParseAddr("192.0.2.10")
	if err := c.ns.Addr("lo", netip.PrefixFrom(address, 32)); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c.API, err = kube.StartAPI(ctx, c.ns, kube.APIOptions{Dir: dir, Version: *kubeVersion, Address: address})
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	c.kubeconfig = filepath.Join(dir, "kubeconfig")
	if err := kube.WriteKubeconfig(c.kubeconfig, c.Admin()); err != nil {
		t.Fatal(err)
	}
	c.mustKubectl(t, "", "apply", "-k", filepath.Join(root, "deploy", "base"))
	c.mustKubectl(t, "", "wait", "--for=condition=Established", "crd/sourcepolicies.unmasq.io", "crd/nodereports.unmasq.io", "--timeout=60s")
	return c
}

// kubectl returns what it wrote to both outputs.
func (c *cluster) kubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	cmd := c.ns.Command(ctx, c.kubectlBin, append([]string{"--kubeconfig=" + c.kubeconfig, "--cache-dir=" + filepath.Dir(c.kubeconfig)}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (c *cluster) mustKubectl(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	out, err := c.kubectl(t.Context(), stdin, args...)
	if err != nil {
		t.Fatalf("kubectl %v: %v: %s", args, err, out)
	}
	return out
}

// client asks as one user.
type client struct {
	*http.Client
	url string
}

func newClient(t *testing.T, c *rest.Config) *client {
	t.Helper()
	h, err := rest.HTTPClientFor(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.CloseIdleConnections)
	return &client{h, c.Host}
}

// ask returns the status and what was said; of an error its message.
func (c *client) ask(ctx context.Context, method, path, contentType string, body []byte) (status int, said []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, c.url+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("Content-Type", contentType)
	resp, err := c.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	said, err = io.ReadAll(resp.Body)
	var failure struct{ Kind, Message string }
	if err == nil && resp.StatusCode >= 400 && json.Unmarshal(said, &failure) == nil && failure.Kind == "Status" {
		said = []byte(failure.Message)
	}
	return resp.StatusCode, said, err
}

// creator creates policies without keeping them, as `kubectl create --dry-run=server` does.
func (c *client) creator(t *testing.T) creator {
	return func(text []byte, strict bool) ([]byte, error) {
		asJSON, err := toJSON(text)
		if err != nil {
			return nil, err
		}
		fields := "Ignore"
		if strict {
			fields = "Strict"
		}
		status, said, err := c.ask(t.Context(), http.MethodPost, "/apis/unmasq.io/v1alpha1/sourcepolicies?dryRun=All&fieldValidation="+fields, "application/json", asJSON)
		switch {
		case err != nil:
			t.Fatal(err)
		case status >= 500:
			t.Fatalf("status %d: %s\nasked: %.1000s", status, said, text)
		case status != http.StatusCreated:
			return nil, fmt.Errorf("%s", said)
		}
		return said, nil
	}
}

// alike asks a second API server, too, and has both say the same.
func alike(t *testing.T, real, other creator) creator {
	return func(text []byte, strict bool) ([]byte, error) {
		stored, err := real(text, strict)
		if _, otherErr := other(text, strict); (err == nil) != (otherErr == nil) {
			t.Errorf("the API server says %v, its packages here say %v\n%.2000s", err, otherErr, text)
		}
		return stored, err
	}
}

func TestRealAPIServer(t *testing.T) {
	c := startCluster(t)
	create := alike(t, newClient(t, c.Admin()).creator(t), newServer(t, "sourcepolicies").create)
	t.Run("examples", func(t *testing.T) { checkExamples(t, create) })
	t.Run("bad documents", func(t *testing.T) { checkBad(t, create) })
	t.Run("random documents", func(t *testing.T) { checkRandom(t, create) })
	t.Run("spoiled documents", func(t *testing.T) { checkSpoiled(t, create) })
	t.Run("peculiar documents", func(t *testing.T) { checkPeculiar(t, create) })
	t.Run("largest", func(t *testing.T) { checkLargest(t, create) })
	t.Run("kubectl", func(t *testing.T) { checkKubectl(t, c) })
	t.Run("rights", func(t *testing.T) { checkRights(t, c) })
}

// checkKubectl: what a person sees.
func checkKubectl(t *testing.T, c *cluster) {
	good, err := os.ReadFile(filepath.Join(root, "internal", "lab", "scenarios", "kube-router", "policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	c.mustKubectl(t, string(withoutFacts(t, good)), "apply", "-f", "-")
	if out := c.mustKubectl(t, "", "get", "spol"); !strings.Contains(out, "ORDER") || !strings.Contains(out, "100") {
		t.Errorf("kubectl get spol:\n%s", out)
	}
	if out := c.mustKubectl(t, "", "explain", "sourcepolicy.spec.rules.from.pods"); !strings.Contains(out, "every address in podCIDRs") {
		t.Errorf("kubectl explain:\n%s", out)
	}
	bad := `{apiVersion: unmasq.io/v1alpha1, kind: SourcePolicy, metadata: {name: x}, spec: {rules: [{action: SNAT, to: {cidrs: [10.0.0.1/8]}}]}}`
	out, err := c.kubectl(t.Context(), bad, "apply", "-f", "-")
	for _, want := range []string{
		`"10.0.0.1/8" has host bits set; the network is 10.0.0.0/8`,
		"spec.rules[0].to.cidrs[0]: Invalid value: ",
		`spec.rules[0].snat: Required value: missing; action SNAT needs snat.addresses`,
	} {
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("kubectl apply: %v: %s\nwant %s", err, out, want)
		}
	}
}
