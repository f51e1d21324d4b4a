package replay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go4.org/netipx"

	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/wires"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// scratch is a node in a namespace, with the far ends of its links in another.
type scratch struct {
	node, far *netns.NS
	// made counts links, built has their names: all but ports of bridges beside one.
	made  int
	built map[string]bool
	// ends are the links that packets come in and leave by.
	ends  []wires.Wire
	wires *wires.Set
	// missing is what the snapshot has and the node has not.
	missing []string
	// tunnels that veths stand in for.
	tunnels []string
	// different: how the node reads back differently, where it does.
	different string
}

// prefix of the namespaces; the process id follows.
const prefix = "unmasq-replay-"

var counter atomic.Int64

func newScratch() (*scratch, error) {
	if err := netns.Sweep(prefix); err != nil {
		return nil, err
	}
	s := &scratch{built: map[string]bool{}}
	for name, ns := range map[string]**netns.NS{"node": &s.node, "far": &s.far} {
		made, err := netns.New(fmt.Sprintf("%s%d-%d-%s", prefix, os.Getpid(), counter.Add(1), name))
		if err != nil {
			s.close()
			return nil, err
		}
		*ns = made
	}
	return s, nil
}

// close leaves nothing behind: the last descriptor of a namespace takes all with
// it that is in there.
func (s *scratch) close() {
	if s.wires != nil {
		s.wires.Close()
	}
	for _, ns := range []*netns.NS{s.node, s.far} {
		if ns != nil {
			_ = ns.Close()
		}
	}
}

func (s *scratch) leave(format string, args ...any) {
	if what := fmt.Sprintf(format, args...); !slices.Contains(s.missing, what) {
		s.missing = append(s.missing, what)
	}
}

// run a program in the node. What it says where it fails is the error.
func (s *scratch) run(ctx context.Context, stdin, program string, args ...string) error {
	var said bytes.Buffer
	c := s.node.Command(ctx, program, args...)
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(stdin), &said, &said
	c.WaitDelay = time.Second
	err := c.Run()
	if err == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	text := strings.TrimSpace(said.String())
	const most = 400
	if len(text) > most {
		text = text[:most] + "…"
	}
	if text == "" {
		text = err.Error()
	}
	return fmt.Errorf("%s: %s", program, strings.Join(strings.Fields(text), " "))
}

// build makes interfaces, addresses and routing. The destinations get an answer
// where the node asks who has them: behind bridges.
func (s *scratch) build(ctx context.Context, n Node, destinations []netip.Addr) error {
	for _, step := range []func() error{
		func() error { return s.settings(n.Host.Sysctls, beforeLinks) },
		func() error { return s.links(ctx, n.Host) },
		func() error { return s.addresses(ctx, n.Host) },
		func() error { return s.settings(n.Host.Sysctls, afterLinks) },
		func() error { return s.routing(ctx, n.Host) },
		func() error { return s.neighbours(ctx, n.Host, destinations) },
	} {
		if err := step(); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	if len(n.Host.VirtualServers) > 0 {
		s.leave("%d virtual servers of IPVS", len(n.Host.VirtualServers))
	}
	for _, note := range n.Host.Notes {
		s.leave("%s", strings.TrimPrefix(note.Text+": "+note.Why, ": "))
	}
	return nil
}

// mostLinks that are built.
const mostLinks = 1000

// links makes bridges with one port each, and of all others veths.
func (s *scratch) links(ctx context.Context, h *snapshot.Host) error {
	all := slices.Clone(h.Network.Links)
	if len(all) == 0 {
		return cannot("no interfaces were given")
	}
	if len(all) > mostLinks {
		return cannot("%d interfaces are too many to build", len(all))
	}
	for i := range all {
		l := &all[i]
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.link(h, l); err != nil {
			return cannot("interface %s can't be built: %w", l.Name, err)
		}
	}
	return nil
}

func (s *scratch) link(h *snapshot.Host, l *link) error {
	s.made++
	end := s.end(h, l)
	master := h.Network.Link(l.Master)
	onBridge := master != nil && master.Kind == "bridge"
	s.built[l.Name] = s.built[l.Name] || !onBridge
	var err error
	switch {
	case l.Name == "lo":
		return nil
	case l.Kind == "vrf":
		return errors.New("a VRF, which isn't built")
	case onBridge:
		return nil // one port is made with the bridge
	case l.Kind == "bridge":
		port := portOf(h, l.Name, s.made)
		s.built[port] = true
		err = s.bridge(l.Name, port, end.FarLink)
	default:
		err = s.veth(l.Name, end.FarLink)
		if tunnels[l.Kind] {
			s.tunnels = append(s.tunnels, l.Name)
		}
	}
	switch {
	case err != nil:
	case l.Up:
		s.ends = append(s.ends, end)
	default:
		_, err = s.node.Run("", "ip", "link", "set", l.Name, "down")
	}
	return err
}

// end of a link that packets are sent into, with what the bridge knows itself.
func (s *scratch) end(h *snapshot.Host, l *link) wires.Wire {
	end := wires.Wire{Link: l.Name, Far: s.far, FarLink: fmt.Sprintf("far%d", s.made)}
	for _, a := range h.Network.Addresses {
		end.Own = append(end.Own, a.Prefix.Addr())
		if a.Interface == l.Name && a.Prefix.Addr().Is4() && a.Prefix.Bits() < 31 {
			end.Broadcasts = append(end.Broadcasts, netipx.PrefixLastIP(a.Prefix))
		}
		if a.Interface == l.Name && l.Kind == "bridge" {
			end.OnLink = append(end.OnLink, a.Prefix)
		}
	}
	return end
}

func (s *scratch) bridge(name, port, far string) error {
	if err := errors.Join(netns.Veth(s.node, port, s.far, far), s.node.Bridge(name), s.node.Enslave(port, name)); err != nil {
		return err
	}
	// What comes from one end of it and is sent to another goes back by the one port.
	_, err := s.node.Run("", "ip", "link", "set", port, "type", "bridge_slave", "hairpin", "on")
	return err
}

func (s *scratch) veth(name, far string) error {
	err := netns.Veth(s.node, name, s.far, far)
	if errors.Is(err, os.ErrExist) { // tunl0, sit0 and the like come with a namespace
		if _, err := s.node.Run("", "ip", "link", "set", name, "name", fmt.Sprintf("unmasq-own%d", s.made)); err != nil {
			return err
		}
		err = netns.Veth(s.node, name, s.far, far)
	}
	if err != nil {
		return err
	}
	_, err = s.node.Run("", "ip", "link", "set", name, "arp", "off")
	return err
}

// tunnels are kinds of links whose packets leave the node as others.
var tunnels = map[string]bool{
	"vxlan": true, "geneve": true, "wireguard": true, "ipip": true, "sit": true, "gre": true, "gretap": true, "ip6gre": true, "ip6tnl": true, "vti": true, "xfrm": true,
}

// portOf is the name of a bridge's first port, or one that no rule has.
func portOf(h *snapshot.Host, bridge string, number int) string {
	for i := range h.Network.Links {
		if l := &h.Network.Links[i]; l.Master == bridge && l.Kind != "vxlan" {
			return l.Name
		}
	}
	return fmt.Sprintf("unmasq-port%d", number)
}

// open opens the far ends.
func (s *scratch) open() (err error) {
	s.wires, err = wires.Open(s.node, s.far, s.ends...)
	return err
}
