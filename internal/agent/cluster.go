package agent

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/unmasq/unmasq/api/v1alpha1"
	"github.com/unmasq/unmasq/internal/cluster"
	"github.com/unmasq/unmasq/internal/facts"
	"github.com/unmasq/unmasq/internal/policy"
)

// Cluster is where policies and facts come from beside files, and where the agent
// says what holds. Its methods may be called concurrently.
type Cluster interface {
	// Run follows the cluster until the context ends.
	Run(ctx context.Context)
	// View is what is known now; nil: too little to say anything.
	View() *cluster.View
	// Changed has a token when View may be another than before.
	Changed() <-chan struct{}
	// Stale says what isn't followed at the moment, and since when; "": all is.
	Stale() string
	// NeedServices says whether a policy asks for Services, which View has only then.
	NeedServices(need bool)
	// Report says what the node's report shall be.
	Report(v1alpha1.NodeReportStatus)
	// Refused says which policies of the API are, by their names, and what is in
	// force in the place of each; nil: nothing is. It comes back as View.Before
	// after a restart.
	Refused(instead map[string]*cluster.Policy)
}

// inCluster is what an agent knows of its cluster.
type inCluster struct {
	files     []policy.Source
	filesErr  error
	documents documents
	tags      tags
	view      *cluster.View
	answer    *answer
	want      *Want // in force
	refusals  string
	paused    bool
	told      told
	// due is when to report; soon: it was set to soon.
	due  *time.Timer
	soon bool
}

// It is looked whether there is something else to report soon after something
// happened, and now and then, as an API that isn't followed makes no event.
const (
	reportSoon  = 300 * time.Millisecond
	reportAgain = 10 * time.Second
)

// followCluster starts to; done is closed when it has ended with the context.
func (a *Agent) followCluster(ctx context.Context, in *inputs) (done <-chan struct{}) {
	ended := make(chan struct{})
	if a.opts.Cluster == nil {
		close(ended)
		return ended
	}
	in.cluster = a.opts.Cluster.Changed()
	a.hold("the cluster is known")
	a.cluster.due = time.NewTimer(reportAgain)
	in.report = a.cluster.due.C
	a.status.setCluster(a.opts.Cluster.Stale)
	go func() {
		defer close(ended)
		a.opts.Cluster.Run(ctx)
	}()
	return ended
}

// hold keeps others from altering the table that an agent left, while nobody says
// yet what shall stand. A plain table can't be kept so; nor can any on kernels
// without ownership.
func (a *Agent) hold(until string) {
	err := a.openTable()
	if err == nil {
		_, err = a.table.Hold()
	}
	if err != nil {
		a.opts.Log.Warn("until "+until+" the table that stands is anybody's to change", "error", err)
	}
}

// reportLater sets when to look for something to report.
func (a *Agent) reportLater(soon bool) {
	switch {
	case a.cluster.due == nil || soon && a.cluster.soon:
		return
	case soon:
		a.cluster.due.Reset(reportSoon)
	default:
		a.cluster.due.Reset(reportAgain)
	}
	a.cluster.soon = soon
}

// reloadCluster considers files and the cluster as they are now. Nothing happens
// until enough is known of both: what stands in the kernel stays there.
func (a *Agent) reloadCluster() {
	c := &a.cluster
	view := a.opts.Cluster.View()
	if view == nil {
		return
	}
	c.documents.remember(view.Before)
	before, now := c.answer, c.documents.load(c.files, c.filesErr, view.Policies, optionsOf(view))
	a.opts.Cluster.NeedServices(now.needServices)
	if now.needServices && !view.Facts.ServicesKnown && view.NoServices == "" {
		return // they, or why not, will be known in a moment
	}
	c.view, c.answer = view, now
	if now != before {
		a.considered()
		a.opts.Cluster.Refused(c.answer.instead())
	}
	a.pause(c.view.Paused)
	if c.answer.loaded != nil {
		a.loaded = c.answer.loaded
	}
	a.enforce()
	a.status.setConfig(c.answer.err()) // not before: ready means in force
	a.reportLater(true)
}

func optionsOf(v *cluster.View) policy.Options {
	opts := policy.Options{NodeLabels: v.NodeLabels, PodsKnown: true, NoNodes: v.NoNodes,
		ServicesKnown: v.Facts.ServicesKnown, NoServices: "needs the cluster's Services, which aren't known: " + cmp.Or(v.NoServices, "not asked yet"),
		ServiceCIDRsKnown: len(v.Facts.ServiceCIDRs) > 0, NoServiceCIDRs: cluster.NoServiceCIDRs}
	if v.Facts.ServicesKnown {
		opts.NoServices = ""
	}
	return opts
}

// considered counts a reload, and says what is refused where that is new.
func (a *Agent) considered() {
	err := a.cluster.answer.err()
	a.metrics.reloaded(err)
	if text := errorText(err); text != a.cluster.refusals {
		a.cluster.refusals = text
		for _, r := range a.cluster.answer.refused {
			a.opts.Log.Error("policy refused; "+r.instead(), "error", r.err)
		}
		if err == nil {
			a.opts.Log.Info("all policies are accepted")
		}
	}
}

// pause says so when it changes.
func (a *Agent) pause(on bool) {
	switch {
	case on && !a.cluster.paused:
		a.opts.Log.Warn("paused: the table is emptied until the node's annotation " + cluster.PauseAnnotation + " is no longer \"true\"")
	case !on && a.cluster.paused:
		a.opts.Log.Info("no longer paused")
	}
	a.cluster.paused = on
	a.status.setPaused(on)
}

// want is what shall stand in the kernel.
func (a *Agent) want() (*Want, error) {
	var known *facts.Cluster
	var tags map[string]int
	loaded := a.loaded
	if a.opts.Cluster != nil {
		known = &a.cluster.view.Facts
		if a.cluster.paused {
			loaded = &policy.Loaded{}
		} else {
			tags = a.cluster.tags.of(&loaded.Policy)
		}
	}
	w, err := join(loaded, known, a.opts.CNIDir, a.opts.Pods)
	if err != nil {
		return nil, err
	}
	if a.opts.Tell != nil {
		a.opts.Tell(w)
	}
	w.compile(a.features, tags)
	if a.cluster.paused {
		w.Warnings = append(w.Warnings, "paused by the node's annotation "+cluster.PauseAnnotation)
	}
	return w, nil
}

// err is nil where nothing is refused.
func (a *answer) err() error {
	var lines []string
	for _, r := range a.refused {
		lines = append(lines, r.err.Error())
	}
	if len(lines) == 0 {
		return nil
	}
	return fmt.Errorf("%s", strings.Join(lines, "\n"))
}

// instead has the refused policies of the API with what is in force in their place.
func (a *answer) instead() map[string]*cluster.Policy {
	out := map[string]*cluster.Policy{}
	for _, r := range a.refused {
		if r.origin != v1alpha1.OriginAPI {
			continue
		}
		out[r.name] = nil
		if p, good := a.api[r.name]; good {
			out[r.name] = &p
		}
	}
	return out
}

// instead is what is in force in a document's place.
func (r *refusal) instead() string {
	switch {
	case r.origin == v1alpha1.OriginFile:
		return "files as they were last good stay in force"
	case r.inForce != 0:
		return fmt.Sprintf("generation %d of it stays in force", r.inForce)
	}
	return "it is left out, all others are in force"
}
