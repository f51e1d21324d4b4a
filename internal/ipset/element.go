package ipset

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"go4.org/netipx"

	"github.com/unmasq/unmasq/internal/packet"
)

// elementParser reads elements. Its slices are used again for each.
type elementParser struct {
	set *Set
	// prefixes of each address, several where it is a range.
	prefixes [2][]prefix
	rest     rest
	name     string // of an interface
	// ranges is what is left of maxRanges.
	ranges int
	pieces []netip.Prefix
}

// options of an element, behind it.
//
//	timeout 299 nomatch packets 0 bytes 0 comment "hello, wor'ld x" wildcard
func (e *elementParser) options(text string) error {
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimSpace(text) {
		word, rest, _ := strings.Cut(text, " ")
		text = strings.TrimSpace(rest)
		switch word {
		case "nomatch":
			e.rest.flags |= nomatch
		case "wildcard":
			e.rest.flags |= wildcard
		case "timeout", "packets", "bytes", "skbmark", "skbprio", "skbqueue", "before", "after":
			_, text, _ = strings.Cut(text, " ")
		case "comment":
			_, text = cutQuoted(text)
		case "-exist", "--exist", "-!":
		default:
			return fmt.Errorf("%s: no option of an element that is known", word)
		}
	}
	return nil
}

// cutQuoted takes a word, or what stands between quotation marks; ipset allows
// none within.
func cutQuoted(text string) (quoted, rest string) {
	if !strings.HasPrefix(text, `"`) {
		quoted, rest, _ = strings.Cut(text, " ")
		return quoted, rest
	}
	quoted, rest, _ = strings.Cut(text[1:], `"`)
	return quoted, rest
}

// parse reads an element as written, without its options.
//
//	10.0.0.1,tcp:80,10.1.0.0/16
func (e *elementParser) parse(text string) error {
	e.prefixes[0], e.prefixes[1] = e.prefixes[0][:0], e.prefixes[1][:0]
	e.rest.protocol, e.rest.first, e.rest.last = 0, 0, 0
	addresses := 0
	parts := e.set.kind.parts
	for i, p := range parts {
		one, following, more := strings.Cut(text, ",")
		if i == len(parts)-1 {
			one, more = text, false
		}
		if p == host || p == network {
			if err := e.address(addresses, one); err != nil {
				return err
			}
			addresses++
		} else if err := e.other(p, one); err != nil {
			return err
		}
		text = following
		if !more && i < len(parts)-1 && parts[i+1] != optionalMAC {
			return fmt.Errorf("an element of %s has %d parts", e.set.Type, len(parts))
		}
		if !more {
			break
		}
	}
	for i := addresses; i < len(e.prefixes); i++ {
		e.prefixes[i] = append(e.prefixes[i], prefix{})
	}
	return nil
}

// address reads an address, a prefix, or a range of IPv4 addresses.
func (e *elementParser) address(i int, text string) error {
	var err error
	if from, to, ok := strings.Cut(text, "-"); ok {
		err = e.addressRange(i, from, to)
	} else {
		var p netip.Prefix
		if p, err = parsePrefix(text); err == nil {
			e.prefixes[i] = append(e.prefixes[i], prefix{addressOf(p.Addr()), uint8(p.Bits())})
			err = e.fits(p.Addr(), p.Masked().Addr(), netipx.PrefixLastIP(p))
		}
	}
	return err
}

func parsePrefix(text string) (netip.Prefix, error) {
	if strings.IndexByte(text, '/') >= 0 {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return p, fmt.Errorf("%s: expected an address or a prefix", text)
		}
		return p, nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, fmt.Errorf("%s: expected an address or a prefix", text)
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}

func (e *elementParser) addressRange(i int, from, to string) error {
	first, err := netip.ParseAddr(from)
	if err != nil {
		return fmt.Errorf("%s: expected an address", from)
	}
	last, err := netip.ParseAddr(to)
	if err != nil {
		return fmt.Errorf("%s: expected an address", to)
	}
	r := netipx.IPRangeFrom(first, last)
	if !r.IsValid() || !first.Is4() {
		return fmt.Errorf("%s-%s: expected a range of IPv4 addresses", from, to)
	}
	if e.ranges <= 0 {
		return errRanges
	}
	e.pieces = r.AppendPrefixes(e.pieces[:0])
	for _, p := range e.pieces {
		e.prefixes[i] = append(e.prefixes[i], prefix{addressOf(p.Addr()), uint8(p.Bits())})
	}
	return e.fits(first, first, last)
}

// fits says what the kernel says of addresses that the set can't hold.
func (e *elementParser) fits(a, first, last netip.Addr) error {
	s := e.set
	if packet.Of(a) != s.Family {
		return fmt.Errorf("%s isn't of the set's family, %s", a, s.Family)
	}
	if r := s.Options.Range; r.First.IsValid() && !(r.Contains(first) && r.Contains(last)) {
		return fmt.Errorf("%s isn't in the set's range, %s-%s", a, r.First, r.Last)
	}
	return nil
}

