package kube

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/unmasq/unmasq/internal/cluster"
)

// DaemonSet that an agent is of.
type DaemonSet struct{ Namespace, Name string }

func (d DaemonSet) String() string { return "daemon set " + d.Namespace + "/" + d.Name }

var daemonSetsResource = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "daemonsets"}

// leaveWithin bounds the questions of an agent that was told to end: it has 30 s,
// and has to clear its table behind them. leaveAnswer bounds one.
const (
	leaveWithin = 6 * time.Second
	leaveAnswer = 3 * time.Second
	leavePause  = 300 * time.Millisecond
	// leaveHear is how much later than the kubelet's signal a watch may tell of the
	// same event.
	leaveHear = time.Second
)

// verdict on whether a daemon set is of the past.
type verdict int

const (
	// unclear: it may be clear in a moment.
	unclear verdict = iota
	stays
	removed
)

// Removed asks whether the daemon set of this agent's pod is gone or going, or no
// longer wants this node: nobody comes after the agent then. It says why it is so,
// or why the table stays, as it does wherever there is no clear answer.
//
// Whoever uninstalls removes the service account and its rights right behind the
// daemon set, so that to be refused is an answer too, if all that the agent could
// do before is refused. A daemon set of the same name that lives is a successor,
// be it another object: it has an agent on this node within moments.
func (w *Watch) Removed(ctx context.Context, d DaemonSet, pod string) (bool, string) {
	ctx, cancel := context.WithTimeout(ctx, leaveWithin)
	defer cancel()
	for why := ""; ; {
		v, now := w.removed(ctx, d, pod)
		if v != unclear {
			return v == removed, now
		}
		if why == "" || ctx.Err() == nil {
			why = now // not that the time was over
		}
		if !sleep(ctx, leavePause) {
			return false, fmt.Sprintf("whether %s is being removed isn't known: %s; if it is, `kubectl unmasq uninstall`, or `unmasq clear` here, removes the table", d, why)
		}
	}
}

// removed asks once.
func (w *Watch) removed(ctx context.Context, d DaemonSet, pod string) (verdict, string) {
	ctx, cancel := context.WithTimeout(ctx, leaveAnswer)
	defer cancel()
	set, err := w.clients.Dynamic.Resource(daemonSetsResource).Namespace(d.Namespace).Get(ctx, d.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return removed, fmt.Sprintf("%s is gone", d)
	case apierrors.IsUnauthorized(err):
		return w.unauthorized(d, pod)
	case err != nil && !apierrors.IsForbidden(err):
		return unclear, err.Error()
	case err == nil && set.GetDeletionTimestamp() != nil:
		return removed, fmt.Sprintf("%s is being deleted", d)
	case err == nil:
		_, f := fieldsOf(set)
		selector, _ := f.at("spec", "template", "spec", "nodeSelector").(map[string]any)
		if text := w.unwanted(ctx, selector); text != "" {
			return removed, fmt.Sprintf("%s no longer selects this node: %s", d, text)
		}
	}
	return w.inNamespace(ctx, d, pod, err)
}

// inNamespace asks for the daemon set's namespace, where that set is there or can't
// be asked for. A namespace that is being deleted may lose its pods first. The right
// to ask is of the agent's ClusterRole; the one to ask for the set, of a Role.
func (w *Watch) inNamespace(ctx context.Context, d DaemonSet, pod string, refused error) (verdict, string) {
	list, err := w.clients.Metadata.Resource(namespacesResource).List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + d.Namespace})
	switch {
	case apierrors.IsUnauthorized(err):
		return w.unauthorized(d, pod)
	case apierrors.IsForbidden(err) && refused != nil:
		return removed, "the agent's rights are gone"
	case err != nil:
		return unclear, err.Error()
	case len(list.Items) == 0:
		return removed, fmt.Sprintf("namespace %s is gone", d.Namespace)
	case list.Items[0].DeletionTimestamp != nil:
		return removed, fmt.Sprintf("namespace %s is being deleted", d.Namespace)
	case refused != nil:
		return unclear, refused.Error() // its role may go in a moment
	}
	return stays, fmt.Sprintf("%s is there", d)
}

// unauthorized: the agent's token is of nobody. That is so where its service account
// is gone, but also where its pod's object was deleted by force, which says nothing of
// the daemon set, and where the token ran out.
func (w *Watch) unauthorized(d DaemonSet, pod string) (verdict, string) {
	switch {
	case w.clients.Token != nil && expired(w.clients.Token(), time.Now()):
		return unclear, "the agent's token has expired"
	case pod == "" || !w.pods.complete():
		return unclear, "the agent's token isn't accepted, and whether its pod is there isn't known"
	}
	time.Sleep(leaveHear)
	if !w.pods.has(d.Namespace + "/" + pod) {
		return stays, fmt.Sprintf("pod %s/%s was deleted by force", d.Namespace, pod)
	}
	return removed, "the agent's service account is gone"
}

// unwanted says which label the node lacks; "": none. What is known of it may be old,
// so it is asked for; without an answer nothing is said.
func (w *Watch) unwanted(ctx context.Context, selector map[string]any) string {
	want := labels.Set{}
	for key, value := range selector {
		want[key], _ = value.(string)
	}
	if nodes := list[cluster.Node](w.node); len(nodes) > 0 && want.AsSelectorPreValidated().Matches(labels.Set(nodes[0].Labels)) {
		return ""
	}
	node, err := w.clients.Dynamic.Resource(nodesResource).Get(ctx, w.opts.NodeName, metav1.GetOptions{})
	if err != nil || want.AsSelectorPreValidated().Matches(labels.Set(node.GetLabels())) {
		return ""
	}
	return want.String()
}

// has an object of that key.
func (s *source) has(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.objects[key] != nil
}

// expired: a token that says until when it is good. One that doesn't say isn't.
func expired(token string, now time.Time) bool {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return false
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct {
		Expiry *int64 `json:"exp"`
	}
	return err == nil && json.Unmarshal(text, &claims) == nil && claims.Expiry != nil && now.Unix() >= *claims.Expiry
}
