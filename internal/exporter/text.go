package exporter

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/policy"
)

// text is YAML in the making.
type text struct{ strings.Builder }

func (t *text) line(format string, args ...any) {
	fmt.Fprintf(t, format+"\n", args...)
}

// list of prefixes as a sequence, indented; [] where there are none.
func (t *text) list(indent, key string, all []netip.Prefix) {
	if len(all) == 0 {
		t.line("%s%s: []", indent, key)
		return
	}
	t.line("%s%s:", indent, key)
	for _, p := range all {
		t.line("%s- %s", indent, quoted(p))
	}
}

// quoted where YAML may take an IPv6 prefix for something else.
func quoted(p netip.Prefix) string {
	if p.Addr().Is6() {
		return `"` + p.String() + `"`
	}
	return p.String()
}

// linkLocal destinations that some components have a switch for.
func linkLocal(f packet.Family) netip.Prefix {
	if f == packet.IPv4Family {
		return netip.MustParsePrefix("169.254.0.0/16")
	}
	return netip.MustParsePrefix("fe80::/10")
}

// refinement is how all masquerading rules choose source ports.
type refinement struct {
	random bool
	ports  policy.PortRange
}

// refined takes what the rules have in common; where they differ, the first holds.
func (r *reading) refined() (common refinement) {
	for i, rule := range r.masquerading {
		own := refinement{rule.FullyRandom, rule.Ports}
		switch {
		case i == 0:
			common = own
		case own != common:
			r.lose(rule, "chooses source ports in another way than rule %s, which holds for all", r.masquerading[0].ID())
		}
	}
	return common
}
