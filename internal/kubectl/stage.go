package kubectl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/unmasq/unmasq/internal/probe"
)

// Namespaces are made for stages.
var Namespaces = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}

// StageLabels tell a stage's namespace from all others, and its pods from agents.
const StageLabels = "app.kubernetes.io/name=unmasq,app.kubernetes.io/component=matrix"

// madeBy is a stage's annotation that says which process made it.
const madeBy = "unmasq.io/made-by"

// StageRights are what a stage takes, for those who lack them.
const StageRights = "it takes create, list, get and delete on namespaces, and in a namespace of its own create and get on pods, " +
	"create and get on services, create and get on pods/exec; see docs/matrix.md"

// Stage is a namespace with pods and services between which a matrix is measured: on
// each of its nodes two pods and one of the node's own network, each a peer that
// answers and makes calls, and services of which they are the backends.
type Stage struct {
	Namespace string
	// Port that all of its pods answer at.
	Port     uint16
	Pods     []StagePod
	Services []StageService
	client   *Client
}

// StagePod answers and calls.
type StagePod struct {
	Name, Node string
	// Host: it is in its node's network. Backend: services have it.
	Host, Backend bool
	Addresses     []netip.Addr
}

// As what the pod answers: by its name, or as the node whose network it is in.
func (p *StagePod) As() string {
	if p.Host {
		return p.Node
	}
	return p.Name
}

// StageService has backends among the pods.
type StageService struct {
	Name string
	// Backends are names of pods.
	Backends []string
	// Local: its externalTrafficPolicy.
	Local      bool
	ClusterIPs []netip.Addr
}

// StageConfig says what is to be made.
type StageConfig struct {
	// Nodes, one or two.
	Nodes []string
	// Image with unmasq.
	Image string
	// Port of all pods, nodes' ones too.
	Port uint16
	// By says who makes it.
	By string
	// Life of its pods, in seconds, should nobody remove it.
	Life int64
}

// plan what is made: pods a1, b1 and host1 on the first node, a2, b2 and host2 on the
// second; a service for each pod b of each externalTrafficPolicy, one with both and one
// without a backend.
func (s *Stage) plan(nodes []string) {
	var both []string
	for i, node := range nodes {
		a, b := fmt.Sprintf("a%d", i+1), fmt.Sprintf("b%d", i+1)
		s.Pods = append(s.Pods, StagePod{Name: a, Node: node}, StagePod{Name: b, Node: node, Backend: true}, StagePod{Name: fmt.Sprintf("host%d", i+1), Node: node, Host: true})
		s.Services = append(s.Services, StageService{Name: "on-" + b, Backends: []string{b}}, StageService{Name: "local-" + b, Backends: []string{b}, Local: true})
		both = append(both, b)
	}
	if len(both) > 1 {
		s.Services = append(s.Services, StageService{Name: "spread", Backends: both})
	}
	s.Services = append(s.Services, StageService{Name: "empty"})
}

// MakeStage makes a stage and waits until its pods run; where that fails nothing is
// left. progress is told what is being waited for.
func (c *Client) MakeStage(ctx context.Context, config StageConfig, patience time.Duration, progress func(string)) (*Stage, error) {
	s := &Stage{client: c, Port: config.Port}
	s.plan(config.Nodes)
	space, err := c.Objects.Resource(Namespaces).Create(ctx, stageNamespace(config.By), meta.CreateOptions{})
	if err != nil {
		return nil, stageError("create a namespace", err)
	}
	s.Namespace = space.GetName()
	progress(fmt.Sprintf("namespace %s: %d pods on %s", s.Namespace, len(s.Pods), strings.Join(config.Nodes, " and ")))
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err = s.fill(ctx, config); err == nil {
		err = s.await(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, s.Remove(context.WithoutCancel(ctx)))
	}
	return s, nil
}

func stageError(what string, err error) error {
	if apierrors.IsForbidden(err) {
		return fmt.Errorf("you may not %s: %w; %s", what, err, StageRights)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// stageNamespace admits pods of nodes' networks, where admission of Pod Security is on.
func stageNamespace(by string) *unstructured.Unstructured {
	labels := stageLabels()
	labels["pod-security.kubernetes.io/enforce"] = "privileged"
	return &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace",
		"metadata": map[string]any{"generateName": "unmasq-matrix-", "labels": labels, "annotations": map[string]any{madeBy: by}}}}
}

