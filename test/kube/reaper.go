package kube

import (
	"context"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// reap ends, as kubelets do, pods of nodes without kubelet whose objects are to be
// deleted: by a person, a controller, an eviction. It goes on through outages.
func (c *Cluster) reap() {
	for c.alive.Err() == nil {
		if err := c.reapOnce(c.alive); err != nil {
			select {
			case <-c.alive.Done():
			case <-time.After(pause):
			}
		}
	}
}

// reapOnce looks at all pods and watches them for as long as the API server lets it.
func (c *Cluster) reapOnce(ctx context.Context) error {
	pods := c.Client.CoreV1().Pods(meta.NamespaceAll)
	list, err := pods.List(ctx, meta.ListOptions{})
	if err != nil {
		return err
	}
	for i := range list.Items {
		c.reapPod(ctx, &list.Items[i])
	}
	w, err := pods.Watch(ctx, meta.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		return err
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		if pod, is := e.Object.(*core.Pod); is && e.Type != watch.Deleted {
			c.reapPod(ctx, pod)
		}
	}
	return nil
}

// reapPod ends the pod; one that never started has its object only. What fails is
// tried again when the pods are listed next, or ends with the cluster.
func (c *Cluster) reapPod(ctx context.Context, object *core.Pod) {
	n := c.Node(object.Spec.NodeName)
	if object.DeletionTimestamp == nil || n == nil || n.config.Kubelet {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if p := n.known(object.UID); p != nil {
		_ = p.Delete(ctx)
		return
	}
	_ = c.Client.CoreV1().Pods(object.Namespace).Delete(ctx, object.Name, meta.DeleteOptions{
		GracePeriodSeconds: new(int64(0)), Preconditions: &meta.Preconditions{UID: &object.UID}})
}
