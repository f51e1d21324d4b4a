package policy

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/unmasq/unmasq/api/v1alpha1"
	"github.com/unmasq/unmasq/internal/packet"
)

func (d *document) from(path string, in *v1alpha1.From) From {
	if in == nil {
		return From{Forwarded: true}
	}
	out := From{
		Node:   in.Node != nil,
		CIDRs:  d.prefixes(path+".cidrs", in.CIDRs),
		Except: d.prefixes(path+".except", in.Except),
	}
	if in.Pods != nil {
		out.Pods = d.podSelector(path+".pods", in.Pods)
		out.PodCIDRs = out.Pods == nil
	}
	out.Forwarded = in.Pods == nil && in.CIDRs == nil && in.Node == nil
	return out
}

// podSelector is nil where neither selector is given: pods: {}.
func (d *document) podSelector(path string, in *v1alpha1.PodPeer) *PodSelector {
	if in.PodSelector == nil && in.NamespaceSelector == nil {
		return nil
	}
	return &PodSelector{
		Pod:       d.selector(path+".podSelector", in.PodSelector),
		Namespace: d.selector(path+".namespaceSelector", in.NamespaceSelector),
	}
}

func (d *document) to(path string, in *v1alpha1.To) To {
	if in == nil {
		return To{Everywhere: true}
	}
	out := To{
		Services: d.services(path+".services", in.Services),
		PodCIDRs: in.Pods != nil,
		Nodes:    in.Nodes != nil,
		CIDRs:    d.prefixes(path+".cidrs", in.CIDRs),
		Except:   d.prefixes(path+".except", in.Except),
		Ports:    d.ports(path+".ports", in.Ports),
	}
	out.Everywhere = in.CIDRs == nil && in.Pods == nil && in.Nodes == nil && in.Services == nil
	return out
}

func (d *document) ports(path string, in []v1alpha1.Port) (out []PortMatch) {
	d.notEmpty(path, in == nil, len(in))
	for i := range in {
		out = append(out, d.port(indexPath(path, i), &in[i]))
	}
	return out
}

func (d *document) port(path string, in *v1alpha1.Port) PortMatch {
	m := PortMatch{Protocol: packet.TCP, PortRange: PortRange{0, 65535}}
	switch in.Protocol {
	case "TCP":
	case "UDP":
		m.Protocol = packet.UDP
	case "SCTP":
		m.Protocol = packet.SCTP
	default:
		if d.has(path + ".protocol") {
			d.fail(path+".protocol", quoted(in.Protocol), "is not a protocol with ports; expected TCP, UDP or SCTP")
		}
	}
	if in.Port == nil {
		if in.EndPort != nil {
			d.fail(path+".endPort", strconv.Itoa(int(*in.EndPort)), "has no port before it; expected port, the first of the range")
		}
		return m
	}
	first, ok := d.portNumber(path+".port", *in.Port)
	m.First, m.Last = first, first
	if in.EndPort == nil {
		return m
	}
	if m.Last, _ = d.portNumber(path+".endPort", *in.EndPort); ok && m.Last != 0 && m.Last < first {
		d.fail(path+".endPort", strconv.Itoa(int(*in.EndPort)), "is lower than port; expected %d or higher", first)
	}
	return m
}

func (d *document) portNumber(path string, n int32) (port uint16, ok bool) {
	if n < 1 || n > 65535 {
		d.fail(path, strconv.Itoa(int(n)), "is not a port; expected 1 to 65535")
		return 0, false
	}
	return uint16(n), true
}

// parsePorts reads "1024-29999" or "1024".
func parsePorts(text string) (r PortRange, ok bool) {
	first, last, isRange := strings.Cut(text, "-")
	if !isRange {
		last = first
	}
	f, err := strconv.ParseUint(strings.TrimSpace(first), 10, 16)
	l, lastErr := strconv.ParseUint(strings.TrimSpace(last), 10, 16)
	return PortRange{uint16(f), uint16(l)}, err == nil && lastErr == nil && f > 0 && f <= l
}

// snatAddresses expands ranges, without duplicates, in the order stated.
func (d *document) snatAddresses(path string, texts []v1alpha1.AddressRange) []netip.Addr {
	d.notEmpty(path, texts == nil, len(texts))
	var out []netip.Addr
	seen := map[netip.Addr]bool{}
	count := map[packet.Family]int{}
	for i := range texts {
		text := string(texts[i])
		first, last, ok := d.addressRange(indexPath(path, i), text)
		if !ok {
			continue
		}
		for a := first; ; a = a.Next() {
			if !seen[a] {
				seen[a] = true
				out = append(out, a)
				count[packet.Of(a)]++
			}
			if count[packet.Of(a)] > mostAddresses {
				d.fail(indexPath(path, i), quoted(text), "makes more than %d %s addresses in this rule; expected fewer", mostAddresses, packet.Of(a))
				return out
			}
			if a == last {
				break
			}
		}
	}
	return out
}
