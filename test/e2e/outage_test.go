//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/unmasq/unmasq/test/kube"
)

// outageLasts so long.
const outageLasts = time.Minute

// apiServerStopped for a minute: what was decided goes on being so, also where others
// delete the table, or try to. Pods that come meanwhile, whose objects were known, are
// decided by their labels, be their addresses others' that went meanwhile; and when
// the API server is back all follow it again.
func apiServerStopped(t *testing.T, ctx context.Context, f *fleet) {
	n1, n2, n3 := f.c.Node("n1"), f.c.Node("n2"), f.c.Node("n3")
	apply(t, ctx, f.c, fleetPolicy("hide", "Masquerade", ""))
	f.become(t, ctx, f.hosts, (*fleetHost).asNode)
	leaver, err := n3.StartPod(ctx, kube.PodConfig{Name: "leaver", Labels: map[string]string{"app": "web"}})
	if err != nil {
		t.Fatal(err)
	}
	comers := []*comer{f.expect(t, ctx, n2, "comer-n2", "web"), f.expect(t, ctx, n3, "comer-n3", "db")}
	owned := map[*kube.Node]bool{}
	for _, n := range []*kube.Node{n1, n2} {
		owned[n] = kubectl(t, ctx, f.c, "get", "nodereport", n.Name, "-o", "jsonpath={.status.kernel.features[?(@.name=='TableOwner')].state}") == "Yes"
	}
	all := f.busy(t, ctx, n1, n2)
	away := time.Now()
	if err := f.c.API.Server.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = leaver.Delete(ctx) // its object stays: the API server is away
	newSandbox := f.killSandbox(t, ctx, n1, all[0].name)
	for _, c := range comers {
		c.come(t, ctx)
	}
	if got := comers[1].host.addresses[0]; got != leaver.IPv4 {
		t.Errorf("the pod that came has %s, want %s of the one that went", got, leaver.IPv4)
	}
	newSandbox()
	tampered := 0
	for ; time.Since(away) < outageLasts; tampered++ {
		f.tamper(t, ctx, n1, owned[n1])
		f.tamper(t, ctx, n2, owned[n2])
		f.tamper(t, ctx, n3, false)
		f.become(t, ctx, []*fleetHost{f.hostOn(n2), comers[0].host, f.hostOn(n3)}, (*fleetHost).asNode)
		f.become(t, ctx, []*fleetHost{comers[1].host}, (*fleetHost).own)
		time.Sleep(2 * time.Second)
	}
	lasted := time.Since(away)
	if err := f.c.API.Start(ctx); err != nil {
		t.Fatal(err)
	}
	f.judge(t, "while the API server was away", all)
	for _, c := range comers {
		c.stay(t)
	}
	f.inStep(t, ctx)
	t.Logf("checked: the API server was away for %.0f s; the table of each node was deleted %d times, or so tried", lasted.Seconds(), tampered)
}

// inStep: all nodes do what the API says now.
func (f *fleet) inStep(t *testing.T, ctx context.Context) {
	back := time.Now()
	apply(t, ctx, f.c, fleetPolicy("hide", "Keep", ""))
	f.become(t, ctx, f.hosts, (*fleetHost).own)
	t.Logf("checked: all nodes did what a new policy says %.1f s after the API server was back", time.Since(back).Seconds())
	f.reports(t, ctx, conditionPath("Degraded", "status")+"/{.status.policies[*].generation}", "False/2", f.c.Nodes()...)
	kubectl(t, ctx, f.c, "delete", "pods", "leaver", "comer-n2", "comer-n3", "--now", "--timeout=60s")
	kubectl(t, ctx, f.c, "delete", "sourcepolicies", "--all")
}

// tamper with a node's table: where the agent owns it that is refused.
func (f *fleet) tamper(t *testing.T, ctx context.Context, n *kube.Node, owned bool) {
	t.Helper()
	out, err := n.NS.Run("", "nft", "delete", "table", "inet", "unmasq")
	switch {
	case owned && (err == nil || !strings.Contains(out+err.Error(), "Operation not permitted")):
		t.Errorf("another process deletes the table of %s: %s %v, want that it isn't permitted", n.Name, out, err)
	case !owned && err != nil:
		t.Errorf("delete the table of %s: %s %v", n.Name, out, err)
	}
}

// comer is a pod that is known and gets its network later.
type comer struct {
	f      *fleet
	node   *kube.Node
	object *core.Pod
	host   *fleetHost
	over   chan struct{}
	ended  chan error
}

// expect a pod: it's done when the node's agent knows its labels.
func (f *fleet) expect(t *testing.T, ctx context.Context, n *kube.Node, name, app string) *comer {
	t.Helper()
	object, err := f.c.Client.CoreV1().Pods("default").Create(ctx, realPodOf(n, kube.PodConfig{Name: name, Labels: map[string]string{"app": app}}), meta.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, ctx, func() error {
		text, err := os.ReadFile(filepath.Join(n.Dir, "run", "cluster.json"))
		if err == nil && !strings.Contains(string(text), `"name":"`+name+`"`) {
			err = fmt.Errorf("the cache of %s doesn't have pod %s", n.Name, name)
		}
		return err
	})
	return &comer{f: f, node: n, object: object, over: make(chan struct{}), ended: make(chan error, 1)}
}

// come: the pod has its network. Its status is told when it may stay.
func (c *comer) come(t *testing.T, ctx context.Context) {
	t.Helper()
	attached := make(chan struct{})
	go func() {
		_, err := c.node.AdoptWith(ctx, c.object, func(ctx context.Context, p *kube.Pod) error {
			c.host = hostOf(p)
			close(attached)
			select {
			case <-c.over:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		c.ended <- err
	}()
	select {
	case <-attached:
	case err := <-c.ended:
		t.Fatal(err)
	}
}

func (c *comer) stay(t *testing.T) {
	t.Helper()
	close(c.over)
	if err := <-c.ended; err != nil {
		t.Error(err)
	}
}

// killSandbox of a real pod: its kubelet makes another, with another address, which
// the function that is returned waits for.
func (f *fleet) killSandbox(t *testing.T, ctx context.Context, n *kube.Node, name string) (made func()) {
	t.Helper()
	sandbox := func() (string, error) {
		found, err := resultsOf(n, name)
		if err != nil || len(found) != 1 {
			return "", errors.Join(err, fmt.Errorf("results of pod %s: %v, want one", name, found))
		}
		return found[0].Sandbox, nil
	}
	before, err := sandbox()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := n.Run("ctr", "--namespace", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", before); err != nil {
		t.Fatal(out, err)
	}
	return func() {
		t.Helper()
		eventually(t, ctx, func() error {
			now, err := sandbox()
			if err == nil && now == before {
				err = fmt.Errorf("pod %s has its killed sandbox still", name)
			}
			return err
		})
		f.mu.Lock()
		seen := len(f.sources[name])
		f.mu.Unlock()
		eventually(t, ctx, func() error {
			f.mu.Lock()
			defer f.mu.Unlock()
			if len(f.sources[name]) < seen+10 {
				return fmt.Errorf("pod %s makes no connections with its new sandbox", name)
			}
			return nil
		})
	}
}
