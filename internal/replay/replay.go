// Package replay lets this machine's kernel judge a prediction. It builds a node
// like a snapshot's in network namespaces of its own: interfaces as veths and
// bridges, addresses, routes, rules and sysctls, sets and tables loaded by the
// real programs. It sends the packet there, and compares what becomes of it.
//
// It touches no namespace but those that it makes, and takes them down whatever
// happens, but for SIGKILL: the next replay then sweeps.
//
//	result, err := replay.Run(ctx, replay.Node{Host: host, Sources: sources}, question)
package replay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/explain"
	"github.com/unmasq/unmasq/internal/kernel/capture"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/sim"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// Node to replay on.
type Node struct {
	Host    *snapshot.Host
	Sources []snapshot.Source
}

// impossible says why something can't be replayed: an answer, no error.
type impossible struct{ error }

func cannot(format string, args ...any) error { return impossible{fmt.Errorf(format, args...)} }

// Run sends the question's packet through the node, as often as it has several
// outcomes. The question is as it was explained: Local where the node sends it.
func Run(ctx context.Context, n Node, q sim.Question) (*explain.Replay, error) {
	if err := Allowed(); err != nil {
		return nil, err
	}
	r := &replay{Node: n, question: q, model: sim.New(n.Host)}
	r.predicted = r.model.Run(q, sim.Options{})
	err := r.run(ctx)
	if ctx.Err() != nil {
		return nil, fmt.Errorf("replay: %w", context.Cause(ctx))
	}
	var why impossible
	if errors.As(err, &why) {
		return &explain.Replay{Seen: []explain.Fate{}, Why: why.Error(), LeftOut: r.leftOut()}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("replay: %w", err)
	}
	return r.verdict(), nil
}

// Allowed says why this process can't replay at all; nil where it can.
func Allowed() error {
	if os.Geteuid() != 0 {
		return errors.New("--replay makes network namespaces and loads rules there: run it as root")
	}
	return nil
}

// replay is one run.
type replay struct {
	Node
	question  sim.Question
	model     *sim.Node
	predicted []sim.Outcome
	*scratch
	// shots are the packets with their fates.
	shots []shot
}

func (r *replay) run(ctx context.Context) error {
	in, err := r.possible()
	if err != nil {
		return err
	}
	r.scratch, err = newScratch()
	if err != nil {
		return err
	}
	defer r.close()
	if err := r.build(ctx, r.Node, r.destinations()); err != nil {
		return err
	}
	if err := r.load(ctx, r.Node); err != nil {
		return err
	}
	if err := r.open(); err != nil {
		return err
	}
	if err := r.send(ctx, in); err != nil {
		return err
	}
	r.readBack(ctx)
	return nil
}

// leftOut is what is missing of the node, and what a tunnel would have done.
func (r *replay) leftOut() []string {
	if r.scratch == nil {
		return nil
	}
	all := r.missing
	for i := range r.predicted {
		what := fmt.Sprintf("what tunnel %s makes of the packet: a veth stands in for it", r.predicted[i].OutInterface)
		if slices.Contains(r.tunnels, r.predicted[i].OutInterface) && !slices.Contains(all, what) {
			all = append(all, what)
		}
	}
	return all
}

// possible says what stands in the way of a replay before anything is built, or
// by which interface the packet comes in.
func (r *replay) possible() (in string, err error) {
	q, network := r.question, &r.Host.Network
	switch missing := network.Missing(q.Family()); {
	case !network.Of(q.Family()).Main:
		return "", cannot("no %s routing table was given", q.Family())
	case len(missing) > 0:
		return "", cannot("not given: %s", strings.Join(missing, ", "))
	case q.OutInterface != "" || q.Via.IsValid():
		return "", cannot("--out-interface and --via stand in for routes, which the kernel asks")
	case q.Mark != 0:
		return "", cannot("no packet can be sent with a mark that it has already")
	case q.Destination.IsMulticast():
		return "", cannot("the destination is a multicast address, whose listeners aren't in the snapshot")
	}
	if slices.ContainsFunc(r.predicted, func(o sim.Outcome) bool { return o.DecidedBy != nil && o.DecidedBy.Connection != nil }) {
		return "", cannot("a connection that exists decides, and the node that is built has none")
	}
	if q.Local {
		return "", nil
	}
	if in = q.InInterface; in == "" {
		in = r.predicted[0].InInterface
	}
	switch link := network.Link(in); {
	case in == "":
		return "", cannot("which interface the packet comes in by isn't known: give --in-interface")
	case in == "lo":
		return "", cannot("a packet that comes in by lo can't be sent from outside")
	case link != nil && link.Master != "":
		return "", cannot("interface %s is a port of %s: give that as --in-interface", in, link.Master)
	}
	return in, nil
}

