package importer

import (
	"slices"
	"strings"

	"github.com/unmasq/unmasq/api/v1alpha1"
	"github.com/unmasq/unmasq/internal/policy"
)

// flannel reads what flanneld and its CNI plugin are told. What flanneld writes, in its
// iptables mode:
//
//	-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -j RETURN
//	-A FLANNEL-POSTRTG -s LOCAL -d CLUSTER -j RETURN
//	-A FLANNEL-POSTRTG -s CLUSTER -d LOCAL -j RETURN
//	-A FLANNEL-POSTRTG ! -s CLUSTER -d LOCAL -j RETURN
//	-A FLANNEL-POSTRTG -s CLUSTER ! -d 224.0.0.0/4 -j MASQUERADE --random-fully
//	-A FLANNEL-POSTRTG ! -s CLUSTER -d CLUSTER -j MASQUERADE --random-fully
//
// In its nftables mode the last one takes nothing: all that goes to CLUSTER is returned
// before. Where --ip-masq is off and cni-conf.json doesn't say otherwise, the CNI plugin
// has the bridge plugin masquerade.
func flannel() Kind {
	return Kind{
		Name:  "flannel",
		Reads: "ConfigMap kube-flannel-cfg, net-conf.json, cni-conf.json, DaemonSet, command line, FLANNELD_ variables, subnet.env",
		Knows: func(f File) bool { return new(flannelSettings).read(f) == nil },
		Import: func(files []File, opts Options) (*Result, error) {
			s := &flannelSettings{}
			for _, f := range files {
				if err := s.read(f); err != nil {
					return nil, err
				}
			}
			return s.result(opts)
		},
	}
}

// flannelSettings are all that files say.
type flannelSettings struct {
	flags Settings
	// started: a file has flanneld's command line, so that flags which aren't there are
	// the defaults.
	started bool
	// env has flags as FLANNELD_ variables, and what is in subnet.env.
	env          Settings
	network, cni Value
}

// read takes what is flannel's of a file; there must be something.
func (s *flannelSettings) read(f File) error {
	documents, err := Documents(f)
	plain := !slices.ContainsFunc(documents, Value.IsMap)
	if plain && s.readText(f) {
		return nil
	}
	if err != nil {
		return err
	}
	known := false
	for _, d := range documents {
		found, err := s.readObject(d)
		if err != nil {
			return err
		}
		known = known || found
	}
	if !known {
		return &policy.FieldError{File: f.Name, Line: 1, Message: "nothing here is flannel's; expected " + flannel().Reads}
	}
	return nil
}

func (s *flannelSettings) readText(f File) bool {
	env := variables(f)
	env = slices.DeleteFunc(env, func(one Setting) bool {
		return !strings.HasPrefix(one.Name, "FLANNEL_") && !strings.HasPrefix(one.Name, "FLANNELD_")
	})
	if words, starts := programLine(f, "flanneld"); starts {
		s.flags, s.started = append(s.flags, flagsOf(words)...), true
	} else if len(env) == 0 {
		return false
	}
	s.env = append(s.env, env...)
	return true
}

func (s *flannelSettings) readObject(v Value) (known bool, err error) {
	for key, conf := range map[string]*Value{"net-conf.json": &s.network, "cni-conf.json": &s.cni} {
		if text := v.Get("data", key); text.Is() {
			inner, err := text.Inner()
			if err != nil {
				return false, err
			}
			if len(inner) != 1 || !inner[0].IsMap() {
				return false, text.Wrong("expected one JSON object")
			}
			*conf, known = inner[0], true
		}
	}
	found, err := containers(v, "flanneld", "kube-flannel", "flannel")
	if err != nil {
		return false, err
	}
	for _, c := range found {
		s.flags, s.env, known, s.started = append(s.flags, c.Flags()...), append(s.env, c.Env...), true, true
	}
	switch {
	case v.Get("kind").Is():
	case v.Fold("Network").Is() || v.Fold("IPv6Network").Is():
		s.network, known = v, true
	case isFlannelCNI(v):
		s.cni, known = v, true
	}
	return known, nil
}

func isFlannelCNI(v Value) bool { return flannelPlugin(v).Is() }

