// Package field_test rebuilds what operators reported from the field, with the
// plain `ip` and `iptables` programs and nothing of the lab: one policy file
// and `unmasq agent --config` put it right, and it stays right whatever the
// other components write.
package field_test

import (
	"strings"
	"syscall"
	"testing"

	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func TestFieldReports(t *testing.T) {
	binary := build(t)
	for _, iptables := range []string{"iptables-legacy", "iptables-nft"} {
		t.Run("flannel/"+iptables, func(t *testing.T) { flannel(t, binary, iptables) })
		t.Run("docker/"+iptables, func(t *testing.T) { docker(t, binary, iptables) })
	}
}

// table prefixes each line with the program and its options.
func table(iptables, name, lines string) []string {
	var out []string
	for line := range strings.Lines(lines) {
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, iptables+" -w -t "+name+" "+line)
		}
	}
	return out
}

// kubePostrouting is kube-proxy's chain, which the reports show first.
const kubePostrouting = `
-N KUBE-POSTROUTING
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
`

// flannelNAT is a node's nat table with flannel (--ip-masq), docker and ip-masq-agent, in the
// order of the report. ip-masq-agent was told to leave the office's network alone, which
// doesn't help: flannel's fourth rule masquerades before it is asked.
const flannelNAT = kubePostrouting + `
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING -s 172.16.0.0/16 -d 172.16.0.0/16 -j RETURN
-A POSTROUTING -s 172.16.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE
-A POSTROUTING ! -s 172.16.0.0/16 -d 172.16.2.0/24 -j RETURN
-A POSTROUTING ! -s 172.16.0.0/16 -d 172.16.0.0/16 -j MASQUERADE
-N IP-MASQ-AGENT
-A IP-MASQ-AGENT -d 172.16.0.0/16 -j RETURN
-A IP-MASQ-AGENT -d 192.168.200.0/24 -j RETURN
-A IP-MASQ-AGENT -j MASQUERADE
-A POSTROUTING -m comment --comment "ip-masq-agent: ensure nat POSTROUTING directs all non-LOCAL destination traffic to our custom IP-MASQ-AGENT chain" -m addrtype ! --dst-type LOCAL -j IP-MASQ-AGENT
`

const flannelPolicy = `
apiVersion: unmasq.io/v1alpha1
kind: SourcePolicy
metadata: {name: flannel}
spec:
  facts:
    podCIDRs: [172.16.0.0/16]
  rules:
  - name: pods-and-office-see-pods
    from: {pods: {}}
    to: {pods: {}, cidrs: [192.168.200.0/24]}
    action: Keep
  - name: internet-sees-the-node
    from: {pods: {}}
    action: Masquerade
`

// flannel: 172.16.4.11 -> 192.168.200.253 must keep its address. This node's own pods
// are 172.16.2.0/24; 172.16.4.11 comes in by flannel's interface.
func flannel(t *testing.T, binary, iptables string) {
	w := flannelNetwork(t)
	nat := func(lines string) { t.Helper(); w.run("node", table(iptables, "nat", lines)...) }
	const node = "10.20.0.10"
	pods := []want{ // the same with and without unmasq
		{"pod2", "pod4", "172.16.4.11", "172.16.2.11"},
		{"pod4", "pod2", "172.16.2.11", "172.16.4.11"},
		{"pod4", "internet", "203.0.113.10", node},
		{"pod2", "internet", "203.0.113.10", node},
	}
	container := []want{ // no rule of the policy speaks of it: docker's decides
		{"container", "office", "192.168.200.253", node},
		{"container", "internet", "203.0.113.10", node},
	}
	office := func(four, two string) []want {
		return []want{{"pod4", "office", "192.168.200.253", four}, {"pod2", "office", "192.168.200.253", two}}
	}
	hidden, kept := office(node, node), office("172.16.4.11", "172.16.2.11")
	check := func(when string, wants ...[]want) {
		t.Helper()
		for _, x := range wants {
			w.check(when, x)
		}
	}

	nat(flannelNAT)
	check("without unmasq", hidden, pods, container)
	agent := w.start(binary, "node", flannelPolicy)
	check("with unmasq", kept, pods, container)
	nat(`-I POSTROUTING -s 172.16.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE
		-I POSTROUTING -s 172.16.0.0/16 -j SNAT --to-source 10.20.0.99
		-I POSTROUTING ! -d 127.0.0.0/8 -j MASQUERADE`)
	check("rules at the top", kept, pods, container)
	nat("-F\n-X")
	check("nat flushed", kept, pods)
	nat(flannelNAT)
	check("all written again", kept, pods, container)
	agent.stop(syscall.SIGKILL)
	check("agent killed", kept, pods, container)
	agent = w.start(binary, "node", flannelPolicy)
	agent.stop(syscall.SIGTERM)
	check("agent stopped", kept, pods, container)
	w.clear(binary, "node")
	check("cleared", hidden, pods, container)
	t.Logf("checked: %d connections of TCP, UDP and ICMP beside flannel, docker and ip-masq-agent", w.calls)
}

// flannelNetwork: pods 172.16.2.11 (behind cni0) and 172.16.4.11 (behind flannel.1) and a docker container
// at the node; the office and the internet behind a router, which knows the pods' network.
func flannelNetwork(t *testing.T) *network {
	w := newNetwork(t, "node", "pod2", "pod4", "container", "router", "office", "internet")
	w.forward("node", "router")
	w.run("node",
		"ip link add eth0 type veth peer name node netns {router}",
		"ip link add cni0 type bridge", "ip link add docker0 type bridge",
		"ip link add veth2 master cni0 type veth peer name eth0 netns {pod2}",
		"ip link add vethc master docker0 type veth peer name eth0 netns {container}",
		"ip link add flannel.1 type veth peer name eth0 netns {pod4}",
		"ip addr add 10.20.0.10/24 dev eth0", "ip addr add 172.16.2.1/24 dev cni0",
		"ip addr add 172.17.0.1/16 dev docker0", "ip addr add 172.16.2.0/32 dev flannel.1")
	for _, link := range []string{"eth0", "cni0", "docker0", "veth2", "vethc", "flannel.1"} {
		w.run("node", "ip link set "+link+" up")
	}
	w.run("router",
		"ip link add office type veth peer name eth0 netns {office}",
		"ip link add internet type veth peer name eth0 netns {internet}",
		"ip addr add 10.20.0.1/24 dev node", "ip addr add 192.168.200.1/24 dev office", "ip addr add 203.0.113.1/24 dev internet",
		"ip link set node up", "ip link set office up", "ip link set internet up",
		"ip route add 172.16.0.0/16 via 10.20.0.10")
	w.end("pod2", "172.16.2.11/24", "172.16.2.1")
	w.end("pod4", "172.16.4.11/24", "172.16.2.0")
	w.end("container", "172.17.0.2/16", "172.17.0.1")
	w.end("office", "192.168.200.253/24", "192.168.200.1")
	w.end("internet", "203.0.113.10/24", "203.0.113.1")
	w.run("node", "ip route add default via 10.20.0.1", "ip route add 172.16.4.0/24 dev flannel.1")
	w.listen("pod2", "pod4", "office", "internet")
	return w
}

// end configures a host with one interface.
func (w *network) end(space, address, gateway string) {
	w.t.Helper()
	w.run(space, "ip addr add "+address+" dev eth0", "ip link set eth0 up",
		"ip route add default via "+gateway+" dev eth0 onlink")
}
