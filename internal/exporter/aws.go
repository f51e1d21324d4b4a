package exporter

import (
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/policy"
)

// awsVPCCNI writes environment variables. The VPC's own networks are kept unasked; IPv6
// isn't translated; nobody is asked for the source.
func awsVPCCNI(loaded *policy.Loaded, opts Options) *Result {
	r := newReading(peer{anySource: true, implied: func(rule *policy.Rule) bool { return byInterfaces(rule, "vlan") }}, loaded, opts)
	read := r.read(&loaded.Policy, pods, false)
	kept, translated := read.split(packet.IPv4Family)
	how := r.refined()
	if how.ports != (policy.PortRange{}) {
		r.lose(nil, "source ports %s can't be told", portsText(how.ports, "-"))
	}
	if r.among(translated, packet.IPv4Family) {
		r.lose(nil, "pods' addresses are always kept in the VPC")
	}
	if _, v6 := read.split(packet.IPv6Family); len(v6) > 0 {
		r.lose(nil, "IPv6 isn't translated by it")
	}
	r.beyondPods(&loaded.Policy, read, []packet.Family{packet.IPv4Family})
	t := &text{}
	t.line("# The VPC's own networks are kept by the CNI unasked.")
	t.line("apiVersion: apps/v1\nkind: DaemonSet\nmetadata:\n  name: aws-node\n  namespace: kube-system\nspec:\n  template:\n    spec:\n      containers:\n      - name: aws-node\n        env:")
	variable := func(name, value string) { t.line("        - name: %s\n          value: %q", name, value) }
	variable("AWS_VPC_K8S_CNI_EXTERNALSNAT", map[bool]string{true: "false", false: "true"}[len(translated) > 0])
	if len(translated) > 0 {
		var texts []string
		for _, p := range prefixes(kept) {
			texts = append(texts, p.String())
		}
		variable("AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS", strings.Join(texts, ","))
		variable("AWS_VPC_K8S_CNI_RANDOMIZESNAT", map[bool]string{true: "prng", false: "none"}[how.random])
	}
	return &Result{[]byte(t.String()), r.losses}
}
