package importer_test

import (
	"testing"

	"github.com/unmasq/unmasq/internal/importer"
)

const (
	flannelNetConf = `{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/48", "Backend": {"Type": "host-gw"}}`
	flannelNFT     = `{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/48", "EnableNFTables": true, "Backend": {"Type": "host-gw"}}`
	flannelSubnet  = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_IPV6_NETWORK=fd00:10:244::/48\nFLANNEL_IPV6_SUBNET=fd00:10:244:1::1/64\nFLANNEL_MTU=1500\nFLANNEL_IPMASQ=true\n"
)

// TestFlannel: the rules of its own code, in both modes; a node's import with its
// subnet, and a cluster's without.
func TestFlannel(t *testing.T) {
	own := difference{"the node's own packets are no pods', whichever of its addresses they come from", keptHere(podOnNode)}
	through := difference{"what goes from one pod of the cluster to another and passes here on its way is no client of the node's: flannel hides it", keptHere(remoteToRemote)}
	clients := difference{"a policy of all nodes can't tell clients of this node's pods from those of others, so that it leaves both", keptHere(outsideToPod2)}
	nodes := difference{"for the same reason it hides the node's other addresses from its own pods too", hiddenHere(nodeToPod)}
	for _, x := range []struct {
		name, dump string
		files      []importer.File
		meant      []difference
	}{
		{"legacy, one node", "flannel-legacy", []importer.File{text("net-conf.json", flannelNetConf), text("subnet.env", flannelSubnet)}, []difference{own, through}},
		{"nft, one node", "flannel-nft", []importer.File{text("net-conf.json", flannelNetConf), text("subnet.env", flannelSubnet)}, []difference{own, through}},
		{"nft, all nodes", "flannel-nft", []importer.File{text("net-conf.json", flannelNetConf), text("flanneld.env", "FLANNELD_IP_MASQ=true\n")}, []difference{own, through, clients, nodes}},
		{"nftables", "flannel-nftables", []importer.File{text("net-conf.json", flannelNFT), text("subnet.env", flannelSubnet)}, []difference{own}},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := comparison{kind: "flannel", files: x.files, facts: usualFacts(), node: usual(), peer: dump(x.dump), flows: usualFlows(remotePods()), meant: x.meant}
			c.run(t)
		})
	}
}

// TestFlannelBridge: --ip-masq off, so that the bridge plugin masquerades.
func TestFlannelBridge(t *testing.T) {
	const off = `{"cniVersion": "0.3.1", "name": "cbr0", "plugins": [{"type": "flannel", "delegate": {"isDefaultGateway": true}}]}`
	for _, backend := range []string{"legacy", "nft", "nftables"} {
		t.Run(backend, func(t *testing.T) {
			c := comparison{kind: "flannel", files: []importer.File{text("net-conf.json", flannelNetConf), text("cni-conf.json", off)},
				facts: usualFacts(), node: usual(), peer: dump("cni-bridge-" + backend), flows: moved(usualFlows(), "10.244.1.7", "10.244.1.2", "fd00:10:244:1::7", "fd00:10:244:1::2"), // the plugin's pods
				meant: []difference{
					{"the bridge plugin hides pods from pods of other nodes", keptHere(podToRemote)},
					{"and it does nothing for pods of other nodes, whose packets don't leave here", hiddenHere(remoteThrough)},
				}}
			c.run(t)
		})
	}
}

const remoteToRemote = "pod of another node to a pod of another node"

func remotePods() row {
	return row{name: remoteToRemote, link: "eth0", source: [2]string{"10.244.2.7", "fd00:10:244:2::7"}, target: [2]string{"10.244.2.8", "fd00:10:244:2::8"}}
}