// flannelPlugin of a CNI configuration or a list of plugins.
func flannelPlugin(v Value) Value {
	for _, p := range append(v.Get("plugins").Items(), v) {
		if p.Get("type").Text() == "flannel" {
			return p
		}
	}
	return Value{}
}

// flag as flanneld reads it: from its command line, else from the environment.
func (s *flannelSettings) flag(name string, otherwise bool) (bool, Place, error) {
	if _, ok := s.flags.Get(name); !ok {
		variable := "FLANNELD_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		if one, ok := s.env.Get(variable); ok && one.Value != "" {
			b, err := one.Bool()
			return b, one.At, err
		}
	}
	return s.flags.Bool("--", name, otherwise)
}

// flannelNetwork is what net-conf.json says, or subnet.env of one node.
type flannelNetwork struct {
	cluster, local []Network
	v4, v6         bool
	nftables       bool
}

func (s *flannelSettings) networks(opts Options) (n flannelNetwork, err error) {
	if n.v4, err = s.network.Fold("EnableIPv4").Bool(true); err != nil {
		return n, err
	}
	if n.v6, err = s.network.Fold("EnableIPv6").Bool(false); err != nil {
		return n, err
	}
	if n.nftables, err = s.network.Fold("EnableNFTables").Bool(false); err != nil {
		return n, err
	}
	for key, enabled := range map[string]bool{"Network": n.v4, "IPv6Network": n.v6} {
		if v := s.network.Fold(key); v.Is() && enabled {
			p, err := v.Prefix()
			if err != nil {
				return n, err
			}
			if (key == "Network") != p.Addr().Is4() {
				return n, v.Wrong("is of the other family")
			}
			n.cluster = append(n.cluster, p)
		}
	}
	slices.SortFunc(n.cluster, func(a, b Network) int { return a.Addr().Compare(b.Addr()) })
	if err := n.fromEnv(s); err != nil {
		return n, err
	}
	if len(opts.PodCIDRs) > 0 {
		n.cluster = stated("--pod-cidrs", opts.PodCIDRs)
	}
	if len(opts.LocalPodCIDRs) > 0 {
		n.local = stated("--local-pod-cidrs", opts.LocalPodCIDRs)
	}
	return n, nil
}

// fromEnv reads subnet.env, which flanneld writes for the CNI plugin.
func (n *flannelNetwork) fromEnv(s *flannelSettings) error {
	for _, x := range []struct {
		name string
		to   *[]Network
	}{{"FLANNEL_NETWORK", &n.cluster}, {"FLANNEL_IPV6_NETWORK", &n.cluster}, {"FLANNEL_SUBNET", &n.local}, {"FLANNEL_IPV6_SUBNET", &n.local}} {
		one, ok := s.env.Get(x.name)
		if !ok || one.Value == "" {
			continue
		}
		networks, err := one.Networks()
		if err != nil {
			return err
		}
		*x.to = append(*x.to, networks...)
		if !s.network.Is() {
			v4, v6 := families(networks)
			n.v6 = n.v6 || v6
			n.v4 = n.v4 || v4
		}
	}
	return nil
}

func (s *flannelSettings) result(opts Options) (*Result, error) {
	n, err := s.networks(opts)
	if err != nil {
		return nil, err
	}
	masq, at, err := s.flag("ip-masq", false)
	if err != nil {
		return nil, err
	}
	if one, ok := s.env.Get("FLANNEL_IPMASQ"); ok && at.Line == 0 {
		if masq, err = one.Bool(); err != nil {
			return nil, err
		}
		at = one.At
	}
	r := &Result{}
	d := NewDocument(opts, "flannel")
	d.Facts.PodCIDRs = d.CIDRs("facts.podCIDRs", n.cluster)
	d.Facts.LocalPodCIDRs = d.CIDRs("facts.localPodCIDRs", n.local)
	r.Documents = append(r.Documents, d)
	if at.Line == 0 && !s.started {
		r.Warn(at, "taken as off, since no file has flanneld's command line; flannel's manifests set it: give its DaemonSet too, or a node's subnet.env")
	}
	bridge, bridgeAt, err := s.bridgeMasquerades(masq)
	switch {
	case err != nil:
		return nil, err
	case masq:
		if bridge {
			r.Warn(bridgeAt, "the bridge plugin hides pods from pods of other nodes too, whatever flanneld does; that is not carried over")
		}
		return r, s.masquerade(r, d, n, at)
	case bridge:
		s.bridge(r, d, n, bridgeAt)
	default:
		off := at.String() + " is off"
		if at.Line == 0 {
			off = at.String() + ", so off"
		}
		d.Rule(v1alpha1.Rule{Name: "pod-egress", From: fromPods(), Action: "Leave"},
			off+": pods keep their addresses unless another component hides them; Keep holds against those, too.")
	}
	return r, nil
}

