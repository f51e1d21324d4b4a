//go:build e2e

package e2e

// Policies of the matrix, and the rows that are others with them, by hand.

// otherTraffic translates what pods send out, and pins what they send to each other.
// Of services' traffic it sees all that kube-proxy doesn't mark, and changes nothing:
// that has the pods' addresses already.
const otherTraffic = `
apiVersion: unmasq.io/v1alpha1
kind: SourcePolicy
metadata: {name: matrix}
spec:
  rules:
  - {name: inside, from: {pods: {}}, to: {pods: {}}, action: Keep}
  - {name: out, from: {pods: {}}, to: {cidrs: [203.0.113.0/24, "2001:db8::/48"]}, action: Masquerade}
`

var withOtherTraffic = table{
	//                      p1      p2      n1      n2      out     w1
	{"", byHost, "tcp"}: "n1      n2      n1      n2      -       n1",
}

// overriding has kube-proxy's mark overridden on n1, and there alone: for clients
// outside, whom near sees as themselves, and far as an address whose way is n1; for
// pods and for the node itself, whom near sees as themselves.
const overriding = `
apiVersion: unmasq.io/v1alpha1
kind: SourcePolicy
metadata: {name: matrix}
spec:
  nodeSelector: {matchLabels: {kubernetes.io/hostname: n1}}
  rules:
  - name: clients-of-near
    from: {cidrs: [172.18.0.1/32, "fd00:18::1/128"]}
    to: {cidrs: [10.244.1.0/24, "fd00:10:244:1::/64"]}
    action: Keep
    overrideServiceMasquerade: true
  - name: clients-of-far
    from: {cidrs: [172.18.0.1/32, "fd00:18::1/128"]}
    to: {cidrs: [10.244.2.0/24, "fd00:10:244:2::/64"]}
    action: SNAT
    snat: {addresses: [198.51.100.7, "2001:db8:5::7"]}
    overrideServiceMasquerade: true
  - name: pods
    from: {pods: {}}
    to: {cidrs: [10.244.1.0/24, "fd00:10:244:1::/64"]}
    action: Keep
    overrideServiceMasquerade: true
  - name: node
    from: {node: {}}
    to: {cidrs: [10.244.1.0/24, "fd00:10:244:1::/64"]}
    action: Keep
    overrideServiceMasquerade: true
`

// What goes back to where it came from (w1 to near) can't be overridden. What n2
// translates (all that goes to its addresses, and what it and its pods send to
// services) is as it was, and so is what no rule overrides: pods and nodes to far.
var withOverriding = table{
	//                               p1      p2      n1      n2      out     w1
	{near, byCluster, "tcp"}:       "p1      p2      n1      n2      out     b1",
	{near, byCluster, "udp"}:       "p1      p2      n1      n2      out     b1",
	{near, byPort1, "tcp"}:         "p1      p2      n1      b1      out     b1",
	{near, byPort1, "udp"}:         "p1      p2      n1      b1      out     b1",
	{near, byBalancer, "tcp"}:      "p1      n2      n1      n2      out     b1",
	{near, byExternal, "tcp"}:      "p1      n2      n1      n2      out     b1",
	{nearLocal, byCluster, "tcp"}:  "p1      p2      n1      n2      out     b1",
	{nearLocal, byPort1, "tcp"}:    "p1      p2      n1      n2      out     b1",
	{nearLocal, byPort1, "udp"}:    "p1      p2      n1      n2      out     b1",
	{nearLocal, byBalancer, "tcp"}: "p1      p2      n1      n2      out     b1",
	{nearLocal, byExternal, "tcp"}: "p1      p2      n1      n2      out     b1",
	{nearInside, byCluster, "tcp"}: "p1      hung    n1      hung    out     b1",
	{nearInside, byCluster, "udp"}: "p1      hung    n1      denied  out     b1",

	{far, byCluster, "tcp"}:      "p1      p2      n1      b2      snat    w1",
	{far, byCluster, "udp"}:      "p1      p2      n1      b2      snat    w1",
	{far, byPort1, "tcp"}:        "n1      n1      n1      n1      snat    n1",
	{far, byPort1, "udp"}:        "n1      n1      n1      n1      snat    n1",
	{far, byBalancer, "tcp"}:     "n1      b2      n1      b2      snat    n1",
	{far, byExternal, "tcp"}:     "n1      b2      n1      b2      snat    n1",
	{farLocal, byCluster, "tcp"}: "p1      p2      n1      b2      snat    w1",

	{sticky, byCluster, "tcp"}:  "p1/p1   p2/p2   n1/n1   n2/b2   out/snat b1/w1",
	{sticky, byPort1, "tcp"}:    "p1/n1   p2/n1   n1/n1   b1/n1   out/snat b1/n1",
	{sticky, byBalancer, "tcp"}: "p1/n1   n2/b2   n1/n1   n2/b2   out/snat b1/n1",
	{spread, byCluster, "tcp"}:  "p1/p1   p2/p2   n1/n1   n2/b2   out/snat b1/w1",
}

// everywhere overrides on all nodes what pods send to pods: a trap, since it keeps
// addresses where the answer then goes past the node that chose the backend.
const everywhere = `
apiVersion: unmasq.io/v1alpha1
kind: SourcePolicy
metadata: {name: matrix}
spec:
  rules:
  - {name: pods, from: {pods: {}}, to: {pods: {}}, action: Keep, overrideServiceMasquerade: true}
`

// Of what comes back to where it came from, only the pod's own node knows.
var withEverywhere = table{
	//                             p1      p2      n1      n2      out     w1
	{near, byCluster, "tcp"}:    "p1      p2      b1      n2      b1      b1",
	{near, byPort1, "tcp"}:      "p1      p2      b1      b1      b1      b1",
	{near, byPort1, "udp"}:      "p1      p2      b1      b1      b1      b1",
	{near, byPort2, "tcp"}:      "p1~     p2      n2      n2      n2      w1!|w1~",
	{near, byPort2, "udp"}:      "p1~     p2      n2      n2      n2      w1!|w1~",
	{near, byBalancer, "tcp"}:   "p1      p2      b1      n2      b1      b1",
	{nearLocal, byPort2, "udp"}: "p1~     p2      hung    n2      hung    w1!|w1~",
	{far, byPort1, "udp"}:       "p1      p2~     n1      n1      n1      w1",
	{far, byPort2, "udp"}:       "p1      p2      b2      b2      b2      w1",
	{far, byExternal, "tcp"}:    "p1      p2      n1      b2      n1      w1",
	{spread, byBalancer, "tcp"}: "p1/p1   p2/p2   b1/n1   n2/b2   b1/n1   b1/w1",
}
