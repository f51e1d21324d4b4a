//go:build e2e

package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/unmasq/unmasq/test/kube"
)

// TestBuild comes first, by its file's name: the first time it takes minutes, which are no other
// test's.
func TestBuild(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Minute)
	defer cancel()
	begin := time.Now()
	if err := kube.Build(ctx, "", kube.NodeConfig{Kubelet: true, Proxy: kube.Proxy{Mode: kube.NFTables}}); err != nil {
		t.Fatal(err)
	}
	t.Logf("checked: the cluster's programs are there after %.1f s", time.Since(begin).Seconds())
}
