package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/cidr"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/policy"
)

// origin of a packet: rules see forwarded packets and the host's own apart.
type origin uint8

const (
	forwarded origin = iota
	local
)

// view is the policy as one kind of packet sees it: of one family, forwarded or
// sent by this host, and, where marked, with the rules that override marks only.
type view struct {
	family packet.Family
	origin origin
	marked bool
	tag    func(*policy.Rule) int

	groups  []*group
	classes []*class
	// fallback is the class of sources that are in no set; nil: they leave.
	fallback *class
	// nets and hosts map sources to chains; hosts are asked first.
	nets, hosts []Element
	hasNets     bool
	hasHosts    bool
}

// group is a run of rules that differ in destination and action only.
type group struct {
	first   *policy.Rule
	rules   []*policy.Rule
	sources sources

	maps []destinationMap
	// everywhere is the rule for destinations that the maps lack; nil: none.
	everywhere *policy.Rule
	ports      []portSet
	services   *serviceLookups
}

// class is a set of sources that the same groups concern, in order.
type class struct {
	groups []int
	chain  string
}

// sources that a group concerns.
type sources struct {
	everywhere bool
	nets       []cidr.Range
	hosts      []netip.Addr
}

func (c *compiler) viewsOf(p *policy.Policy) []*view {
	var views []*view
	for _, f := range packet.Families {
		for _, o := range []origin{forwarded, local} {
			for _, marked := range []bool{false, true} {
				v := &view{family: f, origin: o, marked: marked, tag: c.tag}
				c.group(v, p)
				if len(v.groups) > 0 {
					c.classify(v)
					views = append(views, v)
				}
			}
		}
	}
	return views
}

// group fills v.groups: rules that this view's packets can match, in runs.
func (c *compiler) group(v *view, p *policy.Policy) {
	var last string
	for i := range p.Rules {
		r := &p.Rules[i]
		if v.marked && !r.OverrideServiceMasquerade || !v.concerns(r) || !actsOn(r, v.family) {
			continue
		}
		if key := c.groupKey(r); key != last || len(v.groups) == 0 {
			last = key
			v.groups = append(v.groups, &group{first: r, sources: c.sourcesOf(v, r)})
		}
		g := v.groups[len(v.groups)-1]
		g.rules = append(g.rules, r)
	}
	for _, g := range v.groups {
		c.destinations(v, g)
	}
}

// concerns says whether the rule's from can match packets of the view's origin.
func (v *view) concerns(r *policy.Rule) bool {
	if v.origin == local {
		return r.From.Node
	}
	return r.From.Forwarded || r.From.PodCIDRs || r.From.Pods != nil || len(r.From.CIDRs) > 0
}

// groupKey is equal for rules that may share a lookup.
func (c *compiler) groupKey(r *policy.Rule) string {
	key, known := c.groupKeys[r]
	if !known {
		key = groupKey(r)
		c.groupKeys[r] = key
	}
	return key
}

func groupKey(r *policy.Rule) string {
	f := r.From
	selector := "-"
	if f.Pods != nil {
		selector = fmt.Sprintf("%s in %s", f.Pods.Pod, f.Pods.Namespace)
	}
	return fmt.Sprint(f.Forwarded, f.PodCIDRs, f.Node, f.CIDRs, f.Except, selector, r.OutInterfaces, r.To.Ports, servicesKey(r))
}

func (c *compiler) sourcesOf(v *view, r *policy.Rule) sources {
	f, from := v.family, r.From
	except := ranges(from.Except, f)
	if v.origin == local || from.Forwarded {
		if len(except) == 0 {
			return sources{everywhere: true}
		}
		return sources{nets: cidr.Subtract([]cidr.Range{cidr.FromPrefix(f.Everywhere())}, except)}
	}
	nets := ranges(from.CIDRs, f)
	if from.PodCIDRs {
		nets = append(nets, ranges(c.facts.PodCIDRs, f)...)
	}
	s := sources{nets: cidr.Subtract(nets, except)}
	if from.Pods != nil {
		for _, a := range c.selected(from.Pods, f) {
			if !contains(except, a) {
				s.hosts = append(s.hosts, a)
			}
		}
	}
	return s
}

// selected returns the addresses of this node's pods that the selector matches.
func (c *compiler) selected(sel *policy.PodSelector, f packet.Family) []netip.Addr {
	pods, known := c.pods[sel]
	if !known {
		for i := range c.facts.Pods {
			if pod := &c.facts.Pods[i]; sel.Matches(pod) {
				pods = append(pods, pod)
			}
		}
		c.pods[sel] = pods
	}
	var out []netip.Addr
	for _, pod := range pods {
		out = append(out, familyAddrs(pod.Addresses, f)...)
	}
	return out
}

// destinations fills the group's map: each address goes to the first rule that names it.
func (c *compiler) destinations(v *view, g *group) {
	var lists [][]cidr.Range
	var owners []*policy.Rule
	hasMap := false
	for _, r := range g.rules {
		if r.To.Everywhere && len(r.To.Except) == 0 || coversAll(r.To, v.family) {
			g.everywhere = r
			break
		}
		hasMap = true
		lists = append(lists, c.destinationsOf(r, v.family))
		owners = append(owners, r)
	}
	if hasMap && (g.first.To.Services == nil || otherPlaces(&g.first.To)) {
		verdicts := make([]Verdict, len(owners))
		for i, r := range owners {
			verdicts[i] = goTo(RuleChainName(r, v.family))
		}
		g.maps = c.destinationMaps(v, g.first, cidr.FirstMatch(lists...), verdicts)
	}
	g.ports = portSets(v, "ports", g.first, g.first.To.Ports)
	g.services = c.services(v, g)
}

