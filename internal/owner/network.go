package owner

import (
	"net/netip"
	"strings"

	"github.com/unmasq/unmasq/internal/ruleset"
)

func calicoChain(chain string) bool { return strings.HasPrefix(chain, "cali-") }

// calicoComment: cali: and a hash of the rule, 16 characters of base64url.
func calicoComment(text string) bool {
	id, ok := strings.CutPrefix(text, "cali:")
	if !ok || len(id) < 16 || len(id) > 16 && !strings.ContainsRune("\" \t\n", rune(id[16])) {
		return false
	}
	return strings.Trim(id[:16], "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") == ""
}

// calicoHash: a rule may have a second comment, for people.
//
//	-A FORWARD -m comment --comment "cali:S93hcgKJrXEqnTfs" -m comment --comment "Policy explicitly accepted packet." -j ACCEPT
func calicoHash(r *ruleset.Rule) bool {
	if calicoComment(r.Comment) {
		return true
	}
	for _, before := range [...]string{`--comment "`, "--comment ", "/* "} {
		if _, text, ok := strings.Cut(r.Text, before+"cali:"); ok && calicoComment("cali:"+text) {
			return true
		}
	}
	return false
}

// calicoWords are those of a rule's second comment, for people.
func calicoWords(text string) string {
	_, rest, first := strings.Cut(text, "--comment ")
	_, words, second := strings.Cut(rest, `--comment "`)
	if !first || !second {
		return ""
	}
	words, _, _ = strings.Cut(words, `"`)
	return "Calico calls it: " + words
}

func calicoRule(p place) bool { return p.rule.Comment != "" && calicoHash(p.rule) }

// calico describes Felix' rules. Each has a comment with its hash.
//
//	-A cali-nat-outgoing -m comment --comment "cali:flqWnvo8yq4ULQLa" -m set --match-set cali40masq-ipam-pools src
//	  -m set ! --match-set cali40all-ipam-pools dst -j MASQUERADE --random-fully
func (p place) calico() Owner {
	if !calicoHash(p.rule) {
		o := alien(Calico, p.chain.Name)
		o.Version += ", without Calico's hash; Calico removes it when it refreshes its rules"
		return o
	}
	o := Owner{Name: Calico}
	if drops(p.rule.Target) && p.rule.Text != "" {
		o.Because = calicoWords(p.rule.Text)
	}
	switch {
	case p.chain.Name == "cali-nat-outgoing":
		o.Setting = "natOutgoing of the IPPool"
		o.Because = "a packet of a pool with natOutgoing leaves all of Calico's pools"
		o.Change = []string{
			`kubectl patch ippool NAME --type merge -p '{"spec":{"natOutgoing":false}}'`,
			"kubectl apply a disabled IPPool for destinations that are to see the pods: cidr: CIDR, disabled: true",
		}
	case p.chain.Name == "cali-fip-snat", p.chain.Name == "cali-fip-dnat":
		o.Setting = "floatingIPs in FelixConfiguration"
		o.Change = []string{`kubectl patch felixconfiguration default --type merge -p '{"spec":{"floatingIPs":"Disabled"}}'`}
	case p.chain.Name == "cali-POSTROUTING" && translatesSource(p.rule.Target):
		o.Because = "the node's packet enters tunnel " + p.rule.Out.Name + " with an address that isn't the tunnel's"
		o.Setting = "none: the tunnel needs it"
	}
	return o
}

func ciliumChain(chain string) bool {
	rest, ok := strings.CutPrefix(strings.TrimPrefix(chain, "OLD_"), "CILIUM_")
	if !ok {
		return false
	}
	switch rest {
	case "INPUT", "OUTPUT", "FORWARD", "PRE_nat", "POST_nat", "OUTPUT_nat", "PRE_mangle", "POST_mangle", "PRE_raw", "OUTPUT_raw",
		"TRANSIENT_FORWARD":
		return true
	}
	return false
}

func ciliumComment(text string) bool { return strings.HasPrefix(text, "cilium-feeder: ") }

