package policy

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/unmasq/unmasq/api/v1alpha1"
)

// check validates what decoding could not, and returns the document's rules in
// their order, without numbers. They are of use only where d.errs is empty.
func (d *document) check() []Rule {
	if !d.decoded {
		return nil
	}
	d.checkMetadata()
	spec := &d.object.Spec
	if !d.has("spec") {
		d.fail("spec", "", "missing; expected rules or facts in it")
	}
	switch {
	case spec.Mode == "Audit":
		d.fail("spec.mode", `"Audit"`, "is reserved for later; expected Enforce")
	case spec.Mode != "Enforce" && d.has("spec.mode"):
		d.fail("spec.mode", quoted(spec.Mode), "is not a mode; expected Enforce")
	}
	d.notEmpty("spec.rules", spec.Rules == nil, len(spec.Rules))
	names := map[string]int{}
	rules := make([]Rule, len(spec.Rules))
	for i := range spec.Rules {
		rules[i] = d.rule(i, names)
	}
	return rules
}

func (d *document) checkMetadata() {
	name := d.object.Name
	switch {
	case name == "" && !d.has("metadata.name"):
		d.fail("metadata.name", "", "missing; expected a name for the policy")
	case len(validation.IsDNS1123Subdomain(name)) > 0:
		d.fail("metadata.name", quoted(name), "is not a DNS name; expected lower case letters, digits, '-' and '.', "+
			"a letter or digit at each end, at most 253 characters")
	}
	if d.object.Namespace != "" {
		d.fail("metadata.namespace", quoted(d.object.Namespace), "is not expected: a SourcePolicy belongs to no namespace")
	}
}

func (d *document) rule(i int, names map[string]int) Rule {
	in := &d.object.Spec.Rules[i]
	path := indexPath("spec.rules", i)
	r := Rule{
		Document:                  d.object.Name,
		Name:                      d.ruleName(path, in.Name, i, names),
		From:                      d.from(path+".from", in.From),
		To:                        d.to(path+".to", in.To),
		OutInterfaces:             d.interfaces(path+".outInterfaces", in.OutInterfaces),
		Action:                    Action(in.Action),
		OverrideServiceMasquerade: in.OverrideServiceMasquerade,
	}
	d.action(path, in, &r)
	return r
}

// ruleName checks a name, or gives rule-N; names holds those seen, with their index.
func (d *document) ruleName(path, name string, i int, names map[string]int) string {
	path += ".name"
	if name == "" && !d.has(path) {
		name = fmt.Sprintf("rule-%d", i+1)
	} else if len(validation.IsDNS1123Label(name)) > 0 {
		d.fail(path, quoted(name), "is not a DNS label; expected lower case letters, digits and '-', "+
			"a letter or digit at each end, at most 63 characters")
		return name
	}
	if first, twice := names[name]; twice {
		d.fail(path, quoted(name), "is the name of spec.rules[%d] too; expected another", first)
		return name
	}
	names[name] = i
	return name
}

func (d *document) action(path string, in *v1alpha1.Rule, r *Rule) {
	actions := []string{string(Keep), string(Masquerade), string(SNAT), string(Leave)}
	switch {
	case !d.has(path + ".action"):
		d.fail(path+".action", "", "missing; expected %s", orList(actions))
	case !slices.Contains(actions, in.Action):
		d.fail(path+".action", quoted(in.Action), "is not an action; expected %s", orList(actions))
	}
	if in.Masquerade != nil {
		d.masquerade(path, in, r)
	}
	if in.SNAT != nil {
		d.snat(path, in, r)
	} else if r.Action == SNAT {
		d.fail(path+".snat", "", "missing; action SNAT needs snat.addresses")
	}
}

