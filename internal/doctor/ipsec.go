package doctor

import (
	"fmt"
	"slices"

	"github.com/unmasq/unmasq/internal/owner"
	"github.com/unmasq/unmasq/internal/sim"
)

// ipsecTranslated: packets that an IPsec policy is for are translated before it is
// asked again, so that it isn't for them any more.
func ipsecTranslated(p *patient) []Finding {
	var all []Finding
	var seen []sim.RuleRef
	for _, policy := range p.host.IPsecOut {
		for i := range p.networks {
			n := &p.networks[i]
			if packetOf(policy.Source) != n.family() || !policy.Source.Contains(n.member) || policy.Destination.Bits() == 0 {
				continue
			}
			to := p.stranger(policy.Destination, n.prefix)
			if policy.Destination.IsSingleIP() {
				to = policy.Destination.Addr()
			}
			if !to.IsValid() {
				continue
			}
			answers := p.ask(tcp(n.member, to, https, n.link))
			at, one := answers.rule()
			outside := func(o *sim.Outcome) bool {
				return translated(o) && o.Source.IsValid() && !policy.Source.Contains(o.Source)
			}
			if !one || slices.Contains(seen, at) || !answers.every(outside) {
				continue
			}
			seen = append(seen, at)
			all = append(all, Finding{
				Summary:     fmt.Sprintf("%s to %s is translated before IPsec would encrypt it", n.prefix, policy.Destination),
				Evidence:    []string{fmt.Sprintf("ip xfrm policy: src %s dst %s dir out", policy.Source, policy.Destination), p.place(at)},
				Consequence: fmt.Sprintf("As %s it isn't what the policy is for any more: it leaves unencrypted, or is lost.", answers[0].Source),
				Mend:        p.exemptIPsec(at),
			})
		}
	}
	return all
}

// exemptIPsec lets pass, before any rule of the chain, what a policy is for.
func (p *patient) exemptIPsec(at sim.RuleRef) []string {
	if at.Table.Native != nil {
		return []string{insert(at, "", "rt ipsec exists accept")}
	}
	base := at
	if base.Chain.Policy == "" {
		if c := at.Table.Chain("POSTROUTING"); c != nil {
			base.Chain = c
		}
	}
	mend := []string{insert(base, "-m policy --dir out --pol ipsec -j ACCEPT", "")}
	if p.ownerOf(at) == owner.Docker {
		mend = append(mend, "# docker puts its rule above all others when it starts: then again")
	}
	return mend
}