// cilium describes its rules.
//
//	-A POSTROUTING -m comment --comment "cilium-feeder: CILIUM_POST_nat" -j CILIUM_POST_nat
//	-A CILIUM_POST_nat -s 10.244.2.0/24 ! -d 10.244.0.0/16 ! -o cilium_+ -m comment --comment "cilium masquerade non-cluster" -j MASQUERADE
func (p place) cilium() Owner {
	if !builtIn(p.chain.Name) && p.rule.Comment == "" {
		return alien(Cilium, p.chain.Name)
	}
	o := Owner{Name: Cilium}
	target, _ := jump(p.rule)
	if strings.HasPrefix(p.chain.Name, "OLD_") || strings.HasPrefix(target, "OLD_") {
		o.Version = "left behind by an agent that didn't finish its restart"
		o.Change = []string{"kubectl -n kube-system delete pod -l k8s-app=cilium --field-selector spec.nodeName=NODE"}
		return o
	}
	if strings.HasSuffix(p.chain.Name, "POST_nat") || strings.HasSuffix(target, "POST_nat") {
		o.Setting = "enable-ipv4-masquerade, enable-ipv6-masquerade"
		o.Change = []string{
			"kubectl -n kube-system edit configmap cilium-config   # ipv4-native-routing-cidr: a range that holds the destination too",
			"kubectl -n kube-system edit configmap cilium-config   # enable-ipv4-masquerade: \"false\"",
			"kubectl -n kube-system rollout restart daemonset cilium",
		}
	}
	switch {
	case p.rule.Comment == "cilium masquerade non-cluster":
		o.Because = "the destination isn't in ipv4-native-routing-cidr (ipv6-native-routing-cidr)"
	case strings.HasPrefix(p.rule.Comment, "hairpin traffic"):
		o.Because = "hairpin: a local pod reaches itself through a service"
	}
	return o
}

func antreaChain(chain string) bool {
	switch chain {
	case "ANTREA-FORWARD", "ANTREA-PREROUTING", "ANTREA-POSTROUTING", "ANTREA-INPUT", "ANTREA-OUTPUT", "ANTREA-MANGLE":
		return true
	}
	return strings.HasPrefix(chain, "ANTREA-POL-")
}

func antreaComment(text string) bool { return strings.HasPrefix(text, "Antrea: jump to Antrea ") }

// antrea describes its rules; all but those of policies have its comment.
//
//	-A ANTREA-POSTROUTING -s 172.16.10.0/24 ! -o antrea-gw0 -m comment --comment "Antrea: masquerade Pod to external packets"
//	  -m set ! --match-set ANTREA-POD-IP dst -j MASQUERADE
func (p place) antrea() Owner {
	if p.chain.Name == "ANTREA-POSTROUTING" && !hasAnyPrefix(p.rule.Comment, "Antrea: ", "Antrea ") {
		return alien(Antrea, p.chain.Name)
	}
	o := Owner{Name: Antrea}
	switch text := strings.ToLower(p.rule.Comment); {
	case strings.HasPrefix(text, "antrea: snat"):
		o.Setting = "Egress"
		o.Because = "an Egress applies to the pod"
		o.Change = []string{"kubectl get egress; kubectl edit egress NAME"}
	case strings.HasPrefix(text, "antrea: masquerade pod to external"):
		o.Setting = "noSNAT"
		o.Because = "a packet of the node's pods leaves the cluster's pods"
		o.Change = []string{
			"kubectl -n kube-system edit configmap antrea-config   # antrea-agent.conf: noSNAT: true",
			"kubectl -n kube-system rollout restart daemonset antrea-agent",
		}
		o.Trap = "noSNAT works in the modes without encapsulation only"
	}
	return o
}

func kindnetChain(chain string) bool { return chain == "KIND-MASQ-AGENT" }

func kindnetComment(text string) bool { return strings.HasPrefix(text, "kind-masq-agent: ") }

// -A KIND-MASQ-AGENT -m comment --comment "kind-masq-agent: outbound traffic is subject to MASQUERADE (must be last in chain)" -j MASQUERADE
func (p place) kindnet() Owner {
	if target, _ := jump(p.rule); builtIn(p.chain.Name) && target != "KIND-MASQ-AGENT" {
		return unknown("has kindnet's comment, but not its form")
	}
	if !kindnetComment(p.rule.Comment) {
		return alien(Kindnet, p.chain.Name)
	}
	o := Owner{
		Name: Kindnet, Version: "with iptables, before its nftables table kindnet-ipmasq", Setting: "POD_SUBNET (networking.podSubnet of kind)",
		Change: []string{"kubectl -n kube-system set env daemonset kindnet POD_SUBNET=PODCIDR,CIDR   # destinations that aren't masqueraded"},
	}
	if translatesSource(p.rule.Target) {
		o.Because = "the destination isn't in the cluster's pods"
	}
	return o
}

