package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/probe"
)

// Runner runs scenarios. Its functions may be nil.
type Runner struct {
	// Binary of the agent that is tried.
	Binary string
	// Dir holds the record of what stands; DefaultDir unless a test has its own.
	Dir string
	// Phase is told each phase as it begins.
	Phase func(text string)
	// Command is told each command that writes foreign rules, and where.
	Command func(space, command string)
	// Policy is told each policy before agents are started with it.
	Policy func(name, text string)
	// Measured is told each stage when its calls were made.
	Measured func(*StageResult)
}

func (r *Runner) phase(text string) {
	if r.Phase != nil {
		r.Phase(text)
	}
}

// Result is a scenario's whole run.
type Result struct {
	Scenario, Form string
	// Variant of iptables; "" for a form without iptables rules.
	Variant foreign.Variant
	Stages  []StageResult
	Took    time.Duration
}

// StageResult is what was measured at one moment.
type StageResult struct {
	Title string
	// Policy is the name of the policy's file, "" without unmasq.
	Policy    string
	Sightings []Sighting
	// Wanted is what calls are to be seen as at the end; only in stages without
	// unmasq, where it is not expected yet.
	Wanted map[Call]Expect
	// Grid: it is shown as one (Scenario.Grid).
	Grid bool
}

// OK says whether every call of every stage was seen as expected.
func (r *Result) OK() bool {
	for i := range r.Stages {
		if !r.Stages[i].OK() {
			return false
		}
	}
	return true
}

// OK says whether every call was seen as expected.
func (r *StageResult) OK() bool {
	for i := range r.Sightings {
		if !r.Sightings[i].OK() {
			return false
		}
	}
	return true
}

// Run builds a scenario in one of its forms, measures all its stages, and takes
// everything down, whatever happens. An expectation that fails is in the result
// and no error.
func (r *Runner) Run(ctx context.Context, s *Scenario, form *Form, variant foreign.Variant) (res *Result, err error) {
	start := time.Now()
	rec, err := claim(r.Dir, s, form, variant)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rec.drop()) }()
	res = &Result{Scenario: s.Name, Form: form.Name, Variant: form.VariantName(variant)}

	r.phase(fmt.Sprintf("building %d namespaces", len(s.Spaces)))
	w, err := build(s, form, variant)
	if err != nil {
		return nil, err
	}
	defer func() {
		r.phase("taking everything down")
		err = errors.Join(err, w.Close())
		res.Took = time.Since(start)
	}()
	w.Command = r.Command
	r.phase("writing the foreign rules: " + form.About)
	if err := writePeers(ctx, w); err != nil {
		return nil, err
	}
	peers, err := w.openPeers(ctx, w.Scenario.targets(), true)
	if err != nil {
		return nil, err
	}
	defer closePeers(peers)
	run := &running{Runner: r, world: w, peers: peers, caller: newCaller(), record: rec}
	defer func() { err = errors.Join(err, run.stopAgents()) }()
	err = run.stages(ctx, res)
	if ctx.Err() != nil {
		err = ctx.Err() // what failed, failed because of that
	}
	return res, err
}

// VariantName is the variant where it makes a difference.
func (f *Form) VariantName(v foreign.Variant) foreign.Variant {
	if len(f.Variants()) == 1 {
		return ""
	}
	return v
}

// running is a scenario under way.
type running struct {
	*Runner
	world  *World
	peers  map[string]*probe.Peer
	caller *Caller
	record *record
	// policy in force, and the agents that enforce it.
	policy string
	agents []*agent
}

func (r *running) stages(ctx context.Context, res *Result) error {
	s := r.world.Scenario
	stages := s.StagesOf(r.world.Form)
	for _, stage := range stages {
		result := StageResult{Title: stage.Title, Policy: stage.Policy, Grid: s.Grid}
		if stage.Policy == "" {
			result.Wanted = stages[len(stages)-1].Expect
		} else if stage.Policy != r.policy {
			if err := r.enforce(ctx, stage.Policy); err != nil {
				return err
			}
		}
		if stage.Step != nil {
			r.phase(stage.Title)
			if err := stage.Step(ctx, r.world); err != nil {
				return err
			}
		}
		r.phase(fmt.Sprintf("calling: %d pairs, IPv4 and IPv6, %s", len(s.Calls), joinWords(s.protocols())))
		var err error
		if result.Sightings, err = r.world.measure(ctx, r.caller, r.peers, stage.Expect); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		res.Stages = append(res.Stages, result)
		if r.Measured != nil {
			r.Measured(&result)
		}
	}
	return nil
}

// enforce writes a policy file and starts an agent with it on every host, in
// place of those that run.
func (r *running) enforce(ctx context.Context, policy string) error {
	if err := r.stopAgents(); err != nil {
		return err
	}
	text, err := r.world.Scenario.PolicyText(policy)
	if err != nil {
		return err
	}
	file, err := writePolicy(r.record.files(), policy, text)
	if err != nil {
		return err
	}
	if r.Policy != nil {
		r.Policy(policy, text)
	}
	hosts := r.world.Scenario.Hosts()
	r.phase(fmt.Sprintf("starting unmasq agent --config %s on %s", policy, joinWords(hosts)))
	agents, errs := make([]*agent, len(hosts)), make([]error, len(hosts))
	var group sync.WaitGroup
	for i, host := range hosts {
		group.Go(func() { agents[i], errs[i] = startAgent(ctx, r.world.NS(host), host, r.Binary, file) })
	}
	group.Wait()
	for _, a := range agents {
		if a != nil {
			r.agents = append(r.agents, a)
			r.record.Agents = append(r.record.Agents, a.process)
		}
	}
	r.policy = policy
	errs = append(errs, r.record.save(os.O_TRUNC))
	return errors.Join(errs...)
}

// stopAgents ends the agents that run.
func (r *running) stopAgents() error {
	errs := make([]error, len(r.agents))
	var group sync.WaitGroup
	for i, a := range r.agents {
		group.Go(func() { errs[i] = a.stop() })
	}
	group.Wait()
	r.agents, r.record.Agents = nil, nil
	return errors.Join(errs...)
}

func writePolicy(dir, name, text string) (string, error) {
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return "", fmt.Errorf("write the policy: %w", err)
	}
	return file, nil
}

// protocols of the calls, as they are printed.
func (s *Scenario) protocols() []string {
	var words []string
	for _, c := range s.Calls {
		for _, p := range c.Protocols() {
			words = withWord(words, strings.ToUpper(p))
		}
	}
	return words
}

// targets are the spaces that are called.
func (s *Scenario) targets() []string {
	var names []string
	for _, c := range s.Calls {
		for _, name := range s.endpoints(c) {
			names = withWord(names, name)
		}
	}
	return names
}

// openPeers opens the peers of some spaces.
func (w *World) openPeers(ctx context.Context, spaces []string, answers bool) (map[string]*probe.Peer, error) {
	peers := map[string]*probe.Peer{}
	for _, name := range spaces {
		err := w.NS(name).Do(func() (err error) {
			peers[name], err = probe.Open(ctx, probe.PeerOptions{Port: probe.Port, Name: name, Answers: answers, Records: true})
			return err
		})
		if err != nil {
			delete(peers, name)
			closePeers(peers)
			return nil, fmt.Errorf("peer in %s: %w", name, err)
		}
	}
	return peers, nil
}

func closePeers(peers map[string]*probe.Peer) {
	for _, p := range peers {
		p.Close()
	}
}
