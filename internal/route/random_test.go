package route_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/route"
)

// devices of a random network; each is one end of a veth pair, pN is the other.
var devices = []string{"v0", "v1", "v2", "v3"}

// scenario writes random networks as commands of `ip -batch`. What the kernel
// refuses is left out: the state is read back.
type scenario struct {
	*rand.Rand
	// lines of `ip -batch`, and of `ip -6 -batch` for rules without an address.
	lines, lines6 []string
	// odd: there are routes in tables local and default.
	odd bool
}

func (s *scenario) add(format string, args ...any) {
	s.lines = append(s.lines, strings.TrimSpace(fmt.Sprintf(format, args...)))
}

func (s *scenario) addTo(family, format string, args ...any) {
	lines := &s.lines
	if family == "-6" {
		lines = &s.lines6
	}
	*lines = append(*lines, fmt.Sprintf(format, args...))
}

// maybe returns the text, or nothing.
func (s *scenario) maybe(text string) string {
	if s.IntN(3) == 0 {
		return " " + text
	}
	return ""
}

func (s *scenario) dev() string { return pick(s.Rand, devices...) }

func (s *scenario) links() {
	s.add("link set lo up")
	for i, d := range devices {
		s.add("link add %s type veth peer name p%d", d, i)
	}
	s.add("link add br0 type bridge")
	s.add("link set p1 master br0")
	for i, d := range devices {
		if s.IntN(4) > 0 {
			s.add("link set %s addrgenmode none", d)
		}
		s.add("link set p%d addrgenmode none", i)
		s.add("link set %s up%s", d, s.maybe("group 7"))
		if i != 3 {
			s.add("link set p%d up", i) // v3 has no carrier
		}
	}
	s.add("link set br0 up")
}

// address4 is one of few subnets, so that they overlap and some are secondary.
func (s *scenario) address4() string {
	return fmt.Sprintf("10.%d.%d.%d", s.IntN(3), s.IntN(2), 1+s.IntN(20))
}

func (s *scenario) addresses4() {
	for range 3 + s.IntN(8) {
		a := fmt.Sprintf("%s/%d", s.address4(), pick(s.Rand, 24, 24, 24, 16, 32, 30, 31, 8, 28))
		if s.IntN(5) == 0 {
			a = fmt.Sprintf("%s peer %s/%d", s.address4(), s.address4(), pick(s.Rand, 32, 32, 24))
		}
		s.add("addr add %s dev %s%s%s%s", a, pick(s.Rand, "v0", "v1", "v2", "v3", "br0", "v0", "lo"),
			s.maybe("brd +"), s.maybe("scope "+pick(s.Rand, "link", "host", "200", "global")), s.maybe("noprefixroute"))
	}
}

func (s *scenario) address6() string {
	return pick(s.Rand,
		fmt.Sprintf("2001:db8:%x:%x::%x", s.IntN(3), s.IntN(2), 1+s.IntN(9)),
		fmt.Sprintf("2001:db8:%x:%x::%x", s.IntN(3), s.IntN(2), 1+s.IntN(9)),
		fmt.Sprintf("fd00:0:%x::%x", s.IntN(3), 1+s.IntN(9)),
		fmt.Sprintf("fe80::%x", 1+s.IntN(9)),
		fmt.Sprintf("2002:a00:%x::%x", s.IntN(3), 1+s.IntN(9)),
		fmt.Sprintf("fec0::%x:%x", s.IntN(2), 1+s.IntN(9)),
		fmt.Sprintf("2001:0:%x::%x", s.IntN(2), 1+s.IntN(9)),
	)
}

func (s *scenario) addresses6() {
	for range 2 + s.IntN(9) {
		a := fmt.Sprintf("%s/%d", s.address6(), pick(s.Rand, 64, 64, 64, 48, 128, 127, 96))
		if s.IntN(6) == 0 {
			a = fmt.Sprintf("%s peer %s/%d", s.address6(), s.address6(), pick(s.Rand, 128, 64))
		}
		s.add("addr add %s dev %s nodad%s%s", a, pick(s.Rand, "v0", "v1", "v2", "v3", "br0", "v0", "lo"),
			s.maybe("preferred_lft 0"), s.maybe("noprefixroute"))
	}
}

