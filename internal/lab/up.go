package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/probe"
)

// readyLine is what a serving process writes when its peers answer.
const readyLine = "ready"

// probePatience is how long `lab probe` waits for an answer: whoever plays with a
// lab makes calls fail on purpose.
const probePatience = 1500 * time.Millisecond

// Standing tells a person what `lab up` has built.
type Standing struct {
	Scenario *Scenario
	Form     *Form
	Variant  foreign.Variant
	// Policies are the paths of the scenario's policy files.
	Policies []string
}

// Up builds a scenario and leaves it standing, with a process of its own that
// answers calls.
func (r *Runner) Up(ctx context.Context, s *Scenario, form *Form, variant foreign.Variant) (st *Standing, err error) {
	rec, err := claim(r.Dir, s, form, variant)
	if err != nil {
		return nil, err
	}
	w, err := build(s, form, variant)
	if err != nil {
		return nil, errors.Join(err, rec.drop())
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Close(), rec.drop())
			return
		}
		err = w.Release()
	}()
	if err := writePeers(ctx, w); err != nil {
		return nil, err
	}
	st = &Standing{Scenario: s, Form: form, Variant: form.VariantName(variant)}
	for _, name := range s.policyFiles(form) {
		text, err := s.PolicyText(name)
		if err != nil {
			return nil, err
		}
		file, err := writePolicy(rec.files(), name, text)
		if err != nil {
			return nil, err
		}
		st.Policies = append(st.Policies, file)
	}
	server, err := r.startServer(ctx, s)
	if err != nil {
		return nil, err
	}
	rec.Up, rec.Process = true, server
	if err := rec.save(os.O_TRUNC); err != nil {
		return nil, errors.Join(err, server.stop())
	}
	return st, nil
}

// startServer starts `unmasq lab serve` in a session of its own and waits until it answers.
func (r *Runner) startServer(ctx context.Context, s *Scenario) (process, error) {
	out, in, err := os.Pipe()
	if err != nil {
		return process{}, err
	}
	defer out.Close() //nolint:errcheck // only read from
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return process{}, errors.Join(err, in.Close())
	}
	defer null.Close() //nolint:errcheck // the child has its own
	child, err := os.StartProcess(r.Binary, []string{"unmasq", "lab", "serve", s.Name}, &os.ProcAttr{
		Dir: "/", Env: os.Environ(), Files: []*os.File{null, in, null}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err := errors.Join(err, in.Close()); err != nil {
		return process{}, fmt.Errorf("start the answering process: %w", err)
	}
	server, err := processOf(child.Pid)
	if err != nil {
		return process{}, fmt.Errorf("the answering process: %w", err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if line != readyLine+"\n" || ctx.Err() != nil {
		child.Kill() //nolint:errcheck // it may have ended
		child.Wait() //nolint:errcheck // its own words follow
		return process{}, fmt.Errorf("the answering process isn't ready: %q %w", line, errors.Join(err, ctx.Err()))
	}
	return server, child.Release()
}

// Serve answers calls in all pods and outside peers of a scenario that stands,
// until ctx ends. It writes a line to ready when it does.
func Serve(ctx context.Context, s *Scenario, ready io.Writer) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()
	w, err := openWorld(s, &s.Forms[0], foreign.NFT)
	if err == nil {
		var peers map[string]*probe.Peer
		peers, err = w.openPeers(ctx, s.answering(), true)
		defer closePeers(peers)
		err = errors.Join(err, w.Release())
	}
	if err != nil {
		fmt.Fprintln(ready, err) //nolint:errcheck // the same error is returned
		return err
	}
	if _, err := fmt.Fprintln(ready, readyLine); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// answering are the spaces that answer calls.
func (s *Scenario) answering() []string {
	var names []string
	for i := range s.Spaces {
		if s.Spaces[i].Role == Pod || s.Spaces[i].Role == Outside {
			names = append(names, s.Spaces[i].Name)
		}
	}
	return names
}

// Probe makes every call of a scenario that is up.
func (r *Runner) Probe(ctx context.Context, name string) (res *StageResult, err error) {
	rec, err := load(r.Dir, name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !rec.Up {
		return nil, fmt.Errorf("lab %s isn't up: unmasq lab up %[1]s", name)
	}
	if err != nil {
		return nil, err
	}
	s, forms, err := Find(rec.Scenario)
	if err != nil {
		return nil, err
	}
	form := slices.IndexFunc(forms, func(f Form) bool { return f.Name == rec.Form })
	if form < 0 {
		return nil, fmt.Errorf("lab %s was built in form %q, which this version doesn't have", name, rec.Form)
	}
	w, err := openWorld(s, &forms[form], rec.Variant)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.Release()) }()
	peers, err := w.openPeers(ctx, s.targets(), false)
	if err != nil {
		return nil, err
	}
	defer closePeers(peers)
	caller := newCaller()
	caller.Patience = probePatience
	res = &StageResult{Title: "now", Grid: s.Grid}
	res.Sightings, err = w.measure(ctx, caller, peers, nil)
	return res, err
}

// Removed tells what Down took down.
type Removed struct {
	Scenario string
	// Left are processes that somebody started in the namespaces; they keep them
	// alive, without a name, until they end.
	Left []string
}

// Down takes down what `lab up` built, and what a killed `lab run` left: of one
// scenario, or of all where name is empty. Where nothing stands it does nothing.
func (r *Runner) Down(name string) ([]Removed, error) {
	records, err := loadAll(r.Dir)
	if err != nil {
		return nil, err
	}
	var done []Removed
	var errs []error
	for _, rec := range records {
		if name != "" && rec.Scenario != name {
			continue
		}
		if !rec.Up && rec.Process.alive() {
			errs = append(errs, fmt.Errorf("lab %s is being run by process %d", rec.Scenario, rec.Process.ID))
			continue
		}
		left := rec.strangers()
		if err := rec.remove(); err != nil {
			errs = append(errs, err)
			continue
		}
		done = append(done, Removed{Scenario: rec.Scenario, Left: left})
	}
	return done, errors.Join(errs...)
}

// strangers lists the processes in the record's namespaces that the lab didn't
// start: "process 12 (unmasq) in unmasq-docker-host1".
func (r *record) strangers() []string {
	names := map[string]string{} // by what /proc/PID/ns/net shows
	for _, name := range r.Namespaces {
		if info, err := os.Stat(filepath.Join(netns.Dir, name)); err == nil {
			if stat, ok := info.Sys().(*syscall.Stat_t); ok {
				names[fmt.Sprintf("net:[%d]", stat.Ino)] = name
			}
		}
	}
	links, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return nil
	}
	var found []string
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil || names[target] == "" {
			continue // ended meanwhile, or elsewhere
		}
		dir := filepath.Dir(filepath.Dir(link))
		id, _ := strconv.Atoi(filepath.Base(dir))
		if slices.ContainsFunc(r.Agents, func(a process) bool { return a.ID == id }) {
			continue
		}
		comm, _ := os.ReadFile(filepath.Join(dir, "comm")) // a name is good to have, no more
		found = append(found, fmt.Sprintf("process %d (%s) in %s", id, trimLine(comm), names[target]))
	}
	return found
}

func trimLine(b []byte) string {
	if n := len(b); n > 0 && b[n-1] == '\n' {
		b = b[:n-1]
	}
	return string(b)
}
