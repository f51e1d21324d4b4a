package matrix

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/explain"
	"github.com/unmasq/unmasq/internal/sim"
)

// answerLost follows the server's answer: what was translated is only translated back
// where the answer meets the node that holds the connection. Where it isn't lost, why
// is what that depends on, if anything.
func (j *journey) answerLost(o *explain.Outcome) (why string, lost bool) {
	if len(j.holders) == 0 || !j.source.IsValid() {
		return "", false
	}
	server := j.w.serves(j.node, o)
	if server == nobody {
		return j.answerFromUnknown(o)
	}
	from, to := j.w.nodes[server], j.source
	if why, lost := j.swallowed(o); lost {
		return why, true
	}
	// The last that translated it is the first that translates it back.
	for i := len(j.holders) - 1; i >= 0; i-- {
		hops := j.w.explain.Path(sim.Question{
			Source: o.Destination, Destination: to, Protocol: j.w.Protocol, SourcePort: destinationPort(o), DestinationPort: sourcePort,
			At: from.Name, Local: from.holds(o.Destination),
		})
		if why, lost = j.meets(o, from, hops, i); why != "" {
			return why, lost
		}
		from, to = j.w.nodes[max(j.w.named(j.holders[i].node), 0)], j.holders[i].before
	}
	return "", false
}

// holder of a connection: a node that translated its first packet, and the source that it
// had before.
type holder struct {
	node   string
	before netip.Addr
}

// meets says why an answer doesn't meet a holder, if it doesn't, or what that depends on.
func (j *journey) meets(o *explain.Outcome, from *node, hops []sim.Hop, i int) (why string, lost bool) {
	var through []string
	for _, h := range hops {
		if !h.Aside {
			through = append(through, h.Node)
		}
	}
	last := &hops[len(hops)-1]
	for _, d := range last.Outcome.DependsOn {
		if d.What == "routes" {
			return "the way back of the answer: " + d.Why, false
		}
	}
	holder := j.holders[i].node
	switch v := last.Outcome.Verdict; {
	case slices.Contains(through, holder) && i == 0 && (v == sim.Dropped || v == sim.Rejected) && last.Outcome.DecidedBy != nil:
		return fmt.Sprintf("the answer is %s on %s: %s", v, last.Node, decidedText(last.Outcome.DecidedBy)), true
	case slices.Contains(through, holder):
		return "", false
	case hops[0].Aside:
		return fmt.Sprintf("the answer crosses bridge %s of %s past its rules, which alone could translate it back", o.OutInterface, from.Name), true
	}
	return fmt.Sprintf("the answer leaves %s %s and doesn't come by %s, which holds the connection", strings.Join(through, ", "), leaving(last), holder), true
}

// swallowed: what comes back to where it came from is bridged, where bridges ask
// iptables, and a bridge's port gives nothing back to itself unless it's told to.
func (j *journey) swallowed(o *explain.Outcome) (why string, lost bool) {
	host := j.w.nodes[max(j.w.named(j.node), 0)].Host
	bridge := host.Network.Link(o.OutInterface)
	if o.Destination != j.q.Source || o.InInterface != o.OutInterface || bridge == nil || bridge.Kind != "bridge" {
		return "", false
	}
	call := "net.bridge.bridge-nf-call-iptables"
	if o.Destination.Is6() {
		call = "net.bridge.bridge-nf-call-ip6tables"
	}
	if host.Sysctls[call] != "1" {
		return "", false
	}
	off := false
	for i := range host.Network.Links {
		if l := &host.Network.Links[i]; l.Master == bridge.Name {
			if l.Hairpin != "off" {
				return "", false
			}
			off = true
		}
	}
	return fmt.Sprintf("bridge %s of %s gives nothing back to the port that it came from (hairpin mode is off)", bridge.Name, j.node), off
}

func decidedText(d *sim.Decider) string {
	if d.Route != nil {
		return d.Route.Text
	}
	return d.Text
}

func leaving(h *sim.Hop) string {
	if h.Outcome.OutInterface == "" {
		return "for its own client"
	}
	return "by " + h.Outcome.OutInterface
}

// serves is the node that has the server of an outcome: its own, or that of the pods
// behind it; nobody where the packet leaves for a node that isn't known.
func (w *world) serves(at string, o *explain.Outcome) int {
	n := w.nodes[max(w.named(at), 0)]
	switch {
	case o.ToNode, n.holds(o.Destination):
		return n.index
	case n.network(o.Destination) != nil && o.Encapsulated == nil:
		return n.index
	}
	return nobody
}

// answerFromUnknown: of a server whose node isn't known, answers to a holder's own
// addresses and pods come back to it; of all others nobody can tell.
func (j *journey) answerFromUnknown(o *explain.Outcome) (why string, lost bool) {
	if at := j.w.whereIs(j.source); at != nobody && slices.Contains(j.holderNames(), j.w.nodes[at].Name) {
		return "", false
	}
	return fmt.Sprintf("the way back: whether %s answers %s by way of %s, which holds the connection", o.Destination, shown(j.source), strings.Join(j.holderNames(), " and ")), false
}

func shown(a netip.Addr) string {
	if !a.IsValid() {
		return "the client"
	}
	return a.String()
}

func (j *journey) holderNames() (names []string) {
	for _, h := range j.holders {
		names = append(names, h.node)
	}
	return names
}
