package explain

import "github.com/unmasq/unmasq/internal/sim"

// sparesNothing is why an allow list made of accept, or of RETURN, is no shield.
const sparesNothing = "this ends its own chain only; other NAT chains are asked all the same"

// spared says so where a NAT chain accepted the packet, and one behind it
// translated its source after all.
func spared(out *Outcome, o *sim.Outcome) {
	if o.DecidedBy == nil || o.DecidedBy.Rule == nil || o.SourceKind != sim.Masqueraded && o.SourceKind != sim.SNATed {
		return
	}
	for i, s := range o.Steps {
		if s.At == *o.DecidedBy.Rule {
			return
		}
		if s.Matched && s.At.Rule != nil && s.Effect == "accept" && s.At.Table != o.DecidedBy.Rule.Table && translates(s) && out.Steps[i].Because == "" {
			out.Steps[i].Because = sparesNothing
		}
	}
}

// translates says whether the step stands in a chain that could have given the
// packet its source.
func translates(s sim.Step) bool {
	if s.Hook != "postrouting" && s.Hook != "input" {
		return false
	}
	if s.At.Table.Native == nil {
		return s.At.Table.Name == "nat"
	}
	base := s.At.Chain.Native.Base
	return base != nil && base.Type == "nat"
}
