package importer

import (
	"github.com/unmasq/unmasq/api/v1alpha1"
)

// kubeRouter reads kube-router's flags. What it writes for them:
//
//	-A POSTROUTING -m set --match-set kube-router-pod-subnets src
//	  -m set ! --match-set kube-router-pod-subnets dst -m set ! --match-set kube-router-node-ips dst -j MASQUERADE --random-fully
//	-A POSTROUTING -m ipvs --ipvs --vdir ORIGINAL --vmethod MASQ -j SNAT --to-source NODE --random-fully   (--masquerade-all)
func kubeRouter() Kind {
	return Kind{
		Name: "kube-router", Reads: "its DaemonSet, or a command line or unit file with its flags",
		Knows:  func(f File) bool { return runsProgram(f, kubeRouterProgram) },
		Import: importKubeRouter,
	}
}

const kubeRouterProgram = "kube-router"

func importKubeRouter(files []File, opts Options) (*Result, error) {
	flags, _, err := startWith(files, []string{kubeRouterProgram}, "cluster-cidr")
	if err != nil {
		return nil, err
	}
	v4, v6, err := kubeRouterFamilies(flags)
	if err != nil {
		return nil, err
	}
	var r Result
	d := NewDocument(opts, kubeRouterProgram)
	if d.Facts.PodCIDRs, err = kubeRouterPods(d, flags, opts); err != nil {
		return nil, err
	}
	d.Facts.ServiceCIDRs = d.CIDRs("facts.serviceCIDRs", stated("--service-cidrs", opts.ServiceCIDRs))
	if err := kubeRouterRules(&r, d, flags, opts, everywhere(v4, v6)); err != nil {
		return nil, err
	}
	r.Documents = append(r.Documents, d)
	return &r, nil
}

// kubeRouterFamilies are those that kube-router is told to serve.
func kubeRouterFamilies(flags Settings) (v4, v6 bool, err error) {
	var at Place
	if v4, at, err = flags.Bool("--", "enable-ipv4", true); err != nil {
		return false, false, err
	}
	if v6, _, err = flags.Bool("--", "enable-ipv6", false); err != nil {
		return false, false, err
	}
	if !v4 && !v6 {
		return false, false, Setting{Value: "false", At: at}.Wrong("and --enable-ipv6 isn't true; expected one family at least")
	}
	return v4, v6, nil
}

func kubeRouterPods(d *Document, flags Settings, opts Options) ([]v1alpha1.CIDR, error) {
	networks := stated("--pod-cidrs", opts.PodCIDRs)
	if s, ok := flags.Get("cluster-cidr"); ok && len(networks) == 0 {
		var err error
		if networks, err = s.Networks(); err != nil {
			return nil, err
		}
	}
	return d.CIDRs("facts.podCIDRs", networks), nil
}

// kubeRouterRules: what hides clients of services stands where it sees them, before or
// behind what keeps pods' addresses in the cluster.
func kubeRouterRules(r *Result, d *Document, flags Settings, opts Options, everywhere *v1alpha1.To) error {
	egress, at, err := kubeRouterEgress(r, flags)
	if err != nil {
		return err
	}
	services, err := kubeRouterServices(r, flags, opts)
	if err != nil {
		return err
	}
	cluster := notedRule{
		v1alpha1.Rule{Name: "cluster", From: fromPods(), To: &v1alpha1.To{Pods: &v1alpha1.Empty{}, Nodes: &v1alpha1.Empty{}}, Action: "Keep"},
		at.String() + ": pods and nodes see pods' own addresses.",
	}
	rest := notedRule{
		v1alpha1.Rule{Name: "pod-egress", From: fromPods(), To: everywhere, Action: "Masquerade", Masquerade: &v1alpha1.Masquerade{FullyRandom: true}},
		at.String() + ": all others see the node's.",
	}
	rules := append(services, cluster, rest)
	switch {
	case !egress:
		rest = notedRule{
			v1alpha1.Rule{Name: "pod-egress", From: fromPods(), Action: "Leave"},
			at.String() + " is off: pods keep their addresses unless another component hides them; Keep holds against those, too.",
		}
		rules = append(services, rest)
	case opts.MasqueradeAll != MasqueradeExact && len(services) > 0: // the first of them is about pods, as cluster is
		rules = append(append([]notedRule{cluster}, services[1:]...), rest)
	}
	for _, rule := range rules {
		d.Rule(rule.Rule, rule.note)
	}
	return nil
}

func kubeRouterServices(r *Result, flags Settings, opts Options) ([]notedRule, error) {
	all, at, err := flags.Bool("--", "masquerade-all", false)
	if err != nil || !all {
		return nil, err
	}
	r.Warn(at, "kube-router's service proxy takes the node's address, the rule that of the interface which the packet leaves by; with IPVS the rule is untested")
	r.needServiceCIDRs(at, opts)
	if opts.MasqueradeAll == MasqueradeExact {
		return servicesExact(at.String()), nil
	}
	r.Warn(at, "carried over for clients whose replies would be lost alone (--masquerade-all=%s: for all)", MasqueradeExact)
	return servicesWhereNeeded(at.String()), nil
}

func kubeRouterEgress(r *Result, flags Settings) (bool, Place, error) {
	egress, at, err := flags.Bool("--", "enable-pod-egress", true)
	if s, ok := flags.Get("cluster-cidr"); err == nil && ok && s.Value != "" && !egress {
		r.Warn(s.At, "turns pod egress on, though %s doesn't", at)
		return true, s.At, nil
	}
	return egress, at, err
}
