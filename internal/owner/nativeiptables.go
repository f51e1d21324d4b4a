package owner

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

// behindNFT is the owner of a rule of an iptables-nft table that only nft shows:
// without comments, and without the parameters of iptables' extensions. A chain's
// name still tells whose the rule is, and a jump whose chain it leads to.
func (x *Index) behindNFT(t *ruleset.Table, c *ruleset.Chain, rule *ruleset.Rule) Owner {
	form := iptablesForm(rule.Native)
	form.Index = rule.Index
	p := place{Index: x, table: t, chain: c, rule: &form}
	chain, o := c.Name, Owner{}
	if builtIn(c.Name) {
		chain, _ = jump(&form)
		o = p.inBuiltIn()
	} else {
		o = p.inOwnChain()
	}
	if o.Name != Unknown {
		return o
	}
	if name := commentsIn(chain); name != "" {
		save := map[string]string{"ip": "iptables-save", "ip6": "ip6tables-save"}[t.Native.Family]
		return Owner{
			Name: name, Version: "by the chain's name: nft shows no comments",
			Change: []string{"give " + save + " -t " + t.Name + " too: its comments tell the rule's reason and setting"},
		}
	}
	if o.Version == "" {
		o.Version = "nft shows neither comments nor extensions' parameters, iptables-save does"
	}
	o.Change = nativePlace{table: t, chain: c.Name, rule: rule.Native}.deletion()
	return o
}

// commentsIn is the component that makes a chain of that name, where its rules go
// by their comments, or by extensions; empty for others.
func commentsIn(chain string) string {
	for _, k := range [...]struct {
		owns func(string) bool
		name string
	}{
		{kubeRouterChain, KubeRouter}, {kubeletChain, Kubelet}, {kubeProxyChain, KubeProxy}, {flannelChain, Flannel},
		{masqAgentChain, IPMasqAgent}, {kindnetChain, Kindnet}, {awsChain, AWSVPCCNI}, {portmapChain, CNIPortmap}, {cniChain, CNIBridge},
		{cniFirewallChain, CNIFirewall}, {calicoChain, Calico}, {ciliumChain, Cilium}, {antreaChain, Antrea}, {kubeOVNChain, KubeOVN},
		{weaveChain, Weave}, {netbirdChain, Netbird}, {azureNPMChain, AzureNPM},
	} {
		if k.owns(chain) {
			return k.name
		}
	}
	return ""
}

// iptablesForm is a rule of an iptables-nft table as iptables would have it, as
// far as nft shows it.
func iptablesForm(rule *nftables.Rule) ruleset.Rule {
	out := ruleset.Rule{Text: rule.Text, Comment: rule.Comment}
	for _, s := range rule.Statements {
		switch s := s.(type) {
		case nftables.Match:
			addMatch(&out, s)
		case nftables.Verdict:
			out.Target = targetOf(s)
		case nftables.NAT:
			out.Target = translationForm(s)
		case nftables.Reject:
			out.Target = ruleset.Reject{}
		case nftables.XT:
			hiddenPart(&out, s)
		case nftables.Inert:
		default:
			out.Matches = append(out.Matches, ruleset.Unknown{Text: nftables.StatementText(s)})
		}
	}
	return out
}

// hiddenPart is an extension that nft names and no more. A comment asks for
// nothing.
func hiddenPart(out *ruleset.Rule, s nftables.XT) {
	switch {
	case s.Kind == "target" && s.Name == "MASQUERADE":
		out.Target = ruleset.Masquerade{}
	case s.Kind == "target" && s.Name == "SNAT":
		out.Target = ruleset.SNAT{}
	case s.Kind == "target":
		out.Target = ruleset.UnknownTarget{Name: s.Name}
	case s.Name != "comment":
		out.Matches = append(out.Matches, ruleset.Unknown{Name: s.Name})
	}
}

func targetOf(v nftables.Verdict) ruleset.Target {
	switch v.Kind {
	case nftables.Accept:
		return ruleset.Accept{}
	case nftables.Drop:
		return ruleset.Drop{}
	case nftables.Return:
		return ruleset.Return{}
	case nftables.Jump, nftables.Goto:
		return ruleset.Jump{Chain: v.Chain, Goto: v.Kind == nftables.Goto}
	}
	return ruleset.UnknownTarget{Name: v.Kind.String()}
}

func translationForm(n nftables.NAT) ruleset.Target {
	flags := ruleset.NATFlags{Random: n.Random, RandomFully: n.FullyRandom, Persistent: n.Persistent}
	switch n.Kind {
	case nftables.Masquerade:
		return ruleset.Masquerade{NATFlags: flags}
	case nftables.SNAT:
		return ruleset.SNAT{NATFlags: flags}
	case nftables.DNAT:
		return ruleset.DNAT{NATFlags: flags}
	}
	return ruleset.Redirect{NATFlags: flags}
}

// addMatch adds what iptables writes as -s, -d, -i, -o and mark; others aren't told apart.
func addMatch(out *ruleset.Rule, m nftables.Match) {
	not := m.Op == "!="
	value := nftables.ExprText(m.Right)
	switch e := m.Left.(type) {
	case nftables.Payload:
		p, ok := prefixOf(value)
		if ok && e.Field == "saddr" {
			out.Source = ruleset.Address{Prefix: p, Not: not}
			return
		} else if ok && e.Field == "daddr" {
			out.Destination = ruleset.Address{Prefix: p, Not: not}
			return
		}
	case nftables.Meta:
		name, wildcard := strings.CutSuffix(strings.Trim(value, `"`), "*")
		if e.Key == "iifname" {
			out.In = ruleset.Interface{Name: name, Wildcard: wildcard, Not: not}
			return
		} else if e.Key == "oifname" {
			out.Out = ruleset.Interface{Name: name, Wildcard: wildcard, Not: not}
			return
		}
	case nftables.Binary:
		if mark, ok := markOf(e, value, not); ok {
			out.Matches = append(out.Matches, mark)
			return
		}
	}
	out.Matches = append(out.Matches, ruleset.Unknown{Text: nftables.StatementText(m)})
}

func prefixOf(text string) (netip.Prefix, bool) {
	if p, err := netip.ParsePrefix(text); err == nil {
		return p.Masked(), true
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, a.BitLen()), true
}

// markOf is meta mark & 0x00ff0000 == 0x00040000.
func markOf(e nftables.Binary, value string, not bool) (ruleset.Mark, bool) {
	meta, ok := e.Left.(nftables.Meta)
	mask, errMask := strconv.ParseUint(nftables.ExprText(e.Right), 0, 32)
	want, err := strconv.ParseUint(value, 0, 32)
	if !ok || meta.Key != "mark" || e.Op != "&" || errMask != nil || err != nil {
		return ruleset.Mark{}, false
	}
	return ruleset.Mark{Value: uint32(want), Mask: uint32(mask), Not: not}, true
}
