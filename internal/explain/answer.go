package explain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/conntrack"
	"github.com/unmasq/unmasq/internal/owner"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
	"github.com/unmasq/unmasq/internal/sim"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// Explainer answers questions about one node, or several. It may be used by
// several goroutines.
type Explainer struct {
	nodes  []sim.Named
	owners map[*ruleset.Table]*owner.Index
	hosts  []*snapshot.Host
	// brief deciders have no conditions and no policy.
	brief bool
}

// Node is a host with the name that its packets are followed by.
type Node struct {
	Name string
	Host *snapshot.Host
}

// New prepares one node or several, at least one.
func New(nodes ...Node) *Explainer {
	e := &Explainer{owners: map[*ruleset.Table]*owner.Index{}}
	for _, n := range nodes {
		index := owner.New(&n.Host.Rules, n.Host.Sets)
		for _, t := range n.Host.Rules.Tables {
			e.owners[t] = index
		}
		e.hosts = append(e.hosts, n.Host)
		e.nodes = append(e.nodes, sim.Named{Name: n.Name, Node: sim.New(n.Host)})
	}
	return e
}

// Explain answers.
func (e *Explainer) Explain(q sim.Question, o sim.Options) Answer {
	q = e.understood(q)
	a := Answer{Version: 1, Flow: flow(q), Warnings: e.Warnings()}
	var outcomes []sim.Outcome
	a.Node, outcomes = e.run(q, o)
	a.Outcomes = e.outcomes(outcomes, q)
	return a
}

// Outcomes of a question, for whoever asks many: at most that many, those that first
// takes before others. first is asked of all. Deciders say which rule and whose, but
// not its conditions, nor a policy that has the other effect.
func (e *Explainer) Outcomes(q sim.Question, o sim.Options, most int, first func(*sim.Outcome) bool) []Outcome {
	q = e.understood(q)
	_, outcomes := e.run(q, o)
	var taken, others []sim.Outcome
	for i := range outcomes {
		if o := &outcomes[i]; first(o) {
			taken = append(taken, *o)
		} else if len(others) < most {
			others = append(others, *o)
		}
	}
	brief := *e
	brief.brief = true
	all := append(taken, others...)
	return brief.outcomes(all[:min(len(all), most)], q)
}

// Along is [sim.Node.Along] on the one node that there is; nil where take refuses.
func (e *Explainer) Along(q sim.Question, w sim.Way, take func(o *sim.Outcome, open []string) bool) *Outcome {
	q = e.understood(q)
	o, open, ok := e.nodes[0].Along(q, w)
	if !ok || !take(&o, open) {
		return nil
	}
	brief := *e
	brief.brief = true
	out := brief.outcome(&o, q)
	return &out
}

// Leads are the outcomes on the node that has the packet first.
func (e *Explainer) Leads(q sim.Question) []sim.Outcome {
	for _, n := range e.nodes {
		if n.Name == q.At {
			return n.Run(q, sim.Options{})
		}
	}
	return e.nodes[0].Run(q, sim.Options{})
}

// Path of a packet that no rule is asked about, such as a reply: see [sim.Path].
func (e *Explainer) Path(q sim.Question) []sim.Hop { return sim.Path(e.nodes, q) }

// understood is the question with what its source says: a node sends with its own
// address itself, unless something else is asked for.
func (e *Explainer) understood(q sim.Question) sim.Question {
	for i, h := range e.hosts {
		if q.At != "" && len(e.nodes) > 1 && e.nodes[i].Name != q.At {
			continue
		}
		if mine, known := h.Network.IsLocal(q.Source); known && mine && q.InInterface == "" {
			q.Local = true
		}
	}
	return q
}

// run names the node that the packet starts on, where there are several.
func (e *Explainer) run(q sim.Question, o sim.Options) (start string, outcomes []sim.Outcome) {
	if len(e.nodes) == 1 {
		return "", e.nodes[0].Run(q, o)
	}
	return sim.Follow(e.nodes, q, o)
}

func flow(q sim.Question) Flow {
	f := Flow{
		Family: family(q.Family()), Protocol: protocolName(q.Protocol), Source: q.Source, Destination: q.Destination,
		InInterface: q.InInterface, Mark: q.Mark, Local: q.Local,
	}
	if q.SourcePort != sim.UnknownPort && hasPorts(q.Protocol) {
		f.SourcePort = &q.SourcePort
	}
	if q.DestinationPort != sim.UnknownPort && hasPorts(q.Protocol) {
		f.DestinationPort = &q.DestinationPort
	}
	return f
}

