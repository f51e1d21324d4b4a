package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// many policies are in force where one agent's work is measured.
const many = 1000

// measureMany has one agent on a node with as many pods as a kubelet takes, and
// many policies. Another watch of the same objects says when the event came.
func (b *bench) measureMany(ctx context.Context) error {
	if err := each(many-few, func(i int) error { return b.createPolicy(ctx, policyOf(few+i)) }); err != nil {
		return err
	}
	a, err := b.running(ctx, 0)
	if err != nil {
		return err
	}
	if err := a.runs.Terminate(ctx); err != nil {
		return err
	}
	s, err := b.startOnce(ctx, a)
	if err != nil {
		return err
	}
	b.add(fmt.Sprintf("%d policies: start to enforced", many), ms(s.took), kb(s.traffic.in)+" got", "10 s")
	seen, stop, err := b.watchToo(ctx, a.node)
	if err != nil {
		return err
	}
	defer stop()
	for _, kind := range []struct {
		name    string
		prepare func(i int) error
		do      func(i int) (version string, err error)
	}{
		{"a pod's label", nil, func(i int) (string, error) { return b.relabel(ctx, i) }},
		{"a pod comes, or ends", func(i int) error { return b.newPod(ctx, i) }, func(i int) (string, error) { return b.showPod(ctx, i) }},
		{"a policy's destinations", nil, func(i int) (string, error) {
			return b.patchPolicy(ctx, fmt.Sprint("policy-", i*7%many), fmt.Sprintf("192.168.%d.0/24", i), fmt.Sprintf("2001:db8:aaaa:%x::/64", i))
		}},
	} {
		var fromEvent, fromRequest []time.Duration
		for i := range b.changes() {
			if kind.prepare != nil {
				if err := kind.prepare(i); err != nil {
					return err
				}
			}
			event, request, err := seen.measure(ctx, a, func() (string, error) { return kind.do(i) })
			if err != nil {
				return fmt.Errorf("%s: %w", kind.name, err)
			}
			fromEvent, fromRequest = append(fromEvent, event), append(fromRequest, request)
		}
		b.add(fmt.Sprintf("%d policies, %d pods: %s: watch event to kernel", many, crowded, kind.name), spread(fromEvent), "from the request: "+spread(fromRequest), "100 ms p99")
	}
	m, err := memoryOf(a.runs)
	if err != nil {
		return err
	}
	b.add(fmt.Sprintf("%d policies: memory, resident", many), fmt.Sprintf("%s, of that its own %s", mb(m.resident), mb(m.own)), "at most "+mb(m.most), "60 MB")
	return nil
}

// changes of each kind.
func (b *bench) changes() int {
	if b.short() {
		return 30
	}
	return 100
}

// relabel one of the pods, which another policy selects from then on.
func (b *bench) relabel(ctx context.Context, i int) (string, error) {
	at := place{0, i % crowded}
	patch := fmt.Appendf(nil, `{"metadata":{"labels":{"app":"app-%d"}}}`, (i*7+1)%crowded)
	p, err := b.client.CoreV1().Pods(at.namespace()).Patch(ctx, at.name(), types.MergePatchType, patch, meta.PatchOptions{})
	if err != nil {
		return "", err
	}
	return p.ResourceVersion, nil
}

// newPod is one without an address, every second time.
func (b *bench) newPod(ctx context.Context, i int) error {
	if i%2 == 1 {
		return nil
	}
	at := newPlace(i)
	_, err := b.client.CoreV1().Pods(at.namespace()).Create(ctx, &core.Pod{ObjectMeta: meta.ObjectMeta{Name: at.name(), Labels: map[string]string{"app": at.app()}},
		Spec: core.PodSpec{NodeName: nodeName(at.node), AutomountServiceAccountToken: new(bool), Containers: []core.Container{{Name: "web", Image: "none"}}}}, meta.CreateOptions{})
	time.Sleep(quiet) // what that changes, if anything, is past
	return err
}

func newPlace(i int) place { return place{0, crowded + i/2} }

// showPod has its address from the API, which no network plugin's result told
// before; every second time the pod has ended.
func (b *bench) showPod(ctx context.Context, i int) (string, error) {
	at := newPlace(i)
	a4, a6 := at.addresses()
	status := fmt.Appendf(nil, `{"status":{"phase":"Running","podIP":%q,"podIPs":[{"ip":%q},{"ip":%q}]}}`, a4, a4, a6)
	if i%2 == 1 {
		status = []byte(`{"status":{"phase":"Succeeded"}}`)
	}
	p, err := b.client.CoreV1().Pods(at.namespace()).Patch(ctx, at.name(), types.MergePatchType, status, meta.PatchOptions{}, "status")
	if err != nil {
		return "", err
	}
	return p.ResourceVersion, nil
}

// seenEvents are when a watch beside the agent's had a version of an object.
type seenEvents struct {
	mu sync.Mutex
	at map[string]time.Time
}

// watchToo watches the node's pods and the policies.
func (b *bench) watchToo(ctx context.Context, node int) (*seenEvents, func(), error) {
	s := &seenEvents{at: map[string]time.Time{}}
	pods, err := b.client.CoreV1().Pods("").Watch(ctx, meta.ListOptions{FieldSelector: "spec.nodeName=" + nodeName(node)})
	if err != nil {
		return nil, nil, err
	}
	policies, err := b.policies.Watch(ctx, meta.ListOptions{})
	if err != nil {
		pods.Stop()
		return nil, nil, err
	}
	for _, w := range []watch.Interface{pods, policies} {
		go func() {
			for e := range w.ResultChan() {
				now := time.Now()
				if o, ok := e.Object.(meta.Object); ok {
					s.mu.Lock()
					s.at[o.GetResourceVersion()] = now
					s.mu.Unlock()
				}
			}
		}()
	}
	return s, func() { pods.Stop(); policies.Stop() }, nil
}

func (s *seenEvents) of(version string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at[version]
}

// measure from the event, and from the request, until the last change in the kernel.
func (s *seenEvents) measure(ctx context.Context, a *agent, change func() (string, error)) (event, request time.Duration, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("it didn't come to the kernel within a minute"))
	defer cancel()
	begin := time.Now()
	a.table.reset()
	version, err := change()
	if err != nil {
		return 0, 0, err
	}
	if err := settle(ctx, a.table); err != nil {
		return 0, 0, err
	}
	last, err := a.table.lastChange()
	if err != nil {
		return 0, 0, err
	}
	came := s.of(version)
	for came.IsZero() {
		select {
		case <-ctx.Done():
			return 0, 0, fmt.Errorf("version %s: %w", version, context.Cause(ctx))
		case <-time.After(time.Millisecond):
			came = s.of(version)
		}
	}
	return max(0, last.Sub(came)), last.Sub(begin), nil
}
