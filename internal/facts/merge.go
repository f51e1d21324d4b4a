package facts

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/policy"
)

// Merge gives the facts in force, and what `unmasq status` says of them, in a
// fixed order. A stated field wins whole over what the cluster says of it, and that
// over what was discovered, even where it states an empty list. What nobody knows
// has a default:
//
//	podCIDRs       localPodCIDRs
//	nodes          nodeAddresses
//	serviceMark    0x4000/0x4000
//	hostPortMark   0x2000/0x2000
//	serviceCIDRs   none
//	pods           not known (PodsKnown is false)
//	services       not known, and no line says so
//
// Broadcast addresses and tunnel ports can't be stated. The cluster is nil on a
// plain host. Its pods are pods wherever they are: addresses of theirs that no pod
// CIDR has are added, and outside names those that lie outside of stated ones.
func Merge(stated policy.Stated, cluster *Cluster, d Discovered) (f policy.Facts, lines []Fact, outside []string) {
	c, pods := Cluster{}, otherwise(stated.Pods, nil, "not stated")
	if cluster != nil {
		c, pods = *cluster, otherwise(stated.Pods, cluster.Pods, fromCluster+"this node's pods")
	}
	localPods := either(stated.LocalPodCIDRs, c.LocalPodCIDRs, d.LocalPodCIDRs, netip.Prefix.Compare)
	widen(&localPods, c.Pods)
	podCIDRs := otherwise(stated.PodCIDRs, localPods.values, "default: localPodCIDRs")
	if len(c.PodCIDRs) > 0 && !stated.PodCIDRs.Set {
		podCIDRs = found(c.PodCIDRs, netip.Prefix.Compare, fromCluster)
	}
	outside = widen(&podCIDRs, c.Pods)
	addresses := discovered(stated.NodeAddresses, d.NodeAddresses, netip.Addr.Compare)
	nodes := otherwise(stated.Nodes, addresses.values, "default: nodeAddresses")
	nodeCIDRs := found(c.NodeCIDRs, netip.Prefix.Compare, fromCluster)
	if stated.Nodes.Set {
		nodeCIDRs = merged[netip.Prefix]{nil, nodes.origin}
	} else if len(c.Nodes) > 0 {
		nodes = found(c.Nodes, netip.Addr.Compare, fromCluster)
	}
	services := otherwise(stated.ServiceCIDRs, nil, "not stated")
	if len(c.ServiceCIDRs) > 0 && !stated.ServiceCIDRs.Set {
		services = found(c.ServiceCIDRs, netip.Prefix.Compare, fromCluster)
	}
	known := otherwise(stated.Services, c.Services, "not stated")
	if c.ServicesKnown && !stated.Services.Set {
		known.origin = fromCluster + "Services"
	}
	serviceMark := mark(stated.ServiceMark, policy.DefaultServiceMark)
	hostPortMark := mark(stated.HostPortMark, policy.DefaultHostPortMark)
	broadcasts := discovered(policy.StatedValue[[]netip.Addr]{}, d.Broadcasts, netip.Addr.Compare)
	ports := discovered(policy.StatedValue[[]uint16]{}, d.TunnelPorts, func(a, b uint16) int { return int(a) - int(b) })

	f = policy.Facts{
		PodCIDRs: podCIDRs.values, LocalPodCIDRs: localPods.values,
		NodeAddresses: addresses.values, Nodes: nodes.values, NodeCIDRs: nodeCIDRs.values,
		ServiceCIDRs: services.values,
		ServiceMark:  serviceMark.values[0], HostPortMark: hostPortMark.values[0],
		Services: known.values, Pods: pods.values, PodsKnown: stated.Pods.Set || cluster != nil,
		Broadcasts: broadcasts.values, TunnelPorts: ports.values,
	}
	lines = []Fact{
		podCIDRs.fact("podCIDRs", netip.Prefix.String),
		localPods.fact("localPodCIDRs", netip.Prefix.String),
		addresses.fact("nodeAddresses", netip.Addr.String),
		nodes.fact("nodes", netip.Addr.String),
		services.fact("serviceCIDRs", netip.Prefix.String),
		serviceMark.fact("serviceMark", markText),
		hostPortMark.fact("hostPortMark", markText),
		pods.fact("pods", podText),
		broadcasts.fact("broadcasts", netip.Addr.String),
		ports.fact("tunnelPorts", func(p uint16) string { return fmt.Sprint(p) }),
	}
	if stated.Services.Set || c.ServicesKnown {
		lines = slices.Insert(lines, 5, known.fact("services", serviceText))
	}
	if len(nodeCIDRs.values) > 0 {
		lines = slices.Insert(lines, 4, nodeCIDRs.fact("nodeCIDRs", netip.Prefix.String))
	}
	return f, lines, outside
}

