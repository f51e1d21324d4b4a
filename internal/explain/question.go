package explain

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/sim"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// Request is a question as it was typed. What is empty isn't stated.
type Request struct {
	// Source is an address, a network, a name, or an interface of the node.
	Source string
	// Destination is ADDRESS[:PORT][/PROTOCOL]; the address can be a network or a name.
	Destination string
	// InInterface, OutInterface, SourcePort, Mark and Via as in [sim.Question].
	InInterface, OutInterface, SourcePort, Mark, Via string
	Local                                            bool
	// At names the node that has the packet first, where there are several.
	At    string
	Names Names
}

// Asked is what a request asks for.
type Asked struct {
	sim.Question
	// Sources or Destinations is valid where a network was named; the question
	// has its first address.
	Sources, Destinations netip.Prefix
}

// Parse reads a request about a packet that one of the hosts sees first. An
// error names the argument, its value, and what was expected.
func (r Request) Parse(hosts ...*snapshot.Host) (Asked, error) {
	q := Asked{Question: sim.Question{
		InInterface: r.InInterface, OutInterface: r.OutInterface, Local: r.Local, SourcePort: sim.UnknownPort, At: r.At,
	}}
	to, err := parseEnd(r.Destination, r.Names)
	if err != nil {
		return Asked{}, fmt.Errorf("destination %q: %w", r.Destination, err)
	}
	from, err := r.source(to, hosts)
	if err != nil {
		return Asked{}, fmt.Errorf("source %q: %w", r.Source, err)
	}
	if q.Source, q.Destination, err = oneFamily(from, to); err != nil {
		return Asked{}, err
	}
	q.Sources, q.Destinations = from.network, to.network
	q.Protocol, q.DestinationPort = to.protocol, to.port
	q.Local = q.Local || from.local
	if err := r.flags(&q.Question); err != nil {
		return Asked{}, err
	}
	if err := check(&q); err != nil {
		return Asked{}, err
	}
	if err := interfaceExists("--in-interface", r.InInterface, hosts); err != nil {
		return Asked{}, err
	}
	return q, interfaceExists("--out-interface", r.OutInterface, hosts)
}

// source reads the source; local where it is an interface of the node.
func (r Request) source(to end, hosts []*snapshot.Host) (end, error) {
	e, err := parseEnd(r.Source, r.Names)
	if err != nil {
		found, ok, foundErr := interfaceEnd(r.Source, to, hosts)
		if foundErr != nil || ok {
			return found, foundErr
		}
		return end{}, fmt.Errorf("%w; nor is it an interface of the node", err)
	}
	switch {
	case e.port != sim.UnknownPort:
		return end{}, fmt.Errorf("a source has no port here; expected --source-port %d", e.port)
	case e.stated:
		return end{}, errors.New("the protocol stands behind the destination; expected an address")
	}
	return e, nil
}

// flags reads those that aren't plain words.
func (r Request) flags(q *sim.Question) error {
	if r.SourcePort != "" {
		port, err := parsePort(r.SourcePort)
		if err != nil {
			return fmt.Errorf("--source-port %q: %w", r.SourcePort, err)
		}
		q.SourcePort = port
	}
	if r.Mark != "" {
		mark, err := parseMark(r.Mark)
		if err != nil {
			return fmt.Errorf("--mark %q: %w", r.Mark, err)
		}
		q.Mark = mark
	}
	if r.Via != "" {
		a, err := r.Names.address(r.Via)
		if err != nil {
			return fmt.Errorf("--via %q: %w", r.Via, err)
		}
		q.Via = a[0]
	}
	return nil
}

// end of a flow as typed.
type end struct {
	// addresses that it may have: more than one for a name with several.
	addresses []netip.Addr
	network   netip.Prefix
	port      int
	protocol  uint8
	// stated: the protocol was; else it is tcp with a port and any without.
	stated bool
	// local: an interface of the node was named.
	local bool
}

