//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/agent/agenttest"
	"github.com/unmasq/unmasq/internal/doctor"
	"github.com/unmasq/unmasq/internal/kernel/capture"
	"github.com/unmasq/unmasq/test/kube"
)

// TestDoctorOfAll: of two nodes that are in order nothing is said, beside the real
// kube-proxy in each mode; what is done to them then is found.
func TestDoctorOfAll(t *testing.T) {
	program := agenttest.Program(t)
	for _, mode := range []string{kube.IPTables, kube.NFTables} {
		t.Run(mode, func(t *testing.T) { doctorOfAll(t, bounded(t), mode, program) })
	}
}

func doctorOfAll(t *testing.T, ctx context.Context, mode, program string) {
	proxy := kube.Proxy{Mode: mode}
	c := start(t, ctx, kube.Config{Nodes: []kube.NodeConfig{{Kubelet: true, Proxy: proxy}, {Kubelet: true, Proxy: proxy}}, Images: []kube.Image{tools(t, program)}})
	p := &plugin{c: c, node: c.Node("n1"), program: program}
	p.install(t, ctx)
	apply(t, ctx, c, servedByTwo)
	kubectl(t, ctx, c, "wait", "--for=condition=Ready", "pod/web-1", "pod/web-2", "--timeout=60s")
	vip := netip.MustParseAddr(strings.TrimSpace(kubectl(t, ctx, c, "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")))
	for _, n := range c.Nodes() {
		eventually(t, ctx, func() error {
			_, err := n.Connect(ctx, netip.AddrPortFrom(vip, webPort), n.Name)
			return err
		})
	}
	if r := p.diagnose(t, ctx, 0, "--all", "--connections"); len(r.Findings)+len(r.NotLookedAt) > 0 {
		t.Errorf("of nodes that are in order: %+v, %+v", r.Findings, r.NotLookedAt)
	}
	routedToOne(t, ctx, p, vip)
	toldNothing(t, ctx, c, proxy)
}

// servedByTwo is a service with a pod on each node.
const servedByTwo = `
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ipFamilyPolicy: RequireDualStack, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, labels: {app: web}}
spec:
  nodeName: n1
  automountServiceAccountToken: false
  containers: [{name: pod, image: "` + kube.PodImage + `", imagePullPolicy: Never, args: [-name, web-1, -serve, ":8080"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: web-2, labels: {app: web}}
spec:
  nodeName: n2
  automountServiceAccountToken: false
  containers: [{name: pod, image: "` + kube.PodImage + `", imagePullPolicy: Never, args: [-name, web-2, -serve, ":8080"]}]
`

// routedToOne: the network outside leads all clients of services to n1.
func routedToOne(t *testing.T, ctx context.Context, p *plugin, vip netip.Addr) {
	t.Helper()
	out := p.c.Outside.NS
	if err := out.Route(netip.MustParsePrefix(kube.Services4), p.node.IPv4, ""); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		client := netip.AddrFrom4([4]byte{203, 0, 113, byte(100 + i)})
		if err := out.Addr("lo", netip.PrefixFrom(client, 32)); err != nil {
			t.Fatal(err)
		}
		err := out.Do(func() error {
			d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(client, 0))}
			conn, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(vip, webPort).String())
			if err == nil {
				conn.Close()
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	r := p.diagnose(t, ctx, 0, "--all", "--connections")
	if len(r.Findings) != 1 || r.Findings[0].Code != "single-entry" || r.Findings[0].Node != "n1" {
		t.Errorf("ClusterIPs are routed to n1 alone: %+v\n%+v", r.Findings, r.Entering)
	}
}

// toldNothing: a node whose kube-proxy isn't told the cluster's networks.
func toldNothing(t *testing.T, ctx context.Context, c *kube.Cluster, proxy kube.Proxy) {
	t.Helper()
	proxy.NoClusterCIDR = true
	n, err := c.AddNode(ctx, kube.NodeConfig{Proxy: proxy})
	if err != nil {
		t.Fatal(err)
	}
	host, err := capture.Live(ctx, capture.Options{Namespace: n.NS})
	if err != nil {
		t.Fatal(err)
	}
	r := doctor.Examine(doctor.Node{Host: host})
	for _, f := range r.Findings {
		if f.Code != "cluster-cidr-missing" {
			t.Errorf("found besides: %+v", f)
		}
	}
	if len(r.Findings) != 2 { // of each family
		t.Errorf("kube-proxy without the cluster's networks: %+v", r.Findings)
	}
}

// pluginDoctor: of a node that is in order nothing is said, through the agent's own
// rights; of all nodes those without an agent are told.
func pluginDoctor(t *testing.T, ctx context.Context, p *plugin) {
	one := p.diagnose(t, ctx, 0, "default/client")
	if len(one.Findings) > 0 {
		t.Errorf("found on a node that is in order: %+v", one.Findings)
	}
	all := p.diagnose(t, ctx, 1, "--all")
	without := ""
	for _, u := range all.NotLookedAt {
		if u.Why == "it has no agent" {
			without += u.Node + " "
		}
	}
	if len(all.Findings) > 0 || !strings.Contains(without, "n2 ") {
		t.Errorf("without an agent: %q, found: %+v", without, all.Findings)
	}
}

func (p *plugin) diagnose(t *testing.T, ctx context.Context, status int, args ...string) doctor.Report {
	t.Helper()
	s := p.run(t, ctx, "admin", append([]string{"doctor", "-o", "json"}, args...)...)
	var r doctor.Report
	if err := json.Unmarshal([]byte(s.out), &r); err != nil || s.status != status {
		t.Fatalf("doctor %v: status %d, %v\n%s%s", args, s.status, err, s.out, s.err)
	}
	return r
}
