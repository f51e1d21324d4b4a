package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	coordination "k8s.io/api/coordination/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
)

var (
	//go:embed objects/node.yaml
	nodeText []byte
	//go:embed objects/pod.yaml
	podText []byte
)

const (
	sample     = "sample"
	service    = "web-frontend" // in podText
	kinds      = 200
	images     = 50 // that a kubelet reports at most
	nodeKey    = "/registry/minions/"
	leaseKey   = "/registry/leases/" + core.NamespaceNodeLease + "/"
	podKey     = "/registry/pods/"
	controller = "kube-controller-manager"
)

// samples are objects as the API server keeps them.
type samples struct {
	nodes  core.Node
	leases coordination.Lease
	pods   core.Pod
	// kinds are pods of so many services: alike, but not the same, as what is sent is
	// compressed.
	kinds [kinds]*core.Pod
}

// storage is how the API server writes built-in objects.
func storage() *protobuf.Serializer { return protobuf.NewSerializer(scheme.Scheme, scheme.Scheme) }

func (b *bench) makeSamples(ctx context.Context) (s *samples, err error) {
	if err := errors.Join(b.sampleNode(ctx), b.sampleLease(ctx), b.samplePod(ctx)); err != nil {
		return nil, err
	}
	s = &samples{}
	if err := errors.Join(b.stored(ctx, nodeKey+sample, &s.nodes), b.stored(ctx, leaseKey+sample, &s.leases), b.stored(ctx, podKey+namespaceName(0)+"/"+sample, &s.pods)); err != nil {
		return nil, err
	}
	for i := range s.kinds {
		if s.kinds[i], err = kindOf(&s.pods, i); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// kindOf is the pod as another service's: its name, images and numbers are others.
func kindOf(p *core.Pod, i int) (*core.Pod, error) {
	sum := func(what string) string {
		return fmt.Sprintf("%x", sha256.Sum256(fmt.Append(nil, what, i)))
	}
	said := strings.NewReplacer(service, "service-"+sum("name")[:8], "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef", sum("image"),
		"1f0c0f7d8c3a86f7c8f3a0d4d1e7d5f2c2c0b6d4b7f0e4b9e7a7d9b0a3b1c5d6", sum("config"), "6d4cf56db6", sum("template")[:10],
		"5b0c6a37-2a2e-4f6e-9a55-6f3a2f1f9f0d", sum("uid")[:36], "2026.11.3", "2026.11."+fmt.Sprint(i)).Replace(text(p))
	out := &core.Pod{}
	if err := json.Unmarshal([]byte(said), out); err != nil {
		return nil, err
	}
	out.SetGroupVersionKind(p.GroupVersionKind())
	return out, nil
}

// stored reads what the API server wrote, and makes sure that it would be written
// here in the same way.
func (b *bench) stored(ctx context.Context, key string, into runtime.Object) error {
	value, err := b.etcd.get(ctx, key)
	if err != nil {
		return err
	}
	if _, _, err := storage().Decode(value, nil, into); err != nil {
		return fmt.Errorf("%s in etcd: %w", key, err)
	}
	again, err := encode(into)
	if err == nil && !bytes.Equal(again, value) {
		err = fmt.Errorf("%s in etcd has %d bytes, written here it would be %d others", key, len(value), len(again))
	}
	return err
}

func encode(o runtime.Object) ([]byte, error) {
	var text bytes.Buffer
	err := storage().Encode(o, &text)
	return text.Bytes(), err
}

// sampleNode is made and reported by a kubelet.
func (b *bench) sampleNode(ctx context.Context) error {
	var n core.Node
	if err := yaml.Unmarshal(nodeText, &n); err != nil {
		return err
	}
	n.Name = sample
	for i := range images {
		name := fmt.Sprintf("registry.example.net/team-%02d/service-%02d", i%7, i)
		n.Status.Images = append(n.Status.Images, core.ContainerImage{SizeBytes: int64(90_000_000 - i*1_000_000),
			Names: []string{fmt.Sprintf("%s@sha256:%064x", name, i+0x5f70bf18), name + ":2026.11.3"}})
	}
	nodes := b.client.CoreV1().Nodes()
	made, err := nodes.Create(ctx, &n, meta.CreateOptions{FieldManager: "kubelet"})
	if err != nil {
		return err
	}
	made.Spec.Taints = nil // as when it had become ready
	if made, err = nodes.Update(ctx, made, meta.UpdateOptions{FieldManager: controller}); err != nil {
		return err
	}
	made.Status = n.Status
	_, err = nodes.UpdateStatus(ctx, made, meta.UpdateOptions{FieldManager: "kubelet"})
	return err
}

func (b *bench) sampleLease(ctx context.Context) error {
	l := &coordination.Lease{ObjectMeta: meta.ObjectMeta{Name: sample, OwnerReferences: []meta.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: sample, UID: "5b0c6a37-0000-4000-8000-000000000000"}}},
		Spec: coordination.LeaseSpec{HolderIdentity: new(sample), LeaseDurationSeconds: new(int32(40)), RenewTime: &meta.MicroTime{Time: time.Now()}}}
	_, err := b.client.CoordinationV1().Leases(core.NamespaceNodeLease).Create(ctx, l, meta.CreateOptions{FieldManager: "kubelet"})
	return err
}

// samplePod is made by a controller and reported by a kubelet.
func (b *bench) samplePod(ctx context.Context) error {
	var p core.Pod
	if err := yaml.Unmarshal(podText, &p); err != nil {
		return err
	}
	p.Name, p.Namespace, p.Spec.NodeName = sample, namespaceName(0), sample
	at := place{0, 0}
	at.fill(&p)
	pods := b.client.CoreV1().Pods(p.Namespace)
	made, err := pods.Create(ctx, &p, meta.CreateOptions{FieldManager: controller})
	if err != nil {
		return err
	}
	made.Status = p.Status
	_, err = pods.UpdateStatus(ctx, made, meta.UpdateOptions{FieldManager: "kubelet"})
	return err
}

