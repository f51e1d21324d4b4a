package importer_test

import (
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/unmasq/unmasq/internal/importer"
)

// settings are the files of a case of internal/importer/testdata.
func settings(t *testing.T, name string) (files []importer.File) {
	t.Helper()
	a, err := txtar.ParseFile("../../internal/importer/testdata/" + name + ".txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range a.Files {
		if f.Name != "stdout" && f.Name != "stderr" {
			files = append(files, importer.File{Name: f.Name, Data: f.Data})
		}
	}
	return files
}

// natText is a nat table of iptables-save with the chains that rules append to.
func natText(rules string) string {
	var b strings.Builder
	b.WriteString("*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n")
	seen := map[string]bool{"POSTROUTING": true}
	for line := range strings.Lines(rules) {
		words := strings.Fields(line)
		for i, w := range words {
			if i > 0 && (words[i-1] == "-A" || words[i-1] == "-j") && !seen[w] && !strings.Contains("ACCEPT RETURN MASQUERADE SNAT MARK", w) {
				seen[w] = true
				b.WriteString(":" + w + " - [0:0]\n")
			}
		}
	}
	return b.String() + rules + "COMMIT\n"
}

// withSets loads sets, then rules in both families: those of IPv6 are made of IPv4's by
// pairs of words.
func withSets(sets, rules string, pairs ...string) func(*testing.T, *node) {
	return func(t *testing.T, n *node) {
		t.Helper()
		if sets != "" {
			n.run(t, sets, "ipset", "restore")
		}
		rulesText("nft", natText(rules), natText(strings.NewReplacer(pairs...).Replace(rules)))(t, n)
	}
}

const calicoSets = `create cali40masq-ipam-pools hash:net family inet maxelem 1048576
add cali40masq-ipam-pools 10.244.0.0/16
create cali40all-ipam-pools hash:net family inet maxelem 1048576
add cali40all-ipam-pools 10.244.0.0/16
add cali40all-ipam-pools 172.31.0.0/24
create cali40all-hosts-net hash:net family inet maxelem 1048576
add cali40all-hosts-net 192.168.5.10
add cali40all-hosts-net 192.168.5.11
create cali60masq-ipam-pools hash:net family inet6 maxelem 1048576
add cali60masq-ipam-pools fd00:10:244::/48
create cali60all-ipam-pools hash:net family inet6 maxelem 1048576
add cali60all-ipam-pools fd00:10:244::/48
create cali60all-hosts-net hash:net family inet6 maxelem 1048576
add cali60all-hosts-net fd00:192:168:5::10
add cali60all-hosts-net fd00:192:168:5::11
`

const calicoRules = `-A POSTROUTING -m comment --comment "cali:O3lYWMrLQYEMJtB5" -j cali-POSTROUTING
-A cali-POSTROUTING -m comment --comment "cali:nYKhEzDlr11Jccal" -j cali-nat-outgoing
-A cali-nat-outgoing -o eth+ -p tcp -m set --match-set cali40masq-ipam-pools src -m set ! --match-set cali40all-ipam-pools dst -m set ! --match-set cali40all-hosts-net dst -j MASQUERADE --to-ports 32768-65535 --random-fully
-A cali-nat-outgoing -o eth+ -p tcp -m set --match-set cali40masq-ipam-pools src -m set ! --match-set cali40all-ipam-pools dst -m set ! --match-set cali40all-hosts-net dst -j RETURN
-A cali-nat-outgoing -o eth+ -p udp -m set --match-set cali40masq-ipam-pools src -m set ! --match-set cali40all-ipam-pools dst -m set ! --match-set cali40all-hosts-net dst -j MASQUERADE --to-ports 32768-65535 --random-fully
-A cali-nat-outgoing -o eth+ -p udp -m set --match-set cali40masq-ipam-pools src -m set ! --match-set cali40all-ipam-pools dst -m set ! --match-set cali40all-hosts-net dst -j RETURN
-A cali-nat-outgoing -o eth+ -m set --match-set cali40masq-ipam-pools src -m set ! --match-set cali40all-ipam-pools dst -m set ! --match-set cali40all-hosts-net dst -j MASQUERADE --random-fully
`

func TestCalico(t *testing.T) {
	c := comparison{
		kind: "calico", files: settings(t, "calico-pools"), facts: usualFacts(), node: usual(), flows: usualFlows(),
		peer: withSets(calicoSets, calicoRules, "cali40", "cali60"),
		meant: []difference{
			{"the node's own packets are no pods', whichever of its addresses they come from", keptHere(podOnNode)},
		},
	}
	c.run(t)
}

