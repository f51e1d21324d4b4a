package importer

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/api/v1alpha1"
)

// NewDocument begins a document with the options' name, or the kind's.
func NewDocument(opts Options, name string, about ...string) *Document {
	return &Document{Name: cmp.Or(opts.Name, name), About: about, notes: map[string][]string{}}
}

// Note is printed with a field below spec, such as rules[0].to.cidrs[1]: behind a
// value, above a rule or a list. A path that the document doesn't have is a defect.
func (d *Document) Note(path, text string) {
	if !slices.Contains(d.notes[path], text) {
		d.notes[path] = append(d.notes[path], text)
	}
}

// Rule adds a rule with the notes that are printed above it, and returns its path.
func (d *Document) Rule(rule v1alpha1.Rule, notes ...string) string {
	path := fmt.Sprintf("rules[%d]", len(d.Rules))
	d.Rules = append(d.Rules, rule)
	for _, n := range notes {
		d.Note(path, n)
	}
	return path
}

// Network is a CIDR and where it stands.
type Network struct {
	netip.Prefix
	At Place
}

// stated are networks that a flag of unmasq's own gives.
func stated(flag string, prefixes []netip.Prefix) (out []Network) {
	for _, p := range prefixes {
		out = append(out, Network{p, Place{File: "flags of unmasq import", Setting: flag}})
	}
	return out
}

// CIDRs returns networks as a field has them, each once, and notes at path where each
// came from.
func (d *Document) CIDRs(path string, networks []Network) (cidrs []v1alpha1.CIDR) {
	for _, n := range networks {
		c := v1alpha1.CIDR(n.Prefix.Masked().String())
		i := slices.Index(cidrs, c)
		if i < 0 {
			i, cidrs = len(cidrs), append(cidrs, c)
		}
		d.Note(fmt.Sprintf("%s[%d]", path, i), n.At.String())
	}
	return cidrs
}

// everywhere is what a rule of one family alone goes to; nil: of both.
func everywhere(v4, v6 bool) *v1alpha1.To {
	if v4 && v6 {
		return nil
	}
	return &v1alpha1.To{CIDRs: anywhereCIDRs(v4, v6)}
}

// anywhereCIDRs are all addresses of the families.
func anywhereCIDRs(v4, v6 bool) (all []v1alpha1.CIDR) {
	if v4 {
		all = append(all, "0.0.0.0/0")
	}
	if v6 {
		all = append(all, "::/0")
	}
	return all
}

// prefixTexts are networks as rules have them, each once.
func prefixTexts(networks []Network) (all []v1alpha1.CIDR) {
	for _, n := range networks {
		if c := v1alpha1.CIDR(n.Prefix.String()); !slices.Contains(all, c) {
			all = append(all, c)
		}
	}
	return all
}

// randomly refines action Masquerade; nil where there is nothing to refine.
func randomly(fully bool) *v1alpha1.Masquerade {
	if !fully {
		return nil
	}
	return &v1alpha1.Masquerade{FullyRandom: true}
}

// fromPods and toPods are places of rules.
func fromPods() *v1alpha1.From { return &v1alpha1.From{Pods: &v1alpha1.PodPeer{}} }

func toPods() *v1alpha1.To { return &v1alpha1.To{Pods: &v1alpha1.Empty{}} }

// uniqueLabel makes a rule's name out of any, another each time.
func uniqueLabel(name string, taken map[string]bool) string {
	label := strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(name)), "-")
	const most = 56 // leaves room for a number
	label = cmp.Or(strings.Trim(label[:min(len(label), most)], "-"), "rule")
	for n, base := 2, label; taken[label]; n++ {
		label = fmt.Sprintf("%s-%d", base, n)
	}
	taken[label] = true
	return label
}
