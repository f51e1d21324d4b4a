package importer_test

import (
	"testing"

	"github.com/unmasq/unmasq/internal/importer"
)

const awsEnv = "AWS_VPC_K8S_CNI_EXTERNALSNAT=false\nAWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS=198.51.100.0/24,bad\n"

// awsNode is the usual node with an interface for pods with security groups of their own,
// and a network outside of the VPC behind the second uplink.
func awsNode() layout {
	l := usual()
	l.links = append(l.links, "vlan.eth.2")
	l.ip = append(l.ip, "addr add 192.168.9.10/24 dev vlan.eth.2", "route add 233.252.0.0/24 via 172.31.0.1 dev eth1", "route add 203.0.113.128/25 dev vlan.eth.2",
		"route add 192.0.2.0/24 via 172.31.0.1 dev eth1")
	return l
}

// TestAWSVPCCNI: the rules of its own code.
func TestAWSVPCCNI(t *testing.T) {
	const branch, excluded, second = "pod to the outside by a branch interface", "pod to an excluded network", "pod to the outside by the second uplink"
	pod := [2]string{"10.244.1.7", "fd00:10:244:1::7"}
	c := comparison{
		kind: "aws-vpc-cni", files: []importer.File{text("cni.env", awsEnv)}, opts: importer.Options{VPCCIDRs: prefixes("192.168.0.0/16", "10.244.0.0/16", "172.31.0.0/16")},
		facts: usualFacts(), node: awsNode(), peer: dump("aws-vpc-cni-nftables"),
		flows: usualFlows(
			row{name: branch, link: "cni0", source: [2]string{pod[0]}, target: [2]string{"203.0.113.200"}},
			row{name: excluded, link: "cni0", source: [2]string{pod[0]}, target: [2]string{"198.51.100.7"}},
			row{name: second, link: "cni0", source: [2]string{pod[0]}, target: [2]string{"192.0.2.7"}},
			row{name: "container of the node's own to the VPC", link: "cni0", source: [2]string{"172.17.0.2"}, target: [2]string{"192.168.5.11"}},
			row{name: "container of the node's own to the outside", link: "cni0", source: [2]string{"172.17.0.2"}, target: [2]string{"203.0.113.5"}},
		),
		meant: []difference{{
			"the policy takes the address of the interface which the packet leaves by; the CNI routes what leaves the VPC by the primary one",
			func(f flow, peer, ours string) bool { return f.row == second && !f.kept(peer) && !f.kept(ours) },
		}},
	}
	c.run(t)
}

// TestAWSVPCCNIExternal: with EXTERNALSNAT the CNI writes no rule.
func TestAWSVPCCNIExternal(t *testing.T) {
	c := comparison{
		kind: "aws-vpc-cni", files: []importer.File{text("cni.env", "AWS_VPC_K8S_CNI_EXTERNALSNAT=true\n")},
		facts: usualFacts(), node: usual(), peer: func(*testing.T, *node) {}, flows: usualFlows(),
	}
	c.run(t)
}
