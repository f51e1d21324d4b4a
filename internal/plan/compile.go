package plan

import (
	"fmt"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/policy"
)

// Options of Compile.
type Options struct {
	// NoIPsec leaves the statement `rt ipsec exists` out, for kernels without
	// XFRM, which refuse it and can have no IPsec either.
	NoIPsec bool
	// Without leaves one guard out. It exists to prove that the guard is needed.
	Without policy.Guard
	// HashFrom is how many destinations of one prefix length get a hash of their
	// own; 0: the default. Small numbers are for tests.
	HashFrom int
	// About is shown in the table as comments: facts and warnings.
	About []string
	// Tags are numbers of rules by their IDs, which a rule keeps as long as it is
	// there, so that one more in the list changes nothing for those after it. Nil:
	// sets and chains are named after the rules' numbers.
	Tags map[string]int
}

// Compile translates a policy into a table.
//
// A packet's way through it: the base chain looks its source up; what no rule
// names as a source leaves at once. The chain of its source runs the guards and
// then one lookup of the destination for each group: consecutive rules that
// differ in destination and action only. The verdict found there is the chain of
// the rule that matches first.
func Compile(p *policy.Policy, facts *policy.Facts, opts Options) *Table {
	c := &compiler{facts: facts, opts: opts, table: &Table{}, portChains: map[string]bool{},
		groupKeys: map[*policy.Rule]string{}, pods: map[*policy.PodSelector][]*policy.Pod{}}
	base := Chain{Name: BaseChain, Base: true}
	if opts.Without != policy.GuardLoopback {
		base.add("", OutLoopback{}, accept)
	}
	c.table.Chains = []Chain{base, {Name: Layout}}
	c.countersOf(p)
	views := c.viewsOf(p)
	c.sharedSets(views)
	c.localBackends(p, views)
	c.localChain(views)
	c.dispatch(&c.table.Chains[0], views, forwarded)
	for _, f := range packet.Families {
		c.guardChain(f, views)
		for _, v := range views {
			if v.family == f {
				c.viewChains(v)
			}
		}
		c.ruleChains(p, f)
	}
	c.table.Chains = append(c.table.Chains, c.later...)
	c.aboutChain(p)
	return c.table
}

// tag of a rule, for names.
func (c *compiler) tag(r *policy.Rule) int {
	if t, ok := c.opts.Tags[r.ID()]; ok {
		return t
	}
	return r.Number
}

// mention of a rule beside its counter: "rule 3", or "rule #17" by its tag.
func (c *compiler) mention(r *policy.Rule) string {
	if c.opts.Tags != nil {
		return fmt.Sprint(RulePrefix, TagPrefix, c.tag(r))
	}
	return fmt.Sprint(RulePrefix, r.Number)
}

// line of a rule begins with "rule 3", or "rule 3 #17".
func (c *compiler) line(r *policy.Rule) string {
	if c.opts.Tags != nil {
		return fmt.Sprint(RulePrefix, r.Number, " ", TagPrefix, c.tag(r))
	}
	return fmt.Sprint(RulePrefix, r.Number)
}

type compiler struct {
	facts *policy.Facts
	opts  Options
	table *Table
	// byID finds services. portChains and sets of ports that there are, by name; later
	// are the chains, which come behind those that lead to them.
	byID       map[string]*policy.Service
	portChains map[string]bool
	later      []Chain
	// groupKeys and the pods that selectors match are the same in all views.
	groupKeys map[*policy.Rule]string
	pods      map[*policy.PodSelector][]*policy.Pod
}

var accept = Verdict{Kind: Accept}

func goTo(chain string) Verdict { return Verdict{Kind: Goto, Chain: chain} }

func (c *Chain) add(comment string, statements ...Statement) {
	c.Rules = append(c.Rules, Rule{Statements: statements, Comment: comment})
}

func (c *compiler) chain(ch Chain) { c.table.Chains = append(c.table.Chains, ch) }
func (c *compiler) set(s Set)      { c.table.Sets = append(c.table.Sets, s) }

func (c *compiler) countersOf(p *policy.Policy) {
	for i := range p.Rules {
		c.table.Counters = append(c.table.Counters, Counter{Name: CounterName(&p.Rules[i])})
	}
}

