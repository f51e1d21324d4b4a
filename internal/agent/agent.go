package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/unmasq/unmasq/internal/facts"
	"github.com/unmasq/unmasq/internal/kernel/link"
	"github.com/unmasq/unmasq/internal/kernel/nft"
	"github.com/unmasq/unmasq/internal/plan"
	"github.com/unmasq/unmasq/internal/policy"
	"github.com/unmasq/unmasq/internal/policyfile"
)

// Options of an agent.
type Options struct {
	// Config are files and directories of documents.
	Config []string
	// Read gives the documents that Config's files come to, where they are of another
	// kind; nil: they are documents. The files are followed all the same.
	Read       func() ([]policy.Source, error)
	NodeLabels map[string]string
	// Cluster that has policies and facts beside them; nil: none. NodeLabels are its.
	Cluster Cluster
	// Version that the agent reports.
	Version string
	CNIDir  string
	// Pods says whether a network that the host shows is pods', not of containers or
	// guests that no cluster knows; nil: all are.
	Pods func(facts.Found[netip.Prefix]) bool
	// MetricsAddress serves /metrics, HealthAddress /healthz and /readyz; "" serves
	// nothing, but a HealthAddress of "" is the MetricsAddress.
	MetricsAddress, HealthAddress string
	// ClearOnExit deletes the table at the end; else it stays, as a plain one.
	ClearOnExit bool
	// Removed is asked at the end whether the agent goes for good, as when it is
	// uninstalled: then the table is deleted too. Why is in words. Nil: it comes again.
	Removed func(context.Context) (removed bool, why string)
	// Cleared is called when the table was deleted at the end; nil: nothing is.
	Cleared func()
	// NoOwnership uses no table flags even where the kernel has them.
	NoOwnership bool
	// Tell may change the facts and warnings that the table shows, of which the agent
	// has no better word. Nil: they are as they are.
	Tell func(*Want)
	Log  *slog.Logger
	// Notify tells the service manager a state, as sd_notify(3) has them.
	Notify func(state string)
}

// How long the agent waits before it tries again what the kernel refused, and
// how soon it may restore the table twice.
const (
	retryFirst   = 100 * time.Millisecond
	retryMost    = 10 * time.Second
	reopenAfter  = 3 // failures
	restorePause = 10 * time.Millisecond
	rivalPause   = time.Second // two agents would undo each other's work without end
)

// Agent is one enforcing process. Its loop runs in Run's goroutine alone; what
// others read stands in status.
type Agent struct {
	opts     Options
	features nft.Features
	table    *nft.Table
	port     atomic.Uint32 // of table's socket; 0: none
	metrics  *metrics
	status   status

	read     []policy.Source // what was read last, good or not
	readErr  string
	loaded   *policy.Loaded // the last good documents
	inForce  *plan.Table    // what they and the facts came to when it was last written
	cluster  inCluster
	around   around
	failures int
	reopen   bool // the socket, at the next attempt
	retry    *time.Timer
}

// New probes the kernel. It fails without CAP_NET_ADMIN.
func New(opts Options) (*Agent, error) {
	features, err := nft.Probe()
	if err != nil {
		return nil, err
	}
	if opts.NoOwnership {
		features.Ownership = false
	}
	a := &Agent{opts: opts, features: features}
	a.metrics = newMetrics(a)
	a.retry = time.NewTimer(time.Hour)
	a.retry.Stop()
	return a, nil
}

// Run enforces until the context ends, then hands the table over or clears it.
func (a *Agent) Run(ctx context.Context) error {
	if !a.features.Ownership {
		a.opts.Log.Info("this kernel has no table ownership (requires Linux 6.9): watching for changes by others instead")
	}
	// What is followed goes on being so until it's known how to leave.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	in, err := a.inputs(work)
	if err != nil {
		return err
	}
	go a.serve(work)
	followed := a.followCluster(work, &in)
	a.reload()
	a.loop(ctx, in)
	a.notify("STOPPING=1")
	clear := a.opts.ClearOnExit || a.removed(work)
	cancel()
	<-followed // and the cache is written
	if clear {
		return a.clear()
	}
	return a.handOver()
}

