package kube

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"

	authentication "k8s.io/api/authentication/v1"
	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	typed "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/unmasq/unmasq/internal/kernel/netns"
)

// CallerPod is the manifest of a real pod whose first and only act is a connection to a
// peer, to which it gives its name.
func CallerPod(name string, to netip.AddrPort) string {
	return `
apiVersion: v1
kind: Pod
metadata: {name: ` + name + `}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  containers:
  - {name: pod, image: "` + PodImage + `", imagePullPolicy: Never, args: [-once, -name, ` + name + `, "` + to.String() + `"]}
`
}

// PodConfig says what a pod is that is a namespace.
type PodConfig struct {
	// Namespace; empty: default.
	Namespace string
	Name      string
	Labels    map[string]string
	// ServiceAccount; empty: default.
	ServiceAccount string
	// HostNetwork: it has the node's namespace and addresses.
	HostNetwork bool
	// FirstAct, where not nil, is what the pod does as soon as it has its network:
	// its labels are known to the API server by then, its addresses are not.
	FirstAct func(context.Context, *Pod) error
}

// Pod is a namespace on a node, and a Pod object whose status says the truth.
type Pod struct {
	Host
	Node   *Node
	Object *core.Pod

	host      bool
	container container
	deleting  sync.Mutex
}

// StartPod starts a pod in the order that kubelets do: the object, the network,
// the first act, and then the status says Running and Ready. The node must have no
// kubelet, which would start the pod itself.
func (n *Node) StartPod(ctx context.Context, o PodConfig) (*Pod, error) {
	if n.config.Kubelet {
		return nil, fmt.Errorf("pod %s: node %s has a kubelet, which starts its pods itself", o.Name, n.Name)
	}
	if o.Namespace == "" {
		o.Namespace = meta.NamespaceDefault
	}
	object, err := n.cluster.Client.CoreV1().Pods(o.Namespace).Create(ctx, &core.Pod{
		ObjectMeta: meta.ObjectMeta{Name: o.Name, Labels: o.Labels},
		Spec: core.PodSpec{NodeName: n.Name, HostNetwork: o.HostNetwork, ServiceAccountName: o.ServiceAccount,
			Containers: []core.Container{{Name: "pod", Image: PodImage}}, Tolerations: []core.Toleration{{Operator: core.TolerationOpExists}}},
	}, meta.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("create pod %s/%s: %w", o.Namespace, o.Name, err)
	}
	return n.run(ctx, object, o.FirstAct)
}

// Adopt starts a pod that somebody else made for the node, such as a DaemonSet: its
// object has its status from now on, what it does is the test's.
func (n *Node) Adopt(ctx context.Context, object *core.Pod) (*Pod, error) {
	return n.AdoptWith(ctx, object, nil)
}

// AdoptWith is Adopt of a pod with a first act, as PodConfig has them.
func (n *Node) AdoptWith(ctx context.Context, object *core.Pod, firstAct func(context.Context, *Pod) error) (*Pod, error) {
	if n.config.Kubelet || object.Spec.NodeName != n.Name {
		return nil, fmt.Errorf("pod %s: expected one of node %s, which has no kubelet", object.Name, n.Name)
	}
	return n.run(ctx, object, firstAct)
}

func (n *Node) run(ctx context.Context, object *core.Pod, firstAct func(context.Context, *Pod) error) (*Pod, error) {
	p := &Pod{Host: Host{Name: object.Name, NS: n.NS, IPv4: n.IPv4, IPv6: n.IPv6}, Node: n, Object: object, host: object.Spec.HostNetwork}
	n.remember(p)
	if err := p.start(ctx, firstAct); err != nil {
		return nil, errors.Join(fmt.Errorf("start pod %s/%s: %w", object.Namespace, object.Name, err), p.Delete(context.WithoutCancel(ctx)))
	}
	return p, nil
}

func (p *Pod) start(ctx context.Context, firstAct func(context.Context, *Pod) error) error {
	if !p.host {
		if err := p.attach(ctx); err != nil {
			return err
		}
	}
	if firstAct != nil {
		if err := firstAct(ctx, p); err != nil {
			return err
		}
	}
	return p.setStatus(ctx)
}

