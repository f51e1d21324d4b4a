package importer

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/api/v1alpha1"
	"github.com/unmasq/unmasq/internal/policy"
)

// awsVPCCNI reads the environment of the AWS VPC CNI. What it writes, for IPv4 alone:
//
//	-A POSTROUTING -m comment --comment "AWS SNAT CHAIN" -j AWS-SNAT-CHAIN-0
//	-A AWS-SNAT-CHAIN-0 -d VPCCIDR -j RETURN                       (each network of the VPC)
//	-A AWS-SNAT-CHAIN-0 -d EXCLUDED -j RETURN
//	-A AWS-SNAT-CHAIN-0 ! -o vlan+ -m addrtype ! --dst-type LOCAL -j SNAT --to-source PRIMARY --random-fully
func awsVPCCNI() Kind {
	return Kind{
		Name: "aws-vpc-cni", Reads: "DaemonSet aws-node, Helm values or add-on configuration with env, variables of its environment; --vpc-cidrs too",
		Knows: func(f File) bool {
			var env awsEnvironment
			return env.read(f) == nil && len(env.stated) > 0
		},
		Import: importAWS,
	}
}

const (
	awsExternal = "AWS_VPC_K8S_CNI_EXTERNALSNAT"
	awsExclude  = "AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS"
	awsRandom   = "AWS_VPC_K8S_CNI_RANDOMIZESNAT"
)

// awsElsewhere are variables about source NAT that no policy carries over, and why.
var awsElsewhere = map[string]string{
	"ENABLE_V4_EGRESS": "IPv4 egress of an IPv6 cluster's pods is the egress plugin's: its rules, one chain a pod, stay",
	"ENABLE_V6_EGRESS": "IPv6 egress is the egress plugin's: its rules, one chain a pod, stay",
}

// awsEnvironment is the environment that files state.
type awsEnvironment struct {
	stated Settings
	// unread are variables whose values stand elsewhere.
	unread []Place
}

// read takes a file that is of the CNI, though it may state none of its variables.
func (e *awsEnvironment) read(f File) error {
	documents, err := Documents(f)
	if !slices.ContainsFunc(documents, Value.IsMap) {
		for _, one := range variables(f) {
			if awsVariable(one.Name) {
				e.stated, err = append(e.stated, one), nil
			}
		}
		if len(e.stated) > 0 {
			return nil
		}
	}
	if err != nil {
		return err
	}
	known := false
	for _, d := range documents {
		found, err := containers(d, "aws-node")
		if err != nil {
			return err
		}
		for _, c := range found {
			e.stated, e.unread, known = append(e.stated, c.Env...), append(e.unread, c.Unread...), true
		}
		for _, key := range d.Get("env").Keys() { // Helm values, an add-on's configuration
			v := d.Get("env", key)
			if awsVariable(key) {
				e.stated, known = append(e.stated, Setting{Name: key, Value: v.Text(), At: Place{v.file, v.Line(), key}}), true
			}
		}
	}
	if !known {
		return &policy.FieldError{File: f.Name, Line: 1, Message: "nothing here is the AWS VPC CNI's; expected " + awsVPCCNI().Reads}
	}
	return nil
}

// warn of what no policy carries over, or isn't in the files.
func (e *awsEnvironment) warn(r *Result) {
	for _, one := range e.stated {
		if why := awsElsewhere[one.Name]; why != "" && one.Value == "true" {
			r.Warn(one.At, "%s", why)
		}
	}
	for _, at := range e.unread {
		if awsVariable(at.Setting) || strings.Contains(at.Setting, "envFrom") {
			r.Warn(at, "its value isn't in the file: it is taken for not stated")
		}
	}
}

func awsVariable(name string) bool {
	return strings.HasPrefix(name, "AWS_VPC_") || awsElsewhere[name] != ""
}

