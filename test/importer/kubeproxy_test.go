package importer_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/importer"
	"github.com/unmasq/unmasq/internal/packet"
)

const kubeProxyConfig = `apiVersion: v1
kind: ConfigMap
metadata: {name: kube-proxy, namespace: kube-system}
data:
  config.conf: |-
    apiVersion: kubeproxy.config.k8s.io/v1alpha1
    kind: KubeProxyConfiguration
    clusterCIDR: 10.244.0.0/16,fd00:10:244::/48
    mode: MODE
    MODE:
      masqueradeAll: true
`

// Rows of services, those of the dumps (hack/dumps/cluster.go): one has a pod of this
// node alone, kubernetes one elsewhere, the others several of both.
const (
	podToLocal      = "pod to a service with a pod here"
	podToAnother    = "pod to a service with a pod elsewhere"
	podToMany       = "pod to a service with pods here and elsewhere"
	podToItself     = "pod to a service that is itself"
	outsideToLocal  = "outside to a service with a pod here"
	outsideToOther  = "outside to a service with a pod elsewhere"
	outsideToMany   = "outside to a service with pods here and elsewhere"
	remoteToLocal   = "pod of another node to a service with a pod here"
	nodeToLocal     = "node to a service with a pod here"
	nodeToOther     = "node to a service with a pod elsewhere"
	outsideToPort   = "outside to a node port"
	outsideToLocals = "outside to a node port with policy Local"
	podToPort       = "pod to a node port"
)

func serviceRows() []row {
	pod, remote := [2]string{"10.244.1.7", "fd00:10:244:1::7"}, [2]string{"10.244.2.7", "fd00:10:244:2::7"}
	outside, own := [2]string{"203.0.113.5", "2001:db8:113::5"}, [2]string{"192.168.5.10", "fd00:192:168:5::10"}
	one, many := [2]string{"10.96.0.3", "fd00:96::3"}, [2]string{"10.96.0.4", "fd00:96::4"}
	kubernetes, itself := [2]string{"10.96.0.1"}, [2]string{"10.244.1.9", "fd00:10:244:1::9"}
	tcp := []uint8{packet.TCP}
	only4 := func(a [2]string) [2]string { return [2]string{a[0]} } // the API server's own service has one family
	return []row{
		{name: podToLocal, link: "cni0", source: pod, target: one, port: 80, protocols: tcp},
		{name: podToAnother, link: "cni0", source: only4(pod), target: kubernetes, port: 443, protocols: tcp},
		{name: podToMany, link: "cni0", source: pod, target: many, port: 80, protocols: tcp, chance: true},
		{name: podToItself, link: "cni0", source: itself, target: one, port: 80, protocols: tcp},
		{name: outsideToLocal, link: "eth0", source: outside, target: one, port: 80, protocols: tcp},
		{name: outsideToOther, link: "eth0", source: only4(outside), target: kubernetes, port: 443, protocols: tcp},
		{name: outsideToMany, link: "eth0", source: outside, target: [2]string{"10.96.0.2", "fd00:96::2"}, port: 53, protocols: []uint8{packet.UDP, packet.TCP}, chance: true},
		{name: remoteToLocal, link: "eth0", source: remote, target: one, port: 80, protocols: tcp},
		{name: nodeToLocal, source: own, target: one, port: 80, protocols: tcp},
		{name: nodeToOther, source: only4(own), target: kubernetes, port: 443, protocols: tcp},
		{name: outsideToPort, link: "eth0", source: outside, target: own, port: 30080, protocols: tcp, chance: true},
		{name: outsideToLocals, link: "eth0", source: outside, target: own, port: 30081, protocols: tcp},
		{name: podToPort, link: "cni0", source: pod, target: own, port: 30080, protocols: tcp, chance: true},
	}
}

// TestKubeProxy: kube-proxy with --masquerade-all, and kube-proxy without beside each of
// the two ways to say it as a policy.
func TestKubeProxy(t *testing.T) {
	for _, x := range []struct{ name, mode string }{
		{"kube-proxy-v1.37.1%s-legacy", "iptables"}, {"kube-proxy-v1.34.4%s-nft", "iptables"},
		{"kube-proxy-v1.35.4%s-nftables", "nftables"}, {"kube-proxy-v1.37.1%s-nftables", "nftables"},
	} {
		c := comparison{
			kind: "kube-proxy", files: []importer.File{text("cm.yaml", replaced(kubeProxyConfig, "MODE", x.mode))},
			facts: append(usualFacts(), servicePods()), node: usual(), flows: usualFlows(serviceRows()...),
			peer: dump(replaced(x.name, "%s", "-masquerade-all")), ours: dump(replaced(x.name, "%s", "")),
		}
		t.Run(replaced(x.name, "%s", "")+" exact", func(t *testing.T) {
			c := c
			c.way = "masquerade-all"
			c.run(t)
		})
		t.Run(replaced(x.name, "%s", "")+" where needed", func(t *testing.T) {
			c := c
			c.way = "masquerade-where-replies-would-be-lost"
			c.meant = []difference{
				{"a pod's replies come back to it, wherever they come from", keptHere(podToLocal, podToAnother, podToMany, remoteToLocal)},
				{"a backend of this node answers a client from outside through it", keptHere(outsideToLocal, outsideToMany)},
			}
			c.run(t)
		})
		t.Run(replaced(x.name, "%s", "")+" where needed, no clusterCIDR", func(t *testing.T) {
			c := c
			c.way, c.ours = "masquerade-where-replies-would-be-lost", dump(replaced(x.name, "%s", ""), marksOutsiders)
			c.meant = []difference{
				{"a pod's replies come back to it, wherever they come from", keptHere(podToLocal, podToAnother, podToMany, remoteToLocal)},
				{"a backend of this node answers a client from outside through it", keptHere(outsideToLocal, outsideToMany)},
				{"replies to the node come back to it, whichever of its addresses it has", keptHere(nodeToLocal, nodeToOther)},
			}
			c.run(t)
		})
	}
}

// marksOutsiders are the lines by which kube-proxy marks clients from outside of the
// cluster, where it is told what that is.
func marksOutsiders(line string) bool {
	for _, not := range []string{"! -s 10.244.0.0/16", "! -s fd00:10:244::/48", "saddr != 10.244.0.0/16", "saddr != fd00:10:244::/48"} {
		if strings.Contains(line, not) {
			return true
		}
	}
	return false
}

// servicePods are this node's pods of the flows, one by one, as a cluster knows them:
// without, a connection of two of them to each other could be a pod's to itself.
func servicePods() string {
	var all []string
	for _, n := range []int{7, 8, 9, 20, 21, 60, 61} {
		all = append(all, fmt.Sprintf(`{namespace: default, name: pod-%d, addresses: [10.244.1.%d, "fd00:10:244:1::%x"]}`, n, n, n))
	}
	return "pods: [" + strings.Join(all, ", ") + "]"
}