func family(f packet.Family) string { return strings.ToLower(f.String()) }

func (e *Explainer) outcomes(outcomes []sim.Outcome, q sim.Question) []Outcome {
	all := make([]Outcome, 0, len(outcomes))
	for i := range outcomes {
		all = append(all, e.outcome(&outcomes[i], q))
	}
	return all
}

func (e *Explainer) outcome(o *sim.Outcome, q sim.Question) Outcome {
	out := Outcome{
		Verdict: string(o.Verdict), SourceKind: string(o.SourceKind), Destination: o.Destination, InInterface: o.InInterface, OutInterface: o.OutInterface,
		ToNode: o.ToNode, RejectWith: o.RejectWith, SourcePort: sourcePort(o.SourcePort), DependsOn: []Dependency{}, Steps: []Step{},
	}
	if o.Probability > 0 {
		out.Probability = &o.Probability
	}
	if o.Protocol != 0 {
		out.Protocol = protocolName(o.Protocol)
	}
	if o.Source.IsValid() {
		out.Source = &o.Source
	}
	if o.DestinationPort != sim.UnknownPort {
		out.DestinationPort = &o.DestinationPort
	}
	for _, d := range o.DependsOn {
		out.DependsOn = append(out.DependsOn, Dependency{d.What, d.Text(), d.If, d.Why})
	}
	for _, s := range o.Steps {
		out.Steps = append(out.Steps, e.step(s))
	}
	out.DecidedBy = e.decider(o, q)
	spared(&out, o)
	if c := o.Encapsulated; c != nil {
		out.Encapsulated = &Encapsulated{c.Interface, flow(c.Question), e.outcomes(c.Outcomes, c.Question)}
	}
	if n := o.Next; n != nil {
		out.Next = &Next{n.Node, flow(n.Question), e.outcomes(n.Outcomes, n.Question)}
	}
	return out
}

// sourcePort is a number, [first, last], or nil for one that is random or open.
func sourcePort(p sim.Port) any {
	switch {
	case p.Random || !p.Known:
		return nil
	case p.First == p.Last:
		return p.First
	}
	return [2]uint16{p.First, p.Last}
}

func (e *Explainer) step(s sim.Step) Step {
	out := Step{Hook: s.Hook, Effect: s.Effect, Matched: s.Matched}
	if s.At.Table == nil {
		return out
	}
	out.Table, out.Chain = s.At.Table.Name, s.At.Chain.Name
	out.Rule = ruleText(s.At)
	for _, element := range s.Elements {
		out.Elements = append(out.Elements, nftables.ExprText(element.Key))
	}
	if s.Matched {
		owned := e.owner(s.At)
		out.Owner, out.Because = owned.Name, owned.Because
	}
	return out
}

func ruleText(at sim.RuleRef) string {
	switch {
	case at.Rule == nil && at.Chain.Native != nil:
		return "policy " + strings.ToLower(at.Chain.Policy)
	case at.Rule == nil:
		return fmt.Sprintf("-P %s %s", at.Chain.Name, at.Chain.Policy)
	}
	return strings.TrimSpace(at.Rule.Text)
}

// placedRule is a rule with its chain, which those of iptables have in their text.
func placedRule(at sim.RuleRef) string {
	if at.Table.Native == nil {
		return ruleText(at)
	}
	return at.Chain.Name + ": " + ruleText(at)
}

func (e *Explainer) owner(at sim.RuleRef) owner.Owner {
	if index := e.owners[at.Table]; index != nil {
		return index.Of(at.Table, at.Chain, at.Rule)
	}
	return owner.Of(at.Table, at.Chain, at.Rule)
}