var tables = []string{"main", "main", "main", "100", "101", "70000"}

// table of a route; few nodes have routes of their own in local and default.
func (s *scenario) table() string {
	if s.odd && s.IntN(4) == 0 {
		return pick(s.Rand, "local", "default")
	}
	return pick(s.Rand, tables...)
}

func (s *scenario) prefix4() string {
	if s.IntN(6) == 0 {
		return "default"
	}
	bits := pick(s.Rand, 8, 9, 12, 16, 20, 24, 24, 25, 28, 32, 31)
	return netip.PrefixFrom(netip.MustParseAddr(s.address4()), bits).Masked().String()
}

func (s *scenario) prefix6() string {
	if s.IntN(6) == 0 {
		return "default"
	}
	bits := pick(s.Rand, 16, 32, 40, 48, 48, 56, 64, 64, 96, 128)
	return netip.PrefixFrom(netip.MustParseAddr(s.address6()), bits).Masked().String()
}

func (s *scenario) routes4() {
	for range 10 + s.IntN(30) {
		common := fmt.Sprintf("%s table %s%s%s", s.prefix4(), s.table(),
			s.maybe(fmt.Sprintf("metric %d", s.IntN(3)*50)), s.maybe("tos 0x10"))
		switch s.IntN(9) {
		case 0:
			s.add("route add %s %s", pick(s.Rand, "blackhole", "unreachable", "prohibit", "throw"), common)
		case 1:
			s.add("route add %s nexthop via %s dev %s onlink weight %d nexthop via %s dev %s onlink%s", common,
				s.address4(), s.dev(), 1+s.IntN(5), s.address4(), s.dev(), s.maybe("weight 3"))
		case 2:
			s.add("route add local %s dev %s", common, pick(s.Rand, "lo", s.dev()))
		case 3:
			s.add("route append %s via %s dev %s onlink", common, s.address4(), s.dev())
		case 4:
			s.add("route add %s via inet6 fe80::%x dev %s", common, 1+s.IntN(9), s.dev())
		case 5:
			s.add("route add %s dev %s%s", common, s.dev(), s.maybe("src "+s.address4()))
		default:
			s.add("route add %s via %s dev %s onlink%s%s", common, s.address4(), s.dev(), s.maybe("src "+s.address4()), s.maybe("mtu lock 1400"))
		}
	}
}

func (s *scenario) routes6() {
	for range 10 + s.IntN(30) {
		common := fmt.Sprintf("%s table %s%s", s.prefix6(), s.table(), s.maybe(fmt.Sprintf("metric %d", 1+s.IntN(3)*50)))
		if s.IntN(4) == 0 {
			common += " from " + netip.PrefixFrom(netip.MustParseAddr(s.address6()), pick(s.Rand, 32, 48, 64)).Masked().String()
		}
		via := fmt.Sprintf("via fe80::%x dev %s", 1+s.IntN(9), s.dev())
		switch s.IntN(8) {
		case 0:
			s.add("route add %s %s", pick(s.Rand, "blackhole", "unreachable", "prohibit", "throw"), common)
		case 1:
			s.add("route add %s nexthop %s weight %d nexthop via fe80::%x dev %s", common, via, 1+s.IntN(4), 10+s.IntN(9), s.dev())
		case 2:
			s.add("route add local %s dev %s", common, pick(s.Rand, "lo", s.dev()))
		case 3:
			s.add("route append %s %s", common, via)
		case 4:
			s.add("route append %s dev %s%s", common, s.dev(), s.maybe("src "+s.address6()))
		default:
			s.add("route add %s %s pref %s%s", common, via, pick(s.Rand, "low", "medium", "high"), s.maybe("src "+s.address6()))
		}
	}
}

