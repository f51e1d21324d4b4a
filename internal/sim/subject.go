package sim

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/unmasq/unmasq/internal/ipset"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/route"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

// state of an expression's value.
type state uint8

const (
	known state = iota
	// open: the dump or the question doesn't tell.
	open
	// broken: the packet has no such thing, and the rule doesn't match whatever is
	// compared (NFT_BREAK).
	broken
)

// subject is an expression that rules ask about, made fit to run.
type subject struct {
	value func(r *run) (nftables.Value, state)
	// within asks whether an open value lies in one of the ranges; nil where that
	// is assumed both ways. text names it for people, why says why it is open.
	within    func(r *run, set []nftables.Interval) bool
	text, why string
	// chance: dice with so many sides, the first of which is offset.
	chance, offset uint32
}

// in asks whether a subject whose value is open lies in one of the ranges.
func (s *subject) in(r *run, set []nftables.Interval) bool {
	if s.chance > 0 {
		return s.throw(r, set)
	}
	if s.within != nil {
		return s.within(r, set)
	}
	return r.assume(fmt.Sprintf("%s %x", s.text, set), s.text, s.why, true)
}

// throw throws the dice: how much of them the ranges cover is the probability.
func (s *subject) throw(r *run, set []nftables.Interval) bool {
	covered := uint64(0)
	for _, g := range set {
		covered += s.sides(g)
	}
	p := float64(covered) / float64(s.chance)
	switch {
	case covered == 0:
		return false
	case p >= 1:
		return true
	}
	return r.choose("", "dice", alternative{weight: p}, alternative{weight: 1 - p}) == 0
}

// sides of the dice that lie in a range.
func (s *subject) sides(g nftables.Interval) uint64 {
	first, last := max(number(g.First), s.offset), min(number(g.Last), s.offset+s.chance-1)
	if first > last {
		return 0
	}
	return uint64(last-first) + 1
}

func constant(v nftables.Value, s state) func(*run) (nftables.Value, state) {
	return func(*run) (nftables.Value, state) { return v, s }
}

func opened(e nftables.Expr, why string) subject {
	return subject{value: constant("", open), text: nftables.ExprText(e), why: why}
}

// subjects of an expression: one for each part of a concatenation.
func (t nativeTable) subjects(e nftables.Expr) []subject {
	if c, ok := e.(nftables.Concat); ok {
		var all []subject
		for _, part := range c.Parts {
			all = append(all, t.subject(part))
		}
		return all
	}
	return []subject{t.subject(e)}
}

func (t nativeTable) subject(e nftables.Expr) subject {
	var s subject
	switch e := e.(type) {
	case nftables.Meta:
		s = metaSubject(e)
	case nftables.CT:
		s = ctSubject(e)
	case nftables.Payload:
		s = payloadSubject(e)
	case nftables.FIB:
		s = fibSubject(e)
	case nftables.RT:
		s = rtSubject(e)
	case nftables.Numgen:
		s = subject{value: constant("", open), chance: e.Modulus, offset: e.Offset}
	case nftables.JHash:
		s = subject{value: constant("", open), chance: e.Modulus, offset: e.Offset}
	case nftables.SymHash:
		s = subject{value: constant("", open), chance: e.Modulus, offset: e.Offset}
	case nftables.Binary:
		s = t.binarySubject(e)
	case nftables.Lookup:
		s = t.lookupSubject(e)
	case nftables.UnknownExpr:
		s = opened(e, e.Why)
		if e.Why == "" {
			s.why = "not understood"
		}
	default:
		s = opened(e, "it isn't followed")
	}
	if s.text == "" {
		s.text = nftables.ExprText(e)
	}
	if s.why == "" {
		s.why = "it isn't in a dump"
	}
	return s
}

func number32(n uint32) nftables.Value {
	return nftables.Value(binary.BigEndian.AppendUint32(nil, n))
}
func number8(n uint8) nftables.Value { return nftables.Value([]byte{n}) }

