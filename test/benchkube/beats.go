package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	coordination "k8s.io/api/coordination/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// beats are what kubelets say when nothing happens, and pods that change elsewhere.
type beats struct {
	stop func()
	all  sync.WaitGroup

	leases, statuses, pods, failed atomic.Int64
	since                          time.Time
	mu                             sync.Mutex
	err                            error // the last one
}

// beat starts them: each lease every 10 s, each status every 5 minutes, and each
// pod's conditions every hour.
func (b *bench) beat(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	x := &beats{stop: cancel, since: time.Now()}
	b.beats = x
	const busy = 16 // of leases at once
	leases := make([]*coordination.Lease, b.nodes)
	x.every(ctx, busy, b.nodes, leaseEvery, &x.leases, func(i int) error { return b.renew(ctx, leases, i) })
	x.every(ctx, 4, b.nodes, statusEvery, &x.statuses, func(i int) error { return b.reportNode(ctx, i) })
	x.every(ctx, 4, b.nodes, time.Duration(b.nodes)*time.Hour/time.Duration(b.pods), &x.pods, func(i int) error { return b.reportPod(ctx, i) })
}

// every goes round n in a time.
func (x *beats) every(ctx context.Context, workers, n int, round time.Duration, done *atomic.Int64, f func(i int) error) {
	turns := make(chan int)
	for range workers {
		x.all.Go(func() {
			for i := range turns {
				if err := f(i); err == nil {
					done.Add(1)
				} else if ctx.Err() == nil {
					x.failed.Add(1)
					x.mu.Lock()
					x.err = err
					x.mu.Unlock()
				}
			}
		})
	}
	x.all.Go(func() {
		defer close(turns)
		begin := time.Now()
		for turn := 0; ; turn++ {
			wait := time.Until(begin.Add(round * time.Duration(turn) / time.Duration(n)))
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
			select {
			case turns <- turn % n:
			case <-ctx.Done():
				return
			}
		}
	})
}

// end stops them. More calls do nothing.
func (x *beats) end() error {
	x.stop()
	x.all.Wait()
	if n := x.failed.Load(); n > 0 {
		return fmt.Errorf("%d heartbeats failed, the last: %w", n, x.err)
	}
	return nil
}

// rates since the last call, a second.
func (x *beats) rates() (leases, statuses, pods float64) {
	s := time.Since(x.since).Seconds()
	x.since = time.Now()
	return float64(x.leases.Swap(0)) / s, float64(x.statuses.Swap(0)) / s, float64(x.pods.Swap(0)) / s
}

// renew a lease as kubelets do, which remember what they wrote last.
func (b *bench) renew(ctx context.Context, leases []*coordination.Lease, i int) (err error) {
	client := b.client.CoordinationV1().Leases(core.NamespaceNodeLease)
	if leases[i] == nil {
		if leases[i], err = client.Get(ctx, nodeName(i), meta.GetOptions{}); err != nil {
			return err
		}
	}
	l := leases[i].DeepCopy()
	l.Spec.RenewTime = &meta.MicroTime{Time: time.Now()}
	l, err = client.Update(ctx, l, meta.UpdateOptions{})
	if err != nil {
		l = nil // ask again
	}
	leases[i] = l
	return err
}

// reportNode says that it's as it was, as kubelets do.
func (b *bench) reportNode(ctx context.Context, i int) error {
	now := time.Now().UTC().Format(time.RFC3339)
	patch := fmt.Appendf(nil, `{"status":{"conditions":[{"type":"MemoryPressure","lastHeartbeatTime":%q},{"type":"DiskPressure","lastHeartbeatTime":%q},`+
		`{"type":"PIDPressure","lastHeartbeatTime":%q},{"type":"Ready","lastHeartbeatTime":%q}]}}`, now, now, now, now)
	return b.client.CoreV1().RESTClient().Patch(types.StrategicMergePatchType).Resource("nodes").Name(nodeName(i)).SubResource("status").Body(patch).Do(ctx).Error()
}

// reportPod says that one of a node's pods was not ready for a moment. The first
// node's pods stay as they are.
func (b *bench) reportPod(ctx context.Context, node int) error {
	if node == 0 {
		return nil
	}
	at := place{node, 0}
	if b.podsOf(node) == 0 {
		return errors.New("a node without pods")
	}
	patch := fmt.Appendf(nil, `{"status":{"conditions":[{"type":"Ready","status":"True","lastTransitionTime":%q}]}}`, time.Now().UTC().Format(time.RFC3339))
	return b.client.CoreV1().RESTClient().Patch(types.StrategicMergePatchType).Namespace(at.namespace()).Resource("pods").Name(at.name()).SubResource("status").Body(patch).Do(ctx).Error()
}