// parseEnd reads
//
//	192.0.2.7  192.0.2.7:443  192.0.2.7/udp  192.0.2.7:443/udp  web-0  default/web-0:80
//	2001:db8::7  [2001:db8::7]:443/udp  10.0.0.0/8  10.0.0.0/8:443/tcp  [2001:db8::/32]:443
func parseEnd(text string, names Names) (end, error) {
	e := end{port: sim.UnknownPort}
	host, rest, err := splitHost(text, names)
	if err != nil {
		return end{}, err
	}
	if address, bits, ok := strings.Cut(host, "/"); ok && !names.has(host) {
		if e.network, err = parseNetwork(address, bits); err != nil {
			return end{}, err
		}
		e.addresses = []netip.Addr{e.network.Addr()}
	} else if e.addresses, err = names.address(host); err != nil {
		return end{}, err
	}
	port, protocol, hasProtocol := strings.Cut(rest, "/")
	if port != "" {
		if e.port, err = parsePort(strings.TrimPrefix(port, ":")); err != nil {
			return end{}, err
		}
		e.protocol = packet.TCP
	}
	if hasProtocol {
		if e.protocol, err = parseProtocol(protocol); err != nil {
			return end{}, err
		}
		e.stated = true
	}
	if e.port != sim.UnknownPort && !hasPorts(e.protocol) {
		return end{}, fmt.Errorf("%s has no ports; expected tcp, udp or sctp", protocolName(e.protocol))
	}
	return e, nil
}

// splitHost parts the text behind the address, name or network; rest is empty
// or begins with : or /.
func splitHost(text string, names Names) (host, rest string, err error) {
	if inner, ok := strings.CutPrefix(text, "["); ok {
		host, rest, closed := strings.Cut(inner, "]")
		if !closed || rest != "" && rest[0] != ':' && rest[0] != '/' || !strings.Contains(host, ":") {
			return "", "", errors.New("expected [IPV6]:PORT")
		}
		if bits, more := leadingBits(rest); bits != "" && !strings.Contains(host, "/") {
			return host + bits, more, nil // [2001:db8::]/32:443
		}
		return host, rest, nil
	}
	if names.has(text) {
		return text, "", nil
	}
	for i := len(text) - 1; i > 0; i-- { // a name may have slashes: namespace/pod
		if (text[i] == ':' || text[i] == '/') && names.has(text[:i]) {
			return text[:i], text[i:], nil
		}
	}
	host, rest = text, ""
	if i := strings.IndexByte(text, '/'); i >= 0 {
		host, rest = text[:i], text[i:]
	}
	if strings.Count(host, ":") == 1 {
		i := strings.IndexByte(host, ':')
		return host[:i], host[i:] + rest, nil
	}
	if bits, more := leadingBits(rest); bits != "" && isNetwork(host, bits[1:], more) {
		return host + bits, more, nil
	}
	return host, rest, nil
}

// leadingBits cuts a prefix length from the front: "/8:443" is "/8" and ":443".
func leadingBits(rest string) (bits, more string) {
	if len(rest) < 2 || rest[0] != '/' {
		return "", rest
	}
	n := 1
	for n < len(rest) && '0' <= rest[n] && rest[n] <= '9' {
		n++
	}
	if n == 1 || n < len(rest) && rest[n] != ':' && rest[n] != '/' {
		return "", rest
	}
	return rest[:n], rest[n:]
}

// isNetwork tells 10.0.0.0/8, a network, from 10.0.0.1/17, UDP to an address: a
// network has no bits behind its length, or something behind it. What is no
// protocol that people write as a number is a network with a slip.
func isNetwork(address, bits, more string) bool {
	a, err := netip.ParseAddr(address)
	n, errBits := strconv.Atoi(bits)
	if err != nil || errBits != nil {
		return false
	}
	if n > a.BitLen() {
		bytes := a.AsSlice()
		return bytes[len(bytes)-1] == 0 // 10.0.0.0/33: no host is meant
	}
	if p, err := a.Prefix(n); more != "" || err == nil && p.Addr() == a {
		return true
	}
	return !isProtocol(n)
}

func parseNetwork(address, bits string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(address + "/" + bits)
	switch {
	case err != nil:
		return p, fmt.Errorf("%s/%s is not a network; expected one such as 10.0.0.0/8", address, bits)
	case p.Addr().Is4In6():
		return p, errors.New("an IPv4-mapped network is seen by no rule; expected an IPv4 one")
	case p != p.Masked():
		return p, fmt.Errorf("%s has bits behind its length; expected %s, or the address alone", p, p.Masked())
	}
	return p, nil
}

func parsePort(text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("port %q; expected a number from 1 to 65535", text)
	}
	return int(n), nil
}

// parseMark reads 0x4000 and 16384.
func parseMark(text string) (uint32, error) {
	digits, base := text, 10
	if hex, ok := strings.CutPrefix(strings.ToLower(text), "0x"); ok {
		digits, base = hex, 16
	}
	n, err := strconv.ParseUint(digits, base, 32)
	if err != nil {
		return 0, errors.New("expected a number of 32 bits, such as 0x4000 or 16384")
	}
	return uint32(n), nil
}