// masquerade as flanneld does.
func (s *flannelSettings) masquerade(r *Result, d *Document, n flannelNetwork, at Place) error {
	less, lessAt, err := s.flag("ip-masq-fully-random-disable", false)
	if err != nil {
		return err
	}
	random := randomly(!less)
	d.Rule(v1alpha1.Rule{Name: "cluster", From: fromPods(), To: toPods(), Action: "Keep"}, at.String()+": pods see each other's own addresses.")
	if !n.nftables {
		n.clients(r, d, at, random)
	}
	egress := d.Rule(v1alpha1.Rule{Name: "pod-egress", From: fromPods(), To: everywhere(n.v4, n.v6), Action: "Masquerade", Masquerade: random},
		at.String()+": all others see the node's address.")
	if less {
		d.Note(egress, lessAt.String()+": source ports stay where they can.")
	}
	return nil
}

// clients of pods that are no pods: the iptables mode hides them from pods of other
// nodes, and those of this node see them.
func (n *flannelNetwork) clients(r *Result, d *Document, at Place, random *v1alpha1.Masquerade) {
	cluster := prefixTexts(n.cluster)
	clients := &v1alpha1.From{CIDRs: anywhereCIDRs(n.v4, n.v6), Except: cluster, Node: &v1alpha1.Empty{}}
	switch {
	case len(cluster) == 0:
		r.Warn(at, "hides who is no pod from pods of other nodes: not carried over, since no file has the pods' network (net-conf.json, or --pod-cidrs)")
		return
	case len(n.local) == 0:
		r.Warn(at, "hides clients that come to pods of other nodes through this node: carried over for the node itself alone, since which pods are a node's is different on each (subnet.env of one, or --local-pod-cidrs)")
		clients.CIDRs = nil
	default:
		d.Rule(v1alpha1.Rule{Name: "clients-of-local-pods", From: clients, To: &v1alpha1.To{CIDRs: prefixTexts(n.local)}, Action: "Leave"},
			at.String()+": pods of this node see their clients.")
	}
	d.Rule(v1alpha1.Rule{Name: "clients-of-remote-pods", From: clients, To: toPods(), Action: "Masquerade", Masquerade: random},
		at.String()+": who is no pod is hidden from pods of other nodes.")
}

// bridgeMasquerades says whether the bridge plugin does it, which the flannel plugin
// delegates to.
func (s *flannelSettings) bridgeMasquerades(flanneld bool) (bool, Place, error) {
	v := flannelPlugin(s.cni).Get("delegate", "ipMasq")
	if !s.cni.Is() {
		return false, Place{}, nil
	}
	if !v.Is() {
		at := flannelPlugin(s.cni).Place()
		at.Setting = "delegate.ipMasq isn't stated, and on where --ip-masq is off"
		return !flanneld, at, nil
	}
	on, err := v.Bool(false)
	return on, v.Place(), err
}

// bridge is what the bridge plugin does: it hides pods from all but their own subnet.
func (s *flannelSettings) bridge(r *Result, d *Document, n flannelNetwork, at Place) {
	r.Warn(at, "the bridge plugin hides pods from pods of other nodes too; that is not carried over (take rule cluster out to have it)")
	d.Rule(v1alpha1.Rule{Name: "cluster", From: fromPods(), To: toPods(), Action: "Keep"}, at.String()+": pods of one node see each other's own addresses, here all pods do.")
	d.Rule(v1alpha1.Rule{Name: "pod-egress", From: fromPods(), To: everywhere(n.v4, n.v6), Action: "Masquerade"}, at.String()+": all others see the node's address.")
}
