package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

const (
	namespaces = 200
	// few policies are in force but where many are measured.
	few = 20
	// crowded is how many pods the first node has, as many as a kubelet takes.
	crowded = 110
	// The most that have names and addresses, below clusterPods.
	mostNodes, mostPods, mostAgents = 16_000, 250, 120
	clusterPods                     = "10.0.0.0/10,fd00:10::/32"
	// heartbeat of a kubelet's lease, and of its Node's status where nothing changed.
	leaseEvery, statusEvery = 10 * time.Second, 5 * time.Minute
)

func nodeName(i int) string      { return fmt.Sprintf("node-%04d", i) }
func namespaceName(i int) string { return fmt.Sprintf("team-%03d", i%namespaces) }

// podsOf is how many pods a node has.
func (b *bench) podsOf(node int) int {
	if node == 0 {
		return crowded
	}
	return (node+1)*b.pods/b.nodes - node*b.pods/b.nodes
}

// place of a pod: its node, and its number there.
type place struct{ node, number int }

func (p place) name() string {
	return fmt.Sprintf(service+"-%04x-%02x", p.node, p.number)
}
func (p place) namespace() string { return namespaceName(p.node*7 + p.number) }
func (p place) app() string       { return fmt.Sprintf("app-%d", p.number) }
func (p place) uid() string {
	return fmt.Sprintf("5b0c6a37-0000-4000-8000-%06x%06x", p.node, p.number)
}

func (p place) addresses() (a4, a6 netip.Addr) {
	return netip.AddrFrom4([4]byte{10, byte(p.node >> 8), byte(p.node), byte(p.number + 2)}), netip.MustParseAddr(fmt.Sprintf("fd00:10:%x::%x", p.node, p.number+2))
}

// fill makes nodes, their leases and their pods. One of each kind goes through the
// API, as controllers and kubelets do it; the others are written into etcd as the
// API server writes that one, in other names: it takes two requests for each pod
// otherwise, and two processors a quarter of an hour.
func (b *bench) fill(ctx context.Context) error {
	begin := time.Now()
	if err := b.makeNamespaces(ctx); err != nil {
		return err
	}
	s, err := b.makeSamples(ctx)
	if err != nil {
		return err
	}
	var places []place
	for node := range b.nodes {
		for i := range b.podsOf(node) {
			places = append(places, place{node, i})
		}
	}
	if err := b.write(ctx, s, places); err != nil {
		return err
	}
	if err := b.prove(ctx, len(places)); err != nil {
		return err
	}
	b.table.about = fmt.Sprintf("%d nodes, %d pods in %d namespaces, the measured node with %d pods; %d policies where nothing else is said", b.nodes, len(places), namespaces, crowded, few)
	for i := range few {
		if err := b.createPolicy(ctx, policyOf(i)); err != nil {
			return err
		}
	}
	b.say("%d nodes and %d pods are there after %.0f s", b.nodes, len(places), time.Since(begin).Seconds())
	return nil
}

// write into etcd while the API server is away: it reads a lot faster what is there
// when it starts than what comes.
func (b *bench) write(ctx context.Context, s *samples, places []place) error {
	if err := b.cluster.API.Server.Kill(); err != nil {
		return err
	}
	begin := time.Now()
	for _, kind := range []struct {
		n      int
		pairOf func(int) (pair, error)
	}{
		{b.nodes, s.node},
		{b.nodes, s.lease},
		{len(places), func(i int) (pair, error) { return s.pod(places[i]) }},
	} {
		if err := b.etcd.put(ctx, kind.n, kind.pairOf); err != nil {
			return err
		}
	}
	b.say("etcd has them after %.0f s", time.Since(begin).Seconds())
	begin = time.Now()
	// It reads for longer than a small cluster's is waited for.
	err := b.cluster.API.Start(ctx)
	for tries := 0; err != nil && b.cluster.API.Server.Running() && tries < 5; tries++ {
		err = b.cluster.API.Start(ctx)
	}
	if err != nil {
		return err
	}
	b.say("kube-apiserver has read them after %.0f s", time.Since(begin).Seconds())
	return nil
}

func (b *bench) makeNamespaces(ctx context.Context) error {
	return each(namespaces, func(i int) error {
		_, err := b.client.CoreV1().Namespaces().Create(ctx, &core.Namespace{ObjectMeta: meta.ObjectMeta{Name: namespaceName(i),
			Labels: map[string]string{"team": fmt.Sprint(i), "environment": "production", "pod-security.kubernetes.io/enforce": "privileged"}}}, meta.CreateOptions{})
		if err != nil {
			return err
		}
		_, err = b.client.CoreV1().ServiceAccounts(namespaceName(i)).Create(ctx, &core.ServiceAccount{ObjectMeta: meta.ObjectMeta{Name: "default"}}, meta.CreateOptions{})
		return err
	})
}

// each runs f for 0 to n-1, some at once.
func each(n int, f func(int) error) error {
	errs := make([]error, writers)
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := w; i < n && errs[w] == nil; i += writers {
				errs[w] = f(i)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// policyOf number i concerns pods by a label.
func policyOf(i int) *unstructured.Unstructured {
	return policy(fmt.Sprintf("policy-%d", i), fmt.Sprintf("app-%d", i%200), fmt.Sprintf("172.%d.%d.0/24", 16+i>>8, i&255), fmt.Sprintf("2001:db8:%x::/48", i))
}

func policy(name, app, cidr4, cidr6 string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	err := u.UnmarshalJSON(fmt.Appendf(nil, `{"apiVersion":"unmasq.io/v1alpha1","kind":"SourcePolicy","metadata":{"name":%q},"spec":{"rules":[{"name":"out","action":"Masquerade",`+
		`"from":{"pods":{"podSelector":{"matchLabels":{"app":%q}}}},"to":{"cidrs":[%q,%q]}}]}}`, name, app, cidr4, cidr6))
	if err != nil {
		panic(err) // the text is constant
	}
	return u
}

func (b *bench) createPolicy(ctx context.Context, u *unstructured.Unstructured) error {
	_, err := b.policies.Create(ctx, u, meta.CreateOptions{})
	return err
}

// patchPolicy's destinations.
func (b *bench) patchPolicy(ctx context.Context, name, cidr4, cidr6 string) (version string, err error) {
	patch := fmt.Appendf(nil, `[{"op":"replace","path":"/spec/rules/0/to/cidrs","value":[%q,%q]}]`, cidr4, cidr6)
	u, err := b.policies.Patch(ctx, name, types.JSONPatchType, patch, meta.PatchOptions{})
	if err != nil {
		return "", err
	}
	return u.GetResourceVersion(), nil
}