// interfaceEnd is the node's address on the interface of that name, of the
// destination's family; ok is false where no host has such an interface.
func interfaceEnd(name string, to end, hosts []*snapshot.Host) (e end, ok bool, err error) {
	known := false
	for _, h := range hosts {
		known = known || h.Network.Link(name) != nil
		for i := range h.Network.Addresses {
			a := &h.Network.Addresses[i]
			if a.Interface != name {
				continue
			}
			known = true
			ip := a.Prefix.Addr()
			usable := !a.Tentative && !a.Failed && ip.IsLinkLocalUnicast() == to.addresses[0].IsLinkLocalUnicast()
			if usable && packet.Of(ip) == packet.Of(to.addresses[0]) {
				return end{addresses: []netip.Addr{ip}, port: sim.UnknownPort, local: true}, true, nil
			}
		}
	}
	if known {
		return end{}, false, fmt.Errorf("interface %s has no %s address to send from; expected an address", name, packet.Of(to.addresses[0]))
	}
	return end{}, false, nil
}

// interfaceExists refuses a name that none of the nodes has, where all their
// interfaces are known.
func interfaceExists(flag, name string, hosts []*snapshot.Host) error {
	if len(hosts) == 0 || name == "" {
		return nil
	}
	var have []string
	for _, h := range hosts {
		if !h.Network.KnownLinks || h.Network.Link(name) != nil {
			return nil
		}
		for i := range h.Network.Links {
			have = append(have, h.Network.Links[i].Name)
		}
	}
	const most = 12
	if len(have) > most {
		have = append(have[:most], "…")
	}
	return fmt.Errorf("%s %s: the node has none of that name; expected one of %s", flag, name, strings.Join(have, ", "))
}

// oneFamily chooses addresses of one family.
func oneFamily(from, to end) (source, destination netip.Addr, err error) {
	for _, s := range from.addresses {
		for _, d := range to.addresses {
			if packet.Of(s) == packet.Of(d) {
				return s, d, nil
			}
		}
	}
	s, d := from.addresses[0], to.addresses[0]
	return s, d, fmt.Errorf("source %s is %s, destination %s is %s; expected one family", s, packet.Of(s), d, packet.Of(d))
}

// check says what is wrong with a question whose words are right.
func check(q *Asked) error {
	family := q.Family()
	switch {
	case q.Sources.IsValid() && q.Destinations.IsValid():
		return fmt.Errorf("source %s and destination %s are both networks; expected one of them to be an address", q.Sources, q.Destinations)
	case q.Protocol == packet.ICMP && family == packet.IPv6Family:
		return errors.New("protocol icmp is IPv4's; expected icmpv6")
	case q.Protocol == packet.ICMPv6 && family == packet.IPv4Family:
		return errors.New("protocol icmpv6 is IPv6's; expected icmp")
	case q.SourcePort != sim.UnknownPort && !hasPorts(q.Protocol):
		return fmt.Errorf("--source-port %d: protocol %s has no ports; expected a destination with /tcp, /udp or /sctp", q.SourcePort, protocolName(q.Protocol))
	case q.Via.IsValid() && packet.Of(q.Via) != family:
		return fmt.Errorf("--via %s is %s, the flow is %s; expected one family", q.Via, packet.Of(q.Via), family)
	case q.Local && q.InInterface != "":
		return fmt.Errorf("--in-interface %s: what the node itself sends comes in by none; expected it or --local (or an interface as source), not both", q.InInterface)
	}
	if !q.Sources.IsValid() {
		if why := impossibleSource(&q.Question); why != "" {
			return fmt.Errorf("source %s: %s", q.Source, why)
		}
	}
	if !q.Destinations.IsValid() && q.Destination.IsUnspecified() {
		return fmt.Errorf("destination %s: no packet goes there; expected an address", q.Destination)
	}
	q.Local = q.Local || q.Source.IsLoopback() && q.InInterface == ""
	return nil
}

// impossibleSource says why nothing can send from the question's source; empty
// where something can.
func impossibleSource(q *sim.Question) string {
	a := q.Source
	switch {
	case a.IsMulticast():
		return "a multicast address is no interface's; expected a host's address"
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "the broadcast address is no interface's; expected a host's address"
	case a.IsUnspecified():
		return "no interface has that address; expected a host's address"
	case a.IsLoopback() && q.InInterface != "" && q.InInterface != "lo":
		return "a loopback address comes in by no interface but lo; expected --local without --in-interface"
	}
	return ""
}