func (d *document) masquerade(path string, in *v1alpha1.Rule, r *Rule) {
	path += ".masquerade"
	if r.Action != Masquerade {
		d.fail(path, "", "not expected with action %s; it refines action Masquerade", in.Action)
	}
	r.FullyRandom = in.Masquerade.FullyRandom
	if !d.has(path + ".ports") {
		return
	}
	var ok bool
	if r.Ports, ok = parsePorts(in.Masquerade.Ports); !ok {
		d.fail(path+".ports", quoted(in.Masquerade.Ports), "is not a range of ports; expected FIRST-LAST within 1 to 65535, such as 1024-29999")
	}
}

func (d *document) snat(path string, in *v1alpha1.Rule, r *Rule) {
	path += ".snat"
	if r.Action != SNAT {
		d.fail(path, "", "not expected with action %s; it belongs to action SNAT", in.Action)
	}
	r.FullyRandom = in.SNAT.FullyRandom
	if in.SNAT.Addresses == nil {
		d.fail(path+".addresses", "", "missing; expected addresses or ranges such as 192.0.2.16-192.0.2.23")
	}
	r.Addresses = d.snatAddresses(path+".addresses", in.SNAT.Addresses)
}

// interfaces checks names of interfaces as IFNAMSIZ and nft bound them; a
// trailing + or * becomes *.
func (d *document) interfaces(path string, names []v1alpha1.InterfaceName) []string {
	d.notEmpty(path, names == nil, len(names))
	var out []string
	for i := range names {
		name := string(names[i])
		at := indexPath(path, i)
		stem := strings.TrimRight(name, "+*")
		switch {
		case name == "+" || name == "*":
			d.fail(at, quoted(name), "matches every interface; leave outInterfaces out instead")
		case len(name) == 0 || len(name) > 15:
			d.fail(at, quoted(name), "is not the name of an interface; expected 1 to 15 characters")
		case len(name)-len(stem) > 1 || stem == "." || stem == ".." ||
			strings.ContainsFunc(stem, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`/:"\*`, r) }):
			d.fail(at, quoted(name), "is not the name of an interface; expected one such as eth0, or its beginning such as eth+")
		default:
			if stem != name {
				stem += "*"
			}
			if !slices.Contains(out, stem) {
				out = append(out, stem)
			}
		}
	}
	return out
}

// selector compiles a label selector; nil selects everything.
func (d *document) selector(path string, in *v1alpha1.LabelSelector) labels.Selector {
	if in == nil {
		return labels.Everything()
	}
	s := labelSelector(in)
	d.notEmpty(path+".matchExpressions", in.MatchExpressions == nil, len(in.MatchExpressions))
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err == nil {
		return selector
	}
	before := len(d.errs)
	d.labels(path+".matchLabels", s.MatchLabels)
	for i := range s.MatchExpressions {
		part := metav1.LabelSelector{MatchExpressions: s.MatchExpressions[i : i+1]}
		if _, err := metav1.LabelSelectorAsSelector(&part); err != nil {
			d.fail(indexPath(path+".matchExpressions", i), "", "not a label selector's: %s", oneLine(err))
		}
	}
	if len(d.errs) == before {
		d.fail(path, "", "not a label selector: %s", oneLine(err))
	}
	return labels.Nothing()
}

// labelSelector is Kubernetes' type of the same.
func labelSelector(in *v1alpha1.LabelSelector) *metav1.LabelSelector {
	out := &metav1.LabelSelector{}
	if in.MatchLabels != nil {
		out.MatchLabels = make(map[string]string, len(in.MatchLabels))
	}
	for key, value := range in.MatchLabels {
		out.MatchLabels[key] = string(value)
	}
	for _, e := range in.MatchExpressions {
		r := metav1.LabelSelectorRequirement{Key: e.Key, Operator: metav1.LabelSelectorOperator(e.Operator)}
		for _, value := range e.Values {
			r.Values = append(r.Values, string(value))
		}
		out.MatchExpressions = append(out.MatchExpressions, r)
	}
	return out
}

// oneLine is the error without the explanations that follow its first sentence.
func oneLine(err error) string {
	text, _, _ := strings.Cut(strings.Join(strings.Fields(err.Error()), " "), " (e.g. ")
	return text
}