// fieldValues remembers what the packet's fields are as values: rules ask for the
// same ones again and again.
type fieldValues struct {
	source, destination  addressValue
	numbers              [8]numberValue
	sourcePort, destPort numberValue
}

type addressValue struct {
	of    netip.Addr
	value nftables.Value
}

func (v *addressValue) get(a netip.Addr) nftables.Value {
	if v.of != a {
		v.of, v.value = a, nftables.Value(a.AsSlice())
	}
	return v.value
}

type numberValue struct {
	of    uint32
	value nftables.Value
}

// number32 is a mark, a state or the like.
func (v *fieldValues) number32(n uint32) nftables.Value {
	at := &v.numbers[n%uint32(len(v.numbers))]
	if at.of != n || at.value == "" {
		*at = numberValue{n, number32(n)}
	}
	return at.value
}

func (v *numberValue) port(n uint16) nftables.Value {
	if v.of != uint32(n) || v.value == "" {
		*v = numberValue{uint32(n), number16(n)}
	}
	return v.value
}

func number16(n uint16) nftables.Value {
	return nftables.Value(binary.BigEndian.AppendUint16(nil, n))
}

// interfaceName is a name as registers hold it.
func interfaceName(name string) nftables.Value {
	var b [16]byte
	copy(b[:15], name)
	return nftables.Value(b[:])
}

// metaSubject is meta KEY: net/netfilter/nft_meta.c.
func metaSubject(e nftables.Meta) subject {
	switch e.Key {
	case "mark":
		return subject{value: func(r *run) (nftables.Value, state) {
			if r.markOpen {
				return "", open
			}
			return r.values.number32(r.mark), known
		}, why: "the chain that could mark it isn't in the dump"}
	case "iifname", "iif":
		return interfaceSubject(func(r *run) *openInterface { return &r.in })
	case "oifname", "oif":
		return interfaceSubject(func(r *run) *openInterface { return &r.out })
	case "l4proto":
		return subject{value: func(r *run) (nftables.Value, state) { return number8(r.protocol), known }}
	case "nfproto":
		return subject{value: func(r *run) (nftables.Value, state) {
			if r.family == packet.IPv4Family {
				return number8(2), known
			}
			return number8(10), known
		}}
	case "protocol":
		return subject{value: func(r *run) (nftables.Value, state) {
			if r.family == packet.IPv4Family {
				return number16(0x0800), known
			}
			return number16(0x86dd), known
		}}
	case "pkttype":
		return subject{value: packetType}
	case "skuid", "skgid", "cgroup":
		return subject{value: func(r *run) (nftables.Value, state) {
			if !r.local || r.hook == postrouting && r.isGroup() {
				return "", broken
			}
			return "", open
		}, text: "the sending process", why: "its user and group aren't known"}
	case "ibrname", "obrname":
		return subject{value: func(r *run) (nftables.Value, state) {
			if !r.bridged {
				return "", broken
			}
			return "", open
		}, text: "bridge ports", why: "the bridge port isn't known"}
	}
	return opened(e, "it isn't in a dump")
}

func packetType(r *run) (nftables.Value, state) {
	for i, name := range []string{"unicast", "broadcast", "multicast"} {
		switch r.certainPacketType(ruleset.PacketType{Type: name}) {
		case ipset.Yes:
			return number8(uint8(i)), known
		case ipset.Unknown:
			return "", open
		}
	}
	return number8(3), known // another host's
}

// interfaceSubject: where there is none, the name is empty.
func interfaceSubject(of func(*run) *openInterface) subject {
	return subject{
		value: func(r *run) (nftables.Value, state) {
			if i := of(r); i.known {
				return interfaceName(i.name), known
			}
			return "", open
		},
		within: func(r *run, set []nftables.Interval) bool {
			return slices.ContainsFunc(set, func(g nftables.Interval) bool { return r.interfaceIs(of(r), pattern(g), true) })
		},
	}
}

