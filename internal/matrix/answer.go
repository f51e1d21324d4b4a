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
	from := j.w.nodes[server]
	hops := j.w.explain.Path(sim.Question{
		Source: o.Destination, Destination: j.source, Protocol: j.w.Protocol, SourcePort: destinationPort(o), DestinationPort: sourcePort,
		At: from.Name, Local: from.holds(o.Destination),
	})
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
	for _, holder := range j.holders {
		if slices.Contains(through, holder) {
			continue
		}
		if hops[0].Aside {
			return fmt.Sprintf("the answer crosses bridge %s of %s past its rules, which alone could translate it back", o.OutInterface, from.Name), true
		}
		return fmt.Sprintf("the answer leaves %s %s and doesn't come by %s, which holds the connection", strings.Join(through, ", "), leaving(last), holder), true
	}
	if v := last.Outcome.Verdict; (v == sim.Dropped || v == sim.Rejected) && last.Outcome.DecidedBy != nil {
		return fmt.Sprintf("the answer is %s on %s: %s", v, last.Node, decidedText(last.Outcome.DecidedBy)), true
	}
	return "", false
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
	if at := j.w.whereIs(j.source); at != nobody && slices.Contains(j.holders, j.w.nodes[at].Name) {
		return "", false
	}
	return fmt.Sprintf("the way back: whether %s answers %s by way of %s, which holds the connection", o.Destination, shown(j.source), strings.Join(j.holders, " and ")), false
}

func shown(a netip.Addr) string {
	if !a.IsValid() {
		return "the client"
	}
	return a.String()
}