func stageLabels() map[string]any {
	labels := map[string]any{}
	for label := range strings.SplitSeq(StageLabels, ",") {
		key, value, _ := strings.Cut(label, "=")
		labels[key] = value
	}
	return labels
}

// fill the namespace. Pods aren't admitted before it has its service account, which
// comes in moments.
func (s *Stage) fill(ctx context.Context, config StageConfig) error {
	for i := range s.Services {
		if err := s.makeService(ctx, &s.Services[i]); err != nil {
			return err
		}
	}
	pods := s.client.Objects.Resource(Pods).Namespace(s.Namespace)
	for i := range s.Pods {
		object := s.pod(&s.Pods[i], config)
		for {
			_, err := pods.Create(ctx, object, meta.CreateOptions{})
			if err == nil {
				break
			}
			if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "serviceaccount") || !pauseStage(ctx) {
				return stageError("create a pod in namespace "+s.Namespace, err)
			}
		}
	}
	return nil
}

const stagePause = 200 * time.Millisecond

// pauseStage says whether there is time left.
func pauseStage(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(stagePause):
		return true
	}
}

// selected is the label by which a service finds a pod.
func selected(service string) string { return "unmasq.io/" + service }

func (s *Stage) makeService(ctx context.Context, x *StageService) error {
	var ports []any
	for _, protocol := range []string{"TCP", "UDP"} {
		ports = append(ports, map[string]any{"name": strings.ToLower(protocol), "protocol": protocol, "port": int64(s.Port), "targetPort": int64(s.Port)})
	}
	spec := map[string]any{"type": "NodePort", "ipFamilyPolicy": "PreferDualStack", "ports": ports,
		"selector": map[string]any{selected(x.Name): "backend"}}
	if x.Local {
		spec["externalTrafficPolicy"] = "Local"
	}
	object := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Service",
		"metadata": map[string]any{"name": x.Name, "labels": stageLabels()}, "spec": spec}}
	made, err := s.client.Objects.Resource(Services).Namespace(s.Namespace).Create(ctx, object, meta.CreateOptions{})
	if err != nil {
		return stageError("create a service in namespace "+s.Namespace, err)
	}
	ips, _, err := unstructured.NestedStringSlice(made.Object, "spec", "clusterIPs")
	if err == nil {
		x.ClusterIPs, err = addresses("service "+s.Namespace+"/"+x.Name, ips)
	}
	return err
}

// pod without any right. It isn't scheduled: the nodes are chosen.
func (s *Stage) pod(p *StagePod, config StageConfig) *unstructured.Unstructured {
	labels := stageLabels()
	for _, service := range s.Services {
		if slices.Contains(service.Backends, p.Name) {
			labels[selected(service.Name)] = "backend"
		}
	}
	container := map[string]any{
		"name": stageContainer, "image": config.Image, "imagePullPolicy": "IfNotPresent",
		"command": []any{agentProgram}, "args": []any{"probe", "serve", fmt.Sprintf("--port=%d", s.Port), "--name=" + p.As()},
		"terminationMessagePolicy": "FallbackToLogsOnError",
		"resources":                map[string]any{"requests": map[string]any{"cpu": "10m", "memory": "32Mi"}},
		"securityContext": map[string]any{"privileged": false, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
			"runAsNonRoot": true, "runAsUser": int64(65534), "runAsGroup": int64(65534),
			"capabilities": map[string]any{"drop": []any{"ALL"}}, "seccompProfile": map[string]any{"type": "RuntimeDefault"}},
	}
	spec := map[string]any{
		"nodeName": p.Node, "hostNetwork": p.Host, "dnsPolicy": "Default", "restartPolicy": "Never",
		"automountServiceAccountToken": false, "enableServiceLinks": false,
		"activeDeadlineSeconds": config.Life, "terminationGracePeriodSeconds": int64(1),
		"tolerations": []any{map[string]any{"operator": "Exists"}},
		"containers":  []any{container},
	}
	return &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"name": p.Name, "labels": labels}, "spec": spec}}
}