// pattern is a range of names as iptables writes it: eth0, or eth+.
func pattern(g nftables.Interval) ruleset.Interface {
	n := 0
	for n < len(g.First) && n < len(g.Last) && g.First[n] == g.Last[n] && g.First[n] != 0 {
		n++
	}
	return ruleset.Interface{Name: string(g.First[:n]), Wildcard: g.First != g.Last}
}

// portSubject is a port: what is open of it is narrowed by what rules ask.
func portSubject(side ruleset.Side, has func(*run) bool) subject {
	of := func(r *run) *openPort {
		if side == ruleset.Source {
			return &r.sport
		}
		return &r.dport
	}
	return subject{
		value: func(r *run) (nftables.Value, state) {
			switch {
			case !has(r):
				return "", broken
			case of(r).known:
				if side == ruleset.Source {
					return r.values.sourcePort.port(r.sport.port), known
				}
				return r.values.destPort.port(r.dport.port), known
			}
			return "", open
		},
		within: func(r *run, set []nftables.Interval) bool {
			ranges := make([]ruleset.PortRange, len(set))
			for i, g := range set {
				ranges[i] = ruleset.PortRange{First: uint16(number(g.First)), Last: uint16(number(g.Last))}
			}
			return r.within(of(r), side, ranges)
		},
	}
}

// Numbers of protocols whose headers rules name.
var headers = map[string]uint8{
	"tcp": packet.TCP, "udp": packet.UDP, "udplite": udpLite, "sctp": packet.SCTP, "dccp": dccp, "icmp": packet.ICMP, "icmpv6": packet.ICMPv6,
	"esp": 50, "ah": 51, "comp": 108, "igmp": 2, "gre": 47,
}

// payloadSubject is a field of a header: net/netfilter/nft_payload.c. nft puts a
// comparison of the protocol before it that its listing leaves out.
func payloadSubject(e nftables.Payload) subject {
	switch e.Protocol {
	case "ip", "ip6":
		return networkSubject(e)
	case "th":
		if s, ok := portField(e.Field, (*run).hasPorts); ok {
			s.value = anyPort(s.value)
			return s
		}
	case "tcp", "udp", "udplite", "sctp", "dccp", "icmp", "icmpv6", "esp", "ah", "comp", "igmp", "gre":
		return transportSubject(e)
	}
	return subject{value: func(r *run) (nftables.Value, state) {
		if e.Protocol == "ether" && r.local {
			return "", broken
		}
		return "", open
	}}
}

// anyPort: th dport of a protocol without ports reads what stands there instead.
func anyPort(value func(*run) (nftables.Value, state)) func(*run) (nftables.Value, state) {
	return func(r *run) (nftables.Value, state) {
		v, s := value(r)
		if s == broken {
			s = open
		}
		return v, s
	}
}

func portField(field string, has func(*run) bool) (subject, bool) {
	switch field {
	case "sport":
		return portSubject(ruleset.Source, has), true
	case "dport":
		return portSubject(ruleset.Destination, has), true
	}
	return subject{}, false
}

func networkSubject(e nftables.Payload) subject {
	family := packet.IPv4Family
	if e.Protocol == "ip6" {
		family = packet.IPv6Family
	}
	var read func(r *run) nftables.Value
	switch e.Field {
	case "saddr":
		read = func(r *run) nftables.Value { return r.values.source.get(r.src) }
	case "daddr":
		read = func(r *run) nftables.Value { return r.values.destination.get(r.dst) }
	case "protocol", "nexthdr":
		read = func(r *run) nftables.Value { return number8(r.protocol) }
	case "version":
		read = func(r *run) nftables.Value {
			if r.family == packet.IPv4Family {
				return number8(4)
			}
			return number8(6)
		}
	}
	return subject{value: func(r *run) (nftables.Value, state) {
		switch {
		case r.family != family:
			return "", broken
		case read == nil, e.Field == "saddr" && !r.sourceKnown:
			return "", open
		}
		return read(r), known
	}}
}