// localChain holds what packets sent by this host go through, where any rule
// speaks of them; else they leave the base chain at once.
func (c *compiler) localChain(views []*view) {
	base := &c.table.Chains[0]
	if !anyOf(views, local) {
		base.add("", sentByHost(accept)...)
		return
	}
	base.add("", sentByHost(goTo(localChainName))...)
	ch := Chain{Name: localChainName}
	c.tunnelGuard(&ch)
	c.dispatch(&ch, views, local)
	ch.add("", accept)
	c.chain(ch)
}

// sentByHost is the verdict for packets that this host sends. That they have no
// input interface doesn't say so alone, see NoInput.
func sentByHost(v Verdict) []Statement { return []Statement{NoInput{}, SourceIsLocal{}, v} }

// tunnelGuard leaves outer packets of tunnels. Those of the kernel's own tunnels
// don't count as sent by the host (see NoInput), so that the guard is also
// among those of forwarded packets, with a condition more.
func (c *compiler) tunnelGuard(ch *Chain, conditions ...Statement) {
	if c.opts.Without == policy.GuardTunnel {
		return
	}
	ch.add("", append([]Statement{L4Proto{policy.TunnelProtocols}}, append(conditions, accept)...)...)
	for _, field := range []Field{DestinationPort, SourcePort} {
		match := []Statement{L4Proto{[]uint8{packet.UDP}}, InSet{Field: field, Set: tunnelPortsSet}}
		ch.add("", append(match, append(conditions, accept)...)...)
	}
}

// dispatch looks the source up, in ch, among all views of an origin.
func (c *compiler) dispatch(ch *Chain, views []*view, o origin) {
	for _, v := range views {
		if v.origin != o || v.marked {
			continue
		}
		v.lookup(ch)
	}
}

// guardChain is jumped to from every chain of a source of the family.
func (c *compiler) guardChain(f packet.Family, views []*view) {
	if !anyFamily(views, f) {
		return
	}
	ch := Chain{Name: name("guards", f)}
	if c.opts.Without != policy.GuardBroadcast {
		ch.add("", InSet{Family: f, Field: DestinationAddress, Set: name("broadcast", f)}, accept)
	}
	if c.opts.Without != policy.GuardHairpin {
		if c.facts.PodsKnown {
			ch.add("", DNATed{}, InSet{Family: f, Field: BothAddresses, Set: name("own", f)}, accept)
		} else {
			set := name("local-pods", f)
			ch.add("", DNATed{}, InSet{Family: f, Field: SourceAddress, Set: set}, InSet{Family: f, Field: DestinationAddress, Set: set}, accept)
		}
	}
	if !c.opts.NoIPsec && c.opts.Without != policy.GuardIPsec {
		ch.add("", IPsec{}, accept)
	}
	c.tunnelGuard(&ch, SourceIsLocal{})
	c.markGuards(&ch, f, views)
	c.chain(ch)
}

// markGuards sends marked packets to the rules that override the marks, or away.
func (c *compiler) markGuards(ch *Chain, f packet.Family, views []*view) {
	verdict := accept
	if override := c.overrideChain(f, views); override != "" {
		verdict = goTo(override)
	}
	for _, g := range []struct {
		guard policy.Guard
		mark  policy.Mark
	}{{policy.GuardServiceMark, c.facts.ServiceMark}, {policy.GuardHostPortMark, c.facts.HostPortMark}} {
		if c.opts.Without != g.guard && g.mark.Mask != 0 {
			ch.add("", MarkIs{g.mark}, verdict)
		}
	}
}

// overrideChain looks up the sources of marked packets, among the rules that
// override marks. It returns the chain's name, "" where no rule does.
//
// Its chains are reached through the jump to the guards, so each ends with
// accept: evaluation would go on behind that jump.
func (c *compiler) overrideChain(f packet.Family, views []*view) string {
	forwardedChain := Chain{Name: name("override", f)}
	localChain := Chain{Name: name("override-local", f)}
	found := false
	for _, v := range views {
		if v.family != f || !v.marked {
			continue
		}
		found = true
		if v.origin == local {
			v.lookup(&localChain)
		} else {
			v.lookup(&forwardedChain)
		}
	}
	if !found {
		return ""
	}
	localChain.add("", accept)
	forwardedChain.add("", accept)
	forwardedChain.Rules = append([]Rule{{Statements: sentByHost(goTo(localChain.Name))}}, forwardedChain.Rules...)
	c.chain(localChain)
	c.chain(forwardedChain)
	return forwardedChain.Name
}

