package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/kernel/netns"
)

// DefaultDir holds a record for each scenario that stands, and its policy files.
const DefaultDir = "/run/unmasq-lab"

// record says what stands of a scenario and whose it is. It is written before
// anything is made, so that what a killed process left can be removed.
type record struct {
	Scenario   string
	Form       string
	Variant    foreign.Variant
	Namespaces []string
	// Up: built by `lab up`, to stay; Process then is the one that answers.
	Up      bool
	Process process
	// Agents that `lab run` has started.
	Agents []process

	dir string
}

// process is a process that can't be mistaken for a later one of the same id.
type process struct {
	ID int
	// Start is the time of its start as /proc/PID/stat has it (field 22).
	Start string
}

func processOf(id int) (process, error) {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(id), "stat"))
	if err != nil {
		return process{}, err
	}
	start, err := parseStart(string(stat))
	return process{ID: id, Start: start}, err
}

// parseStart reads field 22 of /proc/PID/stat:
//
//	1234 (a name) S 1 1234 …
func parseStart(stat string) (string, error) {
	const afterName = 22 - 3 // the name, field 2, may hold spaces and brackets
	end := strings.LastIndexByte(stat, ')')
	fields := strings.Fields(stat[end+1:])
	if end < 0 || len(fields) <= afterName {
		return "", fmt.Errorf("stat %q: too few fields", stat)
	}
	return fields[afterName], nil
}

func (p process) alive() bool {
	now, err := processOf(p.ID)
	return err == nil && now == p
}

// stop ends the process and waits for it; nil where it has ended already.
func (p process) stop() error {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if !p.alive() {
			return nil
		}
		if err := syscall.Kill(p.ID, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("end process %d: %w", p.ID, err)
		}
		for end := time.Now().Add(stopWait); p.alive() && time.Now().Before(end); {
			time.Sleep(5 * time.Millisecond)
		}
	}
	if p.alive() {
		return fmt.Errorf("process %d doesn't end", p.ID)
	}
	return nil
}

// claim makes the record of a scenario that this process is about to build, and
// first removes what a process that is dead left of it.
func claim(dir string, s *Scenario, form *Form, variant foreign.Variant) (*record, error) {
	self, err := processOf(os.Getpid())
	if err != nil {
		return nil, err
	}
	old, err := load(dir, s.Name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case old.Up:
		return nil, fmt.Errorf("lab %s is up: take it down first, unmasq lab down %[1]s", s.Name)
	case old.Process.alive():
		return nil, fmt.Errorf("lab %s is being run by process %d", s.Name, old.Process.ID)
	default:
		if err := old.remove(); err != nil {
			return nil, err
		}
	}
	r := &record{Scenario: s.Name, Form: form.Name, Variant: variant, Process: self, dir: dir}
	for i := range s.Spaces {
		r.Namespaces = append(r.Namespaces, s.Namespace(s.Spaces[i].Name))
	}
	if err := r.checkFree(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(r.files(), 0o755); err != nil {
		return nil, fmt.Errorf("record lab %s: %w", s.Name, err)
	}
	return r, r.save(os.O_EXCL)
}

// checkFree says no where a namespace of ours exists that no record tells of:
// somebody else made it.
func (r *record) checkFree() error {
	there, err := netns.List("unmasq-" + r.Scenario + "-")
	if err != nil {
		return err
	}
	for _, name := range there {
		if slices.Contains(r.Namespaces, name) {
			return fmt.Errorf("network namespace %s exists and isn't the lab's: remove it with ip netns delete %[1]s", name)
		}
	}
	return nil
}

func (r *record) path() string { return filepath.Join(r.dir, r.Scenario+".json") }

// files is the directory of the scenario's policy files.
func (r *record) files() string { return filepath.Join(r.dir, r.Scenario) }

// save writes the record; flag is os.O_EXCL where it must be new, os.O_TRUNC to replace it.
func (r *record) save(flag int) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	file, err := os.OpenFile(r.path(), os.O_WRONLY|os.O_CREATE|flag, 0o644)
	if err != nil {
		return fmt.Errorf("record lab %s: %w", r.Scenario, err)
	}
	_, err = file.Write(append(text, '\n'))
	return errors.Join(err, file.Close())
}

// load reads a scenario's record; fs.ErrNotExist where nothing stands.
func load(dir, name string) (*record, error) {
	r := &record{dir: dir}
	text, err := os.ReadFile(filepath.Join(dir, name+".json"))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("record of lab %s: %w", name, err)
	}
	return r, nil
}

// loadAll reads every record.
func loadAll(dir string) ([]*record, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	var all []*record
	for _, f := range files {
		r, err := load(dir, strings.TrimSuffix(filepath.Base(f), ".json"))
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

// remove takes down all that the record tells of: the processes,
// the namespaces, the files.
func (r *record) remove() error {
	var errs []error
	if r.Up {
		errs = append(errs, r.Process.stop())
	}
	for _, a := range r.Agents {
		errs = append(errs, a.stop())
	}
	for _, name := range r.Namespaces {
		errs = append(errs, netns.Remove(name))
	}
	if err := errors.Join(errs...); err != nil {
		return err // the record stays, for another try
	}
	return r.drop()
}

// drop removes the record and the policy files.
func (r *record) drop() error {
	err := errors.Join(os.RemoveAll(r.files()), os.Remove(r.path()))
	os.Remove(r.dir) //nolint:errcheck // fails while other scenarios stand
	return err
}