func weaveChain(chain string) bool {
	switch chain {
	case "WEAVE", "WEAVE-CANARY", "WEAVE-EXPOSE", "WEAVE-IPSEC-IN", "WEAVE-IPSEC-IN-MARK", "WEAVE-IPSEC-OUT", "WEAVE-IPSEC-OUT-MARK", "WEAVE-NPC":
		return true
	}
	return strings.HasPrefix(chain, "WEAVE-NPC-")
}

func weaveComment(text string) bool {
	return text == "Block non-local access to Weave Net control port" || text == "NOTE: this must go before '-j KUBE-FORWARD'"
}

// weaveRule: the rules in FORWARD for its bridge.
//
//	-A FORWARD -o weave -m state --state NEW -j NFLOG --nflog-group 86
//	-A FORWARD -o weave -j DROP
//	-A FORWARD -i weave ! -o weave -j ACCEPT
//	-A FORWARD -o weave -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
func weaveRule(p place) bool {
	r := p.rule
	if p.table.Name != "filter" || p.chain.Name != "FORWARD" || !p.node["WEAVE-NPC"] && !p.node["WEAVE"] || r.Out.Name != "weave" {
		return false
	}
	switch asked(r) {
	case out:
		return drops(r.Target)
	case in | out:
		return r.In.Name == "weave" && r.Out.Not && accepts(r.Target)
	case out | matches:
		log, ok := r.Target.(ruleset.Inert)
		return established(r) && accepts(r.Target) || ok && log.Name == "NFLOG"
	}
	return false
}

// -A WEAVE -s 10.32.0.0/12 -d 224.0.0.0/4 -j RETURN
// -A WEAVE ! -s 10.32.0.0/12 -d 10.32.0.0/12 -j MASQUERADE
// -A WEAVE -s 10.32.0.0/12 ! -d 10.32.0.0/12 -j MASQUERADE
func (p place) weave() Owner {
	o := Owner{Name: Weave}
	if p.table.Name != "nat" {
		if drops(p.rule.Target) && p.rule.Out.Name == "weave" {
			o.Setting, o.Because = "EXPECT_NPC", "WEAVE-NPC didn't accept the packet: no NetworkPolicy lets it in"
			o.Change = []string{"kubectl get networkpolicy -A"}
		}
		return o
	}
	o.Setting = "IPALLOC_RANGE; weave expose"
	o.Change = []string{"kubectl -n kube-system set env daemonset weave-net -c weave NO_MASQ_LOCAL=1   # keeps clients of services with external traffic policy Local"}
	o.Trap = "Weave Net has no setting that keeps the pods' addresses towards the outside"
	if !translatesSource(p.rule.Target) {
		return o
	}
	r := p.rule
	switch network := r.Source.Prefix; {
	case asked(r)&^comment != source|destination || r.Source.Not == r.Destination.Not || network != r.Destination.Prefix:
		if p.chain.Name != "WEAVE-EXPOSE" && p.rule.Out.Name != "weave" {
			return alien(Weave, p.chain.Name)
		}
	case r.Source.Not:
		o.Because = "a packet from outside goes to a pod of " + network.String()
	default:
		o.Because = "a packet of the pods " + network.String() + " leaves them"
	}
	return o
}

func kubeOVNChain(chain string) bool {
	switch chain {
	case "OVN-PREROUTING", "OVN-POSTROUTING", "OVN-OUTPUT", "OVN-MASQUERADE", "OVN-NAT-POLICY":
		return true
	}
	return strings.HasPrefix(chain, "OVN-NAT-PSUBNET-")
}

func kubeOVNComment(text string) bool {
	return text == "kube-ovn prerouting rules" || text == "kube-ovn postrouting rules" || text == "kube-ovn output rules"
}

// kubeOVNRule: rules on its sets, and two that keep its tunnels' checksums right.
//
//	-A INPUT -m set --match-set ovn40subnets src -j ACCEPT
//	-A OUTPUT -p udp -m udp --dport 6081 -j MARK --set-xmark 0x0/0xffffffff
func kubeOVNRule(p place) bool {
	if usesSet(p.rule, "ovn40subnets", "ovn60subnets", "ovn40services", "ovn60services", "ovn40other-node", "ovn60other-node", "ovn40local-pod", "ovn60local-pod") {
		return true
	}
	mark, ok := p.rule.Target.(ruleset.SetMark)
	return ok && mark.Value == 0 && p.node["OVN-POSTROUTING"] && p.table.Name == "filter" && p.chain.Name == "OUTPUT" &&
		asked(p.rule) == protocol|matches && destinationPort(p.rule)
}

