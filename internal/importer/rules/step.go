package rules

import (
	"net/netip"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/policy"
	"github.com/unmasq/unmasq/internal/ruleset"
)

// chain is one of iptables or of nftables, made of steps.
type chain struct {
	name  string
	steps []step
}

// step is a rule in parts that regions can be cut by.
type step struct {
	// refs are the rules that it is made of: several where they differ in an address.
	refs []Ref
	// parts must all hold, for those with not the contrary.
	parts []part
	marks []markTest
	// never: no packet that policies decide fits it.
	never bool
	// in is the interface that packets must have come in by; "": any.
	in string
	// unsaid is what of its conditions a region can't have, in words.
	unsaid []string
	// elements: sets whose present elements the parts have.
	elements []string
	// losses are what of its action a policy can't say.
	losses []string
	act    act
	// chain of a jump; nil: the dump doesn't have it, which unsaid has then.
	chain *chain
	// entry to be made, for translations.
	entry Entry
	// mark: what it does to the packet's mark.
	mark ruleset.SetMark
}

// part is a region that a packet must be in, or must not.
type part struct {
	region Region
	not    bool
}

// markTest is mark & mask == value.
type markTest struct {
	value, mask uint32
	not         bool
}

func (m markTest) holds(mark uint32) bool { return (mark&m.mask == m.value) != m.not }

// ofGuards: the mark is one whose packets policies leave alone.
func (m markTest) ofGuards() bool {
	guards := policy.DefaultServiceMark.Mask | policy.DefaultHostPortMark.Mask
	return m.mask&^guards == 0 || m.mask == ^uint32(0) && m.value != 0 && m.value&^guards == 0
}

// act is what a step does with packets that fit it.
type act uint8

const (
	// nothing: it counts, logs.
	nothing act = iota
	translate
	// accept ends the base chain, goBack (return) the chain.
	accept
	goBack
	jump
	// leap is goto.
	leap
	setMark
	// stop: it drops, or does something that isn't known.
	stop
)

// where makes a part of what differs from everything.
func (s *step) where(f packet.Family, not bool, cut func(*Region)) {
	r := everything(f)
	cut(&r)
	s.parts = append(s.parts, part{r, not})
}

func (s *step) addresses(f packet.Family, side ruleset.Side, in, except []netip.Prefix, not bool) {
	s.where(f, not, func(r *Region) {
		a := Addresses{In: in, Except: except}
		if side == ruleset.Source {
			r.Source = a
		} else {
			r.Destination = a
		}
	})
}

// protocol asks for one, with ports where there are some.
func (s *step) protocol(f packet.Family, number uint8, ports []ruleset.PortRange, not bool) {
	switch number {
	case packet.TCP, packet.UDP, packet.SCTP:
	default:
		s.unsaid = append(s.unsaid, "a protocol other than tcp, udp and sctp")
		return
	}
	if ports == nil {
		ports = []ruleset.PortRange{{First: 0, Last: 65535}}
	}
	s.where(f, not, func(r *Region) {
		for _, p := range ports {
			r.Ports = append(r.Ports, policy.PortMatch{Protocol: number, PortRange: policy.PortRange{First: p.First, Last: p.Last}})
		}
	})
}

// out asks for the interface. Nothing that policies decide leaves by lo.
func (s *step) out(f packet.Family, pattern string, not bool) {
	switch pattern {
	case "*":
		s.never = s.never || not
	case "lo":
		s.never = s.never || !not
	default:
		s.where(f, not, func(r *Region) { r.Out = []string{pattern} })
	}
}

// settleIn says what is asked of the interface that packets come in by, as far as that
// can be: of a rule that translates, or jumps, that they come from its networks.
func (s *step) settleIn(f packet.Family, networks map[string][]netip.Prefix) {
	var in []netip.Prefix
	for _, p := range networks[s.in] {
		if packet.Of(p.Addr()) == f {
			in = append(in, p)
		}
	}
	switch {
	case s.in == "":
	case s.act != translate && s.act != jump || len(in) == 0:
		s.unsaid = append(s.unsaid, "the interface that packets came in by")
	default:
		s.addresses(f, ruleset.Source, in, nil, false)
		s.where(f, false, func(r *Region) { r.Node = false })
		s.losses = append(s.losses, "a policy can't ask for the interface that packets came in by: those from the networks of "+s.in+" are meant")
	}
}

// cut a region by the step: what of it fits, and what doesn't because of a condition
// that can't be cut out in one piece. false: nothing of it fits.
func (s *step) cut(r state) (fits state, skips []Region, some bool) {
	if s.never {
		return r, nil, false
	}
	for _, m := range s.marks {
		if !m.holds(r.mark) {
			return r, nil, false
		}
	}
	fits = r
	for _, p := range s.parts {
		if !p.not {
			if fits.Region, some = fits.and(p.region); !some {
				return r, nil, false
			}
		} else if rest, one := p.without(fits.Region); one {
			if fits.Region = rest; rest.empty() {
				return r, nil, false
			}
		} else {
			skips = append(skips, p.region)
		}
	}
	for _, skip := range skips {
		if fits.within(skip) {
			return r, nil, false
		}
	}
	return fits, skips, true
}

// addresses of one side, where the part is about nothing else, so that except can say
// its contrary.
func (p part) addresses() (in []netip.Prefix, side ruleset.Side, ok bool) {
	r := p.region
	if r.Out != nil || r.Ports != nil || !r.Forwarded || !r.Node {
		return nil, 0, false
	}
	if r.Destination.IsAll() {
		return r.Source.In, ruleset.Source, len(r.Source.Except) == 0
	}
	return r.Destination.In, ruleset.Destination, r.Source.IsAll() && len(r.Destination.Except) == 0
}

// ofOrigin: the part is about who sends the packet alone.
func (p part) ofOrigin() bool {
	r := p.region
	return r.Out == nil && r.Ports == nil && r.Source.IsAll() && r.Destination.IsAll() && r.Forwarded != r.Node
}

// without the part, where that is one region.
func (p part) without(from Region) (Region, bool) {
	if in, side, ok := p.addresses(); ok {
		if side == ruleset.Source {
			from.Source = from.Source.without(in)
		} else {
			from.Destination = from.Destination.without(in)
		}
		return from, true
	}
	if p.ofOrigin() {
		from.Forwarded, from.Node = from.Forwarded && !p.region.Forwarded, from.Node && !p.region.Node
		return from, true
	}
	return from, false
}

// join takes in the next rule of the chain where both let packets go that differ in the
// addresses of one side alone: lists of networks to be kept are one step then, and what
// comes after them is asked once.
func (s *step) join(next *step) bool {
	if s.act != next.act || s.act != goBack && s.act != accept || !s.plain() || !next.plain() {
		return false
	}
	in, side, _ := s.parts[0].addresses()
	more, other, _ := next.parts[0].addresses()
	if side != other {
		return false
	}
	joined := Addresses{In: joinPrefixes(in, more)}
	if side == ruleset.Source {
		s.parts[0].region.Source = joined
	} else {
		s.parts[0].region.Destination = joined
	}
	s.refs = append(s.refs, next.refs...)
	return true
}

// plain: it asks for addresses of one side and nothing else.
func (s *step) plain() bool {
	if s.never || len(s.parts) != 1 || s.parts[0].not || s.in != "" || len(s.marks)+len(s.unsaid)+len(s.losses)+len(s.elements) > 0 {
		return false
	}
	_, _, ok := s.parts[0].addresses()
	return ok
}
