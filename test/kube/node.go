package kube

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	coordination "k8s.io/api/coordination/v1"
	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// KubeletLabel of nodes says "true" or "false": has it a kubelet? The nodes that
// have none are tainted with the same key, so that no pod comes there that nobody
// would start, but for those that tolerate all.
const KubeletLabel = "unmasq.test/kubelet"

// NodeConfig says what a node is.
type NodeConfig struct {
	// Name; empty: n1, n2, in the order of adding.
	Name string
	// Kubelet: a kubelet runs there, with containerd, and starts real pods.
	Kubelet bool
	// Proxy that runs there; the zero value: none.
	Proxy Proxy
	// Masquerade: the network plugin translates what leaves for other networks.
	Masquerade bool
	// Labels besides.
	Labels map[string]string
	// Addresses is how many pods have one at a time; 0: 253. With few, addresses of
	// pods that are gone are soon others'.
	Addresses int
}

// Node of a cluster. Its addresses are those of uplink "eth0".
type Node struct {
	Host
	// Pods4 and Pods6 are its pods' addresses.
	Pods4, Pods6 netip.Prefix
	// Dir has the node's files: cni/net.d, and what its /var/lib and /var/log are.
	Dir string
	// Proxy, Runtime and Kubelet are nil where they don't run. All may be killed, and
	// started again by Restart. Runtime holds the kubelet and all real pods: killing
	// it is a power failure, after which containerd knows of nothing; the network
	// plugins' files about pods that are no more stay.
	Proxy, Runtime, Kubelet *Process

	cluster *Cluster
	config  NodeConfig
	plugins sync.Mutex // held while a network plugin runs

	mu   sync.Mutex // of all below
	pods map[types.UID]*Pod
	ends []func() error
}

// numbered gives a node its number and so its name and addresses.
type numbered struct {
	NodeConfig
	number int
}

func (c *Cluster) number(n NodeConfig) numbered {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count++
	if n.Name == "" {
		n.Name = fmt.Sprintf("n%d", c.count)
	}
	return numbered{n, c.count}
}

// AddNode adds a node and returns when it's ready.
func (c *Cluster) AddNode(ctx context.Context, config NodeConfig) (*Node, error) {
	n := c.number(config)
	if err := c.timed("node "+n.Name, func() error { return c.addNode(ctx, n) }); err != nil {
		if half := c.Node(n.Name); half != nil {
			err = errors.Join(err, half.Remove(context.WithoutCancel(ctx)))
		}
		return nil, err
	}
	return c.Node(n.Name), nil
}

// Node by its name, or nil.
func (c *Cluster) Node(name string) *Node {
	for _, n := range c.Nodes() {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// mostNodes have addresses.
const mostNodes = 250

func (c *Cluster) addNode(ctx context.Context, config numbered) error {
	i := config.number
	if i > mostNodes {
		return fmt.Errorf("node %s: there were %d nodes already", config.Name, mostNodes)
	}
	host, err := c.join(config.Name, netip.AddrFrom4([4]byte{172, 18, 1, byte(i)}), netip.MustParseAddr(fmt.Sprintf("fd00:18::1:%x", i)))
	if err != nil {
		return err
	}
	n := &Node{Host: *host, cluster: c, config: config.NodeConfig, Dir: filepath.Join(c.dir, config.Name),
		Pods4: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(i)}), 24), Pods6: netip.MustParsePrefix(fmt.Sprintf("fd00:10:244:%x::/64", i))}
	c.atEnd(n.end)
	if err := errors.Join(n.gateway(), os.Mkdir(n.Dir, 0o755), n.writeCNI(),
		optional(n.NS, "net.bridge.bridge-nf-call-iptables", "1"), optional(n.NS, "net.bridge.bridge-nf-call-ip6tables", "1")); err != nil {
		return err
	}
	if err := c.route(n); err != nil {
		return err
	}
	if err := n.createObject(ctx); err != nil {
		return err
	}
	if err := together(func() error { return n.startProxy(ctx) }, func() error { return n.startKubelet(ctx) }); err != nil {
		return err
	}
	return n.awaitReady(ctx)
}

// route makes the node's pods reachable for all, and all others' for the node.
func (c *Cluster) route(n *Node) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := errors.Join(c.Outside.routePods(n), c.Control.routePods(n))
	for _, other := range c.nodes {
		err = errors.Join(err, other.routePods(n), n.routePods(other))
	}
	c.nodes = append(c.nodes, n)
	return err
}