// -A OVN-POSTROUTING -m set --match-set ovn40subnets-nat src -m set ! --match-set ovn40subnets dst -j OVN-MASQUERADE
// -A OVN-MASQUERADE -j MASQUERADE
func (p place) kubeOVN() Owner {
	o := Owner{Name: KubeOVN}
	if p.table.Name != "nat" {
		return o
	}
	o.Setting = "natOutgoing of the Subnet"
	o.Change = []string{
		`kubectl patch subnet NAME --type merge -p '{"spec":{"natOutgoing":false}}'`,
		"kubectl edit subnet NAME   # spec.natOutgoingPolicyRules: [{match: {dstIPs: CIDR}, action: forward}]",
	}
	o.Trap = "of natOutgoingPolicyRules that match, one with action nat wins, whatever their order"
	switch {
	case usesSet(p.rule, "ovn40subnets-nat-policy", "ovn60subnets-nat-policy"), hasAnyPrefix(p.chain.Name, "OVN-NAT-"):
		o.Setting = "natOutgoingPolicyRules of the Subnet"
	case usesSet(p.rule, "ovn40subnets-nat", "ovn60subnets-nat"):
		o.Because = "a packet of a subnet with natOutgoing leaves all subnets"
	}
	return o
}

func ovnKubernetesChain(chain string) bool { return strings.HasPrefix(chain, "OVN-KUBE-") }

// ovnMasqueradeIPs are the node's addresses towards OVN that the gateway hides:
// the current and the former default.
func ovnMasqueradeIP(a netip.Addr) bool {
	return a == netip.AddrFrom4([4]byte{169, 254, 169, 1}) || a == netip.AddrFrom4([4]byte{169, 254, 0, 1})
}

// ovnKubernetesRule: local gateway mode writes two bare rules, one after the other.
//
//	-A POSTROUTING -s 169.254.169.1/32 -j MASQUERADE
//	-A POSTROUTING -s 10.244.0.0/24 -j MASQUERADE
func ovnKubernetesRule(p place) bool {
	if p.table.Name != "nat" || p.chain.Name != "POSTROUTING" || !p.tables[p.table]["OVN-KUBE-"] || !bareSource(p.rule) {
		return false
	}
	if a, one := single(p.rule.Source); one {
		return ovnMasqueradeIP(a)
	}
	for _, i := range [...]int{p.rule.Index - 2, p.rule.Index} {
		if i < 0 || i >= len(p.chain.Rules) || !bareSource(&p.chain.Rules[i]) {
			continue
		}
		if a, one := single(p.chain.Rules[i].Source); one && ovnMasqueradeIP(a) {
			return true
		}
	}
	return false
}

// bareSource is -s X -j MASQUERADE.
func bareSource(r *ruleset.Rule) bool {
	return asked(r) == source && !r.Source.Not && bareMasquerade(r.Target)
}

const ovnKubernetesEgress = "an EgressIP for the pods, or outboundSNAT: Disabled of a ClusterUserDefinedNetwork"

func (p place) ovnKubernetes() Owner {
	o := Owner{Name: OVNKubernetes}
	target, _ := jump(p.rule)
	switch {
	case builtIn(p.chain.Name) && target == "":
		o.Version = "local gateway mode"
		o.Setting = "routingViaHost (--gateway-mode=local)"
		o.Because = "a packet of the node's pods leaves through the host's network"
		if _, one := single(p.rule.Source); one {
			o.Because = "a packet that the node sent through OVN leaves through the host's network"
		}
		o.Change = []string{ovnKubernetesEgress}
	case strings.HasPrefix(p.chain.Name, "OVN-KUBE-EGRESS-IP"), p.chain.Name == "OVN-KUBE-EGRESSIP":
		o.Setting, o.Because = "EgressIP", "an EgressIP applies to the pod"
		o.Change = []string{"kubectl get egressip; kubectl edit egressip NAME"}
	case p.chain.Name == "OVN-KUBE-EGRESS-SVC":
		o.Setting, o.Because = "EgressService", "an EgressService applies to the pod"
		o.Change = []string{"kubectl get egressservice -A; kubectl edit egressservice NAME"}
	case p.chain.Name == "OVN-KUBE-SNAT-MGMTPORT":
		o.Because = "the node's own packet goes to a pod by the management port"
	case p.chain.Name == "OVN-KUBE-ETP", p.chain.Name == "OVN-KUBE-ITP":
		o.Setting = "externalTrafficPolicy, internalTrafficPolicy of the Service"
	}
	return o
}