// fill in what is the pod's own in its status, and the label that policies go by.
func (p place) fill(pod *core.Pod) {
	a4, a6 := p.addresses()
	pod.Labels["app"] = p.app()
	pod.Status.PodIP, pod.Status.PodIPs = a4.String(), []core.PodIP{{IP: a4.String()}, {IP: a6.String()}}
	host4, host6 := hostAddresses(p.node)
	for i := range pod.Status.ContainerStatuses {
		pod.Status.ContainerStatuses[i].ContainerID = fmt.Sprintf("containerd://%x", sha256.Sum256(fmt.Append(nil, p, i)))
	}
	pod.Status.HostIP, pod.Status.HostIPs = host4, []core.HostIP{{IP: host4}, {IP: host6}}
}

func hostAddresses(node int) (a4, a6 string) {
	return fmt.Sprintf("172.20.%d.%d", node>>8, node&255), fmt.Sprintf("fd00:20::%x", node+1)
}

func (s *samples) node(i int) (pair, error) {
	n := s.nodes.DeepCopy()
	n.Name, n.UID = nodeName(i), types.UID(fmt.Sprintf("5b0c6a37-0000-4000-8001-%012x", i))
	n.Labels[core.LabelHostname] = n.Name
	n.Spec.PodCIDRs = []string{fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255), fmt.Sprintf("fd00:10:%x::/64", i)}
	n.Spec.PodCIDR = n.Spec.PodCIDRs[0]
	a4, a6 := hostAddresses(i)
	n.Status.Addresses = []core.NodeAddress{{Type: core.NodeInternalIP, Address: a4}, {Type: core.NodeInternalIP, Address: a6}, {Type: core.NodeHostName, Address: n.Name}}
	value, err := encode(n)
	return pair{[]byte(nodeKey + n.Name), value}, err
}

func (s *samples) lease(i int) (pair, error) {
	l := s.leases.DeepCopy()
	l.Name, l.UID = nodeName(i), types.UID(fmt.Sprintf("5b0c6a37-0000-4000-8002-%012x", i))
	l.Spec.HolderIdentity, l.OwnerReferences[0].Name = &l.Name, l.Name
	value, err := encode(l)
	return pair{[]byte(leaseKey + l.Name), value}, err
}

func (s *samples) pod(at place) (pair, error) {
	p := s.kinds[(at.node*31+at.number)%kinds].DeepCopy()
	p.Name, p.Namespace, p.UID, p.Spec.NodeName = at.name(), at.namespace(), types.UID(at.uid()), nodeName(at.node)
	at.fill(p)
	value, err := encode(p)
	return pair{[]byte(podKey + p.Namespace + "/" + p.Name), value}, err
}

// prove that the API server serves what was written as what it wrote itself, and
// all of it; then the samples go.
func (b *bench) prove(ctx context.Context, pods int) error {
	at := place{0, 0}
	first, err := b.client.CoreV1().Pods(at.namespace()).Get(ctx, at.name(), meta.GetOptions{})
	if err != nil {
		return err
	}
	through, err := b.client.CoreV1().Pods(namespaceName(0)).Get(ctx, sample, meta.GetOptions{})
	if err != nil {
		return err
	}
	if through, err = kindOf(through, 0); err != nil {
		return err
	}
	for _, p := range []*core.Pod{first, through} {
		p.Name, p.UID, p.ResourceVersion, p.Spec.NodeName = "", "", "", ""
	}
	if x, y := text(first), text(through); x != y {
		return fmt.Errorf("a pod that was written into etcd is\n%s\nand one that was made by the API\n%s", x, y)
	}
	if err := errors.Join(b.client.CoreV1().Pods(namespaceName(0)).Delete(ctx, sample, meta.DeleteOptions{GracePeriodSeconds: new(int64(0))}),
		b.client.CoreV1().Nodes().Delete(ctx, sample, meta.DeleteOptions{}), b.client.CoordinationV1().Leases(core.NamespaceNodeLease).Delete(ctx, sample, meta.DeleteOptions{})); err != nil {
		return err
	}
	return b.proveAll(ctx, pods)
}

func text(o any) string {
	text, err := json.Marshal(o)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text))
}

// proveAll counts objects, and some nodes' pods in the server's cache, which
// watches are served from.
func (b *bench) proveAll(ctx context.Context, pods int) error {
	one := meta.ListOptions{Limit: 1}
	podList, err := b.client.CoreV1().Pods("").List(ctx, one)
	if err != nil {
		return err
	}
	nodeList, err := b.client.CoreV1().Nodes().List(ctx, one)
	if err != nil {
		return err
	}
	if p, n := count(podList.ListMeta), count(nodeList.ListMeta); p != pods || n != b.nodes {
		return fmt.Errorf("the API server has %d pods and %d nodes, expected %d and %d", p, n, pods, b.nodes)
	}
	for i := 0; i < b.nodes; i += max(1, b.nodes/20) {
		list, err := b.client.CoreV1().Pods("").List(ctx, meta.ListOptions{FieldSelector: "spec.nodeName=" + nodeName(i)})
		if err != nil {
			return err
		}
		if len(list.Items) != b.podsOf(i) {
			return fmt.Errorf("%s has %d pods, expected %d", nodeName(i), len(list.Items), b.podsOf(i))
		}
	}
	return nil
}

// count of a list of one.
func count(l meta.ListMeta) int {
	if l.RemainingItemCount == nil {
		return 1
	}
	return int(*l.RemainingItemCount) + 1
}