func (c *compiler) destinationsOf(r *policy.Rule, f packet.Family) []cidr.Range {
	to := r.To
	nets := ranges(to.CIDRs, f)
	if to.Everywhere {
		nets = []cidr.Range{cidr.FromPrefix(f.Everywhere())}
	}
	if to.PodCIDRs {
		nets = append(nets, ranges(c.facts.PodCIDRs, f)...)
	}
	if to.Nodes {
		for _, a := range familyAddrs(c.facts.Nodes, f) {
			nets = append(nets, cidr.FromAddr(a))
		}
		nets = append(nets, ranges(c.facts.NodeCIDRs, f)...)
	}
	return cidr.Subtract(nets, ranges(to.Except, f))
}

// coversAll says that a rule's destination is, as stated, every address of the family.
func coversAll(to policy.To, f packet.Family) bool {
	return len(to.Except) == 0 && slices.Contains(to.CIDRs, f.Everywhere())
}

// classify divides all sources into classes and fills the maps that lead to them.
func (c *compiler) classify(v *view) {
	lists := make([][]cidr.Range, len(v.groups))
	var always []int
	hosts := map[netip.Addr][]int{}
	for i, g := range v.groups {
		switch {
		case g.sources.everywhere:
			always = append(always, i)
		default:
			v.hasNets = true
			lists[i] = g.sources.nets
			v.hasHosts = v.hasHosts || g.first.From.Pods != nil
			for _, a := range g.sources.hosts {
				hosts[a] = append(hosts[a], i)
			}
		}
	}
	if len(always) > 0 {
		v.fallback = v.class(always)
	}
	hidden := c.hidden(v)
	if v.fallback != nil && len(hidden) > 0 {
		v.hasNets = true
	}
	c.classifyNets(v, lists, always, hidden)
	v.classifyHosts(lists, always, hosts, hidden)
}

// hidden are the sources that no rule sees: the guard on link-local sources
// costs nothing when they are kept out of the maps.
func (c *compiler) hidden(v *view) []cidr.Range {
	if c.opts.Without == policy.GuardLinkLocal {
		return nil
	}
	if v.family == packet.IPv4Family {
		return []cidr.Range{cidr.FromPrefix(netip.MustParsePrefix("127.0.0.0/8"))}
	}
	return []cidr.Range{cidr.FromPrefix(netip.MustParsePrefix("fe80::/10"))}
}

func (c *compiler) classifyNets(v *view, lists [][]cidr.Range, always []int, hidden []cidr.Range) {
	all := append([][]cidr.Range{hidden}, lists...)
	cidr.Segments(all, func(r cidr.Range, in []int) {
		if in[0] == 0 {
			if v.fallback != nil {
				v.nets = append(v.nets, element(r, accept))
			}
			return
		}
		groups := slices.Clone(always)
		for _, i := range in {
			groups = append(groups, i-1)
		}
		slices.Sort(groups)
		v.nets = append(v.nets, element(r, goTo(v.class(groups).chain)))
	})
}

// classifyHosts places single pods. They get the groups of the ranges around them too.
func (v *view) classifyHosts(lists [][]cidr.Range, always []int, hosts map[netip.Addr][]int, hidden []cidr.Range) {
	for a, groups := range hosts {
		if contains(hidden, a) {
			continue
		}
		groups = append(slices.Clone(groups), always...)
		for i, l := range lists {
			if contains(l, a) {
				groups = append(groups, i)
			}
		}
		slices.Sort(groups)
		groups = slices.Compact(groups)
		v.hosts = append(v.hosts, element(cidr.FromAddr(a), goTo(v.class(groups).chain)))
	}
	slices.SortFunc(v.hosts, func(a, b Element) int { return strings.Compare(a.First, b.First) })
	slices.SortFunc(v.classes, func(a, b *class) int { return slices.Compare(a.groups, b.groups) })
}

// class returns the class of sources with these groups, new where there is none.
func (v *view) class(groups []int) *class {
	for _, cl := range v.classes {
		if slices.Equal(cl.groups, groups) {
			return cl
		}
	}
	cl := &class{groups: slices.Clone(groups), chain: v.className(groups)}
	v.classes = append(v.classes, cl)
	return cl
}

// lookup adds, to ch, the way from a packet's source to the chain of its class.
func (v *view) lookup(ch *Chain) {
	if v.hasHosts {
		ch.add("", VerdictMap{Family: v.family, Field: SourceAddress, Map: v.sourceSet("pods")})
	}
	if v.hasNets {
		ch.add("", VerdictMap{Family: v.family, Field: SourceAddress, Map: v.sourceSet("nets")})
	}
	if v.fallback != nil {
		ch.add("", NFProto{v.family}, goTo(v.fallback.chain))
	}
}

func (v *view) addSourceSets(c *compiler) {
	if v.hasHosts {
		c.set(Set{Name: v.sourceSet("pods"), Key: addrKey(v.family), Map: true, Elements: v.hosts})
	}
	if v.hasNets {
		c.set(Set{Name: v.sourceSet("nets"), Key: addrKey(v.family), Interval: true, Map: true, Elements: v.nets})
	}
}