// verdict compares.
func (r *replay) verdict() *explain.Replay {
	out := &explain.Replay{LeftOut: r.leftOut(), Seen: r.fates()}
	agree, no := true, false
	unknown, wrong := 0, 0
	for i := range r.shots {
		switch r.shots[i].result {
		case Unknown:
			unknown++
		case Wrong:
			wrong++
		}
	}
	never := ""
	if wrong == 0 && unknown == 0 {
		never = r.neverSeen()
	}
	switch {
	case wrong == 0 && unknown > 0:
		out.Why = "the prediction says that it can't tell"
	case wrong == 0 && never == "":
		out.Agrees = &agree
	case len(r.missing) > 0:
		out.Why = "the kernel did otherwise, on a node that isn't quite the snapshot's"
	case r.different != "":
		out.Why = "the kernel did otherwise, on a node that reads back differently from the snapshot: " + r.different
	case wrong > 0:
		out.Agrees, out.Why = &no, fmt.Sprintf("%d of %d packets had a fate that wasn't predicted; why isn't known", wrong, len(r.shots))
	default:
		out.Agrees, out.Why = &no, fmt.Sprintf("predicted, and never seen in %d packets: %s", len(r.shots), never)
	}
	return out
}

// least probability of an outcome that must be seen in so many packets.
const least = 0.2

// neverSeen names an outcome that should have been seen. Not where a hash of the
// flow chooses: it chooses the same for all that look alike to it.
func (r *replay) neverSeen() string {
	if len(r.shots) < repeats || slices.ContainsFunc(r.Host.Network.Routes, func(x route) bool { return len(x.Nexthops) > 1 }) {
		return ""
	}
	want := shares(r.shots[0].predicted)
	seen := map[string]bool{}
	for i := range r.shots {
		s := &r.shots[i]
		if s.flow.Protocol != r.shots[0].flow.Protocol || !sameShares(want, shares(s.predicted)) {
			return "" // a rule looks at what differs between the packets
		}
		for _, o := range s.predicted {
			if Agrees(s.flow, s.fate, o, MayBeLost) {
				seen[outcomeKey(o)] = true
			}
		}
	}
	for _, k := range sortedKeys(want) {
		if want[k] >= least && want[k] < 1 && !seen[k] {
			return fmt.Sprintf("%s (%.0f %%)", k, 100*want[k])
		}
	}
	return ""
}

// readBack reads the node as it was built, and says where a prediction from that
// differs from the one of the snapshot.
func (r *replay) readBack(ctx context.Context) {
	if !slices.ContainsFunc(r.shots, func(s shot) bool { return s.result == Wrong }) {
		return
	}
	files, err := capture.Take(ctx, capture.Options{Namespace: r.node})
	if err != nil {
		return
	}
	host, err := snapshot.FromFiles(files)
	if err != nil {
		r.different = err.Error()
		return
	}
	built := sim.New(host)
	for i := range r.shots {
		s := &r.shots[i]
		again := built.Run(Question(s.flow), sim.Options{})
		if s.result == Wrong && !sameShares(shares(s.predicted), shares(again)) {
			r.different = fmt.Sprintf("predicted %s; read back %s", strings.Join(sortedKeys(shares(s.predicted)), " or "), strings.Join(sortedKeys(shares(again)), " or "))
			return
		}
	}
}

// protocols to send where the question leaves it open.
func protocols(q sim.Question) []uint8 {
	switch {
	case q.Protocol != 0:
		return []uint8{q.Protocol}
	case q.Family() == packet.IPv4Family:
		return []uint8{packet.TCP, packet.UDP, packet.ICMP}
	}
	return []uint8{packet.TCP, packet.UDP, packet.ICMPv6}
}