// fromCluster begins the origins of what the cluster says.
const fromCluster = "cluster: "

// either is what is stated, or what the cluster says, or what was discovered.
func either[T comparable](s policy.StatedValue[[]T], cluster, host []Found[T], compare func(a, b T) int) merged[T] {
	if len(cluster) > 0 && !s.Set {
		return found(cluster, compare, fromCluster)
	}
	return discovered(s, host, compare)
}

// found is what the cluster says, sorted and without duplicates.
func found[T comparable](all []Found[T], compare func(a, b T) int, whose string) merged[T] {
	if len(all) == 0 {
		return merged[T]{}
	}
	all = slices.SortedStableFunc(slices.Values(all), func(a, b Found[T]) int { return compare(a.Value, b.Value) })
	var values []T
	var origins []string
	for _, f := range all {
		if !slices.Contains(origins, f.Origin) {
			origins = append(origins, f.Origin)
		}
		values = append(values, f.Value)
	}
	return merged[T]{slices.Compact(values), whose + summary(origins)}
}

// summary joins origins as long as they are few: of 100 nodes two are named.
func summary(origins []string) string {
	const most = 8
	if len(origins) <= most {
		return strings.Join(origins, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(origins[:2], ", "), len(origins)-2)
}

// widen adds addresses of pods that no prefix has, and names their pods.
func widen(m *merged[netip.Prefix], pods []policy.Pod) (outside []string) {
	var more []netip.Prefix
	for _, p := range pods {
		for _, a := range p.Addresses {
			if !slices.ContainsFunc(m.values, func(x netip.Prefix) bool { return x.Contains(a) }) {
				more = append(more, netip.PrefixFrom(a, a.BitLen()))
				outside = append(outside, fmt.Sprintf("pod %s/%s has %s", p.Namespace, p.Name, a))
			}
		}
	}
	if len(more) > 0 {
		slices.SortFunc(more, netip.Prefix.Compare)
		m.values = slices.Concat(m.values, slices.Compact(more))
		m.origin += "; and pods outside of it"
	}
	return outside
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
func discovered[T comparable](s policy.StatedValue[[]T], host []Found[T], compare func(a, b T) int) merged[T] {
	if s.Set || len(host) == 0 {
		return otherwise(s, nil, "discovered: none")
	}
	return found(host, compare, "discovered: ")
}

func mark(s policy.StatedValue[policy.Mark], standard policy.Mark) merged[policy.Mark] {
	if s.Set {
		return merged[policy.Mark]{[]policy.Mark{s.Value}, "stated in " + s.Origin}
	}
	return merged[policy.Mark]{[]policy.Mark{standard}, "default"}
}

// markText writes a mark as documents do: 0x4000/0x4000.
func markText(m policy.Mark) string { return fmt.Sprintf("%#x/%#x", m.Value, m.Mask) }

// serviceText writes a service as "shop/web 10.96.1.2 fd00::2".
func serviceText(s policy.Service) string {
	text := s.ID()
	for _, a := range s.ClusterIPs {
		text += " " + a.String()
	}
	return text
}

// podText writes a pod as "web/nginx 10.244.1.7 fd00::7".
func podText(p policy.Pod) string {
	text := p.Namespace + "/" + p.Name
	for _, a := range p.Addresses {
		text += " " + a.String()
	}
	return text
}
