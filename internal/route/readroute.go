package route

import (
	"math/bits"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
)

// routeLine is a route whose family or table the line itself may leave open.
type routeLine struct {
	Route
	line int
	// table that the line names, empty without.
	table string
	// preferred: it has pref, which IPv6 routes alone have.
	preferred bool
}

// routeParser reads the words of a route's line.
type routeParser struct {
	routeLine
	// hop that is being read.
	hop    Nexthop
	hasHop bool
}

// routeLine reads a line of ip route:
//
//	default via 10.0.0.254 dev v0 metric 100 mtu 1400
//	broadcast 10.0.0.255 dev v0 table local proto kernel scope link src 10.0.0.1
//	10.5.0.0/16
//		nexthop via 10.0.0.3 dev v0 weight 2
//	10.12.0.0/16  encap ip id 100 src 0.0.0.0 dst 1.2.3.4 ttl 0 tos 0 via 10.0.0.9 dev v0
//	2001:db8:7::/48 from 2001:db8::/64 via fe80::3 dev v0 metric 1024 pref medium
func (r *reader) routeLine(words []string) {
	text := strings.Join(words, " ")
	if words[0] == "nexthop" {
		if len(r.routes) == 0 || r.lost {
			r.problem(text, "a next hop without its route")
			if r.lost && (len(r.routes) == 0 || r.routes[len(r.routes)-1].Text != "") {
				r.routes = append(r.routes, routeLine{line: r.line}) // finishRoutes notes the loss
			}
			return
		}
		r.moreHops(&r.routes[len(r.routes)-1], words, text)
		return
	}
	if legacy, ok := r.legacyRoute(words); ok {
		if len(legacy) == 0 {
			return
		}
		words, text = legacy, joined(legacy)
	}
	r.endText()
	l := routeParser{routeLine: routeLine{line: r.line}}
	l.Text = text
	rest, why := l.destination(words)
	answered := slices.Contains(rest, "uid") || words[0] == "cache"
	if answered {
		why = "an answer of ip route get, not a route"
	}
	if r.lost = why != ""; r.lost {
		r.problem(text, "%s", why)
		if !answered && (slices.Contains(words, "dev") || slices.Contains(words, "via") || typeNames[words[0]] != 0) { // more than a word in passing
			r.routes = append(r.routes, routeLine{line: r.line}) // finishRoutes notes the loss
		}
		return
	}
	l.words(rest)
	r.routes = append(r.routes, l.routeLine)
	r.complain(&l.routeLine)
}

// moreHops of the last route, each in a line of its own.
func (r *reader) moreHops(last *routeLine, words []string, text string) {
	if len(r.text) == 0 {
		r.text = append(r.text, last.Text...)
	}
	r.text = append(append(r.text, ' '), text...)
	before := last.Unknown
	l := routeParser{routeLine: *last}
	l.words(words)
	*last = l.routeLine
	if before == "" && last.Unknown != "" {
		r.problem(string(r.text), "%s", last.Unknown)
	}
}

// endText gives the last route the text of all its lines.
func (r *reader) endText() {
	if len(r.text) > 0 {
		r.routes[len(r.routes)-1].Text = string(r.text)
		r.text = r.text[:0]
	}
}

