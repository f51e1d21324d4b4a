package sim

import (
	"slices"
	"sync"

	"github.com/unmasq/unmasq/internal/conntrack"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// Node is a host made ready for questions. It may be used by several goroutines.
type Node struct {
	host        *snapshot.Host
	connections *conntrack.Table
	hooks       map[packet.Family]*[hookCount][]slot
	devices     *[deviceHooks][]slot
	// untracked families have no connections.
	untracked map[packet.Family]bool
	// missing of the routing, per family.
	missing map[packet.Family][]Dependency
	// customRouting: somebody added IPv4 routing rules or local routes.
	customRouting bool
	// jumps are the words for a jump to a chain: *ruleset.Chain → string.
	jumps sync.Map
	// indexes of long chains, made when first used: *ruleset.Chain → *index.
	indexes sync.Map
	runs    sync.Pool
	// natives are chains, verdicts and sets of nftables made fit to run when first
	// asked, by the pointer to what they were made of.
	natives sync.Map
}

// New prepares a host, which must not change afterwards.
func New(h *snapshot.Host) *Node {
	n := &Node{host: h, hooks: map[packet.Family]*[hookCount][]slot{}, untracked: map[packet.Family]bool{}, missing: map[packet.Family][]Dependency{}, customRouting: customRouting(&h.Network)}
	n.connections = conntrack.NewTable(h.Connections)
	n.runs.New = func() any { return &run{node: n} }
	n.devices = n.deviceSlots()
	for _, f := range packet.Families {
		n.hooks[f], n.untracked[f] = n.slots(f), !tracks(h, f)
		for _, what := range h.Network.Missing(f) {
			n.missing[f] = append(n.missing[f], Dependency{What: "routes", Why: what + " not given"})
		}
	}
	return n
}

// Run answers a question. There is always at least one outcome.
func (n *Node) Run(q Question, o Options) []Outcome { return n.answer(q, o, 0, &budget{}) }

// answer runs the question once for each combination of what is open. depth is
// that of tunnels in tunnels.
func (n *Node) answer(q Question, o Options, depth int, used *budget) []Outcome {
	r := n.runs.Get().(*run)
	defer n.runs.Put(r)
	r.dice = dice{path: r.dice.path[:0], budget: *used}
	defer func() { *used = r.budget }()
	a := asked{question: q, options: o, depth: depth}
	a.fromNode, a.comesIn = n.entry(&q)
	r.elements = nil // those of another question's steps
	var leaves []leaf
	var outcomes []Outcome
	var paths []choice // of the leaves
	for {
		r.begin(&a)
		outcome := r.follow()
		if o.Each != nil && depth == 0 {
			o.Each(&outcome, r.went())
		}
		if r.pos == 0 {
			return []Outcome{outcome} // nothing was open
		}
		if len(outcomes) == cap(outcomes) { // leaves point into those that are full
			n := r.combinations()
			outcomes, leaves, paths = make([]Outcome, 0, n), slices.Grow(leaves, n), make([]choice, 0, n*r.pos)
		}
		outcomes = append(outcomes, outcome)
		paths = append(paths, r.path[:r.pos]...)
		leaves = append(leaves, leaf{paths[len(paths)-r.pos : len(paths) : len(paths)], &outcomes[len(outcomes)-1]})
		r.work += pathWork * r.pos
		r.kept += len(outcome.Steps)
		if !r.spent() && !r.next() {
			return values(merge(leaves), outcomes)
		}
		if len(leaves) == mostRuns || r.spent() { // a run that gave up hasn't followed its path
			return append(cutOff(leaves), tooMuch(q))
		}
	}
}

// cutOff joins the leaves of a question with too many of them.
func cutOff(leaves []leaf) []Outcome {
	var merged []*Outcome
	for _, l := range leaves {
		l.outcome.Probability = 0
		if j := indexOf(merged, l.outcome); j >= 0 {
			merged[j].join(l.outcome)
		} else {
			merged = append(merged, l.outcome)
		}
	}
	for _, o := range merged {
		o.DependsOn = appendDependency(o.DependsOn, Dependency{What: "rules", Why: "more is open than can be followed"})
	}
	return values(merged, nil)
}

// values of pointers; all itself where they point to all of it, in order.
func values(pointers []*Outcome, all []Outcome) []Outcome {
	same := len(pointers) == len(all)
	for i := 0; same && i < len(all); i++ {
		same = pointers[i] == &all[i]
	}
	if same {
		return all
	}
	copied := make([]Outcome, len(pointers))
	for i, o := range pointers {
		copied[i] = *o
	}
	return copied
}

func tooMuch(q Question) Outcome {
	return Outcome{
		Verdict: VerdictUnknown, SourceKind: SourceUnknown, Destination: q.Destination, DestinationPort: q.DestinationPort,
		DependsOn: []Dependency{{What: "rules", Why: "more is open than can be followed; give the protocol, ports and interface, or what the dump lacks"}},
	}
}