// inputs are the events that the loop reacts to.
type inputs struct {
	files, host chan struct{}
	intrusions  chan nft.Intrusion
	hup         chan os.Signal
	cluster     <-chan struct{}
	report      <-chan time.Time
}

func (a *Agent) inputs(ctx context.Context) (inputs, error) {
	in := inputs{
		files: make(chan struct{}, 1), host: make(chan struct{}, 1),
		intrusions: make(chan nft.Intrusion, 64), hup: make(chan os.Signal, 1),
	}
	signal.Notify(in.hup, syscall.SIGHUP)
	context.AfterFunc(ctx, func() { signal.Stop(in.hup) })
	files := slices.Clone(a.opts.Config)
	if a.opts.CNIDir != "" {
		files = append(files, a.opts.CNIDir)
	}
	if err := watchFiles(ctx, files, func() { wake(in.files); wake(in.host) }); err != nil {
		a.opts.Log.Warn("looking at files every few seconds until they can be watched", "error", err, "every", lookAgain)
	}
	links, err := link.Subscribe()
	if err != nil {
		return in, err
	}
	go links.Run(ctx, func() { wake(in.host) })
	watcher, err := nft.Listen(a.own)
	if err != nil {
		return in, err
	}
	seen := func(i nft.Intrusion) {
		select {
		case in.intrusions <- i:
		default: // the loop restores the whole table anyway
		}
	}
	go a.forever(ctx, "follow nftables", func() (err error) {
		if watcher == nil {
			if watcher, err = nft.Listen(a.own); err != nil {
				return err
			}
			seen(nft.Intrusion{Lost: true}) // while nobody listened
		}
		err = watcher.Run(ctx, seen)
		watcher = nil
		return err
	})
	return in, nil
}

// own says whether a netlink port is this agent's.
func (a *Agent) own(port uint32) bool { return port == a.port.Load() }

// forever runs a watch again when it fails.
func (a *Agent) forever(ctx context.Context, what string, watch func() error) {
	for pause := time.Second; ctx.Err() == nil; pause = min(2*pause, retryMost) {
		if err := watch(); err != nil && ctx.Err() == nil {
			a.opts.Log.Error("could not "+what+"; trying again", "error", err, "in", pause)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// wake leaves a token in a channel of one.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (a *Agent) loop(ctx context.Context, in inputs) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-in.hup:
			a.opts.Log.Info("reloading on SIGHUP")
			a.read = nil
			a.reload()
		case <-in.files:
			a.reload()
		case <-in.host:
			a.enforce()
		case <-in.cluster:
			a.reloadCluster()
		case <-in.report:
			a.report()
			a.reportLater(false)
		case i := <-in.intrusions:
			a.restore(i, in.intrusions)
		case <-a.retry.C:
			a.enforce()
		}
	}
}

// reload reads the documents, and does nothing where they are the same as
// before. A wrong one changes nothing: the last good policy stays in force and
// goes on being repaired.
func (a *Agent) reload() {
	sources, err := a.documents()
	if a.opts.Cluster != nil {
		a.cluster.files, a.cluster.filesErr = sources, err
		a.reloadCluster()
		return
	}
	if !a.isNew(sources, err) {
		return
	}
	var loaded *policy.Loaded
	if err == nil {
		loaded, err = policy.Load(sources, policy.Options{NodeLabels: a.opts.NodeLabels})
	}
	a.metrics.reloaded(err)
	if err != nil {
		a.status.setConfig(err)
		a.refuse(err)
		if a.loaded == nil {
			a.hold("documents are right")
		}
		return
	}
	a.loaded = loaded
	a.enforce()
	a.status.setConfig(nil) // not before: ready means in force
}

func (a *Agent) documents() ([]policy.Source, error) {
	if a.opts.Read != nil {
		return a.opts.Read()
	}
	return policyfile.Read(a.opts.Config, noInput{})
}

// isNew remembers what was read. Directories change without their documents
// doing so: a log file that grows in one must not be a reason to log.
func (a *Agent) isNew(sources []policy.Source, err error) bool {
	text := ""
	if err != nil {
		text = err.Error()
	}
	same := a.read != nil && text == a.readErr && sameSources(sources, a.read)
	a.read, a.readErr = append([]policy.Source{}, sources...), text
	return !same
}

