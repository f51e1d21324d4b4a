//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/unmasq/unmasq/test/kube"
	"github.com/unmasq/unmasq/test/kube/peer"
)

const (
	balancers4, balancers6 = "198.18.0.0/24", "fd00:1b::/64"
	externals4, externals6 = "198.18.1.0/24", "fd00:1e::/64"
	firstNodePort          = 30000
)

// stated by a policy: an address that leads to n1 and that nobody has.
var stated = []string{"198.51.100.7", "2001:db8:5::7"}

// matrixService of the table, and its number, which its addresses and its port end in.
type matrixService struct{ name, selector, more string }

var matrixServices = []matrixService{
	{near, "side: near", ""},
	{far, "side: far", ""},
	{nearLocal, "side: near", "externalTrafficPolicy: Local"},
	{farLocal, "side: far", "externalTrafficPolicy: Local"},
	{nearInside, "side: near", "internalTrafficPolicy: Local"},
	{farInside, "side: far", "internalTrafficPolicy: Local"},
	{sticky, "app: web", "sessionAffinity: ClientIP"},
	{spread, "app: web", ""},
	{none, "app: none", ""},
}

// matrix of a cluster: its hosts by their names in the table, and who listens.
type matrix struct {
	c         *kube.Cluster
	hosts     map[string]*kube.Host
	names     map[netip.Addr]string
	clusterIP map[string][]netip.Addr // of services, IPv4 first
	datagrams map[string]*peer.Server // by UDP, of backends
	mu        sync.Mutex
	count     int // of connections
}

// newMatrix starts the pods and makes the services, in a cluster of two nodes.
func newMatrix(t *testing.T, ctx context.Context, c *kube.Cluster) *matrix {
	t.Helper()
	m := &matrix{c: c, hosts: map[string]*kube.Host{"out": c.Outside}, names: map[netip.Addr]string{}, clusterIP: map[string][]netip.Addr{}, datagrams: map[string]*peer.Server{}}
	for i, node := range []string{"n1", "n2"} {
		n := c.Node(node)
		m.hosts[node] = &n.Host
		for name, labels := range map[string]map[string]string{"p": nil, "w": {"app": "web", "side": []string{near, far}[i]}} {
			name += node[1:]
			pod, err := n.StartPod(ctx, kube.PodConfig{Name: name, Labels: labels})
			if err != nil {
				t.Fatal(err)
			}
			m.hosts[name] = &pod.Host
			if labels != nil {
				m.serve(t, name)
			}
		}
		bridge := "b" + node[1:]
		m.names[n.Pods4.Addr().Next()], m.names[n.Pods6.Addr().Next()] = bridge, bridge
	}
	listen(t, c.Outside)
	for name, h := range m.hosts {
		m.names[h.IPv4], m.names[h.IPv6] = name, name
	}
	m.names[kube.Outside4], m.names[kube.Outside6] = "outside", "outside"
	for _, a := range stated {
		m.names[netip.MustParseAddr(a)] = "snat"
	}
	m.routes(t)
	m.unlimited(t)
	m.services(t, ctx)
	return m
}

func (m *matrix) serve(t *testing.T, name string) {
	t.Helper()
	listen(t, m.hosts[name])
	s, err := m.hosts[name].ListenDatagrams(backendPort)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	m.datagrams[name] = s
}

// routes of the outside: n1 is its way to services, and to what policies state.
func (m *matrix) routes(t *testing.T) {
	t.Helper()
	n1 := m.hosts["n1"]
	for _, text := range []string{kube.Services4, kube.Services6, balancers4, balancers6, externals4, externals6, stated[0] + "/32", stated[1] + "/128"} {
		to, via := netip.MustParsePrefix(text), n1.IPv4
		if to.Addr().Is6() {
			via = n1.IPv6
		}
		if err := m.c.Outside.NS.Route(to, via, "eth0"); err != nil {
			t.Fatal(err)
		}
	}
}

// unlimited: nodes say each time that a connection is refused, however often.
func (m *matrix) unlimited(t *testing.T) {
	t.Helper()
	for _, n := range m.c.Nodes() {
		if err := errors.Join(n.NS.Sysctl("net.ipv4.icmp_ratelimit", "0"), n.NS.Sysctl("net.ipv6.icmp.ratelimit", "0")); err != nil {
			t.Fatal(err)
		}
	}
}

