package kube

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// source is one resource that is watched, with its objects as they are used here.
// It is the store of client-go's reflector, which lists, watches, and goes on
// trying with pauses that grow to half a minute.
type source struct {
	name     string
	resource schema.GroupVersionResource
	selector string // of fields
	convert  func(runtime.Object) (any, []string)
	// optional: an API without this resource has none of its objects.
	optional bool
	// keep the object that is deleted: a node is the node until it is off.
	keep    bool
	changed func()
	warn    func(string)
	info    func(string)

	mu      sync.Mutex
	objects map[string]any
	strange map[string]string // what was said of objects
	known   bool              // listed once
	since   time.Time
	problem string // since then; "": none
}

// source is one that is followed for as long as the Watch runs.
func (w *Watch) source(name string, resource schema.GroupVersionResource, selector string, convert func(runtime.Object) (any, []string)) *source {
	s := w.newSource(name, resource, selector, convert)
	w.sources = append(w.sources, s)
	return s
}

func (w *Watch) newSource(name string, resource schema.GroupVersionResource, selector string, convert func(runtime.Object) (any, []string)) *source {
	return &source{name: name, resource: resource, selector: selector, convert: convert, objects: map[string]any{}, strange: map[string]string{},
		changed: func() { wake(w.input) }, warn: func(text string) { w.opts.Log.Warn(text) }, info: func(text string) { w.opts.Log.Info(text) },
		problem: notAsked, since: time.Now()}
}

// follow runs the reflector until the context ends.
func (w *Watch) follow(ctx context.Context, s *source) {
	for s.optional && !w.served(ctx, s) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(optionalPause):
		}
	}
	example := runtime.Object(&unstructured.Unstructured{})
	if s.resource == namespacesResource {
		example = &metav1.PartialObjectMetadata{}
	}
	cache.NewReflectorWithOptions(w.listerWatcher(s), example, s, cache.ReflectorOptions{Name: s.name, Logger: &klog.Logger{}, Backoff: backoff()}).RunWithContext(ctx)
}

// listerWatcher streams its list where the API server can, but for pods.
func (w *Watch) listerWatcher(s *source) cache.ListerWatcher {
	client := any(w.clients.Dynamic)
	if s.resource == namespacesResource {
		client = w.clients.Metadata
	}
	if s == w.pods {
		return listFirst{w.listWatch(s)}
	}
	return cache.ToListWatcherWithWatchListSemantics(w.listWatch(s), client)
}

// listFirst has the reflector ask for a list before it watches. To stream one
// node's pods API servers look at all of the cluster's (kubernetes/kubernetes#138307);
// for a list they have them by node. With 150,000 pods and 2 processors one doesn't
// outlive the start of 70 agents that have it stream.
type listFirst struct{ *cache.ListWatch }

// IsWatchListSemanticsUnSupported is what the reflector asks.
func (listFirst) IsWatchListSemanticsUnSupported() bool { return true }

// backoff grows to pauses of 15 to 30 s, half of client-go's own: who comes back so
// much later than the node's kubelet doesn't know the pods that it starts.
func backoff() *wait.Backoff {
	return &wait.Backoff{Duration: 800 * time.Millisecond, Cap: 15 * time.Second, Steps: 20, Factor: 2, Jitter: 1}
}

// optionalPause between questions whether the API has a resource by now.
const optionalPause = 10 * time.Minute

