package cluster

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/unmasq/unmasq/internal/cni/results"
	"github.com/unmasq/unmasq/internal/policy"
)

// pods are those of this node that own addresses, sorted by namespace and name.
//
// Two sources say whose an address is. Network plugins' results come before a
// pod's first packet and go when its network is taken away; the newest decides.
// The API's status comes later and may be of the past, so that it decides only
// where no newer result says otherwise. An address that the newest result gives to
// a pod which isn't known, or has ended, is nobody's: it is a pod's address still,
// which no selector matches. WithResults are the pluginUIDs of pods that have one.
func pods(in *Input) (all []policy.Pod, withResults map[string]bool) {
	o := newOwners(in)
	for _, r := range in.Results {
		o.added(r)
	}
	for i := range in.Pods {
		o.shown(&in.Pods[i])
	}
	return o.list(in.Namespaces), o.hasResult
}

type owners struct {
	released map[string]bool
	// byUID has the pods that can own addresses, ended ones too, by what network
	// plugins call them; byName by "namespace/name".
	byUID, byName map[string]*Pod
	// newest result of each address.
	newest map[netip.Addr]results.Result
	// hasResult are the UIDs of the pods that any result is of.
	hasResult map[string]bool
	// claims of the API to addresses without a result that decides.
	claims map[netip.Addr]*Pod
}

func newOwners(in *Input) *owners {
	o := &owners{released: in.Released, byUID: map[string]*Pod{}, byName: map[string]*Pod{}, newest: map[netip.Addr]results.Result{},
		hasResult: map[string]bool{}, claims: map[netip.Addr]*Pod{}}
	for i := range in.Pods {
		p := &in.Pods[i]
		if p.HostNetwork {
			continue
		}
		o.byUID[p.pluginUID()] = p
		o.byName[p.Namespace+"/"+p.Name] = p
	}
	return o
}

// added notes a result, which is newer than those before it.
func (o *owners) added(r results.Result) {
	if r.Interface != results.PodInterface {
		return
	}
	for _, a := range r.Addresses {
		o.newest[a] = r
	}
	if p := o.podOf(r); p != nil {
		o.hasResult[p.pluginUID()] = true
	}
}

// podOf a result; nil: not known.
func (o *owners) podOf(r results.Result) *Pod {
	p := o.byName[r.Namespace+"/"+r.Name]
	if r.UID == "" {
		return p
	}
	if byUID := o.byUID[r.UID]; byUID != nil && byUID.Namespace == r.Namespace && byUID.Name == r.Name {
		return byUID
	}
	return nil
}

// shown takes the addresses that the API shows of a pod.
func (o *owners) shown(p *Pod) {
	if p.HostNetwork || p.Ended || o.released[p.pluginUID()] || o.released[p.Namespace+"/"+p.Name] {
		return
	}
	for _, a := range p.Addresses {
		if r, ok := o.newest[a]; ok && !o.outdated(r, p) {
			continue
		}
		if other := o.claims[a]; other == nil || other.before(p) {
			o.claims[a] = p
		}
	}
}

// outdated: a result that nobody removed, of a pod that is no more, while the pod
// that the API shows came later and this runtime doesn't cache its results here.
func (o *owners) outdated(r results.Result, p *Pod) bool {
	const second = 1_000_000_000
	return o.podOf(r) == nil && !o.hasResult[p.pluginUID()] && p.Created > r.Added/second
}

// pluginUID is what network plugins know the pod by.
func (p *Pod) pluginUID() string { return cmp.Or(p.StaticUID, p.UID) }

// Key of the pod that a result is of, for Input.Released.
func Key(r results.Result) string { return cmp.Or(r.UID, r.Namespace+"/"+r.Name) }

// before says which of two pods came first.
func (p *Pod) before(other *Pod) bool {
	return cmp.Or(cmp.Compare(p.Created, other.Created), strings.Compare(p.UID, other.UID)) < 0
}

// list gives each address to its owner.
func (o *owners) list(namespaces []Namespace) []policy.Pod {
	addresses := map[*Pod][]netip.Addr{}
	for a, p := range o.claims {
		addresses[p] = append(addresses[p], a)
	}
	for a, r := range o.newest {
		if p := o.podOf(r); p != nil && !p.Ended {
			addresses[p] = append(addresses[p], a)
		}
	}
	labelsOf := make(map[string]map[string]string, len(namespaces))
	for _, n := range namespaces {
		labelsOf[n.Name] = n.Labels
	}
	var out []policy.Pod
	for p, own := range addresses {
		of, known := labelsOf[p.Namespace]
		if !known {
			continue // on its way: until then no selector can be asked about it
		}
		slices.SortFunc(own, netip.Addr.Compare)
		out = append(out, policy.Pod{Namespace: p.Namespace, Name: p.Name, Labels: labels.Set(p.Labels), NamespaceLabels: namespaceLabels(p.Namespace, of), Addresses: own})
	}
	slices.SortFunc(out, func(a, b policy.Pod) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name), slices.CompareFunc(a.Addresses, b.Addresses, netip.Addr.Compare))
	})
	return out
}

// nameLabel is what the API server gives each namespace.
const nameLabel = "kubernetes.io/metadata.name"

func namespaceLabels(name string, own map[string]string) labels.Set {
	out := labels.Set{nameLabel: name}
	maps.Copy(out, own)
	return out
}
