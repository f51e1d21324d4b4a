package ipset

import (
	"net/netip"
	"slices"
)

// Networks says a set of plain addresses or networks as prefixes: an address is in
// the set where one of in holds it and none of except. why says what the set can't be
// said so for; it is empty where it can.
func (s *Set) Networks(all Sets) (in, except []netip.Prefix, why string) {
	switch {
	case s.Type == "":
		return nil, nil, "the line that creates it wasn't given"
	case s.other != nil:
		return nil, nil, "it was given more than once"
	case s.doubt != "" || s.missing != "":
		return nil, nil, s.doubt + s.missing
	case s.Options.Mask.IsValid():
		return nil, nil, "it compares under a mask"
	case len(s.kind.parts) == 1 && s.kind.parts[0] == set:
		return s.memberNetworks(all)
	case len(s.kind.parts) != 1 || s.kind.parts[0] != host && s.kind.parts[0] != network:
		return nil, nil, "its type is " + s.Type
	}
	for _, t := range s.tables {
		for k, g := range t.groups {
			p, err := k[0].netip(s.Family).Prefix(int(t.bits[0]))
			if err != nil { // never: the length is within the family's
				return nil, nil, err.Error()
			}
			if g.one.flags&nomatch != 0 {
				except = append(except, p)
			} else {
				in = append(in, p)
			}
		}
	}
	for _, e := range except { // the most specific decides
		if slices.ContainsFunc(in, func(p netip.Prefix) bool { return p.Bits() > e.Bits() && e.Contains(p.Addr()) }) {
			return nil, nil, "it has elements within its nomatch elements"
		}
	}
	slices.SortFunc(in, netip.Prefix.Compare)
	slices.SortFunc(except, netip.Prefix.Compare)
	return in, except, ""
}

// memberNetworks are those of a list:set.
func (s *Set) memberNetworks(all Sets) (in, _ []netip.Prefix, why string) {
	for _, name := range s.Members {
		member := all[name]
		if member == nil || member.perhapsList() {
			return nil, nil, "its member " + name + " wasn't given"
		}
		networks, except, why := member.Networks(all)
		if why != "" || len(except) > 0 {
			return nil, nil, "of its member " + name + " " + why
		}
		in = append(in, networks...)
	}
	return in, nil, ""
}