// legacyRoute turns a line of route -n or netstat -rn into the words of ip route;
// none for its headings:
//
//	Destination     Gateway         Genmask         Flags Metric Ref    Use Iface
//	0.0.0.0         192.168.5.1     0.0.0.0         UG    100    0        0 eth0
//	10.0.0.0        0.0.0.0         255.255.255.0   U     0      0        0 eth0
func (r *reader) legacyRoute(words []string) (route []string, ok bool) {
	if joined(words) == "Kernel IP routing table" {
		return nil, true
	}
	if len(words) != 8 {
		return nil, false
	}
	if words[2] == "Genmask" {
		r.metrics = words[4] == "Metric"
		return nil, true
	}
	destination, err := netip.ParseAddr(words[0])
	mask, maskErr := netip.ParseAddr(words[2])
	_, gatewayErr := netip.ParseAddr(words[1])
	isGateway := gatewayErr == nil || words[1] == "-" || words[1] == "*"
	if err != nil || maskErr != nil || !destination.Is4() || !mask.Is4() || !isGateway {
		return nil, false
	}
	length := 0
	for _, b := range mask.As4() {
		length += bits.OnesCount8(b)
	}
	route = []string{netip.PrefixFrom(destination, length).String()}
	if strings.Contains(words[3], "!") {
		route = append([]string{"unreachable"}, route...)
	} else {
		if strings.Contains(words[3], "G") {
			route = append(route, "via", words[1])
		}
		route = append(route, "dev", words[7])
		if !strings.Contains(words[3], "G") {
			route = append(route, "scope", "link")
		}
	}
	if r.metrics && words[4] != "0" {
		route = append(route, "metric", words[4])
	}
	return route, true
}

// complain tells once of what wasn't understood in a route.
func (r *reader) complain(l *routeLine) {
	if l.Unknown != "" {
		r.problem(l.Text, "%s", l.Unknown)
	}
}

var typeNames = map[string]Type{
	"unicast": Unicast, "local": Local, "broadcast": Broadcast, "anycast": Anycast, "multicast": Multicast,
	"blackhole": Blackhole, "unreachable": Unreachable, "prohibit": Prohibit, "throw": Throw,
}

// destination reads [TYPE] PREFIX and returns the words behind it.
func (l *routeParser) destination(words []string) (rest []string, why string) {
	if t, ok := typeNames[words[0]]; ok {
		l.Type, words = t, words[1:]
	}
	if len(words) == 0 {
		return nil, "expected a destination"
	}
	if words[0] == "default" {
		return words[1:], ""
	}
	p, ok := prefixOf(words[0])
	if !ok {
		return nil, "expected a destination, not " + strconv.Quote(words[0])
	}
	l.Destination, l.Family = p, packet.Of(p.Addr())
	return words[1:], ""
}