// createObject makes the Node. A kubelet finds it and keeps its status; without
// one the status is written here, and is as true as namespaces can be.
func (n *Node) createObject(ctx context.Context) error {
	nodes := n.cluster.Client.CoreV1().Nodes()
	node := &core.Node{
		ObjectMeta: meta.ObjectMeta{Name: n.Name, Labels: map[string]string{core.LabelHostname: n.Name, core.LabelOSStable: "linux",
			KubeletLabel: fmt.Sprint(n.config.Kubelet)}},
		Spec: core.NodeSpec{PodCIDR: n.Pods4.String(), PodCIDRs: []string{n.Pods4.String(), n.Pods6.String()}},
	}
	for k, v := range n.config.Labels {
		node.Labels[k] = v
	}
	if !n.config.Kubelet {
		node.Spec.Taints = []core.Taint{{Key: KubeletLabel, Value: "false", Effect: core.TaintEffectNoSchedule}}
	}
	_, err := nodes.Create(ctx, node, meta.CreateOptions{})
	if err != nil || n.config.Kubelet {
		return err
	}
	if err := n.heartbeat(ctx); err != nil {
		return err
	}
	// What it has is nobody's business, but without it no pod is scheduled there.
	room := core.ResourceList{core.ResourceCPU: resource.MustParse("64"), core.ResourceMemory: resource.MustParse("64Gi"),
		core.ResourceEphemeralStorage: resource.MustParse("64Gi"), core.ResourcePods: resource.MustParse("250")}
	status := core.NodeStatus{Capacity: room, Allocatable: room,
		Addresses: []core.NodeAddress{{Type: core.NodeInternalIP, Address: n.IPv4.String()}, {Type: core.NodeInternalIP, Address: n.IPv6.String()},
			{Type: core.NodeHostName, Address: n.Name}},
		Conditions: []core.NodeCondition{n.ready()},
	}
	_, err = nodes.PatchStatus(ctx, n.Name, encode(object{"status": status}))
	return err
}

// awaitReady waits until pods may come: the condition is true and what tainted the
// node before is gone.
func (n *Node) awaitReady(ctx context.Context) error {
	var ended <-chan struct{}
	if n.Kubelet != nil {
		ended = n.Kubelet.ended
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("not within %v", patience))
	defer cancel()
	err := poll(ctx, ended, func(ctx context.Context) error {
		object, err := n.cluster.Client.CoreV1().Nodes().Get(ctx, n.Name, meta.GetOptions{})
		if err != nil {
			return err
		}
		ready := slices.ContainsFunc(object.Status.Conditions, func(c core.NodeCondition) bool {
			return c.Type == core.NodeReady && c.Status == core.ConditionTrue
		})
		tainted := slices.ContainsFunc(object.Spec.Taints, func(t core.Taint) bool { return t.Key == core.TaintNodeNotReady })
		if !ready || tainted {
			return fmt.Errorf("conditions %v, taints %v", object.Status.Conditions, object.Spec.Taints)
		}
		return nil
	})
	if err != nil && n.Kubelet != nil {
		return fmt.Errorf("node %s isn't ready: %w%s", n.Name, err, n.Kubelet.said())
	}
	if err != nil {
		return fmt.Errorf("node %s isn't ready: %w", n.Name, err)
	}
	return nil
}

// heartbeats are what kubelets say every 10 s; here for the nodes without. The API
// server may be away: the next one makes up for it.
func (c *Cluster) heartbeats() {
	for {
		select {
		case <-c.alive.Done():
			return
		case <-time.After(10 * time.Second):
		}
		for _, n := range c.Nodes() {
			if !n.config.Kubelet && n.heartbeat(c.alive) == nil {
				_ = n.restate(c.alive)
			}
		}
	}
}