func transportSubject(e nftables.Payload) subject {
	want := headers[e.Protocol]
	has := func(r *run) bool { return r.protocol == want }
	if s, ok := portField(e.Field, has); ok {
		return s
	}
	return subject{value: func(r *run) (nftables.Value, state) {
		if !has(r) {
			return "", broken
		}
		first := r.connection == nil
		switch {
		case e.Field == "flags" && want == packet.TCP && first:
			return number8(0x02), known // SYN alone
		case e.Field == "type" && want == packet.ICMP:
			return number8(8), known
		case e.Field == "type" && want == packet.ICMPv6:
			return number8(128), known
		case e.Field == "code" && (want == packet.ICMP || want == packet.ICMPv6):
			return number8(0), known
		}
		return "", open
	}}
}

// ctSubject is ct KEY: net/netfilter/nft_ct.c.
func ctSubject(e nftables.CT) subject {
	if e.Key == "state" {
		return subject{value: func(r *run) (nftables.Value, state) { return r.values.number32(ctState(r.states())), known }}
	}
	read := ctField(e)
	return subject{value: func(r *run) (nftables.Value, state) {
		switch {
		case !r.tracked || r.noTrack:
			return "", broken
		case read == nil:
			return "", open
		}
		return read(r)
	}}
}

// Bits of ct state, which are those of linux/nf_conntrack_common.h.
func ctState(s ruleset.States) (bits uint32) {
	for _, x := range [...]struct {
		state ruleset.States
		bit   uint32
	}{{ruleset.StateInvalid, 1}, {ruleset.StateEstablished, 2}, {ruleset.StateRelated, 4}, {ruleset.StateNew, 8}, {ruleset.StateUntracked, 64}} {
		if s&x.state != 0 {
			bits |= x.bit
		}
	}
	return bits
}

// Bits of ct status: IPS_….
const (
	statusSeenReply       = 1 << 1
	statusAssured         = 1 << 2
	statusConfirmed       = 1 << 3
	statusSourceNAT       = 1 << 4
	statusDestinationNAT  = 1 << 5
	statusSourceDone      = 1 << 7
	statusDestinationDone = 1 << 8
)

func (r *run) ctStatus() (bits uint32) {
	have := r.statuses()
	for _, x := range [...]struct {
		is  bool
		bit uint32
	}{
		{have&ruleset.StatusSeenReply != 0, statusSeenReply}, {have&ruleset.StatusAssured != 0, statusAssured}, {have&ruleset.StatusConfirmed != 0, statusConfirmed},
		{r.states()&ruleset.StateSNAT != 0, statusSourceNAT}, {r.states()&ruleset.StateDNAT != 0, statusDestinationNAT},
		{r.boundSource, statusSourceDone}, {r.boundDest, statusDestinationDone},
	} {
		if x.is {
			bits |= x.bit
		}
	}
	return bits
}

func ctField(e nftables.CT) func(r *run) (nftables.Value, state) {
	switch e.Key {
	case "status":
		return func(r *run) (nftables.Value, state) { return r.values.number32(r.ctStatus()), known }
	case "mark":
		return func(r *run) (nftables.Value, state) { return r.values.number32(r.connMark), known }
	case "direction":
		return func(r *run) (nftables.Value, state) {
			if r.reply {
				return number8(1), known
			}
			return number8(0), known
		}
	case "l3proto":
		return func(r *run) (nftables.Value, state) {
			if r.family == packet.IPv4Family {
				return number8(2), known
			}
			return number8(10), known
		}
	case "protocol":
		return func(r *run) (nftables.Value, state) { return number8(r.protocol), known }
	case "saddr", "daddr", "proto-src", "proto-dst":
		return func(r *run) (nftables.Value, state) { return r.tupleField(e) }
	}
	return nil
}

