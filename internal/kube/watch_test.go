package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/util/watchlist"

	"github.com/unmasq/unmasq/api/v1alpha1"
	"github.com/unmasq/unmasq/internal/cluster"
	"github.com/unmasq/unmasq/internal/policy"
)

// patience bounds what must happen at all; nothing is timed by it.
const patience = 20 * time.Second

func object(text string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON([]byte(text)); err != nil {
		panic(err)
	}
	return u
}

const (
	nodeText = `{"apiVersion":"v1","kind":"Node","metadata":{"name":"n1","uid":"node-uid","labels":{"zone":"a"}},"spec":{"podCIDRs":["10.244.1.0/24"]},
		"status":{"addresses":[{"type":"InternalIP","address":"192.0.2.1"},{"type":"Hostname","address":"n1"}]}}`
	podText = `{"apiVersion":"v1","kind":"Pod","metadata":{"namespace":"web","name":"a","uid":"uid-a","labels":{"app":"x"},"creationTimestamp":"2026-01-01T00:00:00Z"},
		"spec":{"nodeName":"n1"},"status":{"phase":"Running","podIPs":[{"ip":"10.244.1.7"}]}}`
	policyText = `{"apiVersion":"unmasq.io/v1alpha1","kind":"SourcePolicy","metadata":{"name":"p","generation":3},"spec":{"rules":[{"action":"Keep"}]}}`
)

// server stands where the API server does.
type server struct {
	dynamic  *dynamicfake.FakeDynamicClient
	metadata *metadatafake.FakeMetadataClient
	away     atomic.Bool
	reports  chan *unstructured.Unstructured
}

func newServer(t *testing.T, objects ...runtime.Object) *server {
	t.Helper()
	s := &server{reports: make(chan *unstructured.Unstructured, 10)}
	scheme := metadatafake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	s.metadata = metadatafake.NewSimpleMetadataClient(scheme, &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"},
		ObjectMeta: metav1.ObjectMeta{Name: "web", Labels: map[string]string{"team": "a"}}})
	s.dynamic = dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{
		nodesResource: "NodeList", podsResource: "PodList", servicesResource: "ServiceList", serviceCIDRsResource: "ServiceCIDRList",
		resource(v1alpha1.SourcePolicies): "SourcePolicyList", resource(v1alpha1.NodeReports): "NodeReportList"}, objects...)
	refuse := func(clienttesting.Action) (bool, runtime.Object, error) {
		return s.away.Load(), nil, errors.New("connection refused")
	}
	s.metadata.PrependReactor("*", "*", refuse)
	s.dynamic.PrependReactor("list", "servicecidrs", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewNotFound(serviceCIDRsResource.GroupResource(), "")
	})
	s.dynamic.PrependReactor("patch", "nodereports", func(a clienttesting.Action) (bool, runtime.Object, error) {
		u := object(string(a.(clienttesting.PatchAction).GetPatch()))
		s.reports <- u
		return true, u, nil
	})
	s.dynamic.PrependReactor("*", "*", refuse)
	return s
}

func (s *server) update(t *testing.T, resource schema.GroupVersionResource, namespace string, u *unstructured.Unstructured) {
	t.Helper()
	if err := s.dynamic.Tracker().Update(resource, u, namespace); err != nil {
		t.Fatal(err)
	}
}