// heartbeat renews the node's lease.
func (n *Node) heartbeat(ctx context.Context) error {
	leases := n.cluster.Client.CoordinationV1().Leases(core.NamespaceNodeLease)
	now, seconds := meta.NowMicro(), int32(40)
	lease := &coordination.Lease{ObjectMeta: meta.ObjectMeta{Name: n.Name},
		Spec: coordination.LeaseSpec{HolderIdentity: &n.Name, LeaseDurationSeconds: &seconds, RenewTime: &now}}
	ctx, cancel := context.WithTimeout(ctx, tryAgain)
	defer cancel()
	_, err := leases.Create(ctx, lease, meta.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	old, err := leases.Get(ctx, n.Name, meta.GetOptions{})
	if err != nil {
		return err
	}
	old.Spec = lease.Spec
	_, err = leases.Update(ctx, old, meta.UpdateOptions{})
	return err
}

// restate, as kubelets do, that the node is ready, and its pods, after the controllers
// thought otherwise because they heard nothing for long.
func (n *Node) restate(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, tryAgain)
	defer cancel()
	client := n.cluster.Client.CoreV1()
	node, err := client.Nodes().Get(ctx, n.Name, meta.GetOptions{})
	if err != nil || slices.ContainsFunc(node.Status.Conditions, func(c core.NodeCondition) bool {
		return c.Type == core.NodeReady && c.Status == core.ConditionTrue
	}) {
		return err
	}
	if _, err := client.Nodes().PatchStatus(ctx, n.Name, encode(object{"status": object{"conditions": []core.NodeCondition{n.ready()}}})); err != nil {
		return err
	}
	pods, err := client.Pods(meta.NamespaceAll).List(ctx, meta.ListOptions{FieldSelector: "spec.nodeName=" + n.Name})
	if err != nil {
		return err
	}
	for _, p := range pods.Items {
		if n.known(p.UID) == nil || p.Status.Phase != core.PodRunning {
			continue
		}
		ready := core.PodCondition{Type: core.PodReady, Status: core.ConditionTrue, LastTransitionTime: meta.Now()}
		_, gone := client.Pods(p.Namespace).Patch(ctx, p.Name, types.StrategicMergePatchType,
			encode(object{"status": object{"conditions": []core.PodCondition{ready}}}), meta.PatchOptions{}, "status")
		err = errors.Join(err, gone)
	}
	return err
}

// ready is the node's condition.
func (n *Node) ready() core.NodeCondition {
	return core.NodeCondition{Type: core.NodeReady, Status: core.ConditionTrue, Reason: "NamespaceExists", LastHeartbeatTime: meta.Now(), LastTransitionTime: meta.Now()}
}

// Remove takes the node out of the cluster: its pods and its object, its processes,
// its namespace, and the ways to it.
func (n *Node) Remove(ctx context.Context) error {
	c := n.cluster
	err := n.deletePods(ctx)
	if gone := c.Client.CoreV1().Nodes().Delete(ctx, n.Name, meta.DeleteOptions{}); !apierrors.IsNotFound(gone) {
		err = errors.Join(err, gone)
	}
	c.mu.Lock()
	c.nodes = slices.DeleteFunc(c.nodes, func(o *Node) bool { return o == n })
	c.mu.Unlock()
	return errors.Join(err, n.end(), n.NS.Close(), os.RemoveAll(n.Dir))
}

// deletePods ends those that are namespaces, and deletes the objects of all, as the
// cluster would a minute after the node's.
func (n *Node) deletePods(ctx context.Context) error {
	n.mu.Lock()
	known := slices.Collect(maps.Values(n.pods))
	n.mu.Unlock()
	var errs []error
	for _, p := range known {
		errs = append(errs, p.Delete(ctx))
	}
	core := n.cluster.Client.CoreV1()
	pods, err := core.Pods(meta.NamespaceAll).List(ctx, meta.ListOptions{FieldSelector: "spec.nodeName=" + n.Name})
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, p := range pods.Items {
		gone := core.Pods(p.Namespace).Delete(ctx, p.Name, meta.DeleteOptions{GracePeriodSeconds: new(int64(0))})
		if !apierrors.IsNotFound(gone) {
			errs = append(errs, gone)
		}
	}
	return errors.Join(errs...)
}

// atEnd remembers what the node's end does; the last first.
func (n *Node) atEnd(f func() error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ends = append(n.ends, f)
}

// end all that runs there.
func (n *Node) end() (err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := len(n.ends) - 1; i >= 0; i-- {
		err = errors.Join(err, n.ends[i]())
	}
	n.ends = nil
	return err
}

// StartProgram runs a program in the node's network namespace, such as an agent,
// until it's killed or the node ends; it returns when the program is ready. Files
// are the machine's, on a node with a kubelet too. Its log is in the node's Dir.
func (n *Node) StartProgram(ctx context.Context, o Program) (*Process, error) {
	p := newProcess(n.NS, n.Dir, o)
	n.atEnd(p.Kill)
	return p, p.Start(ctx)
}

// Restart starts those of the node's programs that were killed, and returns when
// they are ready. Real pods that ran in a killed runtime are started anew.
func (n *Node) Restart(ctx context.Context) error {
	if err := together(func() error { return n.restartProxy(ctx) }, func() error { return n.awaitKubelet(ctx) }); err != nil {
		return err
	}
	return n.awaitReady(ctx)
}
