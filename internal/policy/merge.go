package policy

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/unmasq/unmasq/api/v1alpha1"
)

// loader gathers documents and what concerns several of them.
type loader struct {
	opts Options
	docs []*document
	// inForce are the documents that select this node, with their rules. The
	// others are checked, and say nothing.
	inForce []ruled
	// names are the documents seen, by name.
	names  map[string]*document
	stated Stated
	// sources are their places in the order given, by name.
	sources map[string]int
	// loose are errors outside documents.
	loose Errors
}

// ruled is a document with its checked rules.
type ruled struct {
	*document
	rules []Rule
}

// add takes a document. What is found wrong with it here is said of a copy: a
// Reader has the document for the next time.
func (l *loader) add(c *checked) {
	copied := *c.document
	d := &copied
	d.errs = slices.Clip(d.errs)
	l.docs = append(l.docs, d)
	if first, twice := l.names[d.object.Name]; twice {
		d.fail("metadata.name", quoted(d.object.Name), "is the name of the policy at %s too; expected another", first.origin("metadata.name"))
	} else if d.object.Name != "" {
		l.names[d.object.Name] = d
	}
	if l.selected(d) {
		l.inForce = append(l.inForce, ruled{d, c.rules})
		l.stated.take(d, &c.facts)
	}
}

// selected says whether the document is meant for this node.
func (l *loader) selected(d *document) bool {
	in := d.object.Spec.NodeSelector
	if in == nil {
		return true
	}
	selector := d.selector("spec.nodeSelector", in)
	if selector.Empty() {
		return true
	}
	if l.opts.NodeLabels == nil {
		d.fail("spec.nodeSelector", "", "needs this node's labels: state them with --node-labels")
		return true
	}
	return selector.Matches(labels.Set(l.opts.NodeLabels))
}

// take adds the facts of a document; what another stated before is an error.
func (s *Stated) take(d *document, facts *Stated) {
	takeOne(d, "podCIDRs", &s.PodCIDRs, &facts.PodCIDRs)
	takeOne(d, "localPodCIDRs", &s.LocalPodCIDRs, &facts.LocalPodCIDRs)
	takeOne(d, "serviceCIDRs", &s.ServiceCIDRs, &facts.ServiceCIDRs)
	takeOne(d, "nodeAddresses", &s.NodeAddresses, &facts.NodeAddresses)
	takeOne(d, "nodes", &s.Nodes, &facts.Nodes)
	takeOne(d, "serviceMark", &s.ServiceMark, &facts.ServiceMark)
	takeOne(d, "hostPortMark", &s.HostPortMark, &facts.HostPortMark)
	takeOne(d, "pods", &s.Pods, &facts.Pods)
	takeOne(d, "services", &s.Services, &facts.Services)
}

func takeOne[T any](d *document, name string, to, from *StatedValue[T]) {
	switch {
	case !from.Set:
	case to.Set:
		d.fail(factPath(name), "", "stated at %s already; expected each fact once over all documents", to.Origin)
	default:
		*to = *from
	}
}

// checkTogether checks what one document alone doesn't show.
func (l *loader) checkTogether() {
	for _, d := range l.inForce {
		for i := range d.rules {
			path := indexPath("spec.rules", i)
			l.checkPods(d.document, path+".from.pods", d.rules[i].From.Pods)
			if d.rules[i].To.Nodes && l.opts.NoNodes != "" && !l.stated.Nodes.Set {
				d.fail(path+".to.nodes", "", "%s", l.opts.NoNodes)
			}
			l.checkServices(d.document, path+".to.services", d.rules[i].To.Services)
			for j, text := range cidrTexts(d.object.Spec.Rules[i].To) {
				l.checkServiceCIDR(d.document, indexPath(path+".to.cidrs", j), string(text))
			}
		}
	}
}

func (l *loader) checkPods(d *document, path string, selector *PodSelector) {
	if selector == nil || l.stated.Pods.Set || l.opts.PodsKnown {
		return
	}
	for _, field := range []string{".podSelector", ".namespaceSelector"} {
		if d.has(path + field) {
			d.fail(path+field, "", "needs to know this node's pods; state them in spec.facts.pods")
			return
		}
	}
}

// checkServices: what nobody knows can't be meant.
func (l *loader) checkServices(d *document, path string, s *Services) {
	switch {
	case s == nil:
	case s.NeedsServices() && !l.stated.Services.Set && !l.opts.ServicesKnown:
		d.fail(path, "", "%s", cmp.Or(l.opts.NoServices, "needs to know the cluster's services; state them in spec.facts.services"))
	case s.NeedsServiceCIDRs() && !l.stated.ServiceCIDRs.Set && !l.opts.ServiceCIDRsKnown:
		d.fail(path, "", "%s", cmp.Or(l.opts.NoServiceCIDRs, "needs to know the networks of ClusterIPs; state them in spec.facts.serviceCIDRs, or here in cidrs"))
	}
}

func cidrTexts(to *v1alpha1.To) []v1alpha1.CIDR {
	if to == nil {
		return nil
	}
	return to.CIDRs
}

// checkServiceCIDR: rules see packets after DNAT, when no service address is left.
// The author of an API's object didn't write this node's files: Warnings says it.
func (l *loader) checkServiceCIDR(d *document, path, text string) {
	if d.noLines {
		return
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return
	}
	for _, service := range l.stated.ServiceCIDRs.Value {
		if service.Bits() <= p.Bits() && service.Contains(p.Addr()) {
			d.fail(path, quoted(text), "lies in the service CIDR %s (%s) and could never match: "+
				"rules see a packet after DNAT, on its way to a pod", service, l.stated.ServiceCIDRs.Origin)
			return
		}
	}
}

// errors are all errors, in the order of sources and lines.
func (l *loader) errors() Errors {
	all := l.loose
	for _, d := range l.docs {
		all = append(all, d.errs...)
	}
	slices.SortStableFunc(all, func(a, b FieldError) int {
		return cmp.Or(cmp.Compare(l.sources[a.File], l.sources[b.File]), cmp.Compare(a.Line, b.Line))
	})
	return all
}

// merged puts the rules of all documents in their order of evaluation.
func (l *loader) merged() *Loaded {
	slices.SortFunc(l.inForce, func(a, b ruled) int {
		return cmp.Or(cmp.Compare(orderOf(a.document), orderOf(b.document)), strings.Compare(a.object.Name, b.object.Name))
	})
	out := &Loaded{Stated: l.stated}
	p := &out.Policy
	for _, d := range l.inForce {
		out.Documents = append(out.Documents, Document{Name: d.object.Name, Order: orderOf(d.document), Rules: len(d.rules)})
		for _, r := range d.rules {
			r.Number = len(p.Rules) + 1
			p.Rules = append(p.Rules, r)
		}
	}
	return out
}

func orderOf(d *document) int32 {
	if order := d.object.Spec.Order; order != nil {
		return *order
	}
	return v1alpha1.DefaultOrder
}

// selects says whether the document's selector is right and selects the node.
func (d *document) selects(nodeLabels map[string]string) bool {
	if d.object.Spec.NodeSelector == nil {
		return true
	}
	s, err := metav1.LabelSelectorAsSelector(labelSelector(d.object.Spec.NodeSelector))
	return err == nil && s.Matches(labels.Set(nodeLabels))
}