func (r *run) tupleField(e nftables.CT) (nftables.Value, state) {
	of := r.original()
	if e.Direction == "reply" {
		of = r.replyTuple()
	}
	if e.Family == "ip" && r.family != packet.IPv4Family || e.Family == "ip6" && r.family != packet.IPv6Family {
		return "", broken
	}
	port := of.sport
	switch e.Key {
	case "saddr":
		return r.values.source.get(of.src), known
	case "daddr":
		return r.values.destination.get(of.dst), known
	case "proto-dst":
		port = of.dport
	}
	if port < 0 || !r.hasPorts() {
		return "", open
	}
	return number16(uint16(port)), known
}

// fibSubject is fib KEYS RESULT: net/ipv4/netfilter/nft_fib_ipv4.c.
func fibSubject(e nftables.FIB) subject {
	source := slices.Contains(e.Keys, "saddr")
	of := func(r *run) netip.Addr {
		if source {
			return r.src
		}
		return r.dst
	}
	if e.Result != "type" {
		return subject{value: func(r *run) (nftables.Value, state) { return r.fibInterface(e, source) }, why: "the route isn't known"}
	}
	return subject{
		value: func(r *run) (nftables.Value, state) {
			t, ok := r.node.host.Network.FIBType(r.fibQuery(e, source), r.fibDevice(e))
			if !ok {
				return "", open
			}
			return r.values.number32(uint32(t) + 1), known
		},
		within: func(r *run, set []nftables.Interval) bool {
			t := route.Unicast
			switch a := of(r); {
			case a.IsMulticast():
				t = route.Multicast
			case r.isLocal(a):
				t = route.Local
			}
			return contains(set, number32(uint32(t)+1))
		},
	}
}

// fibQuery is the lookup; that of a source is the way back.
func (r *run) fibQuery(e nftables.FIB, source bool) route.Query {
	q := route.Query{Source: r.src, Destination: r.dst, SourcePort: -1, DestinationPort: -1, OutInterface: r.in.name}
	if source {
		q.Source, q.Destination = q.Destination, q.Source
	}
	if slices.Contains(e.Keys, "mark") {
		q.Mark = r.mark
	}
	return q
}

func (r *run) fibDevice(e nftables.FIB) string {
	switch {
	case slices.Contains(e.Keys, "iif") && r.in.known:
		return r.in.name
	case slices.Contains(e.Keys, "oif") && r.out.known:
		return r.out.name
	}
	return ""
}

// fibInterface is the interface of the route to an address, empty without one.
// check asks whether there is one.
func (r *run) fibInterface(e nftables.FIB, source bool) (nftables.Value, state) {
	if !source || !slices.Contains(e.Keys, "iif") || !r.in.known || !r.routesKnown() {
		return "", open
	}
	name := ""
	if r.in.name == "lo" {
		name = "lo"
	} else {
		back, kind, found, ok := r.node.host.Network.FIBInterface(r.fibQuery(e, source), r.in.name)
		if !ok {
			return "", open
		}
		if found && kind != route.Local && kind != route.Anycast && back == r.in.name {
			name = back
		}
	}
	if e.Result == "check" {
		if name != "" {
			return number8(1), known
		}
		return number8(0), known
	}
	return interfaceName(name), known
}

// rtSubject is rt nexthop: the gateway, or the destination on a link.
func rtSubject(e nftables.RT) subject {
	if e.Key != "nexthop" {
		return opened(e, "it isn't in a dump")
	}
	return subject{value: func(r *run) (nftables.Value, state) {
		switch {
		case e.Family == "ip" && r.family != packet.IPv4Family || e.Family == "ip6" && r.family != packet.IPv6Family:
			return "", broken
		case !r.route.Known:
			return "", open
		case r.nextHop.IsValid():
			return nftables.Value(r.nextHop.AsSlice()), known
		}
		return r.values.destination.get(r.dst), known
	}}
}

func contains(set []nftables.Interval, v nftables.Value) bool {
	for i := range set {
		if set[i].Contains(v) {
			return true
		}
	}
	return false
}