const ciliumSets = `create cilium_node_set_v4 hash:ip family inet
add cilium_node_set_v4 192.168.5.11
create cilium_node_set_v6 hash:ip family inet6
add cilium_node_set_v6 fd00:192:168:5::11
`

const ciliumRules = `-A POSTROUTING -m comment --comment "cilium-feeder: CILIUM_POST_nat" -j CILIUM_POST_nat
-A CILIUM_POST_nat -s 10.244.1.0/24 -m set --match-set cilium_node_set_v4 dst -m comment --comment "exclude traffic to cluster nodes from masquerade" -j ACCEPT
-A CILIUM_POST_nat -s 10.244.1.0/24 ! -d 10.244.0.0/16 ! -o cilium_+ -m comment --comment "cilium masquerade non-cluster" -j MASQUERADE --random-fully
-A CILIUM_POST_nat -m mark --mark 0xa00/0xe00 -m comment --comment "exclude proxy return traffic from masquerade" -j ACCEPT
`

func TestCilium(t *testing.T) {
	c := comparison{
		kind: "cilium", files: settings(t, "cilium-config"), facts: usualFacts(), node: usual(), flows: usualFlows(),
		peer: withSets(ciliumSets, ciliumRules, "10.244.1.0/24", "fd00:10:244:1::/64", "10.244.0.0/16", "fd00:10:244::/48", "cilium_node_set_v4", "cilium_node_set_v6"),
		meant: []difference{
			{"the node's own packets are no pods', whichever of its addresses they come from", keptHere(podOnNode)},
			{"pods are the whole cluster's: Cilium asks for this node's alone", hiddenHere(remoteThrough)},
		},
	}
	c.run(t)
}

const ciliumByInterface = `-A POSTROUTING -m comment --comment "cilium-feeder: CILIUM_POST_nat" -j CILIUM_POST_nat
-A CILIUM_POST_nat -o eth+ -m set --match-set cilium_node_set_v4 dst -m comment --comment "exclude traffic to cluster nodes from masquerade" -j ACCEPT
-A CILIUM_POST_nat ! -d 10.0.0.0/8 -o eth+ -m comment --comment "cilium masquerade non-cluster" -j MASQUERADE
-A CILIUM_POST_nat ! -d 10.0.0.0/8 -o ens5 -m comment --comment "cilium masquerade non-cluster" -j MASQUERADE
`

func TestCiliumByInterface(t *testing.T) {
	c := comparison{
		kind: "cilium", files: settings(t, "cilium-interfaces"), facts: usualFacts(), node: usual(), flows: usualFlows(),
		peer: func(t *testing.T, n *node) { // IPv6 isn't on
			n.run(t, ciliumSets, "ipset", "restore")
			n.run(t, natText(ciliumByInterface), "iptables-nft-restore")
		},
	}
	c.run(t)
}

const ovnSets = `create ovn40subnets hash:net family inet
add ovn40subnets 10.244.0.0/16
create ovn40subnets-nat hash:net family inet
create ovn40subnets-nat-policy hash:net family inet
create ovn40other-node hash:net family inet
add ovn40other-node 192.168.5.11
create ovn40natpr-1-dst hash:net family inet
add ovn40natpr-1-dst 172.31.0.0/16
create ovn40natpr-1-src hash:net family inet
add ovn40natpr-1-src 10.244.1.7
create ovn40natpr-2-dst hash:net family inet
add ovn40natpr-2-dst 172.31.0.0/24
add ovn40natpr-2-dst 203.0.113.5
create ovn60subnets hash:net family inet6
add ovn60subnets fd00:10:244::/48
create ovn60subnets-nat hash:net family inet6
create ovn60subnets-nat-policy hash:net family inet6
create ovn60other-node hash:net family inet6
add ovn60other-node fd00:192:168:5::11
create ovn60natpr-1-dst hash:net family inet6
create ovn60natpr-1-src hash:net family inet6
create ovn60natpr-2-dst hash:net family inet6
add ovn60natpr-2-dst fd00:172:31::/64
`

// ovnNAT is what natOutgoing adds to the sets.
const ovnNAT = `add ovn40subnets-nat 10.244.0.0/16
add ovn40subnets-nat-policy 10.244.0.0/16
add ovn60subnets-nat fd00:10:244::/48
add ovn60subnets-nat-policy fd00:10:244::/48
`

