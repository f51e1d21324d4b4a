package field_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
)

const dockerPolicy = `
apiVersion: unmasq.io/v1alpha1
kind: SourcePolicy
metadata: {name: docker}
spec:
  facts: {podCIDRs: [172.5.0.0/16]}
  rules:
  - {name: pods-see-pods, from: {pods: {}}, to: {cidrs: [172.5.0.0/16]}, action: Keep}
  - {name: outside-sees-the-host, from: {pods: {}}, action: Masquerade}
`

// services are iptables-services' defaults; the report names the two REJECTs.
const services = `
-A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p icmp -j ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -p tcp -m state --state NEW -m tcp --dport 22 -j ACCEPT
-A INPUT -j REJECT --reject-with icmp-host-prohibited
-A FORWARD -j REJECT --reject-with icmp-host-prohibited
`

// hosts by the last byte of their address, which is the third of their pods' subnet.
var hosts = []int{138, 139}

// docker: two hosts whose pods see each other's host, because docker masquerades
// what leaves docker0's subnet, and comes back to it at every restart.
func docker(t *testing.T, binary, iptables string) {
	w := dockerNetwork(t)
	each := func(name, lines string) { // on each host, OWN is its own pods' subnet
		t.Helper()
		for _, n := range hosts {
			own := fmt.Sprintf("172.5.%d.0/24", n)
			w.run(host(n), table(iptables, name, strings.ReplaceAll(lines, "OWN", own))...)
		}
	}
	between := func(a, b string) []want {
		return []want{{"pod138", "pod139", "172.5.139.2", a}, {"pod139", "pod138", "172.5.138.2", b}}
	}
	outside := []want{
		{"pod138", "outside", "198.51.100.10", "192.168.5.138"},
		{"pod139", "outside", "198.51.100.10", "192.168.5.139"},
	}
	hidden, kept := append(between("192.168.5.138", "192.168.5.139"), outside...), append(between("172.5.138.2", "172.5.139.2"), outside...)
	// Neither to pods, nor to the other host itself (but to ping that).
	cut := between(prohibited, prohibited)
	input := []want{{"pod138", "host139", "192.168.5.139", prohibited}}

	each("nat", kubePostrouting)
	each("nat", "-A POSTROUTING -s OWN ! -o docker0 -j MASQUERADE")
	w.check("docker's rule alone", hidden)
	agents := map[int]*running{}
	for _, n := range hosts {
		agents[n] = w.start(binary, host(n), dockerPolicy)
	}
	w.check("with unmasq", kept)

	restart := "-D POSTROUTING -s OWN ! -o docker0 -j MASQUERADE\n-I POSTROUTING -s OWN ! -o docker0 -j MASQUERADE"
	each("nat", restart)
	w.check("docker restarted", kept)
	each("nat", "-I POSTROUTING -s OWN ! -d 172.5.0.0/16 ! -o docker0 -j MASQUERADE")
	each("nat", restart)
	w.check("mended by hand, and restarted", kept)
	each("nat", "-F\n-X")
	w.check("nat flushed", kept)

	// What a filter refuses is no question of addresses: unmasq leaves it alone, with
	// or without it a call ends in "no route to host" until someone accepts it.
	each("filter", services)
	w.check("iptables-services", cut)
	w.check("iptables-services, to the host", input, "tcp", "udp")
	each("filter", "-I FORWARD -s 172.5.0.0/16 -j ACCEPT\n-I FORWARD -d 172.5.0.0/16 -j ACCEPT")
	w.check("forwarding accepted", kept)
	for _, n := range hosts {
		agents[n].stop(syscall.SIGTERM)
		w.clear(binary, host(n))
	}
	each("nat", "-A POSTROUTING -s OWN ! -o docker0 -j MASQUERADE")
	w.check("cleared", hidden)
	t.Logf("checked: %d connections of TCP, UDP and ICMP between two docker hosts", w.calls)
}

func host(n int) string { return fmt.Sprintf("host%d", n) }
func pod(n int) string  { return fmt.Sprintf("pod%d", n) }

// dockerNetwork: 192.168.5.138 and .139, each with a pod behind docker0 and a route to the
// other's pods, on one switch with a router, behind which is the outside.
func dockerNetwork(t *testing.T) *network {
	w := newNetwork(t, "router", "outside", "host138", "host139", "pod138", "pod139")
	w.forward("router", "host138", "host139")
	w.run("router", "ip link add lan type bridge", "ip addr add 192.168.5.1/24 dev lan", "ip link set lan up",
		"ip link add outside type veth peer name eth0 netns {outside}",
		"ip addr add 198.51.100.1/24 dev outside", "ip link set outside up")
	for i, n := range hosts {
		other := hosts[1-i]
		w.run(host(n),
			fmt.Sprintf("ip link add eth0 type veth peer name to%d netns {router}", n),
			"ip link add docker0 type bridge",
			fmt.Sprintf("ip link add veth0 master docker0 type veth peer name eth0 netns {%s}", pod(n)),
			fmt.Sprintf("ip addr add 192.168.5.%d/24 dev eth0", n), fmt.Sprintf("ip addr add 172.5.%d.1/24 dev docker0", n),
			"ip link set eth0 up", "ip link set docker0 up", "ip link set veth0 up",
			"ip route add default via 192.168.5.1",
			fmt.Sprintf("ip route add 172.5.%d.0/24 via 192.168.5.%d", other, other))
		w.run("router", fmt.Sprintf("ip link set to%d master lan up", n))
		w.end(pod(n), fmt.Sprintf("172.5.%d.2/24", n), fmt.Sprintf("172.5.%d.1", n))
	}
	w.end("outside", "198.51.100.10/24", "198.51.100.1")
	w.listen("pod138", "pod139", "host138", "host139", "outside")
	return w
}
