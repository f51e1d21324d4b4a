package ipset

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/unmasq/unmasq/internal/cidr"
	"github.com/unmasq/unmasq/internal/packet"
)

func newSet(name string, line int) *Set {
	return &Set{Name: name, Line: line, announced: -1, Options: Options{LastPort: 1<<16 - 1, MarkMask: 1<<32 - 1}}
}

// setType takes a type by any of its names.
func (s *Set) setType(name string) {
	s.Type, s.kind = kindOf(name)
	if s.kind.families != noFamily {
		s.Family = packet.IPv4Family
	}
}

// options reads the options of a set, from a create line or a header. What isn't
// known could change what the set holds: no answer of it is sure then.
//
//	family inet hashsize 1024 maxelem 65536 timeout 300 counters comment bucketsize 12 initval 0xd5fa205b
//	range 10.0.0.0-10.0.0.255 netmask 26
func (s *Set) options(text string) error {
	s.Options.Text = strings.TrimSpace(text)
	words := strings.Fields(text)
	if at := slices.Index(words, "family"); at >= 0 && at+1 < len(words) {
		_ = s.family(words[at+1]) // others depend on it; said below where it is wrong
	}
	for len(words) > 0 {
		word := strings.TrimLeft(words[0], "-")
		words = words[1:]
		value := ""
		if takesValue(word) {
			if len(words) == 0 {
				return s.doubtful(fmt.Errorf("%s: expected a value", word))
			}
			value, words = words[0], words[1:]
		}
		if err := s.option(word, value); err != nil {
			return s.doubtful(err)
		}
	}
	if s.kind.families == onlyIPv4 && !s.Options.Range.First.IsValid() {
		return s.doubtful(fmt.Errorf("the range of a %s is missing", s.Type))
	}
	return nil
}

func (s *Set) doubtful(err error) error {
	if s.doubt == "" {
		s.doubt = "an option of it isn't understood: " + err.Error()
	}
	return err
}

func takesValue(word string) bool {
	switch word {
	case "counters", "comment", "forceadd", "skbinfo", "exist", "!":
		return false
	}
	return true
}

func (s *Set) option(word, value string) error {
	switch word {
	case "family":
		return s.family(value)
	case "range":
		return s.holds(value)
	case "from", "to": // before 2011
		return fmt.Errorf("%s %s: expected range", word, value)
	case "netmask":
		return s.netmask(value)
	case "bitmask":
		// ipset prints a /number behind that of a hash:net,net, which is anything.
		text, _, _ := strings.Cut(value, "/")
		m, err := netip.ParseAddr(text)
		if err != nil || packet.Of(m) != s.Family {
			return fmt.Errorf("bitmask %s: expected a mask", value)
		}
		s.Options.Mask = m
	case "markmask":
		m, err := strconv.ParseUint(value, 0, 32)
		if err != nil {
			return fmt.Errorf("markmask %s: expected a mask", value)
		}
		s.Options.MarkMask = uint32(m)
	case "timeout":
		s.Options.Timeout = true
	case "counters":
		s.Options.Counters = true
	case "comment":
		s.Options.Comment = true
	case "skbinfo":
		s.Options.SKBInfo = true
	case "hashsize", "maxelem", "bucketsize", "initval", "size", "probes", "resize", "gc", "forceadd", "exist", "!":
		// How the kernel stores it; what it holds doesn't depend on these.
	default:
		return fmt.Errorf("%s %s", word, value)
	}
	return nil
}

func (s *Set) family(value string) error {
	if s.kind.families == noFamily {
		return nil
	}
	switch value {
	case "inet", "ipv4", "4":
		s.Family = packet.IPv4Family
	case "inet6", "ipv6", "6":
		s.Family = packet.IPv6Family
	default:
		return fmt.Errorf("family %s: expected inet or inet6", value)
	}
	if s.kind.families == onlyIPv4 && s.Family != packet.IPv4Family {
		return fmt.Errorf("family %s: a %s holds IPv4 addresses", value, s.Type)
	}
	return nil
}

// netmask is a prefix length.
func (s *Set) netmask(value string) error {
	most := 32
	if s.Family == packet.IPv6Family {
		most = 128
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 || n > most {
		return fmt.Errorf("netmask %s: expected a length from 1 to %d", value, most)
	}
	ones := address{^uint64(0), ^uint64(0)}
	s.Options.Mask = ones.masked(uint8(n)).netip(s.Family)
	return nil
}

// holds reads the range of a bitmap, of addresses or of ports.
func (s *Set) holds(value string) error {
	from, to, isRange := strings.Cut(value, "-")
	if s.kind.families == onlyIPv4 {
		p, err := parsePrefix(from)
		r := cidr.Range{}
		if err == nil {
			r = cidr.FromPrefix(p)
		}
		if isRange && err == nil {
			r.Last, err = netip.ParseAddr(to)
		}
		if err != nil || !r.First.Is4() || !r.Last.Is4() || r.Last.Less(r.First) {
			return fmt.Errorf("range %s: expected a range of IPv4 addresses", value)
		}
		s.Options.Range = r
		return nil
	}
	first, err := strconv.ParseUint(from, 10, 16)
	last, err2 := strconv.ParseUint(to, 10, 16)
	if err != nil || err2 != nil || s.Type != "bitmap:port" {
		return fmt.Errorf("range %s: expected a range of ports", value)
	}
	s.Options.FirstPort, s.Options.LastPort = uint16(first), uint16(last)
	return nil
}
