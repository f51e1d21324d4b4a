package agent

import (
	"cmp"
	"errors"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/unmasq/unmasq/internal/conflict"
	"github.com/unmasq/unmasq/internal/kernel/nft"
	"github.com/unmasq/unmasq/internal/kernel/others"
	"github.com/unmasq/unmasq/internal/owner"
	"github.com/unmasq/unmasq/internal/policy"
)

// How often it is looked at most what others have on the node: at interfaces, which
// costs little, and in rules, which are read only when somebody changed any.
const (
	programsPause = 2 * time.Second
	rulesPause    = 30 * time.Second
	// changedFor is how long a change to the table by somebody else is reported.
	changedFor = 5 * time.Minute
)

// around is what others have on the node, as far as it works against policies.
type around struct {
	reader              *others.Reader
	programsAt, rulesAt time.Time // last read
	programs            *conflict.Programs
	rules               *conflict.Rules
	failed              string // what was said of it
	found               *found
}

// found is the same pointer as long as it's the same. It is never changed.
type found struct {
	path     conflict.Path
	findings []conflict.Finding
}

// look around, at times. What can't be read stays as it was seen last.
func (a *Agent) look(now time.Time, f *policy.Facts) *found {
	r := &a.around
	if err := r.read(now); errorText(err) != r.failed {
		r.failed = errorText(err)
		if err != nil {
			a.opts.Log.Warn("what others have on this node can't be read", "error", err)
		}
	}
	next := &found{}
	if r.programs != nil {
		next.path = conflict.PathOf(*r.programs, r.rules)
	}
	if f != nil {
		next.findings = conflict.Of(r.rules, f)
	}
	if process := a.metrics.recent.since(now.Add(-changedFor)); len(process) > 0 {
		next.findings = append(next.findings, changed(process)...)
	}
	if r.found == nil || !reflect.DeepEqual(next, r.found) {
		r.found = next
	}
	return r.found
}

func (r *around) read(now time.Time) error {
	if r.reader == nil {
		reader, err := others.Open()
		if err != nil {
			return err
		}
		r.reader = reader
	}
	var failed error
	if r.programs == nil || now.Sub(r.programsAt) >= programsPause {
		r.programsAt = now
		programs, err := r.reader.Programs()
		if failed = err; err == nil {
			r.programs = &programs
		}
	}
	if r.rules == nil || now.Sub(r.rulesAt) >= rulesPause {
		r.rulesAt = now
		rules, err := r.reader.Rules()
		failed = errors.Join(failed, err)
		if err == nil {
			r.rules = rules
		}
	}
	return failed
}

// all that works against policies, the certain first.
func (f *found) all() []conflict.Finding {
	out := slices.Clone(f.findings)
	if f.path.Past || f.path.Unclear {
		out = append(out, conflict.Finding{Reason: conflict.Bypassed, Owner: f.path.Owner, Message: f.path.Message, Maybe: f.path.Unclear})
	}
	out = append(out, f.path.Others...)
	slices.SortStableFunc(out, func(x, y conflict.Finding) int { return cmp.Compare(maybe(x), maybe(y)) })
	return out
}

func maybe(f conflict.Finding) int {
	if f.Maybe {
		return 1
	}
	return 0
}

// changed names who altered the table.
func changed(processes []string) (out []conflict.Finding) {
	for _, name := range processes {
		out = append(out, conflict.Finding{Reason: conflict.Changed, Owner: name, Message: "process " + name +
			" changed table inet unmasq in the last minutes; it was restored. Take unmasq's table out of what that process writes"})
	}
	return out
}

// recent remembers which processes changed the table, and when.
type recent struct {
	mu   sync.Mutex
	last map[string]time.Time // by process
}

// note a change; where events were lost nobody knows of one.
func (r *recent) note(i nft.Intrusion, now time.Time) {
	if i.Lost {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil {
		r.last = map[string]time.Time{}
	}
	r.last[cmp.Or(i.Name, owner.Unknown)] = now
}

// since names the processes in order, and forgets those before.
func (r *recent) since(t time.Time) (names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, at := range r.last {
		if at.Before(t) {
			delete(r.last, name)
			continue
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
