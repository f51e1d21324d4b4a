package owner

import (
	"strings"

	"github.com/unmasq/unmasq/internal/ruleset"
)

// masqAgentChain is the chain's default name; --masq-chain gives it another, and
// the comments tell.
func masqAgentChain(chain string) bool { return chain == "IP-MASQ-AGENT" }

func masqAgentComment(text string) bool { return strings.HasPrefix(words(text), "ip-masq-agent: ") }

// masqAgent describes the rules of ip-masq-agent and of Azure's.
//
//	-A POSTROUTING -m comment --comment "ip-masq-agent: ensure nat POSTROUTING directs all non-LOCAL destination
//	  traffic to our custom IP-MASQ-AGENT chain" -m addrtype ! --dst-type LOCAL -j IP-MASQ-AGENT
//	-A IP-MASQ-AGENT -d 10.0.0.0/8 -m comment --comment "ip-masq-agent: local traffic is not subject to MASQUERADE" -j RETURN
//	-A IP-MASQ-AGENT -m comment --comment "ip-masq-agent: outbound traffic is subject to MASQUERADE (must be last in chain)" -j MASQUERADE
//
// v2.10.0 to v2.12.1 and Azure's wrote the jump's comment with literal quotes in it.
func (p place) masqAgent() Owner {
	if !masqAgentComment(p.rule.Comment) {
		return alien(IPMasqAgent, p.chain.Name)
	}
	chain := p.chain.Name
	if to, ok := jump(p.rule); ok {
		chain = to
	} else if builtIn(chain) {
		return unknown("has ip-masq-agent's comment, but not its form")
	}
	o := Owner{Name: IPMasqAgent, Setting: "nonMasqueradeCIDRs"}
	file := "configmap ip-masq-agent   # config: nonMasqueradeCIDRs"
	if p.azureMasqAgent(chain) {
		o.Version = "Azure's"
		if p.masqAgentQuotes(chain) {
			o.Version = "Azure's ip-masq-agent-v2"
		}
		file = "configmap azure-ip-masq-agent-config   # create it where it is missing; ip-masq-agent: nonMasqueradeCIDRs"
	} else {
		o.Version = p.masqAgentVersion(chain)
	}
	if chain != "IP-MASQ-AGENT" {
		o.Version = strings.TrimPrefix(o.Version+", --masq-chain="+chain, ", ")
	}
	o.Change = []string{"kubectl -n kube-system edit " + file}
	switch {
	case translatesSource(p.rule.Target):
		o.Because = "the destination isn't in nonMasqueradeCIDRs"
	case returns(p.rule.Target):
		o.Because = "the destination is in nonMasqueradeCIDRs"
		o.Trap = "RETURN leaves this chain only: later rules in POSTROUTING may still masquerade"
		if p.rule.Destination.Prefix.Addr().IsLinkLocalUnicast() {
			o.Setting = "masqLinkLocal, masqLinkLocalIPv6"
			o.Because = "the destination is link-local, and masqLinkLocal is off"
		}
	}
	if p.jumps[jumpTo{p.table, chain}] > 1 {
		o.Trap = "POSTROUTING jumps to " + chain + " more than once: left by an upgrade between versions with different comments"
	} else if o.Trap == "" {
		o.Trap = "there is no match on sources: packets from outside to local pods are masqueraded too, unless the pod range is listed"
	}
	return o
}

// azureMasqAgent: the node is Azure's, or the jump's comment has quotes and the
// chain no --random-fully, as its ip-masq-agent-v2 writes them.
func (p place) azureMasqAgent(chain string) bool {
	return p.node["AZURE-NPM"] || p.node[wireServer] || p.masqAgentQuotes(chain) && p.table.Chain(chain) != nil && !p.masqAgentRandom(chain)
}

// masqAgentVersion goes by the jump's comment; two jumps have no one version.
func (p place) masqAgentVersion(chain string) string {
	quotes, random := p.masqAgentQuotes(chain), p.masqAgentRandom(chain)
	switch {
	case p.jumps[jumpTo{p.table, chain}] != 1:
		return ""
	case quotes && random:
		return "v2.10.0 to v2.12.1"
	case quotes:
		return "v2.10.0 to v2.12.1, or Azure's ip-masq-agent-v2"
	case random:
		return "≥ v2.12.2"
	}
	return ""
}

// masqAgentQuotes: a jump to the chain has them.
func (p place) masqAgentQuotes(chain string) bool {
	post := p.table.Chain("POSTROUTING")
	if post == nil {
		return false
	}
	for i := range post.Rules {
		r := &post.Rules[i]
		if to, ok := jump(r); ok && to == chain && masqAgentComment(r.Comment) && strings.HasPrefix(r.Comment, `"`) {
			return true
		}
	}
	return false
}

func (p place) masqAgentRandom(chain string) bool {
	c := p.table.Chain(chain)
	if c == nil {
		return false
	}
	for i := range c.Rules {
		if m, ok := c.Rules[i].Target.(ruleset.Masquerade); ok && m.RandomFully {
			return true
		}
	}
	return false
}
