package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/packet"
)

// World is a scenario that stands: its namespaces, open.
type World struct {
	Scenario *Scenario
	Form     *Form
	Variant  foreign.Variant
	// Command is told each command that writes foreign rules, as a shell would
	// read it; nil: nobody is.
	Command func(space, command string)

	spaces map[string]*netns.NS
	owner  map[netip.Addr]string
}

// build makes a scenario's namespaces, links, addresses and routes. On an error
// nothing stays.
func build(s *Scenario, form *Form, variant foreign.Variant) (*World, error) {
	w := newWorld(s, form, variant)
	for _, step := range []func(*Space) error{w.makeSpace, w.plugPorts, w.addAddresses, w.addTunnels, w.addRoutes, w.addFilter} {
		for i := range s.Spaces {
			if err := step(&s.Spaces[i]); err != nil {
				return nil, errors.Join(fmt.Errorf("build %s: %w", s.Name, err), w.Close())
			}
		}
	}
	return w, nil
}

// openWorld opens a scenario that another process built.
func openWorld(s *Scenario, form *Form, variant foreign.Variant) (*World, error) {
	w := newWorld(s, form, variant)
	for i := range s.Spaces {
		ns, err := netns.Open(s.Namespace(s.Spaces[i].Name))
		if err != nil {
			return nil, errors.Join(err, w.Release())
		}
		w.spaces[s.Spaces[i].Name] = ns
	}
	return w, nil
}

func newWorld(s *Scenario, form *Form, variant foreign.Variant) *World {
	w := &World{Scenario: s, Form: form, Variant: variant,
		spaces: map[string]*netns.NS{}, owner: map[netip.Addr]string{}}
	for i := range s.Spaces {
		for _, a := range s.Spaces[i].addresses() {
			w.owner[a] = s.Spaces[i].Name
		}
	}
	return w
}

// NS is the namespace of a space that the scenario has.
func (w *World) NS(space string) *netns.NS { return w.spaces[space] }

// Close removes the namespaces.
func (w *World) Close() error {
	var errs []error
	for _, ns := range w.spaces {
		errs = append(errs, ns.Close())
	}
	return errors.Join(errs...)
}

// Release leaves the namespaces standing and closes what this process holds.
func (w *World) Release() error {
	var errs []error
	for _, ns := range w.spaces {
		errs = append(errs, ns.Release())
	}
	return errors.Join(errs...)
}

func (w *World) makeSpace(s *Space) error {
	ns, err := netns.New(w.Scenario.Namespace(s.Name))
	if err != nil {
		return err
	}
	w.spaces[s.Name] = ns
	if s.forwards() {
		for _, key := range []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"} {
			if err := ns.Sysctl(key, "1"); err != nil {
				return err
			}
		}
	}
	for _, setting := range s.Sysctls {
		setting, optional := strings.CutPrefix(setting, "-")
		key, value, _ := strings.Cut(setting, "=")
		if err := ns.Sysctl(key, value); err != nil && (!optional || !errors.Is(err, fs.ErrNotExist)) {
			return err
		}
	}
	for _, b := range s.Bridges {
		if err := ns.Bridge(b.Name); err != nil {
			return err
		}
	}
	return nil
}

func (w *World) plugPorts(s *Space) error {
	for _, p := range s.Ports {
		far := w.spaces[p.Space]
		plug := plugName(s.Name, p.Name)
		if err := netns.Veth(w.spaces[s.Name], p.Name, far, plug); err != nil {
			return err
		}
		if err := far.Enslave(plug, p.Bridge); err != nil {
			return err
		}
		if at, err := w.Scenario.Space(p.Space); err != nil || !at.Hairpin {
			continue
		}
		if _, err := far.Run("", "ip", "link", "set", plug, "type", "bridge_slave", "hairpin", "on"); err != nil {
			return err
		}
	}
	return nil
}

// plugName names the bridge's end of a veth after whose it is; interface names
// have at most 15 bytes.
func plugName(space, port string) string {
	name := space + "-" + port
	return name[:min(len(name), 15)]
}

func (w *World) addAddresses(s *Space) error {
	ns := w.spaces[s.Name]
	for _, p := range s.Ports {
		for _, a := range p.Addresses {
			if err := ns.Addr(p.Name, a); err != nil {
				return err
			}
		}
	}
	for _, b := range s.Bridges {
		for _, a := range b.Addresses {
			if err := ns.Addr(b.Name, a); err != nil {
				return err
			}
		}
	}
	return nil
}

// vxlanPort is IANA's; vxlanMTU leaves room for the outer headers.
const vxlanPort, vxlanMTU = 4789, 1450

func (w *World) addTunnels(s *Space) error {
	ns := w.spaces[s.Name]
	for _, t := range s.Tunnels {
		link := fmt.Sprintf("link add %s mtu %d type vxlan id %d local %s remote %s dstport %d\nlink set %[1]s up\n", t.Name, vxlanMTU, t.ID, t.Local, t.Remote, vxlanPort)
		if _, err := ns.Run(link, "ip", "-batch", "-"); err != nil {
			return err
		}
		for _, a := range t.Addresses {
			if err := ns.Addr(t.Name, a); err != nil {
				return err
			}
		}
	}
	return nil
}

// firstTable of routes for packets from certain addresses.
const firstTable = 100

func (w *World) addRoutes(s *Space) error {
	ns := w.spaces[s.Name]
	var from []netip.Prefix
	for _, r := range s.Routes {
		if !r.From.IsValid() {
			if err := ns.Route(r.To, r.Via, r.Dev); err != nil {
				return err
			}
			continue
		}
		table := slices.Index(from, r.From)
		if table < 0 {
			table = len(from)
			from = append(from, r.From)
			if err := w.ip(s, r.From, "rule add from %s lookup %d", r.From, firstTable+table); err != nil {
				return err
			}
		}
		if err := w.ip(s, r.From, "route add %s via %s table %d", r.To, r.Via, firstTable+table); err != nil {
			return err
		}
	}
	return nil
}

// ip runs a command of ip(8) of a prefix's family.
func (w *World) ip(s *Space, of netip.Prefix, format string, args ...any) error {
	words := append([]string{fmt.Sprintf("-%d", packet.Of(of.Addr()))}, strings.Fields(fmt.Sprintf(format, args...))...)
	_, err := w.spaces[s.Name].Run("", "ip", words...)
	return err
}

func (w *World) addFilter(s *Space) error {
	if s.Filter == "" {
		return nil
	}
	_, err := w.spaces[s.Name].Run(s.Filter, "nft", "-f", "-")
	return err
}