// run a Watch until the test ends.
func (s *server) run(t *testing.T, opts Options) *Watch {
	t.Helper()
	opts.NodeName, opts.Log = "n1", slog.New(slog.DiscardHandler)
	if opts.Results == "" {
		opts.Results = filepath.Join(t.TempDir(), "none")
	}
	w := New(Clients{Dynamic: s.dynamic, Metadata: s.metadata}, opts)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

// await a view.
func await(t *testing.T, w *Watch, what string, holds func(*cluster.View) bool) *cluster.View {
	t.Helper()
	deadline := time.After(patience)
	for {
		if v := w.View(); v != nil && holds(v) {
			return v
		}
		select {
		case <-w.Changed():
		case <-time.After(10 * time.Millisecond):
		case <-deadline:
			t.Fatalf("not %s: %+v; %s", what, w.View(), w.Stale())
		}
	}
}

func summary(v *cluster.View) string {
	var out []string
	for _, p := range v.Facts.Pods {
		out = append(out, fmt.Sprint(p.Namespace, "/", p.Name, p.Addresses, p.Labels, p.NamespaceLabels["team"]))
	}
	for _, p := range v.Policies {
		out = append(out, fmt.Sprint(p.Name, " ", p.Generation))
	}
	return fmt.Sprint(strings.Join(out, ", "), " ", v.NodeName, v.NodeLabels, v.Paused)
}

func TestWatch(t *testing.T) {
	s := newServer(t, object(nodeText), object(podText), object(policyText))
	w := s.run(t, Options{Stated: cluster.Stated{PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}}})
	v := await(t, w, "known", func(*cluster.View) bool { return true })
	if diff := cmp.Diff("web/a[10.244.1.7] app=xa, p 3 n1map[zone:a] false", summary(v)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if !strings.HasPrefix(v.NoResults, "no directory ") || v.NoNodes != cluster.NoNodes || w.Stale() != "" {
		t.Errorf("results %q, nodes %q, stale %q", v.NoResults, v.NoNodes, w.Stale())
	}
	pod := object(podText)
	pod.SetLabels(map[string]string{"app": "y"})
	s.update(t, podsResource, "web", pod)
	await(t, w, "relabelled", func(v *cluster.View) bool { return len(v.Facts.Pods) == 1 && v.Facts.Pods[0].Labels["app"] == "y" })
	node := object(nodeText)
	node.SetAnnotations(map[string]string{"unmasq.io/pause": "true"})
	s.update(t, nodesResource, "", node)
	await(t, w, "paused", func(v *cluster.View) bool { return v.Paused })
	if err := s.dynamic.Tracker().Delete(nodesResource, "", "n1"); err != nil {
		t.Fatal(err)
	}
	if err := s.dynamic.Tracker().Delete(podsResource, "web", "a"); err != nil {
		t.Fatal(err)
	}
	v = await(t, w, "without the pod", func(v *cluster.View) bool { return len(v.Facts.Pods) == 0 })
	if v.NodeName != "n1" {
		t.Error("a node that is deleted is forgotten while its agent runs")
	}
}

// All nodes are watched where that is asked for, and only there.
func TestAllNodes(t *testing.T) {
	other := object(strings.NewReplacer("n1", "n2", "node-uid", "other-uid", "10.244.1.0", "10.244.2.0", "192.0.2.1", "192.0.2.2").Replace(nodeText))
	s := newServer(t, object(nodeText), other)
	w := s.run(t, Options{Stated: cluster.Stated{AllNodes: true}})
	v := await(t, w, "known", func(*cluster.View) bool { return true })
	if len(v.Facts.Nodes) != 2 || len(v.Facts.PodCIDRs) != 2 || v.NoNodes != "" || v.NodeName != "n1" {
		t.Errorf("view of all nodes: %+v", v)
	}
	if err := s.dynamic.Tracker().Delete(nodesResource, "", "n2"); err != nil {
		t.Fatal(err)
	}
	await(t, w, "without the other node", func(v *cluster.View) bool { return len(v.Facts.Nodes) == 1 && len(v.Facts.PodCIDRs) == 1 })
	for _, a := range s.dynamic.Actions() {
		if l, is := a.(clienttesting.ListAction); is && a.GetResource() == podsResource && l.GetListRestrictions().Fields.String() != "spec.nodeName=n1" {
			t.Errorf("pods were listed by %q", l.GetListRestrictions().Fields)
		}
	}
	s = newServer(t, object(nodeText), other)
	w = s.run(t, Options{})
	v = await(t, w, "known", func(*cluster.View) bool { return true })
	if v.NodeName != "n1" || v.NoNodes == "" {
		t.Errorf("view of one node: %+v", v)
	}
	for _, a := range s.dynamic.Actions() {
		if a.GetVerb() == "list" && a.GetResource() == nodesResource {
			t.Error("all nodes were listed by an agent that isn't to")
		}
	}
}

// A node that the API doesn't have is waited for: another name was meant.
func TestNoSuchNode(t *testing.T) {
	s := newServer(t, object(podText))
	w := s.run(t, Options{})
	deadline := time.Now().Add(patience)
	for !strings.Contains(w.Stale(), "node n1: the API has none of that name") {
		if time.Now().After(deadline) {
			t.Fatalf("stale: %q", w.Stale())
		}
		time.Sleep(5 * time.Millisecond)
	}
	if w.View() != nil {
		t.Error("there is a view without a node")
	}
	if err := s.dynamic.Tracker().Create(nodesResource, object(nodeText), ""); err != nil {
		t.Fatal(err)
	}
	await(t, w, "known", func(*cluster.View) bool { return true })
}

// What isn't used of an object wakes nobody.
func TestWatchIsQuiet(t *testing.T) {
	s := newServer(t, object(nodeText), object(podText))
	w := s.run(t, Options{})
	before := await(t, w, "known", func(*cluster.View) bool { return true })
	for i := range 5 {
		node := object(nodeText)
		node.SetResourceVersion(fmt.Sprint(100 + i))
		if err := unstructured.SetNestedField(node.Object, fmt.Sprint(i), "status", "heartbeat"); err != nil {
			t.Fatal(err)
		}
		s.update(t, nodesResource, "", node)
	}
	pod := object(podText)
	pod.SetLabels(map[string]string{"app": "last"})
	s.update(t, podsResource, "web", pod)
	await(t, w, "relabelled", func(v *cluster.View) bool { return v.Facts.Pods[0].Labels["app"] == "last" })
	time.Sleep(50 * time.Millisecond) // the token comes after the view
	drainChanged(w)
	s.update(t, nodesResource, "", object(nodeText))
	time.Sleep(50 * time.Millisecond) // what must not come has no end to be waited for
	select {
	case <-w.Changed():
		t.Error("a heartbeat changed something")
	default:
	}
	if before == w.View() {
		t.Error("the view is the one before")
	}
}

func drainChanged(w *Watch) {
	for {
		select {
		case <-w.Changed():
		default:
			return
		}
	}
}

// Without the API the cache is used, with the results as they are now; without a
// cache nothing is known.
func TestStartWithoutAPI(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "run", "cluster.json")
	s := newServer(t, object(nodeText), object(podText), object(policyText))
	func() {
		w := New(Clients{Dynamic: s.dynamic, Metadata: s.metadata}, Options{NodeName: "n1", Cache: file, Results: dir, Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); w.Run(ctx) }()
		await(t, w, "known", func(*cluster.View) bool { return true })
		cancel()
		<-done // writes the cache
	}()
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("cache: %v, %v", info, err)
	}
	s.away.Store(true)
	w := s.run(t, Options{Cache: file})
	v := await(t, w, "known from the cache", func(*cluster.View) bool { return true })
	if diff := cmp.Diff("web/a[10.244.1.7] app=xa, p 3 n1map[zone:a] false", summary(v)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if stale := w.Stale(); !strings.Contains(stale, "pods: not followed since ") {
		t.Errorf("stale: %q", stale)
	}
	pod := object(podText)
	pod.SetLabels(map[string]string{"app": "new"})
	s.update(t, podsResource, "web", pod)
	s.away.Store(false)
	await(t, w, "followed again", func(v *cluster.View) bool { return v.Facts.Pods[0].Labels["app"] == "new" })

	s.away.Store(true)
	for _, text := range []string{"", "{", `{"version":1,"node":"n2"}`, `{"version":9,"node":"n1"}`} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if o, err := readCache(file, "n1"); err == nil || o != nil {
			t.Errorf("cache %q: %v, %v", text, o, err)
		}
	}
	if o, err := readCache(file+"none", "n1"); err != nil || o != nil {
		t.Errorf("no cache: %v, %v", o, err)
	}
}

