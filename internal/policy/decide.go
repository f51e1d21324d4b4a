package policy

import "github.com/unmasq/unmasq/internal/packet"

// Decide says what happens to a flow under a policy, given what its words mean
// on this node. It is pure, and it is the specification of the compiler.
func Decide(p *Policy, facts *Facts, flow packet.Flow) Decision {
	panic("not written yet")
}
