package importer

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/unmasq/unmasq/api/v1alpha1"
)

var (
	calicoGroups = [...]string{"projectcalico.org", "crd.projectcalico.org"}
	installation = resource{"operator.tigera.io", "Installation"}
)

func calicoResources() []resource {
	all := []resource{installation}
	for _, g := range calicoGroups {
		all = append(all, resource{g, "IPPool"}, resource{g, "FelixConfiguration"})
	}
	return all
}

const calicoReads = "IPPools and FelixConfiguration (kubectl get ippools.crd.projectcalico.org,felixconfigurations.crd.projectcalico.org -o yaml), or the operator's Installation"

// calico reads pools of addresses and Felix's settings. What Felix writes for them:
//
//	-A cali-nat-outgoing -m set --match-set cali40masq-ipam-pools src -m set ! --match-set cali40all-ipam-pools dst
//	  [-m set ! --match-set cali40all-hosts-net dst] [-o FILTER] -j MASQUERADE --random-fully
//
// With a range of ports the same stands there for tcp and udp before it.
func calico() Kind {
	return Kind{Name: "calico", Reads: "IPPools and FelixConfiguration, or the operator's Installation", Knows: holdsAny(calicoResources()...), Import: importCalico}
}

// calicoSettings are all that files say.
type calicoSettings struct {
	// pools of all, masqueraded those with natOutgoing.
	pools, masqueraded []Network
	felix              Value
	ports              string
	address            netip.Addr
	hosts              bool
	filter             string
}

func importCalico(files []File, opts Options) (*Result, error) {
	found, err := resourcesOf(files, calicoReads, calicoResources()...)
	if err != nil {
		return nil, err
	}
	r, s := &Result{}, &calicoSettings{}
	for _, v := range found {
		switch v.Get("kind").Text() {
		case "IPPool":
			err = s.pool(v.Get("spec"), "natOutgoing")
		case "Installation":
			err = s.installation(v)
		default:
			err = s.felixConfiguration(r, v)
		}
		if err != nil {
			return nil, err
		}
	}
	if len(s.pools) == 0 {
		return nil, found[0].Wrong("no IPPool is given; expected those of the cluster, disabled ones too")
	}
	d := NewDocument(opts, "calico", "What Calico's natOutgoing does.")
	if err := s.rules(r, d); err != nil {
		return nil, err
	}
	r.Documents = append(r.Documents, d)
	return r, nil
}

// pool with its CIDR. Disabled ones count too: no pod gets an address of theirs any
// more, but what has one is theirs, and so are destinations.
func (s *calicoSettings) pool(spec Value, field string) error {
	cidr := spec.Get("cidr")
	n, err := cidr.Prefix()
	if err != nil {
		return err
	}
	nat, err := spec.Get(field).Bool(false)
	if err != nil {
		return err
	}
	if _, err := spec.Get("disabled").Bool(false); err != nil {
		return err
	}
	s.pools = append(s.pools, n)
	if nat {
		n.At = spec.Get(field).Place()
		s.masqueraded = append(s.masqueraded, n)
	}
	return nil
}

// installation of the operator: natOutgoing is a word there, and on unless stated.
func (s *calicoSettings) installation(v Value) error {
	for _, spec := range v.Get("spec", "calicoNetwork", "ipPools").Items() {
		n, err := spec.Get("cidr").Prefix()
		if err != nil {
			return err
		}
		nat, err := spec.Get("natOutgoing").oneOf("Enabled", "Disabled")
		if err != nil {
			return err
		}
		if s.pools = append(s.pools, n); nat == "Enabled" {
			s.masqueraded = append(s.masqueraded, n)
		}
	}
	return nil
}

func (s *calicoSettings) felixConfiguration(r *Result, v Value) (err error) {
	if name := nameOf(v); name != "default" {
		r.Warn(v.Get("metadata", "name").Place(), "settings of one node alone are left out; import them for that node by themselves, under the name default")
		return nil
	}
	s.felix = v.Get("spec")
	if bpf, err := s.felix.Get("bpfEnabled").Bool(false); err != nil {
		return err
	} else if bpf {
		r.Warn(s.felix.Get("bpfEnabled").Place(), "in the eBPF data path pods' packets go past netfilter, so that no policy decides them")
	}
	if s.ports, err = calicoPorts(s.felix.Get("natPortRange")); err != nil {
		return err
	}
	if a := s.felix.Get("natOutgoingAddress"); a.Is() && a.Text() != "" {
		if s.address, err = netip.ParseAddr(a.Text()); err != nil || s.address.Is4In6() || s.address.Zone() != "" {
			return a.Wrong("is not an address")
		}
	}
	exclusions, err := s.felix.Get("natOutgoingExclusions").oneOf("IPPoolsOnly", "IPPoolsAndHostIPs")
	if err != nil {
		return err
	}
	s.hosts = exclusions == "IPPoolsAndHostIPs"
	s.filter, err = s.felix.Get("iptablesNATOutgoingInterfaceFilter").String()
	return err
}