// served asks until it is known whether the API has the resource. One that it
// hasn't got has no objects.
func (w *Watch) served(ctx context.Context, s *source) bool {
	for pause := time.Second; ctx.Err() == nil; pause = min(2*pause, 30*time.Second) {
		_, err := w.listWatch(s).ListWithContext(ctx, metav1.ListOptions{Limit: 1})
		if apierrors.IsNotFound(err) {
			_ = s.Replace(nil, "")
			return false
		}
		if err == nil {
			return true
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return true // the context ended
}

// listWatch notes how each request went.
func (w *Watch) listWatch(s *source) *cache.ListWatch {
	options := func(o metav1.ListOptions) metav1.ListOptions {
		o.FieldSelector = s.selector
		return o
	}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (list runtime.Object, err error) {
			switch {
			case s == w.node:
				list, err = w.ownNode(ctx)
			case s.resource == namespacesResource:
				list, err = w.clients.Metadata.Resource(s.resource).List(ctx, options(o))
			default:
				list, err = w.clients.Dynamic.Resource(s.resource).List(ctx, options(o))
			}
			return list, s.followed(err)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (i watch.Interface, err error) {
			if s.resource == namespacesResource {
				i, err = w.clients.Metadata.Resource(s.resource).Watch(ctx, options(o))
			} else {
				i, err = w.clients.Dynamic.Resource(s.resource).Watch(ctx, options(o))
			}
			return i, s.followed(err)
		},
	}
}

// ownNode asks for one node: an agent needs no right to list all.
func (w *Watch) ownNode(ctx context.Context) (runtime.Object, error) {
	list := &unstructured.UnstructuredList{Object: map[string]any{"apiVersion": "v1", "kind": "NodeList"}}
	n, err := w.clients.Dynamic.Resource(nodesResource).Get(ctx, w.opts.NodeName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return list, nil
	case err != nil:
		return nil, err
	}
	list.Items = append(list.Items, *n)
	list.SetResourceVersion(n.GetResourceVersion())
	return list, nil
}

// notAsked is a source's problem before its first request.
const notAsked = "not asked yet"

// followed notes the outcome of a request, and returns it.
func (s *source) followed(err error) error {
	if errors.Is(err, context.Canceled) {
		return err // the end
	}
	s.mu.Lock()
	was, text := s.problem, ""
	if err != nil && !(s.optional && apierrors.IsNotFound(err)) {
		text = err.Error()
	}
	if (was == "") != (text == "") {
		s.since = time.Now()
	}
	s.problem = text
	known, since := s.known, s.since
	s.mu.Unlock()
	if text == "" && was != "" && was != notAsked {
		s.info(s.name + ": followed again")
	}
	// An API server that is too old for a way of asking is asked in another.
	if text != "" && was != text && !apierrors.IsInvalid(err) && !apierrors.IsResourceExpired(err) {
		state := "nothing is known of it yet"
		if known {
			state = "what is known stays in force"
		}
		s.warn(fmt.Sprintf("could not follow %s since %s (%s): %s", s.name, since.UTC().Format(time.RFC3339), state, text))
	}
	return err
}

// stale says that the resource isn't followed; "": it is.
func (s *source) stale() string {
	complete := s.complete()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.problem != "":
		return fmt.Sprintf("%s: not followed since %s: %s", s.name, s.since.UTC().Format(time.RFC3339), s.problem)
	case !complete && s.known:
		return s.name + ": the API has none of that name"
	case !complete:
		return s.name + ": not known yet"
	}
	return ""
}

// complete: all objects are known, be they old.
func (s *source) complete() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known && (!s.keep || len(s.objects) > 0)
}

// list has the objects in a fixed order.
func list[T any](s *source) []T {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]T, 0, len(s.objects))
	for _, key := range slices.Sorted(maps.Keys(s.objects)) {
		out = append(out, s.objects[key].(T))
	}
	return out
}

// key of an object: a pod made anew under a name replaces the one before.
func key(object runtime.Object) (string, error) {
	return cache.DeletionHandlingMetaNamespaceKeyFunc(object)
}

// take converts an object; what is strange in it is said once, as long as it's so.
func (s *source) take(object any) (string, any, error) {
	o, ok := object.(runtime.Object)
	if !ok {
		return "", nil, fmt.Errorf("%s: unexpected %T", s.name, object)
	}
	k, err := key(o)
	if err != nil {
		return "", nil, err
	}
	converted, strange := s.convert(o)
	s.mu.Lock()
	before, text := s.strange[k], strings.Join(strange, "; ")
	if text == "" {
		delete(s.strange, k)
	} else {
		s.strange[k] = text
	}
	s.mu.Unlock()
	if text != "" && text != before {
		s.warn(fmt.Sprintf("%s %s: %s", s.resource.Resource, k, text))
	}
	return k, converted, nil
}

// Add is of cache.ReflectorStore, as are the next ones.
func (s *source) Add(object any) error { return s.Update(object) }

// Update takes an object. Much of what changes isn't used here: then nobody is told.
func (s *source) Update(object any) error {
	k, converted, err := s.take(object)
	if err != nil {
		return err
	}
	s.mu.Lock()
	same := s.known && reflect.DeepEqual(s.objects[k], converted)
	s.objects[k] = converted
	s.mu.Unlock()
	if !same {
		s.changed()
	}
	return nil
}

// Delete forgets an object.
func (s *source) Delete(object any) error {
	o, ok := object.(runtime.Object)
	if !ok || s.keep {
		return nil
	}
	k, err := key(o)
	if err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.objects, k)
	delete(s.strange, k)
	s.mu.Unlock()
	s.changed()
	return nil
}

// Replace takes a whole list.
func (s *source) Replace(objects []any, _ string) error {
	now := make(map[string]any, len(objects))
	for _, object := range objects {
		k, converted, err := s.take(object)
		if err != nil {
			return err
		}
		now[k] = converted
	}
	s.mu.Lock()
	if !s.keep || len(now) > 0 {
		s.objects = now
	}
	s.known = true
	s.mu.Unlock()
	s.changed()
	return nil
}

// Resync has nothing to do.
func (s *source) Resync() error { return nil }
