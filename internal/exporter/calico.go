package exporter

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"

	"github.com/unmasq/unmasq/internal/cidr"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/policy"
)

// calico writes pools: the pods' own with natOutgoing, and a disabled one for each
// destination that pods keep their addresses to.
func calico(loaded *policy.Loaded, opts Options) *Result {
	r := newReading(peer{pods: true, snat: true, interfaces: true, nodes: true}, loaded, opts)
	ports := policy.PortRange{}
	r.implied = func(rule *policy.Rule) bool {
		if !r.portRange(&loaded.Policy, rule) {
			return false
		}
		ports = rule.Ports
		return true
	}
	read := r.read(&loaded.Policy, pods, false)
	t := &text{}
	translates := map[packet.Family]bool{}
	for _, f := range packet.Families {
		kept, translated := read.split(f)
		if r.among(translated, f) {
			r.lose(nil, "pods' addresses are always kept among pods")
		}
		own := slices.DeleteFunc(slices.Clone(r.podCIDRs), func(p netip.Prefix) bool { return packet.Of(p.Addr()) != f })
		for i, p := range own {
			t.pool(fmt.Sprintf("pods-ipv%d-%d", f, i+1), p, len(translated) > 0, false)
		}
		if len(translated) == 0 {
			continue
		}
		if translates[f] = true; len(own) == 0 {
			r.lose(nil, "%s: no pool is written, since the pods' networks aren't stated (facts.podCIDRs, --pod-cidrs)", f)
		}
		r.exclusions(t, f, cidr.Subtract(kept, ranges(own)))
	}
	r.onlyPods(&loaded.Policy)
	if len(translates) > 0 {
		r.felix(t, &loaded.Policy, ports, translates)
	}
	return &Result{[]byte(t.String()), r.losses}
}

func (t *text) pool(name string, p netip.Prefix, nat, disabled bool) {
	t.line("---\napiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata:\n  name: %s\nspec:\n  cidr: %s", name, quoted(p))
	if disabled {
		t.line("  disabled: true")
	}
	if most := map[bool]int{true: 32, false: 128}[p.Addr().Is4()]; p.Bits() > most-6 { // a pool holds a block at least
		t.line("  blockSize: %d", most)
	}
	t.line("  natOutgoing: %t", nat)
}

// exclusions are the destinations that keep pods' addresses. Link-local networks can't
// be pools.
func (r *reading) exclusions(t *text, f packet.Family, kept []cidr.Range) {
	local := []cidr.Range{cidr.FromPrefix(linkLocal(f))}
	usable := cidr.Subtract(kept, local)
	if len(cidr.Subtract(kept, usable)) > 0 {
		r.wider("destinations in %s are translated: Calico takes no pool there", linkLocal(f))
	}
	for i, p := range prefixes(usable) {
		t.pool(fmt.Sprintf("kept-ipv%d-%d", f, i+1), p, false, true)
	}
}

// felix writes how addresses and ports are chosen, one way for all.
func (r *reading) felix(t *text, p *policy.Policy, ports policy.PortRange, translates map[packet.Family]bool) {
	how, spec := r.refined(), &text{}
	if ports != (policy.PortRange{}) {
		spec.line("  natPortRange: %s", portsText(ports, ":"))
	} else if how.ports != (policy.PortRange{}) {
		spec.line("  natPortRange: %s", portsText(how.ports, ":"))
		r.lose(nil, "source ports %s are TCP's and UDP's: SCTP has any", portsText(how.ports, "-"))
	}
	if !how.random {
		r.lose(nil, "source ports are always random")
	}
	if slices.ContainsFunc(p.Rules, func(rule policy.Rule) bool { return rule.To.Nodes && !translating(&rule) }) {
		spec.line("  natOutgoingExclusions: IPPoolsAndHostIPs")
	}
	r.felixAddress(spec, translates)
	r.felixInterfaces(spec)
	if spec.Len() > 0 {
		t.line("---\napiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata:\n  name: default\nspec:")
		t.WriteString(spec.String())
	}
}

// portRange says whether a rule gives TCP and UDP a range of source ports, and the next
// one does the same to all protocols without: that is how Calico does it.
func (r *reading) portRange(p *policy.Policy, rule *policy.Rule) bool {
	whole := func(protocol uint8) bool {
		return slices.Contains(rule.To.Ports, policy.PortMatch{Protocol: protocol, PortRange: policy.PortRange{First: 0, Last: 65535}})
	}
	i := rule.Number // of the next, which count from 0
	if rule.Action != policy.Masquerade || rule.Ports == (policy.PortRange{}) || len(rule.To.Ports) != 2 || !whole(packet.TCP) || !whole(packet.UDP) || i >= len(p.Rules) {
		return false
	}
	without := *rule
	next := p.Rules[i]
	without.To.Ports, without.Ports, without.Name, without.Number = nil, policy.PortRange{}, next.Name, next.Number
	return reflect.DeepEqual(without, next)
}

// felixAddress: one address for all, of one family; the other isn't translated then.
func (r *reading) felixAddress(t *text, translates map[packet.Family]bool) {
	var address netip.Addr
	for i, rule := range r.masquerading {
		own := netip.Addr{}
		for _, a := range rule.Addresses {
			switch {
			case !translates[packet.Of(a)]:
			case !own.IsValid():
				own = a
			default:
				r.lose(rule, "has more addresses than Calico's one, %s", own)
			}
		}
		if i > 0 && own != address {
			r.lose(rule, "takes another source address than rule %s, whose holds for all", r.masquerading[0].ID())
			continue
		}
		address = own
	}
	if !address.IsValid() {
		return
	}
	if t.line("  natOutgoingAddress: %q", address.String()); len(translates) > 1 {
		r.lose(nil, "the other family than that of %s isn't translated by Calico then", address)
	}
}

func (r *reading) felixInterfaces(t *text) {
	if len(r.masquerading) == 0 {
		return
	}
	names := r.masquerading[0].OutInterfaces
	for _, rule := range r.masquerading {
		if !slices.Equal(rule.OutInterfaces, names) || len(rule.OutInterfaces) > 1 {
			r.losses = append(r.losses, Loss{Rule: rule.ID(), Why: "Calico has one pattern of interfaces for all: what leaves by others is translated too", Wider: true})
			return
		}
	}
	if len(names) == 1 {
		t.line("  iptablesNATOutgoingInterfaceFilter: %q", pattern(names[0]))
	}
}

// pattern as iptables has it.
func pattern(name string) string {
	if n := len(name); n > 0 && name[n-1] == '*' {
		return name[:n-1] + "+"
	}
	return name
}
