// Package kube follows what a Kubernetes cluster says of one node and reports
// what holds there. It speaks to the API server and reads network plugins'
// results; what that means is internal/cluster's.
//
//	w, err := kube.New(kube.Options{Config: config, NodeName: "worker-1", …})
//	go w.Run(ctx)
//	<-w.Changed()
//	view := w.View()
//
// It asks for as little as it needs: the node's own Node and pods, namespaces'
// metadata, SourcePolicies, ServiceCIDRs; Services only while a policy needs them
// (NeedServices), and other nodes only where it is told to.
package kube

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/klog/v2"

	"github.com/unmasq/unmasq/api/v1alpha1"
	"github.com/unmasq/unmasq/internal/cluster"
)

// Options of a Watch.
type Options struct {
	// NodeName of the Node object.
	NodeName string
	// Stated by an operator; AllNodes watches all nodes.
	Stated cluster.Stated
	// Results is the directory of network plugins' results.
	Results string
	// Cache is a file for a start without the API; "": none.
	Cache string
	Log   *slog.Logger
}

// Watch follows a cluster. Its methods may be called concurrently.
type Watch struct {
	opts    Options
	clients Clients
	changed chan struct{}
	view    atomic.Pointer[cluster.View]

	node, pods, namespaces, policies, serviceCIDRs, nodes *source
	sources                                               []*source

	services services

	// input has a token when what the view is made of changed.
	input chan struct{}
	// refused has one when instead may be another.
	refused chan struct{}
	mu      sync.Mutex // of all below
	found   foundResults
	// cached objects stand in for the API's until those are complete.
	cached *cluster.Objects
	// before is what was in force before this process; instead is what is now in
	// the place of refused policies.
	before  []cluster.Policy
	instead map[string]*cluster.Policy

	reports reports
}

// resources that are watched.
var (
	nodesResource        = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
	podsResource         = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	namespacesResource   = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	serviceCIDRsResource = schema.GroupVersionResource{Group: "networking.k8s.io", Version: "v1", Resource: "servicecidrs"}
)

func resource(name string) schema.GroupVersionResource {
	return v1alpha1.GroupVersion().WithResource(name)
}

// New prepares a Watch; Run does the work.
func New(clients Clients, opts Options) *Watch {
	w := &Watch{opts: opts, clients: clients, changed: make(chan struct{}, 1), input: make(chan struct{}, 1), refused: make(chan struct{}, 1)}
	w.found.missing = notLooked
	w.services.asked = make(chan struct{}, 1)
	w.reports.wanted = make(chan struct{}, 1)
	own := "metadata.name=" + opts.NodeName
	w.node = w.source("node "+opts.NodeName, nodesResource, own, nodeOf)
	w.node.keep = true
	w.pods = w.source("pods", podsResource, "spec.nodeName="+opts.NodeName, podOf)
	w.namespaces = w.source("namespaces", namespacesResource, "", namespaceOf)
	w.policies = w.source(v1alpha1.SourcePolicies, resource(v1alpha1.SourcePolicies), "", policyOf)
	w.serviceCIDRs = w.source("servicecidrs", serviceCIDRsResource, "", serviceCIDROf)
	w.serviceCIDRs.optional = true
	if opts.Stated.AllNodes {
		w.nodes = w.source("nodes", nodesResource, "", nodeOf)
	}
	return w
}

// View is what is known now; nil: too little to say anything.
func (w *Watch) View() *cluster.View { return w.view.Load() }

// Changed has a token when View may be another than before.
func (w *Watch) Changed() <-chan struct{} { return w.changed }

// Run follows the cluster until the context ends.
func (w *Watch) Run(ctx context.Context) {
	// What client-go would log is said by Stale, and logged once.
	quiet := klog.NewContext(ctx, klog.Logger{})
	var all sync.WaitGroup
	for _, s := range w.sources {
		all.Go(func() { w.follow(quiet, s) })
	}
	all.Go(func() { w.followServices(quiet) })
	all.Go(func() { w.followResults(ctx) })
	all.Go(func() { w.writeReports(quiet) })
	all.Go(func() { w.keepView(ctx) })
	all.Wait()
}

// keepView makes the view anew when its input changed, and keeps the cache.
func (w *Watch) keepView(ctx context.Context) {
	cache := cacheFile{path: w.opts.Cache, node: w.opts.NodeName, log: w.opts.Log}
	last := w.lastCache()
	var due <-chan time.Time
	waited := time.After(cacheWait)
	for {
		select {
		case <-ctx.Done():
			cache.write(w.objects(), w.insteadOf())
			return
		case <-waited:
			if w.objects() == nil && w.opts.Cache != "" {
				w.useCache(last)
				w.makeView()
			}
			last = nil
		case <-w.refused:
			if due == nil {
				due = time.After(cachePause)
			}
		case <-w.input:
			if w.makeView() && due == nil {
				due = time.After(cachePause)
			}
		case <-due:
			due = nil
			cache.write(w.objects(), w.insteadOf())
		}
	}
}

// makeView says whether there is one.
func (w *Watch) makeView() bool {
	objects := w.objects()
	w.mu.Lock()
	if objects == nil {
		objects = w.cached
	} else {
		w.cached = nil // from now on the API's, be they old
	}
	found, before := w.found, w.before
	w.mu.Unlock()
	if objects == nil || found.missing == notLooked {
		return false
	}
	_, _, noServices := w.services.known()
	w.view.Store(cluster.Join(cluster.Input{Objects: *objects, NoServices: noServices, Stated: w.opts.Stated, Before: before,
		Results: found.results, NoResults: found.missing, Released: found.released}))
	wake(w.changed)
	return true
}

// objects of the API; nil until all are known.
func (w *Watch) objects() *cluster.Objects {
	for _, s := range w.sources {
		if !s.complete() {
			return nil
		}
	}
	var o cluster.Objects
	if all := list[cluster.Node](w.node); len(all) > 0 {
		o.Node = &all[0]
	}
	o.Pods = list[cluster.Pod](w.pods)
	o.Namespaces = list[cluster.Namespace](w.namespaces)
	o.Policies = list[cluster.Policy](w.policies)
	o.ServiceCIDRs = list[cluster.ServiceCIDR](w.serviceCIDRs)
	if w.nodes != nil {
		o.Nodes = list[cluster.Node](w.nodes)
	}
	o.Services, o.ServicesKnown, _ = w.services.known()
	return &o
}

// Stale says what of the API isn't followed at the moment, and since when; "":
// all is.
func (w *Watch) Stale() string {
	var all []string
	sources := w.sources
	if s := w.services.current(); s != nil {
		sources = append(slices.Clone(sources), s)
	}
	for _, s := range sources {
		if text := s.stale(); text != "" {
			all = append(all, text)
		}
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// wake leaves a token in a channel of one.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