// viewChains adds the chains of a view's sources and the maps that they look up.
func (c *compiler) viewChains(v *view) {
	v.addSourceSets(c)
	for _, g := range v.groups {
		c.groupSets(v, g)
	}
	for _, cl := range v.classes {
		ch := Chain{Name: cl.chain}
		if !v.marked {
			ch.add("", Verdict{Kind: Jump, Chain: name("guards", v.family)})
		}
		for _, i := range cl.groups {
			c.groupLookups(&ch, v, v.groups[i])
		}
		if v.marked {
			ch.add("", accept) // or evaluation would go on behind the jump to the guards
		}
		c.chain(ch)
	}
}

func (c *compiler) groupSets(v *view, g *group) {
	for i := range g.maps {
		c.set(g.maps[i].set(v.family))
	}
	for _, ps := range g.ports {
		c.set(ps.definition())
	}
	g.services.addSets(c)
}

// groupLookups adds the lookups of a group's destinations, one for each way in
// which its interfaces and protocols can match.
func (c *compiler) groupLookups(ch *Chain, v *view, g *group) {
	for _, iface := range orNone(g.first.OutInterfaces) {
		var conditions []Statement
		if iface != "" {
			conditions = append(conditions, OutInterface{iface})
		}
		if len(g.ports) == 0 {
			g.verdicts(ch, v.family, conditions)
		}
		for _, ps := range g.ports {
			g.verdicts(ch, v.family, append(conditions[:len(conditions):len(conditions)],
				L4Proto{[]uint8{ps.protocol}}, InSet{Field: DestinationPort, Set: ps.set}))
		}
	}
}

func (g *group) verdicts(ch *Chain, f packet.Family, conditions []Statement) {
	cut := len(conditions)
	for i := range g.maps {
		ch.add("", append(conditions[:cut:cut], g.maps[i].lookup(f)...)...)
	}
	if g.everywhere != nil {
		ch.add("", append(conditions[:cut:cut], goTo(RuleChainName(g.everywhere, f)))...)
	}
	g.services.add(ch, f, conditions)
}

// ruleChains adds, for each rule, the chain that counts and acts.
func (c *compiler) ruleChains(p *policy.Policy, f packet.Family) {
	for i := range p.Rules {
		r := &p.Rules[i]
		if !actsOn(r, f) {
			continue
		}
		ch := Chain{Name: RuleChainName(r, f)}
		ch.add(c.mention(r), Count{CounterName(r)})
		if r.OverrideServiceMasquerade {
			ch.add("", ClearMark{c.facts.ServiceMark.Mask})
		}
		action(&ch, r, f)
		c.chain(ch)
	}
}

func action(ch *Chain, r *policy.Rule, f packet.Family) {
	switch r.Action {
	case policy.Keep:
		ch.add("", Keep{f})
	case policy.Masquerade:
		if r.Ports != (policy.PortRange{}) {
			// The kernel would take ICMP's identifier for a port.
			ch.add("", L4Proto{[]uint8{packet.TCP, packet.UDP, packet.SCTP}}, Masquerade{r.Ports, r.FullyRandom})
		}
		ch.add("", Masquerade{FullyRandom: r.FullyRandom})
	case policy.SNAT:
		ch.add("", SNAT{f, familyAddrs(r.Addresses, f), r.FullyRandom})
	default:
		ch.add("", accept)
	}
}

// aboutChain says what rules do, and shows facts and warnings, to whoever lists
// the table. No packet goes through it, so that it can be rewritten at any time.
func (c *compiler) aboutChain(p *policy.Policy) {
	ch := Chain{Name: AboutChain}
	tell := func(line string) {
		for _, part := range comments(line) {
			ch.add(part, Verdict{Kind: Return})
		}
	}
	for i := range p.Rules {
		r := &p.Rules[i]
		from, to := policy.Describe(r)
		tell(fmt.Sprintf("%s: from %s to %s: %s", c.line(r), from, to, r.Action))
	}
	for _, line := range c.opts.About {
		tell(line)
	}
	if len(ch.Rules) > 0 {
		c.chain(ch)
	}
}
