package sim

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/conntrack"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/route"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

// asked is a question, with what all its runs have in common.
type asked struct {
	question Question
	options  Options
	// depth is that of tunnels in tunnels.
	depth int
	// The node itself sends it, or it comes in by an interface.
	fromNode bool
	comesIn  openInterface
}

// run is one packet on its way, with what was chosen where its way is open.
type run struct {
	dice
	node *Node
	*asked

	family       packet.Family
	local        bool
	src, dst     netip.Addr
	protocol     uint8
	sport, dport openPort
	mark         uint32
	in, out      openInterface
	// nextHop of the route, invalid on connected ones.
	nextHop netip.Addr
	route   route.Result
	// routeMark is the mark that the route of a local packet was looked up with;
	// needRoute: it has to be looked up again.
	routeMark uint32
	needRoute bool
	// rewritten: a rule has changed what else of the header asks for a new route.
	rewritten bool
	// hook and table where the packet is.
	hook    hook
	table   *ruleset.Table
	bridged bool
	// lower are the devices below the in-interface; bridge is the one that the
	// packet is on at a hook of bridges.
	lower  []device
	bridge string

	// Connection tracking. tracked: the packet has passed conntrack's hook.
	tracked, noTrack       bool
	connection             *conntrack.Entry
	reply                  bool
	connMark               uint32
	boundSource, boundDest bool
	// redirected to the node itself, at an address that isn't known.
	redirected bool
	// markOpen: the excerpt lacks a chain that could have marked it.
	markOpen bool
	// balanced: IPVS has chosen a real server.
	balanced bool
	// dnated, snated: an address or port was really changed.
	dnated, snated bool
	kind           SourceKind
	port           Port
	// sourceKnown is false after a masquerade whose address isn't known.
	sourceKnown bool
	decider     *Decider
	verdict     Verdict
	rejectWith  string
	// doubt: something that isn't known could have dropped it.
	doubt bool
	// hiddenNAT: so could something have translated it.
	hiddenNAT bool
	toNode    bool
	tunnel    *Encapsulated
	dependsOn []Dependency
	// lacking are tables and chains that the dump doesn't have.
	lacking []string
	steps   []Step
	// values of the packet's fields; parts of keys that are being looked up.
	values fieldValues
	parts  []nftables.Part
	conf   interfaceConf
	// elements that native rules found the packet in; those of the rule at hand
	// start at elementsAt. Steps hold parts of it.
	elements   []*nftables.Element
	elementsAt int
	// translation that it came to; toText is what to say of it, where that is known
	// beforehand.
	translation ruleset.Target
	toText      string
	// stepsLost: there were more.
	stepsLost bool
}

const protocolKey = "protocol"

// Protocols that rules can ask for the ports of, beside those of package packet.
const (
	dccp    = 33
	udpLite = 136
)

// anyProtocols stand for all, where the question names none; 253 is one that no
// rule names (RFC 3692).
var anyProtocols = [...]uint8{packet.TCP, packet.UDP, packet.ICMP, packet.SCTP, 253}

const anyProtocol = "the question names none"

// protocolAlternatives are those of anyProtocols.
var protocolAlternatives = []alternative{
	{why: anyProtocol, when: "it is tcp"}, {why: anyProtocol, when: "it is udp"}, {why: anyProtocol, when: "it is icmp"},
	{why: anyProtocol, when: "it is sctp"}, {why: anyProtocol, when: "it is another"},
}

// begin puts the packet at the start of its way, which is the same for all runs
// of a question.
func (r *run) begin(a *asked) {
	q := &a.question
	*r = run{
		dice: dice{path: r.path, way: r.way, budget: r.budget}, node: r.node, asked: a,
		family: q.Family(), src: q.Source, dst: q.Destination, protocol: q.Protocol,
		mark: q.Mark, local: a.fromNode, in: a.comesIn,
		kind: Kept, verdict: Accepted, sourceKnown: true,
		steps: r.steps[:0], lacking: r.lacking[:0], parts: r.parts[:0], values: r.values, conf: r.conf, elements: r.elements,
	}
	if q.Protocol == 0 {
		r.protocol = anyProtocols[r.choose(protocolKey, "protocol", protocolAlternatives...)]
		if r.protocol == packet.ICMP && r.family == packet.IPv6Family {
			r.protocol = packet.ICMPv6
		}
	}
	if r.hasPorts() {
		r.sport, r.dport = portOf(q.SourcePort), portOf(q.DestinationPort)
		r.port.Known = r.sport.known
		r.port.First, r.port.Last = r.sport.port, r.sport.port
	} else {
		r.sport, r.dport = portOf(0), portOf(0)
	}
}

func (r *run) hasPorts() bool {
	switch r.protocol {
	case packet.TCP, packet.UDP, packet.SCTP, dccp, udpLite:
		return true
	}
	return false
}

// follow sends the packet on its way and says what became of it.
func (r *run) follow() Outcome {
	if r.local {
		r.sendLocally()
	} else {
		r.receive()
	}
	return r.outcome()
}

