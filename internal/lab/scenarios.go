package lab

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/packet"
)

//go:embed scenarios
var policies embed.FS

// policiesOf are the policy files under scenarios/NAME.
func policiesOf(name string) fs.FS {
	dir, err := fs.Sub(policies, "scenarios/"+name)
	if err != nil {
		panic(err) // for a name that isn't a path
	}
	return dir
}

// Scenarios returns all of them.
func Scenarios() []Scenario {
	return []Scenario{docker(), flannel(), kubeRouter(), cniBridge(), office(), services()}
}

// Find returns the scenario of a name, and the forms that are meant: all of it,
// or of "NAME/FORM" one.
func Find(name string) (*Scenario, []Form, error) {
	base, form, one := strings.Cut(name, "/")
	var names []string
	for _, s := range Scenarios() {
		names = append(names, s.Name)
		if s.Name != base {
			continue
		}
		if !one {
			return &s, s.Forms, nil
		}
		for i := range s.Forms {
			if s.Forms[i].Name == form {
				return &s, s.Forms[i : i+1], nil
			}
		}
		return nil, nil, fmt.Errorf("scenario %s has no form %q (its forms: %s)", base, form, strings.Join(s.FormNames(), ", "))
	}
	return nil, nil, fmt.Errorf("no scenario %q (there are: %s)", name, strings.Join(names, ", "))
}

// FormNames are the names of a scenario's forms; nil where it has one without a name.
func (s *Scenario) FormNames() []string {
	var names []string
	for _, f := range s.Forms {
		if f.Name != "" {
			names = append(names, f.Name)
		}
	}
	return names
}

// PolicyText returns the text of one of the scenario's policy files.
func (s *Scenario) PolicyText(file string) (string, error) {
	text, err := fs.ReadFile(s.Policies, file)
	if err != nil {
		return "", fmt.Errorf("policy of scenario %s: %w", s.Name, err)
	}
	return string(text), nil
}

// policyFiles are a form's policy files in the order of its stages.
func (s *Scenario) policyFiles(f *Form) []string {
	var files []string
	seen := map[string]bool{"": true}
	for _, stage := range s.StagesOf(f) {
		if !seen[stage.Policy] {
			seen[stage.Policy] = true
			files = append(files, stage.Policy)
		}
	}
	return files
}

// writePeers lets the foreign components write their rules.
func writePeers(ctx context.Context, w *World) error {
	for _, r := range w.Form.Rules {
		if err := w.perform(ctx, r, r.Component.Write); err != nil {
			return err
		}
	}
	return nil
}

// restartPeers restarts the foreign components that the scenario is about.
func restartPeers(ctx context.Context, w *World) error {
	about := slices.DeleteFunc(slices.Clone(w.Form.Rules), func(r Rules) bool { return r.Context })
	return restart(about)(ctx, w)
}

// restart is the start of components beside, or in place of, what they have written.
func restart(rules []Rules) Step {
	return func(ctx context.Context, w *World) error {
		for _, r := range rules {
			if err := w.perform(ctx, r, r.Component.Restart); err != nil {
				return err
			}
		}
		return nil
	}
}

func (w *World) perform(ctx context.Context, r Rules, steps foreign.Steps) error {
	for _, f := range packet.Families {
		todo := steps(r.Node, w.Variant, f)
		for _, step := range todo {
			if w.Command != nil {
				w.Command(r.On, step.String())
			}
		}
		if err := foreign.Run(ctx, w.execIn(r.On), todo); err != nil {
			return fmt.Errorf("rules of %s on %s: %w", r.Component.Name, r.On, err)
		}
	}
	return nil
}

// execIn executes programs in a space.
func (w *World) execIn(space string) foreign.Exec {
	return func(ctx context.Context, program string, args []string, stdin string) error {
		cmd := w.NS(space).Command(ctx, program, args...)
		cmd.Stdin = strings.NewReader(stdin)
		// sbin isn't in every root's PATH.
		cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", program, err, strings.TrimSpace(string(out)))
		}
		return nil
	}
}

// prefix, prefixes, via and defaultVia build the data above; a text that isn't an
// address panics, which a test of all scenarios would show.
func prefix(text string) netip.Prefix { return netip.MustParsePrefix(text) }

func prefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, t := range texts {
		all = append(all, prefix(t))
	}
	return all
}

func via(to, hop string) Route { return Route{To: prefix(to), Via: netip.MustParseAddr(hop)} }

// defaultVia are the default routes by the hops whose addresses are given with
// their networks' lengths.
func defaultVia(hops ...string) []Route {
	var all []Route
	for _, h := range hops {
		hop := prefix(h).Addr()
		all = append(all, Route{To: packet.Of(hop).Everywhere(), Via: hop})
	}
	return all
}

// pod is a pod on a host's bridge, which is the first address of the pod's network.
func pod(name, host, bridge, address4, address6 string) Space {
	addresses := prefixes(address4, address6)
	var routes []Route
	for _, a := range addresses {
		hop := a.Masked().Addr().Next()
		routes = append(routes, Route{To: packet.Of(hop).Everywhere(), Via: hop})
	}
	return Space{Name: name, Role: Pod, Ports: []Port{{"eth0", host, bridge, addresses}}, Routes: routes}
}