// refuse logs each of several errors apart: logs are read line by line.
func (a *Agent) refuse(err error) {
	all := policy.Errors{}
	if !errors.As(err, &all) {
		a.opts.Log.Error("policy refused"+a.lastGood(), "error", err)
		return
	}
	for i := range all {
		a.opts.Log.Error("policy refused"+a.lastGood(), "error", &all[i])
	}
}

func (a *Agent) lastGood() string {
	if a.loaded == nil {
		return "; nothing is enforced until it is mended"
	}
	return "; the last good one stays in force"
}

// noInput refuses "-": an agent reads its documents again and again.
type noInput struct{}

func (noInput) Read([]byte) (int, error) {
	return 0, fmt.Errorf("an agent can't read standard input: name a file or a directory")
}

// enforce brings the kernel to what documents and facts add up to.
func (a *Agent) enforce() {
	if a.idle() {
		return
	}
	start := time.Now()
	defer a.reportLater(true)
	err := a.sync()
	a.status.setTable(err)
	a.metrics.wrote(err, time.Since(start))
	if err == nil {
		a.failures = 0
		a.retry.Stop()
		a.notify("READY=1")
		return
	}
	wait := min(retryFirst<<min(a.failures, 16), retryMost)
	a.failures++
	a.opts.Log.Error("the policy is not in force; trying again", "error", err, "in", wait)
	// A socket that fails may be one that is lost, and ownership with it. It is kept
	// until then, since the table that stands is anybody's without it.
	a.reopen = a.failures%reopenAfter == 0
	a.retry.Reset(wait)
}

// idle: nothing is known yet that could be enforced.
func (a *Agent) idle() bool { return a.loaded == nil && !a.cluster.paused }

func (a *Agent) sync() error {
	want, err := a.want()
	if err != nil {
		return err
	}
	if err := a.openTable(); err != nil {
		return err
	}
	if err := a.table.Sync(want.Table); err != nil {
		return err
	}
	a.inForce = want.Table
	a.cluster.want = want
	if a.status.setWant(want) {
		a.opts.Log.Info("policy in force", "rules", len(want.Policy.Rules), "owned", a.table.Owns())
		for _, w := range want.Warnings {
			a.opts.Log.Warn(w)
		}
	}
	return nil
}

func (a *Agent) openTable() error {
	if a.table != nil && !a.reopen {
		return nil
	}
	a.closeTable()
	a.reopen = false
	t, err := nft.Open(a.opts.Log)
	if err != nil {
		return err
	}
	t.UseOwnership(a.features.Ownership)
	a.table = t
	a.port.Store(t.Port())
	return nil
}

func (a *Agent) closeTable() {
	if a.table == nil {
		return
	}
	if err := a.table.Close(); err != nil {
		a.opts.Log.Error("close the netlink socket", "error", err)
	}
	a.table = nil
	a.port.Store(0)
}

// restore puts the table back as it must be, and says who changed it. What
// comes in while it works is part of the same repair.
func (a *Agent) restore(first nft.Intrusion, more <-chan nft.Intrusion) {
	if a.table == nil || a.idle() {
		return
	}
	failed := a.status.tableError()
	if a.table.Owns() && failed == nil {
		return // nobody else can have changed it: this was before it was ours
	}
	var owned *nft.OwnedError
	mine := !errors.As(failed, &owned) // else nothing of ours is undone
	if mine {
		a.opts.Log.Warn("table inet unmasq was changed by another process; restoring it", "by", first.String(), "pid", first.PID, "process", first.Name)
		a.metrics.intruded(first)
	}
	for {
		select {
		case i := <-more:
			if mine {
				a.metrics.intruded(i)
			}
			continue
		default:
		}
		break
	}
	a.table.Forget()
	if a.inForce != nil {
		// At once; the facts are looked at behind it, and what fails here fails there.
		_ = a.table.Sync(a.inForce)
	}
	a.enforce()
	if mine && first.Name == filepath.Base(os.Args[0]) {
		a.opts.Log.Warn("another unmasq writes the same table: let one agent enforce, and nothing else apply or clear")
		time.Sleep(rivalPause)
		return
	}
	time.Sleep(restorePause)
}

func (a *Agent) notify(state string) {
	if a.opts.Notify != nil {
		a.opts.Notify(state)
	}
}
