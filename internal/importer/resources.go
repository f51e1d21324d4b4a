package importer

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/unmasq/unmasq/api/v1alpha1"
	"github.com/unmasq/unmasq/internal/policy"
)

// resource of the Kubernetes API, as kinds of networks with resources of their own
// are told by.
type resource struct{ group, kind string }

func (r resource) is(v Value) bool {
	group, _, _ := strings.Cut(v.Get("apiVersion").Text(), "/")
	return group == r.group && v.Get("kind").Text() == r.kind
}

// anyOf says whether the value is one of the resources.
func anyOf(v Value, all ...resource) bool {
	return slices.ContainsFunc(all, func(r resource) bool { return r.is(v) })
}

// holdsAny says whether a file has one of the resources in it.
func holdsAny(all ...resource) func(File) bool {
	return func(f File) bool {
		documents, _ := Documents(f)
		return slices.ContainsFunc(documents, func(v Value) bool { return anyOf(v, all...) })
	}
}

// resourcesOf are those that are asked for; a file without any is an error, others in it
// are passed over.
func resourcesOf(files []File, expected string, all ...resource) (found []Value, err error) {
	for _, f := range files {
		documents, err := Documents(f)
		if err != nil {
			return nil, err
		}
		before := len(found)
		for _, v := range documents {
			if anyOf(v, all...) {
				found = append(found, v)
			}
		}
		if len(found) == before {
			return nil, &policy.FieldError{File: f.Name, Line: 1, Message: "nothing here is known; expected " + expected}
		}
	}
	return found, nil
}

// nameOf a resource.
func nameOf(v Value) string { return v.Get("metadata", "name").Text() }

// networks of a list of CIDRs; a list of another form is an error.
func (v Value) networks() (all []Network, err error) {
	if v.Is() && !v.IsList() {
		return nil, v.Wrong("is no list; expected CIDRs")
	}
	for _, item := range v.Items() {
		n, err := item.Prefix()
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, nil
}

// commaNetworks are CIDRs or addresses in one text, with commas between them.
func (v Value) commaNetworks() (all []Network, err error) {
	text, err := v.String()
	if err != nil {
		return nil, err
	}
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		p, ok := prefixOrAddress(part)
		if !ok {
			return nil, v.Wrong("has %s in it, which is neither a CIDR nor an address", shown(part))
		}
		all = append(all, Network{p, v.Place()})
	}
	return all, nil
}

// selector reads a label selector of the Kubernetes API.
func (v Value) selector() (*v1alpha1.LabelSelector, error) {
	if !v.Is() {
		return nil, nil
	}
	if !v.IsMap() {
		return nil, v.Wrong("is no label selector")
	}
	s := &v1alpha1.LabelSelector{}
	for _, key := range v.Get("matchLabels").Keys() {
		value, err := v.Get("matchLabels", key).String()
		if err != nil {
			return nil, err
		}
		if s.MatchLabels == nil {
			s.MatchLabels = map[string]v1alpha1.LabelValue{}
		}
		s.MatchLabels[key] = v1alpha1.LabelValue(value)
	}
	for _, e := range v.Get("matchExpressions").Items() {
		r := metav1.LabelSelectorRequirement{Key: e.Get("key").Text(), Operator: metav1.LabelSelectorOperator(e.Get("operator").Text())}
		for _, value := range e.Get("values").Items() {
			r.Values = append(r.Values, value.Text())
		}
		if _, err := metav1.LabelSelectorAsSelector(&metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{r}}); err != nil {
			return nil, e.Wrong("is no expression of a label selector: %s", err)
		}
		out := v1alpha1.LabelRequirement{Key: r.Key, Operator: string(r.Operator)}
		for _, value := range r.Values {
			out.Values = append(out.Values, v1alpha1.LabelValue(value))
		}
		s.MatchExpressions = append(s.MatchExpressions, out)
	}
	return s, nil
}

// cidrsPath of the next rule's field, for notes.
func (d *Document) cidrsPath(field string) string {
	return fmt.Sprintf("rules[%d].%s", len(d.Rules), field)
}

// oneOf reads a text that has to be one of some; absent: the first.
func (v Value) oneOf(all ...string) (string, error) {
	text, err := v.String()
	switch {
	case err != nil:
		return "", err
	case !v.Is() || text == "":
		return all[0], nil
	case !slices.Contains(all, text):
		return "", v.Wrong("is none of %s", strings.Join(all, ", "))
	}
	return text, nil
}

// prefixOrAddress reads a CIDR, host bits cut off, or an address.
func prefixOrAddress(text string) (netip.Prefix, bool) {
	if p, err := netip.ParsePrefix(text); err == nil && !p.Addr().Is4In6() {
		return p.Masked(), true
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Is4In6() || a.Zone() != "" {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, a.BitLen()), true
}
