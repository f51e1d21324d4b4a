package exporter

import (
	"net/netip"
	"slices"

	"github.com/unmasq/unmasq/internal/cidr"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/policy"
)

// list is what ip-masq-agents know: destinations that see clients' addresses, with a
// switch for link-local ones.
type list struct {
	kept []netip.Prefix
	// masqLinkLocal by family; translates: some destination of the family is translated.
	masqLinkLocal, translates map[packet.Family]bool
}

// listOf the destinations of all pods.
func listOf(l lists, families []packet.Family) list {
	out := list{masqLinkLocal: map[packet.Family]bool{}, translates: map[packet.Family]bool{}}
	for _, f := range families {
		kept, translated := l.split(f)
		out.translates[f] = len(translated) > 0
		local := []cidr.Range{cidr.FromPrefix(linkLocal(f))}
		out.masqLinkLocal[f] = len(cidr.Subtract(local, kept)) > 0
		if !out.masqLinkLocal[f] {
			kept = cidr.Subtract(kept, local)
		}
		if out.translates[f] {
			out.kept = append(out.kept, prefixes(kept)...)
		}
	}
	return out
}

// ipMasqAgent writes the ConfigMap. The agent asks for no source: what others than pods
// send is translated by the same list.
func ipMasqAgent(loaded *policy.Loaded, opts Options) *Result {
	r := newReading(peer{anySource: true}, loaded, opts)
	read := r.read(&loaded.Policy, pods, false)
	l := listOf(read, packet.Families[:])
	how := r.refined()
	r.beyondPods(&loaded.Policy, read, packet.Families[:])
	t := &text{}
	t.line("# DaemonSet ip-masq-agent: --random-fully=%t%s%s", how.random, flag(l.translates[packet.IPv6Family], " --enable-ipv6"), portsFlag(how))
	if !l.translates[packet.IPv4Family] { // the agent can't be told to leave IPv4 alone otherwise
		l.kept = append([]netip.Prefix{packet.IPv4Family.Everywhere()}, l.kept...)
	}
	t.line("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: ip-masq-agent\n  namespace: kube-system\ndata:\n  config: |")
	if len(l.kept) > 64 {
		t.line("    cidrLimit: %d", len(l.kept))
	}
	t.list("    ", "nonMasqueradeCIDRs", l.kept)
	t.line("    masqLinkLocal: %t", l.masqLinkLocal[packet.IPv4Family])
	t.line("    masqLinkLocalIPv6: %t", l.masqLinkLocal[packet.IPv6Family])
	return &Result{[]byte(t.String()), r.losses}
}

func flag(on bool, text string) string {
	if on {
		return text
	}
	return ""
}

func portsFlag(how refinement) string {
	if how.ports == (policy.PortRange{}) {
		return ""
	}
	return " --to-ports=" + portsText(how.ports, "-")
}

// classes of packets that no pod sends.
var classes = [...]struct {
	who  sender
	name string
}{{others, "what others than pods send through the node"}, {node, "what the node sends itself"}}

// onlyPods says what a component that asks for pods leaves alone.
func (r *reading) onlyPods(p *policy.Policy) {
	for _, class := range classes {
		theirs := r.read(p, class.who, true)
		for _, f := range packet.Families {
			if _, wanted := theirs.split(f); len(wanted) > 0 {
				r.lose(nil, "%s isn't translated: the component translates pods alone", class.name)
			}
		}
	}
}

// beyondPods says where a component that asks for no source does with others' packets
// what the policy doesn't. Destinations among the pods don't count: how clients from
// outside reach pods is a switch of its own.
func (r *reading) beyondPods(p *policy.Policy, pods lists, families []packet.Family) {
	for _, class := range classes {
		theirs := r.read(p, class.who, true)
		more, less := false, false
		for _, f := range packet.Families {
			var translated []cidr.Range
			if slices.Contains(families, f) {
				_, translated = pods.split(f)
			}
			_, wanted := theirs.split(f)
			among := ofFamily(ranges(r.podCIDRs), f)
			more = more || len(cidr.Subtract(cidr.Subtract(translated, wanted), among)) > 0
			less = less || len(cidr.Subtract(cidr.Subtract(wanted, translated), among)) > 0
		}
		if more {
			r.wider("%s is translated as what pods send is: the component asks for no source", class.name)
		}
		if less {
			r.lose(nil, "%s is translated to fewer destinations: the component has one list for all", class.name)
		}
	}
}