func (e *Explainer) decider(o *sim.Outcome, q sim.Question) *Decider {
	d := o.DecidedBy
	switch {
	case d == nil:
		return nil
	case d.Connection != nil:
		return connectionDecider(d.Connection)
	case d.Route != nil:
		return &Decider{Kind: "route", Rule: d.Route.Text}
	case d.Rule == nil:
		return &Decider{Kind: "route", Rule: d.Text}
	}
	at := *d.Rule
	out := e.ruleDecider(at)
	if at.Rule != nil && !e.brief {
		out.Why = conditions(at.Rule, seenBy(at, q, o))
	}
	e.addMark(out, at, o)
	if changed := o.SourceKind == sim.Masqueraded || o.SourceKind == sim.SNATed; changed && !forService(out.Owner) && !e.brief {
		out.Policy = keepPolicy(at.Rule, q, o)
	}
	return out
}

// connectionDecider is an entry of the connection table, with the command that
// takes it out: the next packet then meets the rules.
func connectionDecider(c *conntrack.Entry) *Decider {
	family, ports := "", ""
	if c.Original.Source.Is6() {
		family = "-f ipv6 "
	}
	if hasPorts(c.Protocol) {
		ports = fmt.Sprintf(" --sport %d --dport %d", c.Original.SourcePort, c.Original.DestinationPort)
	}
	return &Decider{
		Kind: "conntrack", Rule: c.Text, Because: "only the first packet of a connection is put to NAT rules; this one is known already",
		Change: []string{fmt.Sprintf("conntrack %s-D -p %s --orig-src %s --orig-dst %s%s", family, protocolName(c.Protocol), c.Original.Source, c.Original.Destination, ports)},
	}
}

// ruleDecider is a rule, or a chain's policy, with its owner.
func (e *Explainer) ruleDecider(at sim.RuleRef) *Decider {
	owned := e.owner(at)
	out := &Decider{
		Kind: "rule", Family: tableFamily(at.Table), Table: at.Table.Name, Chain: at.Chain.Name, Rule: ruleText(at),
		File: at.Table.File, Owner: owned.Name, OwnerVersion: owned.Version, Setting: owned.Setting, Change: owned.Change, Trap: owned.Trap, Because: owned.Because,
	}
	if v := variantOf(at.Table); v != ruleset.VariantUnknown {
		out.Variant = v.String()
	}
	if at.Rule != nil {
		out.Index, out.Line = at.Rule.Index, at.Rule.Line
		if at.Rule.Native != nil {
			out.Handle = at.Rule.Native.Handle
		}
	}
	return out
}

// tableFamily is ipv4 or ipv6; of a native table it is nft's word: ip, ip6, inet.
func tableFamily(t *ruleset.Table) string {
	if t.Native != nil {
		return t.Native.Family
	}
	return family(t.Family)
}

// addMark says which rule marked a packet that is translated for its mark: that
// rule's reason, and what changes it, are the ones that help.
func (e *Explainer) addMark(d *Decider, at sim.RuleRef, o *sim.Outcome) {
	marks := map[string]string{
		owner.KubeProxy: "KUBE-MARK-MASQ", owner.CNIPortmap: "CNI-HOSTPORT-SETMARK", owner.Podman: "NETAVARK-HOSTPORT-SETMARK",
	}
	marking := marks[d.Owner]
	if d.Owner == owner.KubeProxy && d.native() {
		marking = "mark-for-masquerade"
	}
	if s := lastJump(o, marking); s != nil {
		marking := e.owner(s.At)
		d.MarkedBy, d.Because, d.Setting, d.Change, d.Trap = placedRule(s.At), marking.Because, marking.Setting, marking.Change, marking.Trap
		return
	}
	if s := marksFor(at, o); s != nil {
		d.MarkedBy = placedRule(s.At)
		if marking := e.owner(s.At); marking.Because != "" && marking.Name == d.Owner {
			d.Because, d.Setting, d.Change, d.Trap = marking.Because, marking.Setting, marking.Change, marking.Trap
		}
		return
	}
	if s := lastJump(o, d.Chain); s != nil && d.Because == "" {
		d.Because = e.owner(s.At).Because
	}
}

// lastJump to a chain on the packet's way.
func lastJump(o *sim.Outcome, chain string) *sim.Step {
	for i, s := range slices.Backward(o.Steps) {
		if s.At.Rule != nil && (s.Effect == "jump "+chain || s.Effect == "goto "+chain) {
			return &o.Steps[i]
		}
	}
	return nil
}

// forService: the owner translates so that a service's replies come back, which
// a policy leaves alone.
func forService(name string) bool { return name == owner.KubeProxy || name == owner.CNIPortmap }