// calicoPorts is FIRST:LAST, or one port, as FIRST-LAST; "" where there is none.
func calicoPorts(v Value) (string, error) {
	text := v.Text()
	if !v.Is() || text == "" || text == "0" {
		return "", nil
	}
	first, last, isRange := strings.Cut(text, ":")
	if !isRange {
		last = first
	}
	a, err := strconv.ParseUint(first, 10, 16)
	b, other := strconv.ParseUint(last, 10, 16)
	if err != nil || other != nil || a == 0 || a > b {
		return "", v.Wrong("is not a range of ports; expected FIRST:LAST, such as 32768:65535")
	}
	return fmt.Sprintf("%d-%d", a, b), nil
}

func (s *calicoSettings) rules(r *Result, d *Document) error {
	if len(s.masqueraded) == 0 {
		d.Rule(v1alpha1.Rule{Name: "pools", From: &v1alpha1.From{CIDRs: d.CIDRs(d.cidrsPath("from.cidrs"), s.pools)}, Action: "Leave"},
			"No pool has natOutgoing: pods keep their addresses unless another component hides them; Keep holds against those, too.")
		return nil
	}
	keep := v1alpha1.Rule{
		Name: "pools", From: &v1alpha1.From{CIDRs: prefixTexts(s.masqueraded)},
		To: &v1alpha1.To{CIDRs: d.CIDRs(d.cidrsPath("to.cidrs"), s.pools)}, Action: "Keep",
	}
	notes := []string{"All pools see pods' own addresses, disabled ones too."}
	if s.hosts {
		keep.To.Nodes = &v1alpha1.Empty{}
		notes = append(notes, s.felix.Get("natOutgoingExclusions").Place().String()+": so do nodes.")
	}
	d.Rule(keep, notes...)
	return s.outgoing(r, d)
}

// outgoing are the rules for what leaves the pools.
func (s *calicoSettings) outgoing(r *Result, d *Document) error {
	rule := v1alpha1.Rule{Name: "nat-outgoing", From: &v1alpha1.From{}, Action: "Masquerade", Masquerade: randomly(true)}
	from := s.masqueraded
	if s.address.IsValid() {
		at := s.felix.Get("natOutgoingAddress")
		from = slices.DeleteFunc(slices.Clone(from), func(n Network) bool { return n.Addr().Is4() != s.address.Is4() })
		if len(from) < len(s.masqueraded) {
			r.Warn(at.Place(), "is of one family: pools of the other are left out, as Calico itself can't translate them")
		}
		if len(from) == 0 {
			return at.Wrong("has the family of no pool with natOutgoing")
		}
		rule.Action, rule.Masquerade = "SNAT", nil
		rule.SNAT = &v1alpha1.SNAT{Addresses: []v1alpha1.AddressRange{v1alpha1.AddressRange(s.address.String())}, FullyRandom: true}
		if s.ports != "" {
			r.Warn(s.felix.Get("natPortRange").Place(), "is left out: with an address of one's own the kernel chooses ports")
		}
	}
	if s.filter != "" {
		rule.OutInterfaces = []v1alpha1.InterfaceName{v1alpha1.InterfaceName(s.filter)}
	}
	if s.ports != "" && rule.SNAT == nil {
		ported := rule
		ported.Name, ported.From = "nat-outgoing-ports", &v1alpha1.From{CIDRs: prefixTexts(from)}
		ported.To = &v1alpha1.To{Ports: []v1alpha1.Port{{Protocol: "TCP"}, {Protocol: "UDP"}}}
		ported.Masquerade = &v1alpha1.Masquerade{FullyRandom: true, Ports: s.ports}
		d.Rule(ported, s.felix.Get("natPortRange").Place().String()+": of TCP and UDP.")
	}
	rule.From.CIDRs = d.CIDRs(d.cidrsPath("from.cidrs"), from)
	d.Rule(rule)
	return nil
}
