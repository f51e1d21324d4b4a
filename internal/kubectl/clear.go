package kubectl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Clearing is a pod that runs `unmasq clear` on a node, as far as it depends on how
// the agents were installed.
type Clearing struct {
	Image, PullPolicy string
	PullSecrets       []any
	PriorityClass     string
	SecurityContext   map[string]any // of the pod
}

// clearLabels tell these pods from agents.
var clearLabels = map[string]any{"app.kubernetes.io/name": "unmasq", "app.kubernetes.io/component": "clear"}

// clearDeadline ends a pod that nobody waits for any longer.
const clearDeadline = 120

// pod with the right to change the node's rules and no other; it isn't scheduled, so
// that it comes to nodes that are cordoned or full, too.
func (x *Clearing) pod(namespace, node string) *unstructured.Unstructured {
	container := map[string]any{
		"name": "clear", "image": x.Image, "args": []any{"clear"},
		"terminationMessagePolicy": "FallbackToLogsOnError",
		"securityContext": map[string]any{"privileged": false, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
			"runAsUser": int64(0), "runAsGroup": int64(0),
			"capabilities": map[string]any{"drop": []any{"ALL"}, "add": []any{"NET_ADMIN"}}, "seccompProfile": map[string]any{"type": "RuntimeDefault"}},
		"volumeMounts": []any{map[string]any{"name": "run", "mountPath": "/run/unmasq"}},
	}
	spec := map[string]any{
		"nodeName": node, "hostNetwork": true, "dnsPolicy": "Default", "restartPolicy": "Never",
		"automountServiceAccountToken": false, "enableServiceLinks": false,
		"activeDeadlineSeconds": int64(clearDeadline), "terminationGracePeriodSeconds": int64(5),
		"tolerations": []any{map[string]any{"operator": "Exists"}},
		"containers":  []any{container},
		"volumes":     []any{map[string]any{"name": "run", "hostPath": map[string]any{"path": "/run/unmasq", "type": "DirectoryOrCreate"}}},
	}
	if x.PullPolicy != "" {
		container["imagePullPolicy"] = x.PullPolicy
	}
	if len(x.PullSecrets) > 0 {
		spec["imagePullSecrets"] = x.PullSecrets
	}
	if x.PriorityClass != "" {
		spec["priorityClassName"] = x.PriorityClass
	}
	if x.SecurityContext != nil {
		spec["securityContext"] = x.SecurityContext
	}
	return &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"generateName": "unmasq-clear-", "namespace": namespace, "labels": clearLabels}, "spec": spec}}
}

// Clear a node by a pod, which is gone afterwards. There is nothing where no table
// was. An error says why the node isn't known to be cleared.
func (c *Client) Clear(ctx context.Context, x *Clearing, node string, patience time.Duration) (nothing bool, err error) {
	pods := c.Objects.Resource(Pods).Namespace(c.Where.Namespace)
	made, err := pods.Create(ctx, x.pod(c.Where.Namespace, node), meta.CreateOptions{})
	if err != nil {
		return false, fmt.Errorf("create a pod that clears it: %w", err)
	}
	name := made.GetName()
	defer func() {
		// At once: it has ended, or a kubelet that is away will end it.
		now := int64(0)
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if e := pods.Delete(end, name, meta.DeleteOptions{GracePeriodSeconds: &now}); e != nil && !apierrors.IsNotFound(e) {
			err = errors.Join(err, fmt.Errorf("pod %s/%s is left: %w", c.Where.Namespace, name, e))
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for last := "it isn't known of"; ; {
		p, err := get[pod](ctx, c, Pods, c.Where.Namespace, name)
		switch {
		case err == nil && p.Status.Phase == "Succeeded":
			return p.said() == SaidNothing, nil
		case err == nil && p.Status.Phase == "Failed":
			return false, fmt.Errorf("its pod failed: %s", cmp.Or(p.said(), p.Status.Reason+" "+p.Status.Message))
		case err == nil:
			last = p.waits()
		case ctx.Err() == nil:
			return false, err
		}
		select {
		case <-ctx.Done():
			return false, fmt.Errorf("its pod didn't end within %v: %s", patience, last)
		case <-time.After(clearPause):
		}
	}
}

const clearPause = 250 * time.Millisecond

// said is the last word of the pod's only container.
func (p *pod) said() string {
	for _, s := range p.Status.ContainerStatuses {
		if s.State.Terminated != nil {
			return s.State.Terminated.Message
		}
	}
	return ""
}

// waits says what for.
func (p *pod) waits() string {
	for _, s := range p.Status.ContainerStatuses {
		if s.State.Waiting != nil {
			return s.State.Waiting.Reason + " " + s.State.Waiting.Message
		}
	}
	if len(p.Status.ContainerStatuses) == 0 {
		return "no kubelet has taken it"
	}
	return "it runs"
}