const ovnRules = `-A POSTROUTING -m comment --comment "kube-ovn postrouting rules" -j OVN-POSTROUTING
-A OVN-POSTROUTING -m mark --mark 0x4000/0x4000 -j OVN-MASQUERADE
-A OVN-POSTROUTING -m set --match-set ovn40subnets src -m set --match-set ovn40subnets dst -j OVN-MASQUERADE
-A OVN-POSTROUTING -m mark --mark 0x80000/0x80000 -j OVN-MASQUERADE
-A OVN-POSTROUTING -p tcp -m tcp --tcp-flags SYN NONE -m conntrack --ctstate NEW -j RETURN
-A OVN-POSTROUTING -m set ! --match-set ovn40subnets src -m set ! --match-set ovn40other-node src -m set --match-set ovn40subnets-nat dst -j RETURN
-A OVN-POSTROUTING -m set --match-set ovn40subnets-nat-policy src -m set ! --match-set ovn40subnets dst -j OVN-NAT-POLICY
-A OVN-POSTROUTING -m mark --mark 0x90001/0x90001 -j OVN-MASQUERADE
-A OVN-POSTROUTING -m mark --mark 0x90002/0x90002 -j RETURN
-A OVN-POSTROUTING -m set --match-set ovn40subnets-nat src -m set ! --match-set ovn40subnets dst -j OVN-MASQUERADE
-A OVN-MASQUERADE -j MARK --set-xmark 0x0/0xffffffff
-A OVN-MASQUERADE -j MASQUERADE --random-fully
-A OVN-NAT-POLICY -s 10.244.0.0/16 -m comment --comment natPolicySubnet-ovn-default -j OVN-NAT-PSUBNET-0c5a1e7b9d3f
-A OVN-NAT-PSUBNET-0c5a1e7b9d3f -m set --match-set ovn40natpr-1-src src -m set --match-set ovn40natpr-1-dst dst -j MARK --set-xmark 0x90001/0x90001
-A OVN-NAT-PSUBNET-0c5a1e7b9d3f -m set --match-set ovn40natpr-2-dst dst -j MARK --set-xmark 0x90002/0x90002
`

// ovnSubnets: a rule with action nat stands before one with forward that matches the
// same packets, and more.
const ovnSubnets = `apiVersion: kubeovn.io/v1
kind: Subnet
metadata: {name: ovn-default}
spec:
  cidrBlock: 10.244.0.0/16,fd00:10:244::/48
  natOutgoing: true
  natOutgoingPolicyRules:
  - {action: nat, match: {srcIPs: 10.244.1.7, dstIPs: 172.31.0.0/16}}
  - {action: forward, match: {dstIPs: "172.31.0.0/24,203.0.113.5"}}
  - {action: forward, match: {dstIPs: "fd00:172:31::/64"}}
`

func TestKubeOVN(t *testing.T) {
	rules := func(sets string) func(*testing.T, *node) {
		return withSets(sets, ovnRules, "ovn40", "ovn60", "10.244.0.0/16", "fd00:10:244::/48")
	}
	neighbour := row{name: "another pod to a second uplink's network", link: "cni0", source: [2]string{"10.244.1.8", "fd00:10:244:1::8"}, target: [2]string{"172.31.0.99", "fd00:172:31::99"}}
	c := comparison{
		kind: "kube-ovn", files: []importer.File{{Name: "subnets.yaml", Data: []byte(ovnSubnets)}}, facts: usualFacts(), node: usual(),
		flows: usualFlows(neighbour),
		peer:  rules(ovnSets + ovnNAT), ours: rules(ovnSets), // natOutgoing: false
		meant: []difference{
			{"the node's own packets are no pods', whichever of its addresses they come from", keptHere(podOnNode)},
		},
	}
	c.run(t)
}

// gkeRules are those of a GKE node's start-up script, for pods alone: the data path
// that reads EgressNATPolicy is made of eBPF, and can't be had here.
const gkeRules = `-A POSTROUTING -s 10.244.0.0/16 -m comment --comment "ip-masq: ensure nat POSTROUTING directs all non-LOCAL destination traffic to our custom IP-MASQ chain" -m addrtype ! --dst-type LOCAL -j IP-MASQ
-A IP-MASQ -d 169.254.0.0/16 -m comment --comment "ip-masq: local traffic is not subject to MASQUERADE" -j RETURN
-A IP-MASQ -d 10.0.0.0/8 -j RETURN
-A IP-MASQ -d 172.16.0.0/13 -j RETURN
-A IP-MASQ -d 192.168.0.0/16 -j RETURN
-A IP-MASQ -m comment --comment "ip-masq: outbound traffic is subject to MASQUERADE (must be last in chain)" -j MASQUERADE
`

func TestGKE(t *testing.T) {
	c := comparison{
		kind: "gke", files: settings(t, "gke-policy"), facts: usualFacts(), node: usual(), flows: usualFlows(),
		peer: func(t *testing.T, n *node) { n.run(t, natText(gkeRules), "iptables-nft-restore") },
		meant: []difference{
			{"the node's own packets are no pods', whichever of its addresses they come from", keptHere(podOnNode)},
		},
	}
	c.run(t)
}