// rules of both families; none for a third of the networks.
func (s *scenario) rules() {
	if s.IntN(3) == 0 {
		return
	}
	for range 1 + s.IntN(8) {
		for _, f := range []string{"-4", "-6"} {
			prefix := func() string {
				if f == "-4" {
					return s.prefix4()
				}
				return s.prefix6()
			}
			pref := 1 + s.IntN(50)
			selector := s.maybe("not") + s.maybe("from "+prefix()) + s.maybe("to "+prefix()) + s.maybe(pick(s.Rand, "fwmark 1", "fwmark 0x10/0xf0")) +
				s.maybe("iif "+pick(s.Rand, "v0", "v1", "lo", "gone"))
			if s.IntN(6) == 0 {
				selector += " " + pick(s.Rand, "oif v1", "ipproto tcp", "dport 80-90", "ipproto udp sport 53", "uidrange 0-100", "tos 0x10")
			}
			action := "lookup " + s.table()
			switch s.IntN(6) {
			case 0:
				action = pick(s.Rand, "blackhole", "unreachable", "prohibit", "nop")
			case 1:
				action = fmt.Sprintf("goto %d", pref+s.IntN(30))
			case 2:
				action += pick(s.Rand, " suppress_prefixlength 0", " suppress_prefixlength 16", " suppress_ifgroup 7")
			}
			s.addTo(f, "rule add%s %s pref %d", selector, action, pref)
		}
	}
	if s.IntN(3) == 0 { // as AWS's network plugin does
		s.add("rule add pref 20 lookup local")
		s.add("rule del pref 0")
	}
}

// newNetwork makes a random network and returns its namespace.
func newNetwork(t *testing.T, seed uint64) (*netns.NS, *scenario) {
	t.Helper()
	ns := netnstest.Test(t, "route")
	s := &scenario{Rand: rand.New(rand.NewPCG(seed, 1))}
	s.odd = seed%4 == 0
	for _, key := range []string{"net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"} {
		if _, err := ns.Run("", "sysctl", "-qw", key); err != nil {
			t.Fatal(err)
		}
	}
	s.links()
	s.addresses4()
	s.addresses6()
	s.routes4()
	s.routes6()
	s.rules()
	_, _ = ns.Run(strings.Join(s.lines, "\n")+"\n", "ip", "-force", "-batch", "-") // some are refused
	_, _ = ns.Run(strings.Join(s.lines6, "\n")+"\n", "ip", "-6", "-force", "-batch", "-")
	settle(t, ns)
	settleLocal(t, ns)
	return ns, s
}

// settleLocal waits for the routes to the node's own IPv6 addresses, which the
// kernel adds from the same queue (net/ipv6/addrconf.c, addrconf_dad_work). On a
// link without carrier an address may never get its route.
func settleLocal(t *testing.T, ns *netns.NS) {
	t.Helper()
	const patience, pause = time.Second, 5 * time.Millisecond
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(pause) {
		addresses, err := ns.Run("", "ip", "-6", "-o", "addr", "show", "up")
		if err != nil {
			t.Fatal(err)
		}
		routes, err := ns.Run("", "ip", "-6", "route", "show", "table", "local")
		if err != nil {
			t.Fatal(err)
		}
		missing := false
		for line := range strings.Lines(addresses) { // 2: v0    inet6 fec0::1:6/64 scope site …
			words := strings.Fields(line)
			address, _, _ := strings.Cut(words[3], "/")
			missing = missing || !strings.Contains(routes, "local "+address+" dev")
		}
		if !missing {
			return
		}
	}
}

// settle waits for the kernel's work queue, which sets carriers and then the
// flags of routes.
func settle(t *testing.T, ns *netns.NS) {
	t.Helper()
	for range 2000 {
		out, err := ns.Run("", "ip", "-br", "link")
		if err != nil {
			t.Fatal(err)
		}
		up := 0
		for line := range strings.Lines(out) {
			if words := strings.Fields(line); len(words) > 1 && words[1] == "UP" {
				up++
			}
		}
		if up == 7 { // three pairs and the bridge
			return
		}
	}
	t.Fatal("links don't get carrier")
}

// destinations to ask for: the borders of everything that is routed, and others.
func (s *scenario) destinations(n *route.Network, f packet.Family) []netip.Addr {
	var out []netip.Addr
	for _, r := range n.Boundaries(f) {
		out = append(out, r.First, r.Last, r.First.Prev(), r.Last.Next())
	}
	for range 50 {
		if f == packet.IPv4Family {
			out = append(out, netip.MustParseAddr(s.address4()))
		} else {
			out = append(out, netip.MustParseAddr(s.address6()))
		}
	}
	valid := out[:0]
	for _, a := range out {
		if a.IsValid() {
			valid = append(valid, a)
		}
	}
	return valid
}
