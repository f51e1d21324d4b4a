package masqagent

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"github.com/unmasq/unmasq/api/v1alpha1"
	"github.com/unmasq/unmasq/internal/policy"
)

// linkLocal destinations of each family, which have switches of their own.
var linkLocal = prefixes("169.254.0.0/16", "fe80::/10")

// Names of the rules, in their order.
const (
	RuleLinkLocal  = "link-local"
	RuleKept       = "listed-kept" // of pods, to what is listed
	RuleListed     = "listed"      // of all others
	RulePods       = "pods"
	RuleToPods     = "to-pods"
	RuleMasquerade = "masquerade"
)

// Document is the policy that the configuration means. ip-masq-agent's rules are
// asked about every packet that leaves for another machine, the node's own too.
//
//	link-local     RETURN    Leave
//	the list       RETURN    Keep for pods, Leave for others
//	anything else  MASQUERADE, but Leave to pods unless Inbound
//
// Cilium's rules are asked about pods' packets alone.
func (c *Config) Document() Document {
	b := &builder{config: c, document: Document{Name: c.documentName(), PodCIDRs: c.PodCIDRs}}
	b.linkLocal()
	b.listed()
	if c.Dialect == Cilium {
		b.masquerade(RulePods, pods(), "Cilium masquerades pods' packets alone")
		return b.document
	}
	if !c.Inbound {
		b.masquerade(RulePods, pods(), "what pods send elsewhere")
		b.toPods()
	}
	b.masquerade(RuleMasquerade, b.everybody(), "what everybody else sends elsewhere")
	return b.document
}

// builder adds rules with their notes.
type builder struct {
	config   *Config
	document Document
}

func (b *builder) add(r v1alpha1.Rule, note string) (path string) {
	path = fmt.Sprintf("rules[%d]", len(b.document.Rules))
	b.document.Rules = append(b.document.Rules, r)
	b.note(path, note)
	return path
}

func (b *builder) note(path, text string) {
	b.document.Notes = append(b.document.Notes, Note{path, text})
}

func (b *builder) linkLocal() {
	off := []bool{b.config.MasqLinkLocal, b.config.MasqLinkLocalIPv6}
	var to []netip.Prefix
	for i, p := range linkLocal {
		if !off[i] && b.enabled(p) {
			to = append(to, p)
		}
	}
	if len(to) > 0 {
		b.add(v1alpha1.Rule{Name: RuleLinkLocal, From: b.all(), To: &v1alpha1.To{CIDRs: cidrs(to)}, Action: "Leave"}, "masqLinkLocal and masqLinkLocalIPv6")
	}
}

// listed keeps pods' addresses, against whoever else masquerades: RETURN only ever
// left that chain. Others' packets are left to those who know more of them.
func (b *builder) listed() {
	var to []netip.Prefix
	var notes []string
	for _, d := range b.config.Destinations {
		if !b.enabled(d.Prefix) {
			continue
		}
		to = append(to, d.Prefix)
		if d.File != "" {
			notes = append(notes, fmt.Sprintf("%s:%d", d.File, d.Line))
		} else {
			notes = append(notes, "by default: "+b.config.Default)
		}
	}
	if len(to) == 0 {
		return
	}
	path := b.add(v1alpha1.Rule{Name: RuleKept, From: pods(), To: &v1alpha1.To{CIDRs: cidrs(to)}, Action: "Keep"}, "nonMasqueradeCIDRs, for pods")
	for i, n := range notes {
		b.note(fmt.Sprintf("%s.to.cidrs[%d]", path, i), n)
	}
	if b.config.Dialect != Cilium {
		b.add(v1alpha1.Rule{Name: RuleListed, From: b.everybody(), To: &v1alpha1.To{CIDRs: cidrs(to)}, Action: "Leave"}, "nonMasqueradeCIDRs, for everybody else")
	}
}

func (b *builder) toPods() {
	b.add(v1alpha1.Rule{Name: RuleToPods, From: b.everybody(), To: &v1alpha1.To{Pods: &v1alpha1.Empty{}}, Action: "Leave"},
		"not outbound: what comes in for pods, through node ports and load balancers too")
}

func (b *builder) masquerade(name string, from *v1alpha1.From, note string) {
	r := v1alpha1.Rule{Name: name, From: from, To: &v1alpha1.To{CIDRs: b.anywhere()}, Action: "Masquerade"}
	if ports := b.config.Ports; b.config.RandomFully || ports.Last != 0 {
		r.Masquerade = &v1alpha1.Masquerade{FullyRandom: b.config.RandomFully}
		if ports.Last != 0 {
			r.Masquerade.Ports = fmt.Sprintf("%d-%d", ports.First, ports.Last)
		}
	}
	b.add(r, note)
}

// all whose packets the dialect's rules see.
func (b *builder) all() *v1alpha1.From {
	if b.config.Dialect == Cilium {
		return pods()
	}
	return b.everybody()
}

func pods() *v1alpha1.From { return &v1alpha1.From{Pods: &v1alpha1.PodPeer{}} }

// everybody: whatever is forwarded, and the node itself.
func (b *builder) everybody() *v1alpha1.From {
	return &v1alpha1.From{CIDRs: b.anywhere(), Node: &v1alpha1.Empty{}}
}

// anywhere in the families that anything is done to.
func (b *builder) anywhere() []v1alpha1.CIDR {
	if b.config.EnableIPv6 {
		return []v1alpha1.CIDR{"0.0.0.0/0", "::/0"}
	}
	return []v1alpha1.CIDR{"0.0.0.0/0"}
}

func (b *builder) enabled(p netip.Prefix) bool { return p.Addr().Is4() || b.config.EnableIPv6 }

func cidrs(all []netip.Prefix) (out []v1alpha1.CIDR) {
	for _, p := range all {
		out = append(out, v1alpha1.CIDR(p.String()))
	}
	return out
}

// documentName is the chain's name as a policy can have it: IP-MASQ-AGENT gives
// ip-masq-agent.
func (c *Config) documentName() string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(cmp.Or(c.Chain, DefaultChain)))
	return cmp.Or(strings.Trim(name[:min(len(name), 63)], "-"), "ip-masq-agent")
}

// Source is the document as a text that internal/policy reads. Errors of it name
// no lines: nobody wrote it.
func (d *Document) Source(name string) (policy.Source, error) {
	spec := map[string]any{"rules": d.Rules}
	if len(d.PodCIDRs) > 0 {
		spec["facts"] = map[string]any{"podCIDRs": cidrs(d.PodCIDRs)}
	}
	text, err := json.Marshal(map[string]any{
		"apiVersion": v1alpha1.APIVersion, "kind": v1alpha1.Kind, "metadata": map[string]string{"name": d.Name}, "spec": spec,
	})
	if err != nil {
		return policy.Source{}, fmt.Errorf("%s: %w", name, err)
	}
	return policy.Source{Name: name, Content: text, NoLines: true}, nil
}
