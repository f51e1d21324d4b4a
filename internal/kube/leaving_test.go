package kube

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
)

// answers of the API server, one after the other; the last one again and again. Each
// is an error's name or an object's text.
type answers []string

var refusals = map[string]error{
	"401": apierrors.NewUnauthorized("Unauthorized"),
	"403": apierrors.NewForbidden(daemonSetsResource.GroupResource(), "unmasq-agent", errors.New("no")),
	"404": apierrors.NewNotFound(daemonSetsResource.GroupResource(), "unmasq-agent"),
	"503": apierrors.NewServiceUnavailable("no etcd"),
}

// next answer; "hangs" is one that never comes.
func (a *answers) next() string {
	first := (*a)[0]
	if len(*a) > 1 {
		*a = (*a)[1:]
	}
	return first
}

func (a *answers) reaction() (bool, runtime.Object, error) {
	text := a.next()
	switch {
	case text == "hangs":
		time.Sleep(leaveAnswer) // as a request whose time is over
		return true, nil, context.DeadlineExceeded
	case refusals[text] != nil:
		return true, nil, refusals[text]
	}
	return true, object(text), nil
}

const (
	setText   = `{"apiVersion":"apps/v1","kind":"DaemonSet","metadata":{"namespace":"unmasq","name":"unmasq-agent","uid":"%s"%s},"spec":{"template":{"spec":{"nodeSelector":{"kubernetes.io/os":"linux"%s}}}}}`
	agentText = `{"apiVersion":"v1","kind":"Pod","metadata":{"namespace":"unmasq","name":"unmasq-agent-x","uid":"u"},"spec":{"nodeName":"n1","hostNetwork":true}}`
)

