package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/unmasq/unmasq/internal/agent"
	"github.com/unmasq/unmasq/internal/facts"
	"github.com/unmasq/unmasq/internal/masqagent"
	"github.com/unmasq/unmasq/internal/policy"
	"github.com/unmasq/unmasq/internal/policyfile"
)

// masqSource reads ip-masq-agent's files and gives the policy that they come to. The
// agent calls it from one goroutine.
type masqSource struct {
	dir      string
	policies []string // documents besides
	settings masqagent.Settings
	chosen   masqagent.Dialect // by a flag
	random   bool              // whether --random-fully is given
	evidence masqagent.Evidence
	log      *slog.Logger
	// bad is told what is wrong; nil: nobody asks.
	bad          func(error)
	flagWarnings []string

	said string // to the log last
	// of what was good last
	config   masqagent.Config
	why      string
	warnings []string
	// others are networks of the node that were not taken for pods' when it was looked last.
	others []string
}

// settingsOf the files of these names, and why they are read in that dialect.
func (s *masqSource) settingsOf(names []string) (out masqagent.Settings, why string, err error) {
	out = s.settings
	if out.Dialect, why = s.chosen, "--dialect"; out.Dialect == "" {
		e := s.evidence
		e.Files = names
		if out.Dialect, why, err = e.Find(); err != nil {
			return out, "", err
		}
	}
	if !s.random {
		out.RandomFully = masqagent.RandomFullyByDefault(out.Dialect)
	}
	return out, why, nil
}

func (s *masqSource) read() ([]policy.Source, error) {
	source, err := s.readAll()
	if err != nil {
		if s.bad != nil {
			s.bad(err)
		}
		return nil, err
	}
	sources := []policy.Source{source}
	if len(s.policies) > 0 {
		more, err := policyfile.Read(s.policies, nil) // none is standard input
		if err != nil {
			return nil, err
		}
		sources = append(sources, more...)
	}
	return sources, nil
}

func (s *masqSource) readAll() (policy.Source, error) {
	var names []string
	entries, err := os.ReadDir(s.dir)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	settings, why, findErr := s.settingsOf(names)
	if findErr != nil {
		return policy.Source{}, findErr
	}
	// Azure's agent wants its directory; for the others no file is a choice.
	if err != nil && (settings.Dialect == masqagent.Azure || !errors.Is(err, fs.ErrNotExist)) {
		return policy.Source{}, fmt.Errorf("read the configuration: %w", err)
	}
	files, err := readMasqFiles(s.dir, masqagent.Reads(settings.Dialect, names))
	if err != nil {
		return policy.Source{}, err
	}
	config, warnings, err := masqagent.Parse(files, settings)
	if err != nil {
		return policy.Source{}, err
	}
	s.good(config, why, files, warnings)
	document := config.Document()
	return document.Source(s.dir)
}

// readMasqFiles reads no more of each than can be right.
func readMasqFiles(dir string, names []string) (files []masqagent.File, err error) {
	if len(names) > masqagent.MostFiles {
		return nil, fmt.Errorf("%s: %d files begin with %s; expected at most %d", dir, len(names), masqagent.FilePrefix, masqagent.MostFiles)
	}
	var errs []error
	for _, name := range names {
		path := filepath.Join(dir, name)
		data, err := readBounded(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone meanwhile: there will be an event
		}
		errs = append(errs, err)
		files = append(files, masqagent.File{Name: path, Data: data})
	}
	return files, errors.Join(errs...)
}

// readBounded gives a byte more than is allowed of what is too long. A pipe would
// keep it waiting for ever.
func readBounded(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, masqagent.MostBytes+1))
}

// mostLogged are as many CIDRs as agents take unless told otherwise.
const mostLogged = 64

// good remembers what is right, and says so where it is new.
func (s *masqSource) good(c masqagent.Config, why string, files []masqagent.File, warnings []masqagent.Warning) {
	s.config, s.why, s.warnings = c, why, append([]string{}, s.flagWarnings...)
	for _, w := range warnings {
		s.warnings = append(s.warnings, w.String())
	}
	var names, list []string
	for _, f := range files {
		names = append(names, f.Name)
	}
	for i, d := range c.Destinations {
		if i == mostLogged {
			list = append(list, fmt.Sprintf("and %d more", len(c.Destinations)-i))
			break
		}
		list = append(list, d.String())
	}
	about := []any{"dialect", c.Dialect, "because", why, "files", strings.Join(names, " "), "nonMasqueradeCIDRs", strings.Join(list, " "),
		"masqLinkLocal", c.MasqLinkLocal, "masqLinkLocalIPv6", c.MasqLinkLocalIPv6, "ipv6", c.EnableIPv6, "randomFully", c.RandomFully}
	if c.Default != "" {
		about = append(about, "default", c.Default)
	}
	if text := fmt.Sprint(about...); text != s.said {
		s.said = text
		s.log.Info("configuration", about...)
	}
}

// pods says whether a network is Kubernetes' pods'. Those of containers that it knows
// nothing of, docker's or podman's, and of guests, keep what others do for them.
func (s *masqSource) pods(f facts.Found[netip.Prefix]) bool {
	known := strings.HasPrefix(f.Origin, "CNI network ") && !strings.Contains(f.Origin, "podman") && !strings.Contains(f.Origin, "nerdctl")
	for _, owner := range []string{"CNI bridge", "kubenet", "kube-router", "weave"} {
		known = known || strings.HasSuffix(f.Origin, "("+owner+")")
	}
	if !known {
		s.others = append(s.others, f.Value.String()+" of "+f.Origin)
	}
	return known
}

// tell adds what the agent can't know of documents that nobody wrote.
func (s *masqSource) tell(w *agent.Want) {
	c := &s.config
	origin := c.Default
	if origin == "" {
		origin = s.dir
	}
	w.Lines = append(w.Lines, facts.Fact{Name: "ipMasqAgent", Origin: origin,
		Values: []string{"chain " + c.Chain, "dialect " + string(c.Dialect) + ": " + s.why}})
	document := c.Document()
	var warnings []string
	for _, text := range w.Warnings {
		switch {
		case strings.HasPrefix(text, "to.pods in rule "+document.Name+"/"+masqagent.RuleToPods):
			continue // this host's are those that are meant
		case strings.Contains(text, "matches nothing in IPv6") && !c.EnableIPv6:
			continue
		case strings.HasPrefix(text, "pods matches nothing in "):
			text = s.withoutPods(strings.Fields(text)[4])
		}
		warnings = append(warnings, strings.ReplaceAll(text, "state spec.facts.podCIDRs", "state --pod-cidrs"))
	}
	w.Warnings = append(warnings, s.warnings...)
	s.others = nil
}

// withoutPods is what doesn't hold where nobody knows which addresses are pods'.
func (s *masqSource) withoutPods(family string) string {
	said := "no pods' " + family + " networks are known on this node"
	if len(s.others) > 0 {
		said += " (not taken for pods': " + strings.Join(s.others, ", ") + ")"
	}
	if s.config.Dialect == masqagent.Cilium {
		return said + ": nothing is done to any; state --pod-cidrs"
	}
	return said + ": the list is left alone as ip-masq-agent does, so that others may masquerade pods there, " +
		"and clients of pods that aren't in the list are masqueraded; state --pod-cidrs"
}