// entry says where a question's packet comes from: the node itself, or an interface.
func (n *Node) entry(q *Question) (local bool, in openInterface) {
	if q.Local {
		return true, interfaceNamed("")
	}
	if mine, known := n.host.Network.IsLocal(q.Source); known && mine && q.InInterface == "" {
		return true, interfaceNamed("")
	}
	name, known := q.InInterface, true
	if name == "" {
		name, known = n.host.Network.InterfaceFor(q.Source)
	}
	if known && name != "" {
		return false, interfaceNamed(name)
	}
	return false, openInterface{what: "in-interface", why: "it isn't given, and no route to " + q.Source.String() + " tells"}
}

// receive is the way of a packet that comes in by an interface.
func (r *run) receive() {
	r.out = interfaceNamed("")
	bridged := r.isBridged()
	called := (bridged || r.comesByBridge()) && r.bridgeCallsIPTables()
	if !r.arrive(called, bridged) {
		return
	}
	if bridged && !called {
		r.crossBridge(false)
		return
	}
	original := r.dst
	if !r.pass(prerouting) {
		return
	}
	if bridged = bridged && r.dst == original; called && !r.arriveRest(bridged) {
		return
	}
	if bridged {
		r.crossBridge(true)
		return
	}
	if !r.routeIn() {
		return
	}
	if r.toNode {
		r.out = interfaceNamed("")
		if r.pass(input) && r.balanced {
			r.sendOn()
		}
		return
	}
	if r.pass(forward) && r.pass(postrouting) && r.depart() {
		r.leave()
	}
}

// sendLocally is the way of a packet that the node itself sends.
func (r *run) sendLocally() {
	if !r.routeOut() {
		return
	}
	if !r.pass(output) {
		return
	}
	if !r.settleOut() || !r.pass(postrouting) || !r.depart() {
		return
	}
	if r.toNode {
		r.loopBack()
		return
	}
	r.leave()
}

// loopBack is the rest of the way of what the node sends to itself: it comes in
// again through lo, already tracked, already routed.
func (r *run) loopBack() {
	r.in, r.out = interfaceNamed("lo"), interfaceNamed("")
	if r.atDevice(ingress) && r.pass(prerouting) {
		r.pass(input)
	}
}

// stop ends the packet.
func (r *run) stop(v Verdict, at RuleRef, effect string) {
	r.verdict = v
	r.decider = &Decider{Rule: &at}
	r.step(at, effect)
}

// lacks notes what the dump doesn't have, where the packet's way needed it.
func (r *run) lacks(what, why string) {
	if len(r.dependsOn) >= mostLacking {
		what, why = "rules", "more is missing than is listed"
	}
	r.dependsOn = appendDependency(r.dependsOn, Dependency{What: what, Why: why})
}

// lacksRules notes a table or chain that the dump doesn't have; they are said
// together.
func (r *run) lacksRules(name string) {
	if !slices.Contains(r.lacking, name) {
		r.lacking = append(r.lacking, name)
	}
}

func (r *run) step(at RuleRef, effect string) {
	s := Step{Hook: r.hook.String(), At: at, Matched: true, Effect: effect}
	if at.Rule != nil && at.Table.Native != nil {
		s.Translation = r.translation
		if n := len(r.elements); n > r.elementsAt {
			s.Elements = r.elements[r.elementsAt:n:n]
		}
	}
	r.record(s)
}

// natAsks says whether NAT chains are still asked about this packet: they see
// the first packet of a tracked connection, until an address is bound.
func (r *run) natAsks() bool {
	if r.noTrack || r.connection != nil {
		return false
	}
	if r.hook == prerouting || r.hook == output {
		return !r.boundDest
	}
	return !r.boundSource
}

// endNAT binds what no rule has bound, as the kernel does: nothing later asks again.
func (r *run) endNAT() {
	if r.hook == prerouting || r.hook == output {
		r.boundDest = true
	} else {
		r.boundSource = true
	}
}

// outcome is what became of the packet.
func (r *run) outcome() Outcome {
	o := Outcome{
		Probability: 1, Verdict: r.verdict, SourceKind: r.kind, SourcePort: r.port,
		Destination: r.dst, DestinationPort: UnknownPort, ToNode: r.toNode, Mark: r.mark, Protocol: r.question.Protocol,
		DecidedBy: r.decider, RejectWith: r.rejectWith, DependsOn: r.dependsOn, Steps: slices.Clone(r.steps), Encapsulated: r.tunnel,
	}
	if !r.local && r.in.known {
		o.InInterface = r.in.name
	}
	if r.hasPorts() && r.dport.known {
		o.DestinationPort = int(r.dport.port)
	}
	if r.sourceKnown {
		o.Source = r.src
	}
	if !r.toNode && r.out.known {
		o.OutInterface, o.NextHop, o.outAssumed = r.out.name, r.nextHop, r.out.what != ""
	}
	if r.stepsLost {
		o.Steps = append(o.Steps, Step{Hook: r.hook.String(), Matched: true, Effect: "more steps than are kept"})
	}
	if len(r.lacking) > 0 {
		o.DependsOn = append(slices.Clip(o.DependsOn), Dependency{What: "rules", Why: "not in the dump, taken as empty: " + strings.Join(r.lacking, ", ")})
	}
	if r.hiddenNAT && o.Verdict == Accepted {
		o.SourceKind, o.Source, o.SourcePort = SourceUnknown, netip.Addr{}, Port{}
	}
	if r.doubt && o.Verdict == Accepted {
		o.Verdict = VerdictUnknown
	}
	return o
}
