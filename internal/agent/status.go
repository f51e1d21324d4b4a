package agent

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/unmasq/unmasq/internal/conflict"
)

// status is what /readyz and the metrics tell; the loop writes it.
type status struct {
	mu       sync.Mutex
	started  bool
	config   error
	table    error
	rules    int
	warnings []string
	// stale says what isn't followed of the cluster; nil: there is none.
	stale  func() string
	paused bool
	// bypass says that pods' packets go past the table; "": nothing says so.
	bypass string
}

func (s *status) setConfig(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.config = err
}

func (s *status) setTable(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.table = err
	s.started = s.started || err == nil
}

func (s *status) tableError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.table
}

// setWant says whether the policy or its warnings are others than before.
func (s *status) setWant(w *Want) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := !s.started || s.table != nil || s.rules != len(w.Policy.Rules) ||
		strings.Join(s.warnings, "\n") != strings.Join(w.Warnings, "\n")
	s.rules, s.warnings = len(w.Policy.Rules), w.Warnings
	return changed
}

// problem is why the agent isn't ready; nil: it is. Ready means that the
// documents as they are now are in force.
func (s *status) problem() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.config != nil && !s.started:
		return fmt.Errorf("policy refused, nothing is enforced:\n%w", s.config)
	case s.config != nil && s.table != nil:
		return fmt.Errorf("policy refused:\n%w\nthe last good one is not in force: %w", s.config, s.table)
	case s.config != nil:
		return fmt.Errorf("policy refused, the last good one stays in force:\n%w", s.config)
	case s.table != nil:
		return fmt.Errorf("the policy is not in force: %w", s.table)
	case !s.started:
		return errors.New("starting")
	}
	return nil
}

func (s *status) setCluster(stale func() string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stale = stale
}

func (s *status) setBypass(p *conflict.Path) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bypass = ""
	if p.Past {
		s.bypass = p.Message
	}
}

func (s *status) setPaused(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paused = on
}

// ready is nil where the agent enforces what it can, with what should be known of
// it. In a cluster, documents that are refused and an API that doesn't answer are
// such notes: an agent that enforces is not to be taken for one that doesn't.
func (s *status) ready() (notes []string, problem error) {
	problem = s.problem()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stale == nil {
		return nil, problem
	}
	stale := s.stale()
	switch {
	case !s.started && s.config == nil && s.table == nil && stale != "":
		return nil, fmt.Errorf("nothing is enforced by this agent yet; the cluster isn't known:\n%s", stale)
	case !s.started || s.table != nil:
		return nil, problem
	}
	if s.paused {
		notes = append(notes, "paused: the table is empty")
	}
	if s.bypass != "" {
		notes = append(notes, "pods' packets don't come to the policies:\n"+s.bypass)
	}
	if s.config != nil {
		notes = append(notes, "policy refused; what was good before is in force:\n"+s.config.Error())
	}
	if stale != "" {
		notes = append(notes, "the cluster as it was last known is in force:\n"+stale)
	}
	return notes, nil
}