func (m *matrix) services(t *testing.T, ctx context.Context) {
	t.Helper()
	var manifests strings.Builder
	for i, s := range matrixServices {
		fmt.Fprintf(&manifests, `
---
apiVersion: v1
kind: Service
metadata: {name: %s}
spec:
  type: LoadBalancer
  ipFamilyPolicy: RequireDualStack
  selector: {%s}
  externalIPs: ["%s", "%s"]
  ports:
  - {name: tcp, port: %d, targetPort: %d, nodePort: %d}
  - {name: udp, protocol: UDP, port: %[5]d, targetPort: %[6]d, nodePort: %[7]d}
  %s
`, s.name, s.selector, numbered(externals4, i), numbered(externals6, i), webPort, backendPort, firstNodePort+i, s.more)
	}
	apply(t, ctx, m.c, manifests.String())
	services := m.c.Client.CoreV1().Services("default")
	for i, s := range matrixServices {
		service, err := services.Get(ctx, s.name, meta.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, ip := range service.Spec.ClusterIPs {
			m.clusterIP[s.name] = append(m.clusterIP[s.name], netip.MustParseAddr(ip))
		}
		slices.SortFunc(m.clusterIP[s.name], netip.Addr.Compare)
		for _, cidr := range []string{balancers4, balancers6} {
			service.Status.LoadBalancer.Ingress = append(service.Status.LoadBalancer.Ingress, core.LoadBalancerIngress{IP: numbered(cidr, i).String()})
		}
		if _, err := services.UpdateStatus(ctx, service, meta.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// numbered address of a network, from 1.
func numbered(cidr string, i int) netip.Addr {
	a := netip.MustParsePrefix(cidr).Addr().Next()
	for range i {
		a = a.Next()
	}
	return a
}

// address that the cell's source connects to.
func (m *matrix) address(c cell) netip.AddrPort {
	f := slices.Index(families, c.family)
	of := func(h *kube.Host) netip.Addr { return []netip.Addr{h.IPv4, h.IPv6}[f] }
	i := slices.IndexFunc(matrixServices, func(s matrixService) bool { return s.name == c.service })
	switch c.by {
	case byPod:
		return netip.AddrPortFrom(of(m.hosts[c.backend()]), backendPort)
	case byCluster:
		return netip.AddrPortFrom(m.clusterIP[c.service][f], webPort)
	case byPort1:
		return netip.AddrPortFrom(of(m.hosts["n1"]), uint16(firstNodePort+i))
	case byPort2:
		return netip.AddrPortFrom(of(m.hosts["n2"]), uint16(firstNodePort+i))
	case byBalancer:
		return netip.AddrPortFrom(numbered([]string{balancers4, balancers6}[f], i), webPort)
	case byExternal:
		return netip.AddrPortFrom(numbered([]string{externals4, externals6}[f], i), webPort)
	}
	return netip.AddrPortFrom([]netip.Addr{kube.Outside4, kube.Outside6}[f], backendPort)
}

// Times that an answer has: the first, and those who had none are asked again.
const firstTime, secondTime = 1500 * time.Millisecond, 3 * time.Second

// ask all cells, many at a time. A hang, or an error that no cell expects, is one
// only where it comes about twice; failed hears of the errors, which are many while
// kube-proxy isn't done yet.
func (m *matrix) ask(ctx context.Context, cells []cell, failed func(c cell, how string)) map[cell]string {
	saw := m.askEach(ctx, cells, firstTime)
	again := slices.DeleteFunc(slices.Clone(cells), func(c cell) bool {
		if strings.Contains(saw[c], " ") {
			failed(c, saw[c])
		}
		return !strings.Contains(saw[c], "hung") && !strings.Contains(saw[c], "~") && !strings.Contains(saw[c], " ")
	})
	maps.Copy(saw, m.askEach(ctx, again, secondTime))
	return saw
}

func (m *matrix) askEach(ctx context.Context, cells []cell, patience time.Duration) map[cell]string {
	const atATime = 48
	saw, slots := map[cell]string{}, make(chan struct{}, atATime)
	var all sync.WaitGroup
	var mu sync.Mutex
	for _, c := range cells {
		slots <- struct{}{}
		all.Go(func() {
			seen := m.see(ctx, c, patience)
			mu.Lock()
			saw[c] = seen
			mu.Unlock()
			<-slots
		})
	}
	all.Wait()
	return saw
}

// see what becomes of the cell's connections: with several backends there are
// several, and who was seen by whom is "b1@w1", or "b1/n1@both".
func (m *matrix) see(ctx context.Context, c cell, patience time.Duration) string {
	times := map[string]int{sticky: 4, spread: 24}[c.service] // a fair coin never falls 24 times on one side
	seen := map[string]string{}
	for range max(times, 1) {
		backend, source := m.connect(ctx, c, patience)
		if before, known := seen[backend]; known && before != source {
			source = before + "," + source
		}
		seen[backend] = source
		if c.service == spread && len(seen) == 2 {
			break
		}
	}
	if len(seen) == 2 && seen["w1"] != "" && seen["w2"] != "" {
		return seen["w1"] + "/" + seen["w2"] + "@both"
	}
	var words []string
	for _, backend := range slices.Sorted(maps.Keys(seen)) {
		words = append(words, strings.TrimSuffix(seen[backend]+"@"+backend, "@"))
	}
	return strings.Join(words, ",")
}

// connect once. Backend is empty where none answered, and none is known to have seen it.
func (m *matrix) connect(ctx context.Context, c cell, patience time.Duration) (backend, source string) {
	m.mu.Lock()
	m.count++
	name := fmt.Sprint("visit-", m.count)
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	answer, err := m.hosts[c.from].ConnectBy(ctx, c.network, m.address(c), name)
	switch {
	case err == nil:
		return answer.Server, m.called(answer.Source.Addr())
	case errors.Is(err, syscall.ECONNREFUSED):
		return "", "refused"
	case errors.Is(err, syscall.EPERM):
		return "", "denied"
	case !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, context.DeadlineExceeded):
		return "", err.Error()
	}
	for backend, s := range m.datagrams {
		for _, v := range s.Visits() {
			if v.Name == name {
				return backend, m.called(v.Source.Addr()) + "~"
			}
		}
	}
	return "", "hung"
}

// called is an address by its name in the table.
func (m *matrix) called(a netip.Addr) string {
	if name, known := m.names[a]; known {
		return name
	}
	return a.String()
}

// differing cells, and how.
func differing(saw, want map[cell]string) (cells []cell, how string) {
	var lines []string
	for c, s := range saw {
		if !c.fits(s, want[c]) {
			cells = append(cells, c)
			lines = append(lines, fmt.Sprintf("%s: %s, want %s", c, s, want[c]))
		}
	}
	slices.Sort(lines)
	return cells, strings.Join(lines, "\n")
}
