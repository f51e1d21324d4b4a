package masqagent

import (
	"net/netip"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// defaultResync is how often ip-masq-agent looks at its file.
var defaultResync = metav1.Duration{Duration: 60e9}

// private are the ranges of RFC 1918.
var private = prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")

// reserved are those that other RFCs reserve: shared address space, protocol
// assignments, documentation, the former 6to4 relay anycast, benchmarks, class E.
// None is of IPv6, for none of the agents.
var reserved = prefixes("100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24",
	"198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4")

// defaultCIDRs is the list of an agent that no file gives one.
func defaultCIDRs(s *Settings) []netip.Prefix {
	if s.AllReserved || s.Dialect == Cilium {
		return append(private[:len(private):len(private)], reserved...)
	}
	return private
}

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, t := range texts {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}