// What was in force in the place of a refused policy is known after a restart, with
// the API or without, and for as long as nobody says otherwise.
func TestRefusedOutlivesRestart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cluster.json")
	never := object(strings.ReplaceAll(policyText, `"name":"p"`, `"name":"never"`))
	other := object(strings.ReplaceAll(policyText, `"name":"p"`, `"name":"q"`))
	s := newServer(t, object(nodeText), object(policyText), never, other)
	good := cluster.Policy{Name: "p", Generation: 2, Source: policy.Source{Name: "sourcepolicies/p", Content: []byte("good")}}
	begin := func() (w *Watch, end func()) {
		w = New(Clients{Dynamic: s.dynamic, Metadata: s.metadata}, Options{NodeName: "n1", Cache: file, Results: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); w.Run(ctx) }()
		return w, func() { cancel(); <-done }
	}
	w, end := begin()
	if v := await(t, w, "known", func(*cluster.View) bool { return true }); len(v.Before) != 0 {
		t.Errorf("at the first start: %+v", v.Before)
	}
	w.Refused(map[string]*cluster.Policy{"p": &good, "never": nil})
	end()
	for _, away := range []bool{false, true, false} {
		s.away.Store(away)
		w, end = begin()
		v := await(t, w, "known", func(*cluster.View) bool { return true })
		end()
		var got []string
		for _, p := range v.Before {
			got = append(got, fmt.Sprint(p.Name, " ", p.Generation, " ", len(p.Source.Content)))
		}
		if diff := cmp.Diff([]string{"p 2 4", fmt.Sprint("q 3 ", len(v.Policies[2].Source.Content))}, got); diff != "" || v.Policies[1].Generation != 3 {
			t.Errorf("API away %t: -want +got:\n%s\n%+v", away, diff, v.Policies)
		}
	}
}

