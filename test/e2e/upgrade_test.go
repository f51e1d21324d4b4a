//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/unmasq/unmasq/test/kube"
)

// busy is a host that connects again and again, in both families.
type busy struct {
	name string
	node *kube.Node
	stop func() error // and say what failed
}

// busy on each of the nodes: a real pod where there is a kubelet.
func (f *fleet) busy(t *testing.T, ctx context.Context, nodes ...*kube.Node) (all []*busy) {
	t.Helper()
	const pause = 20 * time.Millisecond
	targets := []netip.AddrPort{netip.AddrPortFrom(kube.Outside4, backendPort), netip.AddrPortFrom(kube.Outside6, backendPort)}
	for _, n := range nodes {
		f.mu.Lock()
		f.calls++
		b := &busy{name: fmt.Sprintf("busy-%s-%d", n.Name, f.calls), node: n}
		f.mu.Unlock()
		all = append(all, b)
		if n.Kubelet != nil {
			f.busyPod(t, ctx, b, "-name", b.name, "-every", pause.String(), targets[0].String(), targets[1].String())
			continue
		}
		h := f.hostOn(n)
		ending, end := context.WithCancel(ctx)
		var failed error
		var loop sync.WaitGroup
		loop.Go(func() {
			for ending.Err() == nil {
				for _, to := range targets {
					failed = errors.Join(failed, h.connect(ctx, to, b.name))
				}
				time.Sleep(pause)
			}
		})
		b.stop = func() error { end(); loop.Wait(); return failed }
	}
	return all
}

// busyPod is a real one. What failed is in its log.
func (f *fleet) busyPod(t *testing.T, ctx context.Context, b *busy, args ...string) {
	t.Helper()
	pod := realPodOf(b.node, kube.PodConfig{Name: b.name, Labels: map[string]string{"app": "web"}}, args...)
	if _, err := f.c.Client.CoreV1().Pods("default").Create(ctx, pod, meta.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	kubectl(t, ctx, f.c, "wait", "--for=condition=Ready", "pod/"+b.name, "--timeout=60s")
	b.stop = func() error {
		log, err := f.c.Kubectl(ctx, "", "logs", b.name)
		if i := strings.Index(log, `"error"`); i >= 0 {
			err = errors.Join(err, fmt.Errorf("%s says %s", b.name, log[max(0, i-100):min(len(log), i+200)]))
		}
		_, gone := f.c.Kubectl(ctx, "", "delete", "pod", b.name, "--now", "--timeout=60s")
		return errors.Join(err, gone)
	}
}

// judge what busy ones were seen as: as their nodes, always.
func (f *fleet) judge(t *testing.T, during string, all []*busy) {
	t.Helper()
	for _, b := range all {
		if err := b.stop(); err != nil {
			t.Error(err)
		}
		f.mu.Lock()
		seen := f.sources[b.name]
		f.mu.Unlock()
		wrong := map[netip.Addr]int{}
		for _, a := range seen {
			if a != b.node.IPv4 && a != b.node.IPv6 {
				wrong[a]++
			}
		}
		t.Logf("checked: %s a pod of %s made %d connections; seen otherwise than as its node: %v", during, b.node.Name, len(seen), wrong)
		if len(wrong) > 0 || len(seen) < 100 {
			t.Errorf("%s a pod of %s made %d connections, seen otherwise than as its node: %v", during, b.node.Name, len(seen), wrong)
		}
	}
}
