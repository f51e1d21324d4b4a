package importer

import (
	"fmt"

	"github.com/unmasq/unmasq/api/v1alpha1"
)

// kindnet reads kindnet's flags, and POD_SUBNET of the one that kind brings along. What
// it writes, in table inet kindnet-ipmasq:
//
//	ct state established,related accept
//	fib daddr type local accept
//	ip daddr @noMasqV4 accept        (pods of all nodes, --no-masquerade-cidr)
//	ip6 daddr @noMasqV6 accept
//	masquerade
func kindnet() Kind {
	return Kind{
		Name: "kindnet", Reads: "its DaemonSet, or a command line with its flags",
		Knows:  func(f File) bool { return runsProgram(f, kindnetPrograms()...) },
		Import: importKindnet,
	}
}

// kindnetPrograms are names of containers, images and commands.
func kindnetPrograms() []string { return []string{"kindnetd", "kindnet", "kindnet-cni"} }

func importKindnet(files []File, opts Options) (*Result, error) {
	flags, env, err := startWith(files, kindnetPrograms(), "no-masquerade-cidr")
	if err != nil {
		return nil, err
	}
	var kept, pods []Network
	if one, ok := flags.Get("no-masquerade-cidr"); ok {
		if kept, err = one.Networks(); err != nil {
			return nil, err
		}
	}
	if one, ok := env.Get("POD_SUBNET"); ok {
		if pods, err = one.Networks(); err != nil {
			return nil, err
		}
	}
	masq, at, err := flags.Bool("--", "masquerading", true)
	if err != nil {
		return nil, err
	}
	if len(opts.PodCIDRs) > 0 {
		pods = stated("--pod-cidrs", opts.PodCIDRs)
	}
	r := &Result{}
	d := NewDocument(opts, "kindnet")
	d.Facts.PodCIDRs = d.CIDRs("facts.podCIDRs", pods)
	r.Documents = append(r.Documents, d)
	if !masq {
		d.Rule(v1alpha1.Rule{Name: "elsewhere", From: fromPods(), Action: "Leave"},
			at.String()+" is off: pods keep their addresses unless another component hides them; Keep holds against those, too.")
		return r, nil
	}
	kindnetRules(d, kept, at)
	return r, nil
}

// kindnetRules: it asks nothing about sources.
func kindnetRules(d *Document, kept []Network, at Place) {
	everybody := &v1alpha1.From{CIDRs: anywhereCIDRs(true, true), Node: &v1alpha1.Empty{}}
	path := fmt.Sprintf("rules[%d]", len(d.Rules))
	d.Rule(v1alpha1.Rule{Name: "kept", From: fromPods(), To: &v1alpha1.To{Pods: &v1alpha1.Empty{}, CIDRs: d.CIDRs(path+".to.cidrs", kept)}, Action: "Keep"},
		at.String()+": pods, and networks that are listed, see pods' addresses.")
	d.Rule(v1alpha1.Rule{Name: "kept-others", From: everybody, To: &v1alpha1.To{Pods: &v1alpha1.Empty{}, CIDRs: prefixTexts(kept)}, Action: "Leave"},
		at.String()+": of all others that is for other components to say.")
	d.Rule(v1alpha1.Rule{Name: "elsewhere", From: everybody, Action: "Masquerade"}, at.String()+": all others see the node's address.")
}
