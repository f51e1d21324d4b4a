package owner

import (
	"strings"

	"github.com/unmasq/unmasq/internal/ruleset"
)

func gkeChain(chain string) bool {
	return chain == "IP-MASQ" || chain == "GCP-PREROUTING" || chain == "GCP-POSTROUTING"
}

func gkeComment(text string) bool {
	return hasAnyPrefix(words(text), "ip-masq: ", "metadata-concealment: ")
}

// gke describes what GCE's node start-up and netd write.
//
//	-A POSTROUTING -m comment --comment "ip-masq: ensure nat POSTROUTING directs all non-LOCAL destination traffic to our
//	  custom IP-MASQ chain" -m addrtype ! --dst-type LOCAL -j IP-MASQ
//	-A IP-MASQ -d 10.0.0.0/8 -m comment --comment "ip-masq: RFC 1918 reserved range is not subject to MASQUERADE" -j RETURN
//	-A IP-MASQ -m comment --comment "ip-masq: outbound traffic is subject to MASQUERADE (must be last in chain)" -j MASQUERADE
func (p place) gke() Owner {
	o := Owner{Name: GKE}
	target, _ := jump(p.rule)
	if p.chain.Name != "IP-MASQ" && target != "IP-MASQ" {
		if strings.HasPrefix(words(p.rule.Comment), "ip-masq: ") {
			return unknown("has the comment of GKE's node start-up, but not its form")
		}
		return o
	}
	if p.chain.Name == "IP-MASQ" && masqAgentComment(p.rule.Comment) {
		return p.masqAgent() // --masq-chain=IP-MASQ, as GKE itself starts it
	}
	if p.chain.Name == "IP-MASQ" && !gkeComment(p.rule.Comment) {
		return alien(GKE, p.chain.Name)
	}
	o.Setting = "default SNAT of the cluster"
	o.Change = []string{
		"deploy ip-masq-agent with nonMasqueradeCIDRs in configmap kube-system/ip-masq-agent",
		"gcloud container clusters update NAME --disable-default-snat   # private, VPC-native clusters only",
	}
	o.Trap = "the chain is written once at the node's start and never updated: a second masquerading chain beside ip-masq-agent's"
	if translatesSource(p.rule.Target) {
		o.Because = "the destination is in none of the reserved ranges"
	}
	return o
}

func awsChain(chain string) bool {
	return afterPrefix(chain, digits, "AWS-SNAT-CHAIN-", "AWS-CONNMARK-CHAIN-") || awsEgressChain(chain)
}

// awsEgressChain is made for one pod by plugin egress-cni.
func awsEgressChain(chain string) bool { return afterPrefix(chain, hexadecimal, "CNI-E4-", "CNI-E6-") }

func awsComment(text string) bool {
	return hasAnyPrefix(text, "AWS, ", "AWS SNAT CHAIN", "AWS CONNMARK CHAIN")
}

// aws describes the rules of the VPC CNI.
//
//	-A POSTROUTING -m comment --comment "AWS SNAT CHAIN" -j AWS-SNAT-CHAIN-0
//	-A AWS-SNAT-CHAIN-0 -d 172.31.0.0/16 -m comment --comment "AWS SNAT CHAIN" -j RETURN
//	-A AWS-SNAT-CHAIN-0 ! -o vlan+ -m comment --comment "AWS, SNAT" -m addrtype ! --dst-type LOCAL
//	  -j SNAT --to-source 172.31.23.106 --random-fully
func (p place) aws() Owner {
	target, _ := jump(p.rule)
	if awsEgressChain(p.chain.Name) || awsEgressChain(target) {
		return Owner{
			Name: AWSVPCCNI, Version: "plugin egress-cni", Setting: "ENABLE_V4_EGRESS, ENABLE_V6_EGRESS",
			Because: "a packet of the pod of the other family leaves by the node's address",
			Change:  []string{"kubectl -n kube-system set env daemonset aws-node ENABLE_V4_EGRESS=false ENABLE_V6_EGRESS=false"},
			Trap:    "a pod keeps its rules until it is made anew",
		}
	}
	if !awsComment(p.rule.Comment) {
		return alien(AWSVPCCNI, p.chain.Name)
	}
	o := Owner{
		Name: AWSVPCCNI, Setting: "AWS_VPC_K8S_CNI_EXTERNALSNAT, AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS",
		Change: []string{
			"kubectl -n kube-system set env daemonset aws-node AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS=CIDR,…",
			"kubectl -n kube-system set env daemonset aws-node AWS_VPC_K8S_CNI_EXTERNALSNAT=true   # then something beyond must translate",
			`as an EKS add-on: aws eks update-addon --cluster-name NAME --addon-name vpc-cni --configuration-values '{"env":{"AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS":"CIDR,…"}}'`,
		},
		Trap: "the same list decides routing: excluded destinations leave by the pod's own network interface",
	}
	switch {
	case translatesSource(p.rule.Target):
		o.Because = "the destination is outside the VPC and not excluded"
	case strings.HasSuffix(p.rule.Comment, "EXCLUSION"):
		o.Because = "the destination is excluded by AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS"
	case returns(p.rule.Target):
		o.Because = "the destination is in the VPC"
	}
	if p.table.Name == "mangle" {
		o.Setting, o.Because, o.Trap = "AWS_VPC_CNI_NODE_PORT_SUPPORT", "", ""
		o.Change = []string{"kubectl -n kube-system set env daemonset aws-node AWS_VPC_CNI_NODE_PORT_SUPPORT=false"}
	}
	return o
}

func azureNPMChain(chain string) bool {
	return chain == "AZURE-NPM" || strings.HasPrefix(chain, "AZURE-NPM-")
}

// -A FORWARD -m conntrack --ctstate NEW -j AZURE-NPM
func (p place) azureNPM() Owner {
	o := Owner{
		Name: AzureNPM, Setting: "network policy of the cluster",
		Change: []string{"kubectl get networkpolicy -A", "az aks update -g GROUP -n CLUSTER --network-policy none"},
	}
	if drops(p.rule.Target) && p.rule.Comment != "" {
		o.Because = "network policies say so: " + p.rule.Comment
	}
	return o
}

// wireServer is the same address for every machine in Azure, and nowhere else.
const wireServer = "168.63.129.16"

// azureWireServer is what Azure's node images and its Linux agent write to keep
// pods from the wire server.
func azureWireServer(r *ruleset.Rule) bool {
	a, ok := single(r.Destination)
	return ok && a.String() == wireServer
}