// A new pod's address is known by the network plugin's result, and given back with it.
func TestResultsAreFollowed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "results")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	early := object(podText)
	unstructured.RemoveNestedField(early.Object, "status")
	s := newServer(t, object(nodeText), early)
	w := s.run(t, Options{Results: dir})
	await(t, w, "known", func(v *cluster.View) bool { return v.NoResults == "" && len(v.Facts.Pods) == 0 })
	result := filepath.Join(dir, "pods-1-eth0")
	text := `{"kind":"cniCacheV1","containerId":"1","ifName":"eth0","cniArgs":[["K8S_POD_NAMESPACE","web"],["K8S_POD_NAME","a"],["K8S_POD_UID","uid-a"]],` +
		`"result":{"ips":[{"address":"10.244.1.9/24"}]}}`
	for _, content := range []string{"", text[:40], text} { // as it is written
		if err := os.WriteFile(result, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	await(t, w, "known early", func(v *cluster.View) bool {
		return len(v.Facts.Pods) == 1 && v.Facts.Pods[0].Addresses[0] == netip.MustParseAddr("10.244.1.9")
	})
	shown := object(podText)
	if err := unstructured.SetNestedSlice(shown.Object, []any{map[string]any{"ip": "10.244.1.9"}}, "status", "podIPs"); err != nil {
		t.Fatal(err)
	}
	s.update(t, podsResource, "web", shown)
	if err := os.Remove(result); err != nil {
		t.Fatal(err)
	}
	await(t, w, "given back", func(v *cluster.View) bool { return len(v.Facts.Pods) == 0 })
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	await(t, w, "without results", func(v *cluster.View) bool { return v.NoResults != "" })
}

// status with a condition.
func status(condition metav1.ConditionStatus, reason string) v1alpha1.NodeReportStatus {
	return v1alpha1.NodeReportStatus{AgentVersion: "v1", Conditions: []metav1.Condition{{Type: "Enforced", Status: condition, Reason: reason}}}
}

func (s *server) report(t *testing.T) *unstructured.Unstructured {
	t.Helper()
	select {
	case u := <-s.reports:
		return u
	case <-time.After(patience):
		t.Fatal("no report was written")
		return nil
	}
}

func TestReports(t *testing.T) {
	s := newServer(t, object(nodeText))
	w := s.run(t, Options{})
	w.Report(status("True", "InForce")) // before it is known which node it's of
	await(t, w, "known", func(*cluster.View) bool { return true })
	w.Report(status("True", "InForce"))
	u := s.report(t)
	owners := u.GetOwnerReferences()
	if u.GetName() != "n1" || len(owners) != 1 || owners[0].Kind != "Node" || owners[0].UID != "node-uid" {
		t.Errorf("report: %v", u)
	}
	// The same again is no report; a change is one, and keeps what didn't change.
	last := reportOf(u)
	for _, tt := range []struct {
		name   string
		status v1alpha1.NodeReportStatus
		wrote  bool
	}{
		{"the same", status("True", "InForce"), false},
		{"another reason", status("True", "Other"), true},
		{"another status", status("False", "Paused"), true},
		{"the same again", status("False", "Paused"), false},
	} {
		w.Report(tt.status)
		before := last.status.Conditions[0]
		wrote, err := w.writeReport(t.Context(), &last)
		if err != nil || wrote != tt.wrote {
			t.Errorf("%s: wrote %t, %v", tt.name, wrote, err)
		}
		if wrote {
			<-s.reports
		}
		if c := last.status.Conditions[0]; c.Status == before.Status && c.LastTransitionTime != before.LastTransitionTime {
			t.Errorf("%s: the time of the last transition is another: %v, %v", tt.name, before, c)
		}
	}
}

func TestConvert(t *testing.T) {
	pod := func(change string) *unstructured.Unstructured {
		return object(strings.Replace(podText, `"spec":{"nodeName":"n1"}`, change, 1))
	}
	base := cluster.Pod{Namespace: "web", Name: "a", UID: "uid-a", Labels: map[string]string{"app": "x"}, Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.7")}, Created: 1767225600}
	for _, tt := range []struct {
		name    string
		object  runtime.Object
		convert func(runtime.Object) (any, []string)
		want    any
		strange []string
	}{
		{"pod", pod(`"spec":{}`), podOf, base, nil},
		{"host network", pod(`"spec":{"hostNetwork":true}`), podOf, func() any { p := base; p.HostNetwork, p.Addresses = true, nil; return p }(), nil},
		{"ended", object(strings.Replace(podText, "Running", "Failed", 1)), podOf, func() any { p := base; p.Ended = true; return p }(), nil},
		{"static pod", object(strings.Replace(podText, `"labels"`, `"annotations":{"kubernetes.io/config.mirror":"h","kubernetes.io/config.hash":"static"},"labels"`, 1)), podOf,
			func() any { p := base; p.StaticUID = "static"; return p }(), nil},
		{"strange address", object(strings.Replace(podText, "10.244.1.7", "10.244.1", 1)), podOf, func() any { p := base; p.Addresses = nil; return p }(),
			[]string{`status.podIPs: "10.244.1" is not an address`}},
		{"service CIDRs", object(`{"kind":"ServiceCIDR","metadata":{"name":"kubernetes"},"spec":{"cidrs":["10.96.0.0/16","fd00::/112","x"]}}`), serviceCIDROf,
			cluster.ServiceCIDR{Name: "kubernetes", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd00::/112")}}, []string{`spec.cidrs: "x" is not a CIDR`}},
		{"node", object(nodeText), nodeOf, cluster.Node{Name: "n1", UID: "node-uid", Labels: map[string]string{"zone": "a"}, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
			PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, strange := tt.convert(tt.object)
			if diff := cmp.Diff(tt.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if diff := cmp.Diff(tt.strange, strange); diff != "" {
				t.Errorf("strange, -want +got:\n%s", diff)
			}
		})
	}
}

// A server that knows how is asked to stream all but the node's pods.
func TestPodsAreListed(t *testing.T) {
	clients, err := NewClients(&rest.Config{Host: "http://192.0.2.1"})
	if err != nil {
		t.Fatal(err)
	}
	w := New(clients, Options{NodeName: "n1"})
	for _, s := range w.sources {
		if listed := watchlist.DoesClientNotSupportWatchListSemantics(w.listerWatcher(s)); listed != (s == w.pods) {
			t.Errorf("%s: listed before they are watched: %t", s.name, listed)
		}
	}
}
