package facts

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/policy"
)

// Merge gives the facts in force, and what `unmasq status` says of them, in a
// fixed order. A stated field wins whole over what was discovered for it, even
// where it states an empty list. What is neither stated nor discovered has a
// default:
//
//	podCIDRs       localPodCIDRs
//	nodes          nodeAddresses
//	serviceMark    0x4000/0x4000
//	hostPortMark   0x2000/0x2000
//	serviceCIDRs   none
//	pods           not known (PodsKnown is false)
//
// Broadcast addresses and tunnel ports can't be stated.
func Merge(stated policy.Stated, d Discovered) (policy.Facts, []Fact) {
	localPods := discovered(stated.LocalPodCIDRs, d.LocalPodCIDRs, netip.Prefix.Compare)
	pods := otherwise(stated.PodCIDRs, localPods.values, "default: localPodCIDRs")
	addresses := discovered(stated.NodeAddresses, d.NodeAddresses, netip.Addr.Compare)
	nodes := otherwise(stated.Nodes, addresses.values, "default: nodeAddresses")
	services := otherwise(stated.ServiceCIDRs, nil, "not stated")
	serviceMark := mark(stated.ServiceMark, policy.DefaultServiceMark)
	hostPortMark := mark(stated.HostPortMark, policy.DefaultHostPortMark)
	known := otherwise(stated.Pods, nil, "not stated")
	broadcasts := discovered(policy.StatedValue[[]netip.Addr]{}, d.Broadcasts, netip.Addr.Compare)
	ports := discovered(policy.StatedValue[[]uint16]{}, d.TunnelPorts, func(a, b uint16) int { return int(a) - int(b) })

	return policy.Facts{
			PodCIDRs: pods.values, LocalPodCIDRs: localPods.values,
			NodeAddresses: addresses.values, Nodes: nodes.values,
			ServiceCIDRs: services.values,
			ServiceMark:  serviceMark.values[0], HostPortMark: hostPortMark.values[0],
			Pods: known.values, PodsKnown: stated.Pods.Set,
			Broadcasts: broadcasts.values, TunnelPorts: ports.values,
		}, []Fact{
			pods.fact("podCIDRs", netip.Prefix.String),
			localPods.fact("localPodCIDRs", netip.Prefix.String),
			addresses.fact("nodeAddresses", netip.Addr.String),
			nodes.fact("nodes", netip.Addr.String),
			services.fact("serviceCIDRs", netip.Prefix.String),
			serviceMark.fact("serviceMark", markText),
			hostPortMark.fact("hostPortMark", markText),
			known.fact("pods", podText),
			broadcasts.fact("broadcasts", netip.Addr.String),
			ports.fact("tunnelPorts", func(p uint16) string { return fmt.Sprint(p) }),
		}
}

// merged is one fact in force.
type merged[T any] struct {
	values []T
	origin string
}

func (m merged[T]) fact(name string, text func(T) string) Fact {
	f := Fact{Name: name, Origin: m.origin}
	for _, v := range m.values {
		f.Values = append(f.Values, text(v))
	}
	return f
}

// otherwise is the stated list, or else a default with its reason.
func otherwise[T any](s policy.StatedValue[[]T], values []T, origin string) merged[T] {
	if s.Set {
		return merged[T]{s.Value, "stated in " + s.Origin}
	}
	return merged[T]{values, origin}
}

// discovered is the stated list, or else what was found, sorted and without
// duplicates, with all places that showed it, in the order of their values.
func discovered[T comparable](s policy.StatedValue[[]T], found []Found[T], compare func(a, b T) int) merged[T] {
	if s.Set || len(found) == 0 {
		return otherwise(s, nil, "discovered: none")
	}
	found = slices.SortedStableFunc(slices.Values(found), func(a, b Found[T]) int { return compare(a.Value, b.Value) })
	var values []T
	var origins []string
	for _, f := range found {
		if !slices.Contains(origins, f.Origin) {
			origins = append(origins, f.Origin)
		}
		values = append(values, f.Value)
	}
	return merged[T]{slices.Compact(values), "discovered: " + strings.Join(origins, ", ")}
}

func mark(s policy.StatedValue[policy.Mark], standard policy.Mark) merged[policy.Mark] {
	if s.Set {
		return merged[policy.Mark]{[]policy.Mark{s.Value}, "stated in " + s.Origin}
	}
	return merged[policy.Mark]{[]policy.Mark{standard}, "default"}
}

// markText writes a mark as documents do: 0x4000/0x4000.
func markText(m policy.Mark) string { return fmt.Sprintf("%#x/%#x", m.Value, m.Mask) }

// podText writes a pod as "web/nginx 10.244.1.7 fd00::7".
func podText(p policy.Pod) string {
	text := p.Namespace + "/" + p.Name
	for _, a := range p.Addresses {
		text += " " + a.String()
	}
	return text
}