const stageContainer = "peer"

// await pods that run and have addresses.
func (s *Stage) await(ctx context.Context) error {
	for i := range s.Pods {
		p := &s.Pods[i]
		for last := "it isn't known of"; len(p.Addresses) == 0; {
			found, err := get[pod](ctx, s.client, Pods, s.Namespace, p.Name)
			switch {
			case errors.Is(ctx.Err(), context.Canceled):
				return ctx.Err()
			case ctx.Err() != nil:
				return fmt.Errorf("pod %s/%s on node %s doesn't run in time: %s; where its image can't be had, name another with --image", s.Namespace, p.Name, p.Node, last)
			case err != nil:
				return stageError("get a pod of namespace "+s.Namespace, err)
			case found.ended():
				return fmt.Errorf("pod %s/%s on node %s has ended: %s", s.Namespace, p.Name, p.Node, strings.TrimSpace(found.said()+" "+found.Status.Reason+" "+found.Status.Message))
			case found.problem(stageContainer) == "":
				if p.Addresses, err = found.addresses(); err != nil {
					return err
				}
			default:
				last = found.waits()
			}
			if len(p.Addresses) == 0 {
				pauseStage(ctx)
			}
		}
	}
	return nil
}

// Call makes calls from a pod.
func (s *Stage) Call(p StagePod) func(context.Context, []probe.Order) ([]probe.Report, error) {
	return func(ctx context.Context, orders []probe.Order) (reports []probe.Report, err error) {
		text, err := json.Marshal(orders)
		if err != nil {
			return nil, err
		}
		var out, said bytes.Buffer
		there := Agent{Node: p.Node, Namespace: s.Namespace, Pod: p.Name, Container: stageContainer}
		if err := s.client.Run(ctx, there, []string{"probe", "call"}, Streams{Stdin: bytes.NewReader(text), Stdout: &out, Stderr: &said}); err != nil {
			return nil, fmt.Errorf("call from pod %s on node %s: %w %s", p.Name, p.Node, err, strings.TrimSpace(said.String()))
		}
		if err := json.Unmarshal(out.Bytes(), &reports); err != nil || len(reports) != len(orders) {
			return nil, fmt.Errorf("call from pod %s on node %s: %d reports of %d calls: %w", p.Name, p.Node, len(reports), len(orders), err)
		}
		return reports, nil
	}
}

// Remove all of it, and wait until it is gone.
func (s *Stage) Remove(ctx context.Context) error {
	return s.client.RemoveStage(ctx, s.Namespace)
}

// MadeStage is a stage's namespace that is there.
type MadeStage struct {
	Namespace string
	// By is what its maker said of himself.
	By string
	// Made says when.
	Made time.Time
	// Going: it is being deleted.
	Going bool
}

// Stages that are there.
func (c *Client) Stages(ctx context.Context) ([]MadeStage, error) {
	list, err := c.Objects.Resource(Namespaces).List(ctx, meta.ListOptions{LabelSelector: StageLabels})
	if err != nil {
		return nil, stageError("look for what an earlier run has left: list namespaces", err)
	}
	var all []MadeStage
	for i := range list.Items {
		n := &list.Items[i]
		all = append(all, MadeStage{Namespace: n.GetName(), By: n.GetAnnotations()[madeBy], Made: n.GetCreationTimestamp().Time, Going: n.GetDeletionTimestamp() != nil})
	}
	return all, nil
}

// RemoveStage deletes a stage's namespace and waits until it is gone.
func (c *Client) RemoveStage(ctx context.Context, namespace string) error {
	const patience = time.Minute // pods may be on a node whose kubelet takes its time
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	spaces := c.Objects.Resource(Namespaces)
	err := spaces.Delete(ctx, namespace, meta.DeleteOptions{})
	for {
		switch {
		case apierrors.IsNotFound(err):
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("namespace %s is being deleted, and isn't gone after %v: see `kubectl get all -n %[1]s`", namespace, patience)
		case err != nil && !apierrors.IsConflict(err):
			return stageError("remove namespace "+namespace, err)
		}
		pauseStage(ctx)
		_, err = spaces.Get(ctx, namespace, meta.GetOptions{})
	}
}