// attach makes the pod's namespace and gives it its network.
func (p *Pod) attach(ctx context.Context) (err error) {
	uid := string(p.Object.UID)
	id := strings.ReplaceAll(uid, "-", "")
	if p.NS, err = netns.New(p.Node.cluster.id + "-pod-" + id); err != nil {
		return err
	}
	p.Node.atEnd(p.NS.Close)
	p.container = container{id: id, netns: p.NS.Path(), namespace: p.Object.Namespace, pod: p.Object.Name, uid: uid}
	p.IPv4, p.IPv6, err = p.Node.attach(ctx, p.container)
	return err
}

// setStatus tells the API server what is.
func (p *Pod) setStatus(ctx context.Context) error {
	now := meta.Now()
	var conditions []core.PodCondition
	for _, t := range []core.PodConditionType{core.PodInitialized, core.PodReady, core.ContainersReady, core.PodScheduled} {
		conditions = append(conditions, core.PodCondition{Type: t, Status: core.ConditionTrue, LastTransitionTime: now})
	}
	status := core.PodStatus{Phase: core.PodRunning, StartTime: &now, Conditions: conditions,
		HostIP: p.Node.IPv4.String(), HostIPs: []core.HostIP{{IP: p.Node.IPv4.String()}, {IP: p.Node.IPv6.String()}},
		PodIP: p.IPv4.String(), PodIPs: []core.PodIP{{IP: p.IPv4.String()}, {IP: p.IPv6.String()}}}
	for _, c := range p.Object.Spec.Containers {
		status.ContainerStatuses = append(status.ContainerStatuses, core.ContainerStatus{Name: c.Name, Image: c.Image, Ready: true, Started: new(true),
			State: core.ContainerState{Running: &core.ContainerStateRunning{StartedAt: now}}})
	}
	patch := encode(object{"status": status})
	object, err := p.pods().Patch(ctx, p.Name, types.StrategicMergePatchType, patch, meta.PatchOptions{}, "status")
	if err == nil {
		p.Object = object
	}
	return err
}

func (p *Pod) pods() typed.PodInterface {
	return p.Node.cluster.Client.CoreV1().Pods(p.Object.Namespace)
}

// Config speaks to the API server as the pod's service account, with a token that
// is bound to the pod and so to its node, as kubelets give pods.
func (p *Pod) Config(ctx context.Context) (*rest.Config, error) {
	api := p.Node.cluster.API
	account := p.Object.Spec.ServiceAccountName
	token, err := p.Node.cluster.Client.CoreV1().ServiceAccounts(p.Object.Namespace).CreateToken(ctx, account, &authentication.TokenRequest{
		Spec: authentication.TokenRequestSpec{BoundObjectRef: &authentication.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: p.Name, UID: p.Object.UID}},
	}, meta.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("token of %s for pod %s: %w", account, p.Name, err)
	}
	return api.Bearer(token.Status.Token), nil
}

// Delete ends the pod: its network goes first, as with kubelets, then the object.
// Its addresses are free for the node's next pods. Who deletes the object has it
// end, too, a moment later. More calls do nothing.
func (p *Pod) Delete(ctx context.Context) (err error) {
	p.deleting.Lock()
	defer p.deleting.Unlock()
	if p.Node.known(p.Object.UID) == nil {
		return nil
	}
	defer p.Node.forget(p)
	if p.container.id != "" {
		err = errors.Join(p.Node.detach(ctx, p.container), p.NS.Close())
	}
	gone := p.pods().Delete(ctx, p.Name, meta.DeleteOptions{GracePeriodSeconds: new(int64(0)), Preconditions: &meta.Preconditions{UID: &p.Object.UID}})
	if gone != nil && !apierrors.IsNotFound(gone) {
		err = errors.Join(err, gone)
	}
	return err
}

// remember that the pod is there, for when its object is deleted.
func (n *Node) remember(p *Pod) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.pods == nil {
		n.pods = map[types.UID]*Pod{}
	}
	n.pods[p.Object.UID] = p
}

func (n *Node) forget(p *Pod) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.pods, p.Object.UID)
}

// known pod, or nil.
func (n *Node) known(uid types.UID) *Pod {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.pods[uid]
}
