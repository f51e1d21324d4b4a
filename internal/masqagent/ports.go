package masqagent

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/unmasq/unmasq/internal/policy"
)

// ParsePorts reads --to-ports: "1024-29999,32768-65535". Ranges that touch or
// overlap are one. The agent spreads connections over them by their sizes; a policy
// has one range, so that of several the widest is taken: no port is used that isn't
// listed. rest are the others.
func ParsePorts(text string) (widest policy.PortRange, rest []policy.PortRange, err error) {
	if text == "" {
		return widest, nil, nil
	}
	var all []policy.PortRange
	for _, part := range strings.Split(text, ",") {
		r, err := parsePorts(part)
		if err != nil {
			return widest, nil, err
		}
		all = append(all, r)
	}
	all = joined(all)
	i := 0
	for j, r := range all {
		if size(r) > size(all[i]) {
			i = j
		}
	}
	widest = all[i]
	return widest, slices.Delete(all, i, i+1), nil
}

func size(r policy.PortRange) int { return int(r.Last) - int(r.First) + 1 }

func parsePorts(text string) (policy.PortRange, error) {
	wrong := func(why string) (policy.PortRange, error) {
		return policy.PortRange{}, fmt.Errorf("%q %s; expected PORT or FIRST-LAST within 1 to 65535, such as 1024-29999", text, why)
	}
	first, last, isRange := strings.Cut(text, "-")
	if !isRange {
		last = first
	}
	f, err := strconv.ParseUint(first, 10, 16)
	l, lastErr := strconv.ParseUint(last, 10, 16)
	switch {
	case err != nil || lastErr != nil || f == 0:
		return wrong("is not a range of ports")
	case l < f:
		return wrong("is reversed")
	}
	return policy.PortRange{First: uint16(f), Last: uint16(l)}, nil
}

// joined are the ranges sorted, those that touch as one.
func joined(all []policy.PortRange) []policy.PortRange {
	slices.SortFunc(all, func(a, b policy.PortRange) int { return cmp.Compare(a.First, b.First) })
	out := all[:1]
	for _, r := range all[1:] {
		if last := &out[len(out)-1]; int(r.First) <= int(last.Last)+1 {
			last.Last = max(last.Last, r.Last)
		} else {
			out = append(out, r)
		}
	}
	return out
}
