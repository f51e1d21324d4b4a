package policy

import (
	"fmt"
	"net/netip"
	"strings"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/unmasq/unmasq/internal/packet"
)

// mostDescribed bounds each half of a description, in bytes: comments of rules are short.
const mostDescribed = 60

// Describe says in a few words whose packets a rule concerns and where they go,
// each in at most 60 bytes: "pods", "10.0.0.0/8 and 41 more",
// "everywhere tcp/443-445 via eth0".
func Describe(r *Rule) (from, to string) {
	return r.From.describe(), r.To.describe(r.OutInterfaces)
}

func (f *From) describe() string {
	var places []string
	if f.Forwarded {
		places = append(places, "anywhere")
	}
	if f.PodCIDRs {
		places = append(places, "pods")
	}
	if f.Pods != nil {
		places = append(places, f.Pods.String())
	}
	if f.Node {
		places = append(places, "this node")
	}
	return fitting(func(terse bool) string {
		return joined(places, f.CIDRs, terse) + excepted(f.Except, terse)
	})
}

func (t *To) describe(interfaces []string) string {
	var places []string
	if t.Everywhere {
		places = append(places, "everywhere")
	}
	if t.PodCIDRs {
		places = append(places, "pods")
	}
	if t.Nodes {
		places = append(places, "nodes")
	}
	return fitting(func(terse bool) string {
		all := places
		if t.Services != nil {
			all = append(places[:len(places):len(places)], t.Services.describe(terse))
		}
		s := joined(all, t.CIDRs, terse) + excepted(t.Except, terse)
		if len(t.Ports) > 0 {
			s += " " + several(portTexts(t.Ports), "ports", terse)
		}
		if len(interfaces) > 0 {
			s += " via " + several(interfaces, "interfaces", terse)
		}
		return s
	})
}

// String is, for example, "pods app=web in namespaces team=a".
func (s *PodSelector) String() string {
	text := "this node's pods"
	if !s.Pod.Empty() {
		text = "pods " + selectorText(s.Pod)
	}
	if !s.Namespace.Empty() {
		text += " in namespaces " + selectorText(s.Namespace)
	}
	return text
}

// selectorText keeps nft's quotes whole: a selector has none, and no other text does either.
func selectorText(s labels.Selector) string { return strings.ReplaceAll(s.String(), `"`, "") }

// String is "tcp/443", "udp/1024-2047", or "tcp" for all ports.
func (p PortMatch) String() string {
	name := map[uint8]string{packet.TCP: "tcp", packet.UDP: "udp", packet.SCTP: "sctp"}[p.Protocol]
	switch {
	case p.First <= 1 && p.Last == 65535:
		return name
	case p.First == p.Last:
		return fmt.Sprintf("%s/%d", name, p.First)
	}
	return fmt.Sprintf("%s/%d-%d", name, p.First, p.Last)
}

// joined is "pods + 2 CIDRs", or without other places "10.0.0.0/8 and 41 more".
func joined(places []string, cidrs []netip.Prefix, terse bool) string {
	if len(cidrs) > 0 {
		text := counted(len(cidrs), "CIDRs")
		if len(cidrs) == 1 {
			text = cidrs[0].String()
		} else if len(places) == 0 && !terse {
			text = several(texts(cidrs), "CIDRs", false)
		}
		places = append(places[:len(places):len(places)], text)
	}
	return strings.Join(places, " + ")
}

func excepted(cidrs []netip.Prefix, terse bool) string {
	if len(cidrs) == 0 {
		return ""
	}
	return " except " + several(texts(cidrs), "CIDRs", terse)
}

// several is "a", "a and b", "a and 2 more", or in terse form "3 noun".
func several(items []string, noun string, terse bool) string {
	switch {
	case len(items) == 1:
		return items[0]
	case terse:
		return counted(len(items), noun)
	case len(items) == 2:
		return items[0] + " and " + items[1]
	}
	return fmt.Sprintf("%s and %d more", items[0], len(items)-1)
}

func counted(n int, noun string) string { return fmt.Sprintf("%d %s", n, noun) }

// texts prints the two that several may show; the others only count.
func texts(prefixes []netip.Prefix) []string {
	out := make([]string, len(prefixes))
	for i, p := range prefixes[:min(len(prefixes), 2)] {
		out[i] = p.String()
	}
	return out
}

// fitting takes the terse form where the other is too long, and cuts that too.
func fitting(text func(terse bool) string) string {
	s := text(false)
	if len(s) > mostDescribed {
		s = text(true)
	}
	if len(s) > mostDescribed {
		s = strings.TrimRight(s[:mostDescribed-3], " ,") + "..."
	}
	return s
}