func importAWS(files []File, opts Options) (*Result, error) {
	var read awsEnvironment
	for _, f := range files {
		if err := read.read(f); err != nil {
			return nil, err
		}
	}
	r, env := &Result{}, read.stated
	read.warn(r)
	d := NewDocument(opts, "aws-vpc-cni", "The CNI translates IPv4 alone.")
	r.Documents = append(r.Documents, d)
	external, at, err := awsExternalSNAT(r, env)
	if err != nil {
		return nil, err
	}
	if external {
		d.Rule(v1alpha1.Rule{Name: "external", To: everywhere(true, false), Action: "Leave"},
			at.String()+": something beyond translates; Keep for pods would hold against other components here, too.")
		return r, nil
	}
	if opts.VPCCIDRs = slices.DeleteFunc(slices.Clone(opts.VPCCIDRs), func(p netip.Prefix) bool { return p.Addr().Is6() }); len(opts.VPCCIDRs) == 0 {
		return nil, &policy.FieldError{File: files[0].Name, Path: "VPC", Message: "its networks aren't in the file, since the CNI asks AWS for them; expected --vpc-cidrs CIDR,… " +
			"(aws ec2 describe-vpcs --query 'Vpcs[].CidrBlockAssociationSet[].CidrBlock')"}
	}
	awsRules(r, d, env, at, opts)
	return r, nil
}

// awsExternalSNAT is false where the value is neither true nor false, as the CNI takes it.
func awsExternalSNAT(r *Result, env Settings) (bool, Place, error) {
	if one, ok := env.Get(awsExternal); ok {
		if one.Value == "" {
			return false, one.At, nil
		}
		if _, err := one.Bool(); err != nil {
			r.Warn(one.At, "%s is neither true nor false: the CNI goes by its default, false", shown(one.Value))
			return false, one.At, nil
		}
	}
	return env.Bool("", awsExternal, false)
}

func awsRules(r *Result, d *Document, env Settings, at Place, opts Options) {
	vpc := stated("--vpc-cidrs", opts.VPCCIDRs)
	kept := append(slices.Clone(vpc), awsExcluded(r, env)...)
	pods := &v1alpha1.From{CIDRs: prefixTexts(vpc)}
	everybody := &v1alpha1.From{CIDRs: anywhereCIDRs(true, false), Node: &v1alpha1.Empty{}}
	path := fmt.Sprintf("rules[%d]", len(d.Rules))
	d.Rule(v1alpha1.Rule{Name: "vpc", From: pods, To: &v1alpha1.To{CIDRs: d.CIDRs(path+".to.cidrs", kept)}, Action: "Keep"},
		"The VPC, and what is excluded, see pods' addresses, which are the VPC's own.")
	d.Rule(v1alpha1.Rule{Name: "vpc-others", From: everybody, To: &v1alpha1.To{CIDRs: prefixTexts(kept)}, Action: "Leave"},
		"Of others, such as containers of the node's own, this is for other components to say.")
	d.Rule(v1alpha1.Rule{Name: "branch-interfaces", From: everybody, OutInterfaces: []v1alpha1.InterfaceName{"vlan+"}, Action: "Leave"},
		"Pods with security groups of their own leave by interfaces of their own.")
	random, note := awsRandomly(r, env)
	d.Rule(v1alpha1.Rule{Name: "elsewhere", From: everybody, To: everywhere(true, false), Action: "Masquerade", Masquerade: randomly(random)},
		at.String()+": all others see the node's address.", note)
	r.Warn(at, "the CNI takes the primary address of the node, the rule that of the interface which the packet leaves by: the same, since the CNI routes what leaves the VPC by the primary interface")
}

// awsExcluded are the networks that are excluded; what the CNI skips is skipped here.
func awsExcluded(r *Result, env Settings) (all []Network) {
	one, _ := env.Get(awsExclude)
	for _, text := range strings.Split(one.Value, ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		p, err := netip.ParsePrefix(text)
		if err != nil || p.Addr().Is6() {
			r.Warn(one.At, "%s is not an IPv4 CIDR: the CNI skips it, and so does the policy", shown(text))
			continue
		}
		all = append(all, Network{p.Masked(), one.At})
	}
	return all
}

func awsRandomly(r *Result, env Settings) (bool, string) {
	one, ok := env.Get(awsRandom)
	switch {
	case !ok || one.Value == "":
		return true, Place{Setting: awsRandom}.String() + ": random source ports."
	case one.Value == "none":
		return false, one.At.String() + ": source ports stay where they can."
	case one.Value == "hashrandom":
		r.Warn(one.At, "hashrandom (--random) is carried over as prng (--random-fully)")
	case one.Value != "prng":
		r.Warn(one.At, "%s is none of prng, hashrandom and none: the CNI goes by its default, prng", shown(one.Value))
	}
	return true, one.At.String() + ": random source ports."
}