// other reads a part that is no address.
func (e *elementParser) other(p part, text string) error {
	switch p {
	case port:
		return e.port(text)
	case plainPort:
		if err := e.port(text); err != nil {
			return err
		}
		e.rest.protocol = 0
		if o := e.set.Options; e.rest.first < uint32(o.FirstPort) || e.rest.last > uint32(o.LastPort) {
			return fmt.Errorf("%s isn't in the set's range, %d-%d", text, o.FirstPort, o.LastPort)
		}
		return nil
	case mark:
		m, err := strconv.ParseUint(text, 0, 32)
		if err != nil {
			return fmt.Errorf("%s: expected a mark", text)
		}
		e.rest.first = uint32(m) & e.set.Options.MarkMask
		e.rest.last = e.rest.first
		return nil
	case mac, optionalMAC:
		return checkMAC(text)
	}
	return e.iface(text)
}

// iface is a name, or a bridge port's behind physdev:.
func (e *elementParser) iface(text string) error {
	e.rest.flags &^= physdev
	name := text
	if port, ok := strings.CutPrefix(text, "physdev:"); ok {
		name = port
		e.rest.flags |= physdev
	}
	const most = 15 // IFNAMSIZ - 1
	if name == "" || len(name) > most {
		return fmt.Errorf("%q: expected the name of an interface", text)
	}
	e.name = name
	return nil
}

// port reads a protocol and a port, a range of them, or an ICMP type and code.
// Without a protocol it is TCP.
//
//	tcp:80  udp:53-60  icmp:echo-request  icmp:8/0  47:0  80
func (e *elementParser) port(text string) error {
	name, ports, ok := strings.Cut(text, ":")
	if !ok {
		name, ports = "tcp", text
	}
	protocol, err := parseProtocol(name)
	if err != nil {
		return err
	}
	e.rest.protocol = protocol
	switch protocol {
	case packet.ICMP:
		return e.icmp(ports, icmpNames)
	case packet.ICMPv6:
		return e.icmp(ports, icmpv6Names)
	}
	from, to, ok := strings.Cut(ports, "-")
	if !ok {
		to = from
	}
	first, err := strconv.ParseUint(from, 10, 16)
	last, err2 := strconv.ParseUint(to, 10, 16)
	if err != nil || err2 != nil {
		return fmt.Errorf("%s: expected the number of a port", ports)
	}
	e.rest.first, e.rest.last = uint32(min(first, last)), uint32(max(first, last))
	if !hasPorts(protocol) && e.rest.last != 0 {
		return fmt.Errorf("%s has no ports: expected %s:0", name, name)
	}
	return nil
}

func parseProtocol(name string) (uint8, error) {
	if n, ok := protocolNumber(name); ok {
		return n, nil
	}
	n, err := strconv.ParseUint(name, 10, 8)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%s: expected a protocol", name)
	}
	return uint8(n), nil
}

func hasPorts(protocol uint8) bool {
	switch protocol {
	case packet.TCP, packet.UDP, packet.SCTP, udplite:
		return true
	}
	return false
}

func (e *elementParser) icmp(text string, names map[string]uint32) error {
	value, known := names[text]
	if !known {
		kind, code, ok := strings.Cut(text, "/")
		k, err := strconv.ParseUint(kind, 10, 8)
		c, err2 := strconv.ParseUint(code, 10, 8)
		if !ok || err != nil || err2 != nil {
			return fmt.Errorf("%s: expected an ICMP type and code", text)
		}
		value = uint32(k<<8 | c)
	}
	e.rest.first, e.rest.last = value, value
	return nil
}

func checkMAC(text string) error {
	const form = "00:11:22:33:44:55"
	ok := len(text) == len(form)
	for i := 0; ok && i < len(form); i++ {
		if form[i] == ':' {
			ok = text[i] == ':'
		} else {
			ok = strings.IndexByte("0123456789abcdefABCDEF", text[i]) >= 0
		}
	}
	if !ok {
		return fmt.Errorf("%s: expected a hardware address", text)
	}
	return nil
}

// maxRanges bounds what ranges of addresses may come to, in all sets of a text:
// ipset prints none, only people write them.
const maxRanges = 1 << 18

var errRanges = errors.New("too many ranges of addresses")

// add puts the parsed element into the set.
func (e *elementParser) add() error {
	s := e.set
	if n := len(e.prefixes[0]) * len(e.prefixes[1]); n > 1 {
		if e.ranges -= n; e.ranges < 0 {
			return errRanges
		}
	}
	if e.name != "" {
		e.rest.first = s.interfaceNumber(e.name)
		e.rest.last = e.rest.first
	}
	var err error
	for _, first := range e.prefixes[0] {
		for _, second := range e.prefixes[1] {
			if !s.add([2]prefix{first, second}, e.rest) {
				err = errors.New("it is in the set already, with nomatch or without")
			}
		}
	}
	s.length++
	return err
}

func (s *Set) interfaceNumber(name string) uint32 {
	n, ok := s.numbers[name]
	if !ok {
		if s.numbers == nil {
			s.numbers = map[string]uint32{}
		}
		n = uint32(len(s.interfaces))
		s.interfaces = append(s.interfaces, name)
		s.numbers[name] = n
	}
	return n
}