// prefixOf reads an address or prefix, host bits cleared.
func prefixOf(text string) (netip.Prefix, bool) {
	if p, err := netip.ParsePrefix(text); err == nil {
		return p.Masked(), !p.Addr().Is4In6()
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" || a.Is4In6() {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, a.BitLen()), true
}

// attributes without a meaning for where a packet goes, with a value, and without.
var (
	routeValues = []string{
		"advmss", "window", "rtt", "rttvar", "ssthresh", "cwnd", "reordering", "hoplimit", "initcwnd", "initrwnd",
		"rto_min", "quickack", "congctl", "fastopen_no_cookie", "expires", "error", "realm", "realms", "flow", "mark",
		"ttl-propagate", "iif", "users", "used", "age", "mtu",
	}
	routeFlags = []string{
		"pervasive", "offload", "trap", "notify", "unresolved", "rt_offload", "rt_trap", "rt_offload_failed",
		"offload_failed", "lock", "cache", "ecn", "features", "tcp_usec_ts",
	}
)

// words reads what follows the destination, or a next hop.
func (l *routeParser) words(words []string) {
	for i := 0; i < len(words); {
		if strings.HasPrefix(words[i], "#") {
			break
		}
		used := l.word(words[i:])
		if used == 0 {
			l.unknown("not understood: " + strings.Join(words[i:], " "))
			break
		}
		i += used
	}
	l.closeHop()
}

func (l *routeParser) unknown(why string) {
	if l.Unknown == "" {
		l.Unknown = why
	}
}

// closeHop ends the next hop that is being read.
func (l *routeParser) closeHop() {
	if l.hasHop {
		l.Nexthops = append(l.Nexthops, l.hop)
	}
	l.hop, l.hasHop = Nexthop{}, false
}

// word reads one attribute and returns how many words it has; 0 for none that is known.
func (l *routeParser) word(words []string) int {
	switch words[0] {
	case "nexthop":
		l.closeHop()
		l.hop, l.hasHop = Nexthop{Weight: 1}, true
		return 1
	case "encap":
		return l.encap(words)
	case "onlink", "dead", "linkdown":
		l.hop.flag(words[0])
		return 1
	}
	if slices.Contains(routeFlags, words[0]) {
		return 1
	}
	if len(words) < 2 {
		return 0
	}
	if slices.Contains(routeValues, words[0]) {
		if words[1] == "lock" && len(words) > 2 {
			return 3
		}
		return 2
	}
	if l.value(words[0], words[1]) {
		return 2
	}
	if words[0] == "via" && len(words) > 2 && familyNamed(words[1]) != 0 {
		return 3 * count(l.via(words[2], familyNamed(words[1])))
	}
	return 0
}

func (h *Nexthop) flag(name string) {
	switch name {
	case "onlink":
		h.OnLink = true
	case "dead":
		h.Dead = true
	case "linkdown":
		h.LinkDown = true
	}
}

func count(ok bool) int {
	if ok {
		return 1
	}
	return 0
}

// value reads an attribute of one value that matters; false where it isn't one.
func (l *routeParser) value(name, value string) bool {
	var err error
	var number uint64
	switch name {
	case "via":
		return l.via(value, 0)
	case "dev":
		l.hop.Interface, l.hasHop = value, true
	case "weight":
		l.hop.Weight, err = strconv.Atoi(value)
	case "proto", "protocol":
		l.Protocol = value
	case "table":
		l.table = value
	case "scope":
		scope, ok := scopeNamed(value)
		l.Scope = scope
		return ok
	case "metric", "priority", "preference":
		number, err = strconv.ParseUint(value, 10, 32)
		l.Metric = uint32(number)
	case "tos", "dsfield":
		tos, ok := tosNamed(value)
		l.TOS = tos
		return ok
	case "src":
		l.Source, err = netip.ParseAddr(value)
		l.hint(l.Source)
	case "from":
		return l.from(value)
	case "pref":
		return l.pref(value)
	case "nhid": // what it leads to follows, where ip knows
		_, err = strconv.ParseUint(value, 10, 32)
	default:
		return false
	}
	return err == nil
}

// via is a gateway. It tells the family of the route unless it says its own.
func (l *routeParser) via(value string, f packet.Family) bool {
	a, err := netip.ParseAddr(value)
	if err != nil || f != 0 && packet.Of(a) != f {
		return false
	}
	if f == 0 {
		l.hint(a)
	}
	l.hop.Via, l.hasHop = a, true
	return true
}

// hint: an address tells the family of a default route.
func (l *routeParser) hint(a netip.Addr) {
	if l.Family == 0 && a.IsValid() {
		l.Family = packet.Of(a)
	}
}

// from is the source of an IPv6 subtree.
func (l *routeParser) from(value string) bool {
	if value == "all" || value == "default" {
		return true
	}
	p, ok := prefixOf(value)
	if ok && p.Bits() > 0 {
		l.From = p
	}
	if ok {
		l.hint(p.Addr())
	}
	return ok
}

func (l *routeParser) pref(value string) bool {
	l.preferred = true
	switch value {
	case "high":
		l.Preference = 1
	case "low":
		l.Preference = -1
	default:
		return value == "medium"
	}
	return true
}

// encap is a lightweight tunnel; its own words end where the next hop begins.
func (l *routeParser) encap(words []string) int {
	end := len(words)
	for i := 2; i < len(words); i++ {
		if words[i] == "via" || words[i] == "dev" || words[i] == "nhid" || words[i] == "nexthop" {
			end = i
			break
		}
	}
	l.hop.Encap, l.hasHop = strings.Join(words[1:end], " "), true
	return end
}

// tosNamed reads a type of service as a number; ip prints names only where
// /etc/iproute2/rt_dsfield has one.
func tosNamed(value string) (uint8, bool) {
	switch value {
	case "default", "CS0":
		return 0, true
	}
	n, err := strconv.ParseUint(value, 0, 8)
	return uint8(n), err == nil
}
