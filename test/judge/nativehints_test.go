package judge_test

import (
	"strings"
)

// nativeHints reads a rule's text, and that of the sets that it asks.
func nativeHints(rule string, t *nativeTable) (h hints) {
	side := "daddr"
	for _, w := range nativeWords(rule) {
		w = strings.Trim(w, `"`)
		switch w {
		case "saddr", "daddr", "sport", "dport", "iifname", "iif", "oifname", "oif", "proto-dst", "to":
			side = w
			continue
		case "tcp", "udp", "sctp", "gre", "icmp", "ipv6-icmp":
			h.protocols = append(h.protocols, protocolNumbers(w)...)
			continue
		}
		if name, isSet := strings.CutPrefix(w, "@"); isSet {
			for _, s := range t.sets {
				if strings.Fields(s)[1] == name {
					_, elements, _ := strings.Cut(s, "elements")
					h.add(nativeHints(side+" "+elements, t))
				}
			}
			continue
		}
		h.addNative(side, w)
	}
	return h
}

func (h *hints) addNative(side, w string) {
	switch {
	case side == "iifname" || side == "iif":
		h.in = append(h.in, strings.TrimSuffix(w, "*"))
	case side == "oifname" || side == "oif":
		h.out = append(h.out, strings.TrimSuffix(w, "*"))
	case strings.HasPrefix(w, "[") || strings.Contains(w, ".") && strings.Contains(w, ":"): // ADDRESS:PORT
		address, port := target(w)
		h.destinations, h.destinationPorts = append(h.destinations, edges(address)...), append(h.destinationPorts, portEdges(port)...)
	case isNumber(strings.ReplaceAll(strings.TrimPrefix(w, ":"), "-", "")):
		ports := portEdges(strings.ReplaceAll(strings.TrimPrefix(w, ":"), "-", ":"))
		if side == "sport" {
			h.sourcePorts = append(h.sourcePorts, ports...)
		} else {
			h.destinationPorts = append(h.destinationPorts, ports...)
		}
	case side == "saddr":
		h.sources = append(h.sources, edges(w)...)
	default:
		h.destinations = append(h.destinations, edges(w)...)
	}
}

func isNumber(w string) bool {
	return w != "" && strings.Trim(w, "0123456789") == ""
}
