package replay

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/unmasq/unmasq/internal/kernel/wires"
	"github.com/unmasq/unmasq/internal/packet"
	model "github.com/unmasq/unmasq/internal/route"
	"github.com/unmasq/unmasq/internal/snapshot"
)

type link = model.Link

// when a setting is written.
type when bool

const (
	beforeLinks when = false
	afterLinks  when = true
)

// settled are parameters of an interface, or of all, that decide about packets.
var settled = []string{"forwarding", "rp_filter", "accept_local", "route_localnet", "src_valid_mark", "send_redirects", "disable_ipv6"}

// settings writes sysctls: those of all interfaces first, since they reset others.
func (s *scratch) settings(all map[string]string, now when) error {
	if now == beforeLinks {
		// Addresses are those of the snapshot, and there at once.
		for key, value := range map[string]string{"net.ipv6.conf.default.addr_gen_mode": "1", "net.ipv6.conf.all.accept_dad": "0", "net.ipv6.conf.default.accept_dad": "0"} {
			if err := s.node.Sysctl(key, value); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	if len(all) == 0 && now == beforeLinks {
		all = map[string]string{"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1"}
	}
	keys := slices.SortedFunc(maps.Keys(all), func(a, b string) int {
		return strings.Compare(boolKey(ofAll(a))+a, boolKey(ofAll(b))+b)
	})
	for _, key := range keys {
		if !decides(key) || ofAll(key) == (now == afterLinks) {
			continue
		}
		err := s.node.Sysctl(key, all[key])
		if err != nil && errors.Is(err, os.ErrNotExist) && now == beforeLinks && all[key] != "0" {
			s.leave("sysctl %s, which this kernel hasn't", key)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return cannot("%w", err)
		}
	}
	return nil
}

func boolKey(first bool) string {
	if first {
		return "0"
	}
	return "1"
}

// ofAll says whether a sysctl isn't one interface's.
func ofAll(key string) bool {
	for _, family := range []string{"net.ipv4.conf.", "net.ipv6.conf."} {
		if rest, ok := strings.CutPrefix(key, family); ok {
			return strings.HasPrefix(rest, "all.") || strings.HasPrefix(rest, "default.")
		}
	}
	return true
}

func decides(key string) bool {
	switch key {
	case "net.ipv4.ip_forward", "net.ipv4.fib_multipath_hash_policy", "net.ipv6.fib_multipath_hash_policy", "net.ipv4.ip_nonlocal_bind",
		"net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables":
		return true
	}
	return strings.Contains(key, ".conf.") && slices.ContainsFunc(settled, func(name string) bool { return strings.HasSuffix(key, "."+name) })
}

func (s *scratch) addresses(ctx context.Context, h *snapshot.Host) error {
	var lines strings.Builder
	var wait []netip.Addr
	for i := range h.Network.Addresses {
		a := &h.Network.Addresses[i]
		ip := a.Prefix.Addr()
		if a.Interface == "lo" && ip.IsLoopback() && (ip.Is6() || a.Prefix.String() == "127.0.0.1/8") {
			continue
		}
		if l := h.Network.Link(a.Interface); l == nil || h.Network.Link(l.Master) != nil && h.Network.Link(l.Master).Kind == "bridge" {
			if !ip.IsLinkLocalUnicast() { // those of bridges' ports decide nothing
				s.leave("address %s of %s, which isn't built", a.Prefix, a.Interface)
			}
			continue
		}
		if a.Tentative && !a.Optimistic || a.Failed {
			s.leave("address %s, which isn't usable yet", a.Prefix)
			continue
		}
		lines.WriteString(addressLine(a))
		if l := h.Network.Link(a.Interface); ip.Is6() && l.Up {
			wait = append(wait, ip)
		}
	}
	if err := s.run(ctx, lines.String(), "ip", "-batch", "-"); err != nil {
		return cannot("addresses: %w", err)
	}
	return s.settle(ctx, wait)
}

func addressLine(a *model.Address) string {
	line := "addr add " + a.Prefix.String()
	if a.Peer.IsValid() {
		line = "addr add " + a.Prefix.Addr().String() + " peer " + a.Peer.String()
	}
	line += " dev " + a.Interface
	if a.Broadcast.IsValid() {
		line += " broadcast " + a.Broadcast.String()
	}
	if a.Prefix.Addr().Is6() {
		line += " nodad"
	} else {
		line += fmt.Sprintf(" scope %d", a.Scope)
	}
	if a.NoPrefixRoute {
		line += " noprefixroute"
	}
	if a.Deprecated {
		line += " valid_lft forever preferred_lft 0"
	}
	return line + "\n"
}

// settle waits for the routes that come of IPv6 addresses: the kernel adds them
// from a work queue, a little later (net/ipv6/addrconf.c, addrconf_dad_work).
func (s *scratch) settle(ctx context.Context, wait []netip.Addr) error {
	const patience, pause = 5 * time.Second, 10 * time.Millisecond
	for deadline := time.Now().Add(patience); len(wait) > 0; time.Sleep(pause) {
		routes, err := s.node.Run("", "ip", "-6", "route", "show", "table", "local")
		if err != nil {
			return err
		}
		wait = slices.DeleteFunc(wait, func(a netip.Addr) bool { return strings.Contains(routes, "local "+a.String()+" ") })
		if err := ctx.Err(); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return cannot("address %s isn't usable after %s", wait[0], patience)
		}
	}
	return nil
}

// neighbours says once and for all who is behind a bridge's port: everybody.
func (s *scratch) neighbours(ctx context.Context, h *snapshot.Host, destinations []netip.Addr) error {
	var lines strings.Builder
	for i := range s.ends {
		end := &s.ends[i]
		if l := h.Network.Link(end.Link); l.Kind != "bridge" {
			continue
		}
		mac, err := wires.MAC(s.far, end.FarLink)
		if err != nil {
			return err
		}
		known := slices.Clone(destinations)
		for _, n := range h.Network.Neighbors {
			if n.Interface == end.Link {
				known = append(known, n.Address)
			}
		}
		for _, a := range known {
			if !slices.Contains(end.Own, a) && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() {
				fmt.Fprintf(&lines, "neigh replace %s lladdr %s dev %s nud permanent\n", a, mac, end.Link)
			}
		}
	}
	if lines.Len() == 0 {
		return nil
	}
	if err := s.run(ctx, lines.String(), "ip", "-batch", "-"); err != nil {
		return cannot("neighbours: %w", err)
	}
	return nil
}

// destinations that the packet may be sent on to, and their gateways.
func (r *replay) destinations() []netip.Addr {
	all := []netip.Addr{r.question.Source, r.question.Destination}
	for i := range r.predicted {
		o := &r.predicted[i]
		all = append(all, o.Destination, o.Source)
		if o.NextHop.IsValid() {
			all = append(all, o.NextHop)
		}
	}
	for i := range r.Host.Network.Routes {
		for _, hop := range r.Host.Network.Routes[i].Nexthops {
			if hop.Via.IsValid() {
				all = append(all, hop.Via)
			}
		}
	}
	all = slices.DeleteFunc(all, func(a netip.Addr) bool { return !a.IsValid() })
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}

// routing makes rules and routes in place of those that the kernel made.
func (s *scratch) routing(ctx context.Context, h *snapshot.Host) error {
	for _, f := range packet.Families {
		if !h.Network.Of(f).Main {
			continue
		}
		if err := s.rules(ctx, h, f); err != nil {
			return err
		}
		if err := s.routes(ctx, h, f); err != nil {
			return err
		}
	}
	return nil
}

func flag(f packet.Family) string {
	if f == packet.IPv6Family {
		return "-6"
	}
	return "-4"
}

// leadsToUnbuilt says whether a route leaves by a bridge's port.
func (s *scratch) leadsToUnbuilt(r *model.Route) bool {
	return slices.ContainsFunc(r.Nexthops, func(hop model.Nexthop) bool { return hop.Interface != "" && !s.built[hop.Interface] })
}

func (s *scratch) routes(ctx context.Context, h *snapshot.Host, f packet.Family) error {
	_ = s.run(ctx, "", "ip", flag(f), "route", "flush", "table", "main") // an error where there are none
	var own, others []string
	for i := range h.Network.Routes {
		r := &h.Network.Routes[i]
		if r.Family != f {
			continue
		}
		line, why := routeLine(r)
		switch {
		case why != "":
			s.leave("route %s: %s", r.Text, why)
		case line == "":
		case s.leadsToUnbuilt(r):
			if r.Protocol != "kernel" {
				s.leave("route %s: its interface isn't built", r.Text)
			}
		case r.Table == model.TableLocal:
			own = append(own, line)
		default:
			others = append(others, line)
		}
	}
	// Those without a gateway first: a gateway must be reachable.
	slices.SortStableFunc(others, func(a, b string) int {
		return strings.Compare(boolKey(!strings.Contains(a, " via ")), boolKey(!strings.Contains(b, " via ")))
	})
	if len(own) > 0 { // most are there already: what is missing shows when the node is read back
		_ = s.run(ctx, strings.Join(own, "\n")+"\n", "ip", flag(f), "-force", "-batch", "-")
	}
	if len(others) == 0 || ctx.Err() != nil {
		return ctx.Err()
	}
	if err := s.run(ctx, strings.Join(others, "\n")+"\n", "ip", flag(f), "-batch", "-"); err != nil {
		return cannot("routes: %w", err)
	}
	return nil
}

// routeLine is the route as ip takes it; empty where the kernel makes it itself,
// or nothing goes there. why: it can't be made.
func routeLine(r *model.Route) (line, why string) {
	hops := slices.DeleteFunc(slices.Clone(r.Nexthops), func(h model.Nexthop) bool { return h.Dead })
	switch {
	case r.Unknown != "":
		return "", r.Unknown
	case r.From.IsValid() && r.From.Bits() > 0:
		return "", "for a source alone"
	case r.Type == model.Multicast, r.Type == model.Anycast, r.Family == packet.IPv6Family && r.Table == model.TableLocal && r.Type != model.Local:
		return "", ""
	case len(r.Nexthops) > 0 && len(hops) == 0:
		return "", ""
	case slices.ContainsFunc(hops, func(h model.Nexthop) bool { return h.Encap != "" }):
		return "", "encapsulated"
	}
	verb := "append" // several may have one destination and metric
	if r.Table == model.TableLocal {
		verb = "add"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "route %s %s %s table %d", verb, r.Type, r.Destination, r.Table)
	word := func(ok bool, format string, args ...any) {
		if ok {
			fmt.Fprintf(&b, " "+format, args...)
		}
	}
	word(r.Metric != 0, "metric %d", r.Metric)
	word(r.TOS != 0, "tos %#x", r.TOS)
	word(r.Family == packet.IPv4Family && len(r.Nexthops) > 0, "scope %d", r.Scope)
	word(r.Source.IsValid(), "src %s", r.Source)
	word(r.Preference > 0, "pref high")
	word(r.Preference < 0, "pref low")
	for _, h := range hops {
		word(len(hops) > 1, "nexthop weight %d", max(h.Weight, 1))
		b.WriteString(hopWords(r, h))
	}
	return b.String(), ""
}

func hopWords(r *model.Route, h model.Nexthop) (words string) {
	switch {
	case h.Via.IsValid() && packet.Of(h.Via) != r.Family:
		words = " via inet6 " + h.Via.String()
	case h.Via.IsValid():
		words = " via " + h.Via.String()
	}
	if h.Interface != "" && (r.Type == model.Unicast || r.Type == model.Local || r.Type == model.Broadcast) {
		words += " dev " + h.Interface
		if h.Via.IsValid() {
			words += " onlink" // its gateway needn't be reachable by a route that is there already
		}
	}
	return words
}

func (s *scratch) rules(ctx context.Context, h *snapshot.Host, f packet.Family) error {
	var lines []string
	for _, priority := range []int{0, 32766, 32767} {
		_ = s.run(ctx, "", "ip", flag(f), "rule", "del", "priority", fmt.Sprint(priority))
	}
	for i := range h.Network.Rules {
		r := &h.Network.Rules[i]
		if r.Family != f {
			continue
		}
		line, why := ruleLine(r)
		if why != "" {
			s.leave("routing rule %s: %s", r.Text, why)
			continue
		}
		lines = append(lines, line)
	}
	if err := s.run(ctx, strings.Join(lines, "\n")+"\n", "ip", flag(f), "-batch", "-"); err != nil {
		return cannot("routing rules: %w", err)
	}
	return nil
}

func ruleLine(r *model.Rule) (line, why string) {
	switch {
	case r.Unknown != "":
		return "", r.Unknown
	case r.L3MDev:
		return "", "of a VRF"
	case r.SuppressGroup != "":
		return "", "suppresses a group"
	}
	var b strings.Builder
	b.WriteString("rule add")
	word := func(ok bool, format string, args ...any) {
		if ok {
			fmt.Fprintf(&b, " "+format, args...)
		}
	}
	word(r.Not, "not")
	word(r.From.IsValid(), "from %s", r.From)
	word(!r.From.IsValid(), "from all")
	word(r.To.IsValid(), "to %s", r.To)
	word(r.In != "", "iif %s", r.In)
	word(r.Out != "", "oif %s", r.Out)
	word(r.Mask != 0, "fwmark %#x/%#x", r.Mark, r.Mask)
	word(r.Protocol != 0, "ipproto %d", r.Protocol)
	if p := r.SourcePorts; p != nil {
		word(true, "sport %d-%d", p[0], p[1])
	}
	if p := r.DestinationPorts; p != nil {
		word(true, "dport %d-%d", p[0], p[1])
	}
	if u := r.UIDs; u != nil {
		word(true, "uidrange %d-%d", u[0], u[1])
	}
	word(r.TOS != 0, "tos %#x", r.TOS)
	word(true, "priority %d", r.Priority)
	switch {
	case r.NoOperation:
		word(true, "nop")
	case r.Goto != 0:
		word(true, "goto %d", r.Goto)
	case r.Action != model.Unicast:
		word(true, "%s", r.Action)
	default:
		word(true, "lookup %d", r.Table)
		word(r.SuppressPrefixLength >= 0, "suppress_prefixlength %d", r.SuppressPrefixLength)
	}
	return b.String(), ""
}