func TestRemoved(t *testing.T) {
	alive := fmt.Sprintf(setText, "a", "", "")
	going := fmt.Sprintf(setText, "a", `,"deletionTimestamp":"2026-01-01T00:00:00Z"`, "")
	another := fmt.Sprintf(setText, "b", "", "")
	canary := fmt.Sprintf(setText, "a", "", `,"canary":"true"`)
	hour := func(d time.Duration) string {
		return "h." + base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"exp":%d}`, time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(d).Unix())) + ".s"
	}
	for _, x := range []struct {
		name           string
		set, namespace answers
		node           string // its labels
		pod            string // the name that the agent knows
		token          string
		want           bool
		why            string
	}{
		{"rolling update, restart, pod deleted by hand, drain", answers{alive}, answers{"there"}, "linux", "x", "", false, "daemon set unmasq/unmasq-agent is there"},
		{"deleted", answers{"404"}, nil, "linux", "x", "", true, "is gone"},
		{"deleted in the foreground", answers{going}, nil, "linux", "x", "", true, "is being deleted"},
		{"made anew", answers{another}, answers{"there"}, "linux", "x", "", false, "is there"},
		{"namespace goes, pods before the daemon set", answers{alive}, answers{"going"}, "linux", "x", "", true, "namespace unmasq is being deleted"},
		{"namespace is gone", answers{"403"}, answers{"none"}, "linux", "x", "", true, "namespace unmasq is gone"},
		{"all rights are gone", answers{"403"}, answers{"403"}, "linux", "x", "", true, "the agent's rights are gone"},
		{"rights go one after the other", answers{"403"}, answers{"there", "there", "403"}, "linux", "x", "", true, "the agent's rights are gone"},
		{"it never had the right", answers{"403"}, answers{"there"}, "linux", "x", "", false, "isn't known: daemonsets.apps \"unmasq-agent\" is forbidden"},
		{"the other right goes first", answers{alive, alive, "404"}, answers{"403"}, "linux", "x", "", true, "is gone"},
		{"the other right is missing", answers{alive}, answers{"403"}, "linux", "x", "", false, "isn't known"},
		{"service account is gone", answers{"401"}, nil, "linux", "x", hour(time.Hour), true, "service account is gone"},
		{"service account goes meanwhile", answers{"403"}, answers{"401"}, "linux", "x", "", true, "service account is gone"},
		{"pod deleted by force", answers{"401"}, nil, "linux", "gone", "", false, "pod unmasq/unmasq-agent-gone was deleted by force"},
		{"its name isn't known", answers{"401"}, nil, "linux", "", "", false, "whether its pod is there isn't known"},
		{"token has expired", answers{"401"}, nil, "linux", "x", hour(0), false, "the agent's token has expired"},
		{"no answer", answers{"503"}, nil, "linux", "x", "", false, "isn't known: no etcd; if it is, `kubectl unmasq uninstall`"},
		{"no answer at all", answers{"hangs"}, nil, "linux", "x", "", false, "isn't known: context deadline exceeded"},
		{"an answer in the end", answers{"503", "503", "503", "404"}, nil, "linux", "x", "", true, "is gone"},
		{"the node isn't selected any more", answers{canary}, answers{"there"}, "linux", "x", "", true, "no longer selects this node: canary=true"},
		{"the node was labelled a moment ago", answers{canary}, answers{"there"}, "canary", "x", "", false, "is there"},
		{"the node is gone", answers{canary}, answers{"there"}, "", "x", "", false, "is there"},
	} {
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := leavingWatch(t, x.set, x.namespace, x.node)
				w.clients.Token = func() string { return x.token }
				if x.pod != "" {
					x.pod = "unmasq-agent-" + x.pod
				}
				start := time.Now()
				got, why := w.Removed(t.Context(), DaemonSet{"unmasq", "unmasq-agent"}, x.pod)
				if got != x.want || !strings.Contains(why, x.why) {
					t.Errorf("%v, %s; want %v, %s", got, why, x.want, x.why)
				}
				if took := time.Since(start); took > leaveWithin+leaveHear {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

// leavingWatch knows a node without labels but linux's, and its agent's pod.
func leavingWatch(t *testing.T, set, namespace answers, node string) *Watch {
	t.Helper()
	s := newServer(t)
	s.dynamic.PrependReactor("get", "daemonsets", func(clienttesting.Action) (bool, runtime.Object, error) { return set.reaction() })
	s.dynamic.PrependReactor("get", "nodes", func(clienttesting.Action) (bool, runtime.Object, error) {
		labels := map[string]string{"linux": `"kubernetes.io/os":"linux"`, "canary": `"kubernetes.io/os":"linux","canary":"true"`}[node]
		if labels == "" {
			return true, nil, apierrors.NewNotFound(nodesResource.GroupResource(), "n1")
		}
		return true, object(`{"apiVersion":"v1","kind":"Node","metadata":{"name":"n1","labels":{` + labels + `}}}`), nil
	})
	s.metadata.PrependReactor("list", "namespaces", func(a clienttesting.Action) (bool, runtime.Object, error) {
		if got := a.(clienttesting.ListAction).GetListRestrictions().Fields.String(); got != "metadata.name=unmasq" {
			t.Errorf("asked for namespaces %s", got)
		}
		list, one := &metav1.List{}, &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: "unmasq"}}
		switch text := namespace.next(); text {
		case "none":
			return true, list, nil
		case "going":
			one.DeletionTimestamp = &metav1.Time{Time: time.Now()}
		case "there":
		default:
			return true, nil, refusals[text]
		}
		list.Items = append(list.Items, runtime.RawExtension{Object: one})
		return true, list, nil
	})
	w := New(Clients{Dynamic: s.dynamic, Metadata: s.metadata}, Options{NodeName: "n1", Log: slog.New(slog.DiscardHandler)})
	if err := errors.Join(w.pods.Replace([]any{object(agentText)}, ""),
		w.node.Replace([]any{object(`{"apiVersion":"v1","kind":"Node","metadata":{"name":"n1","labels":{"kubernetes.io/os":"linux"}}}`)}, "")); err != nil {
		t.Fatal(err)
	}
	return w
}

// TestForget leaves other files alone.
func TestForget(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"cluster.json", ".cluster.json-12", "cluster.json.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := errors.Join(Forget(filepath.Join(dir, "cluster.json")), Forget("")); err != nil {
			t.Error(err)
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != "cluster.json.txt" {
		t.Errorf("left: %v, %v", left, err)
	}
}
