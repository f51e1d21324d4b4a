package kube

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/unmasq/unmasq/api/v1alpha1"
)

const (
	// reportPause is the least time between two writes; half as much again is chance,
	// so that nodes don't write all at once.
	reportPause = 30 * time.Second
	// reportFirst is the most that the first one waits, for the same reason.
	reportFirst = 3 * time.Second
	reportRetry = time.Second
	fieldOwner  = "unmasq-agent"
)

// reports has the status to be written.
type reports struct {
	mu     sync.Mutex
	want   *v1alpha1.NodeReportStatus
	wanted chan struct{}
}

// Report says what the NodeReport shall be. It is written when it's another than
// the one that is there, and not too often.
func (w *Watch) Report(status v1alpha1.NodeReportStatus) {
	w.reports.mu.Lock()
	w.reports.want = &status
	w.reports.mu.Unlock()
	wake(w.reports.wanted)
}

func (w *Watch) wantedReport() *v1alpha1.NodeReportStatus {
	w.reports.mu.Lock()
	defer w.reports.mu.Unlock()
	return w.reports.want
}

// written is what the API has.
type written struct {
	status  v1alpha1.NodeReportStatus
	nodeUID string
}

// writeReports until the context ends.
func (w *Watch) writeReports(ctx context.Context) {
	var last *written // nil: not known
	pause, retry := rand.N(reportFirst), reportRetry
	failed := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.reports.wanted:
		}
		if !sleep(ctx, pause) {
			return
		}
		wrote, err := w.writeReport(ctx, &last)
		switch {
		case err != nil:
			if text := err.Error(); text != failed && ctx.Err() == nil {
				failed = text
				w.opts.Log.Warn("could not write the node's report; trying again", "error", err)
			}
			pause, retry = retry+rand.N(retry), min(2*retry, reportPause)
			last = nil // somebody may have changed it
			wake(w.reports.wanted)
		case wrote:
			pause, retry, failed = reportPause+rand.N(reportPause/2), reportRetry, ""
		default:
			pause, retry = 0, reportRetry
		}
	}
}

// sleep says whether the context lives on.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// writeReport writes the report if it is another. Last is what the API has.
func (w *Watch) writeReport(ctx context.Context, last **written) (wrote bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, reportPause)
	defer cancel()
	want, view := w.wantedReport(), w.View()
	if want == nil || view == nil || view.NodeUID == "" {
		return false, nil
	}
	client := w.clients.Dynamic.Resource(resource(v1alpha1.NodeReports))
	if *last == nil {
		there, err := client.Get(ctx, w.opts.NodeName, metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return false, err
		}
		*last = reportOf(there)
	}
	status := withTimes(*want, (*last).status.Conditions, metav1.Now().Rfc3339Copy())
	if (*last).nodeUID == view.NodeUID && reflect.DeepEqual(normal(status), normal((*last).status)) {
		return false, nil
	}
	object, err := nodeReport(w.opts.NodeName, view.NodeUID, status)
	if err != nil {
		return false, err
	}
	// Server-side apply makes it or changes it, whatever stands there.
	if _, err := client.Apply(ctx, w.opts.NodeName, object, metav1.ApplyOptions{FieldManager: fieldOwner, Force: true}); err != nil {
		return false, err
	}
	*last = &written{status, view.NodeUID}
	return true, nil
}

// reportOf reads a report; one that can't be read is as none.
func reportOf(u *unstructured.Unstructured) *written {
	var r v1alpha1.NodeReport
	if u == nil || runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &r) != nil {
		return &written{}
	}
	out := &written{status: r.Status}
	for _, o := range r.OwnerReferences {
		if o.Kind == "Node" {
			out.nodeUID = string(o.UID)
		}
	}
	return out
}

// withTimes keeps the time of a condition whose status is as before.
func withTimes(s v1alpha1.NodeReportStatus, before []metav1.Condition, now metav1.Time) v1alpha1.NodeReportStatus {
	conditions := make([]metav1.Condition, len(s.Conditions))
	for i, c := range s.Conditions {
		c.LastTransitionTime = now
		for _, b := range before {
			if b.Type == c.Type && b.Status == c.Status {
				c.LastTransitionTime = b.LastTransitionTime
			}
		}
		conditions[i] = c
	}
	s.Conditions = conditions
	return s
}

// normal is the status as JSON has it: no difference between nil and empty.
func normal(s v1alpha1.NodeReportStatus) any {
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&s)
	if err != nil {
		return err
	}
	return m
}

// nodeReport belongs to its Node, and goes with it.
func nodeReport(name, nodeUID string, status v1alpha1.NodeReportStatus) (*unstructured.Unstructured, error) {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&status)
	if err != nil {
		return nil, fmt.Errorf("node's report: %w", err)
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": v1alpha1.APIVersion, "kind": "NodeReport",
		"metadata": map[string]any{"name": name, "ownerReferences": []any{
			map[string]any{"apiVersion": "v1", "kind": "Node", "name": name, "uid": nodeUID}}},
		"status": content,
	}}, nil
}
