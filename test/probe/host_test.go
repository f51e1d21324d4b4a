package probe_test

import (
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/agent/agenttest"
	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/matrix"
	"github.com/unmasq/unmasq/internal/probe"
)

// plainHost has two containers on a bridge, and a way to a host outside.
type plainHost struct {
	program                string
	host, web, db, outside *netns.NS
}

const hostRules = `table ip t {
	chain post {
		type nat hook postrouting priority srcnat
		ip saddr 10.203.77.0/24 oifname "eth0" masquerade
	}
}
`

func newPlainHost(t *testing.T) *plainHost {
	t.Helper()
	h := &plainHost{program: agenttest.Program(t), host: netnstest.Test(t, "host"), web: netnstest.Test(t, "web"), db: netnstest.Test(t, "db"), outside: netnstest.Test(t, "outside")}
	route := func(ns *netns.NS, to, via string) error {
		return ns.Route(netip.MustParsePrefix(to), netip.MustParseAddr(via), "")
	}
	err := errors.Join(h.host.Bridge("br0"),
		netns.Veth(h.web, "eth0", h.host, "vweb"), netns.Veth(h.db, "eth0", h.host, "vdb"), netns.Veth(h.outside, "eth0", h.host, "eth0"),
		h.host.Enslave("vweb", "br0"), h.host.Enslave("vdb", "br0"),
		h.host.Sysctl("net.ipv4.ip_forward", "1"), h.host.Sysctl("net.ipv6.conf.all.forwarding", "1"))
	for ns, addresses := range map[*netns.NS][]string{
		h.host: {"br0 10.203.77.1/24", "br0 fd00:203:77::1/64", "eth0 198.51.100.7/24", "eth0 2001:db8:7::7/64"},
		h.web:  {"eth0 10.203.77.2/24", "eth0 fd00:203:77::2/64"}, h.db: {"eth0 10.203.77.3/24", "eth0 fd00:203:77::3/64"},
		h.outside: {"eth0 198.51.100.9/24", "eth0 2001:db8:7::9/64"},
	} {
		for _, a := range addresses {
			dev, prefix, _ := strings.Cut(a, " ")
			err = errors.Join(err, ns.Addr(dev, netip.MustParsePrefix(prefix)))
		}
	}
	for _, pod := range []*netns.NS{h.web, h.db} {
		err = errors.Join(err, route(pod, "0.0.0.0/0", "10.203.77.1"), route(pod, "::/0", "fd00:203:77::1"))
	}
	err = errors.Join(err, route(h.outside, "10.203.77.0/24", "198.51.100.7"), route(h.outside, "fd00:203:77::/64", "2001:db8:7::7"),
		route(h.host, "0.0.0.0/0", "198.51.100.9"), route(h.host, "::/0", "2001:db8:7::9"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.host.Run(hostRules, "nft", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	return h
}

// probe runs unmasq matrix --probe on the host.
func (h *plainHost) probe(t *testing.T, status int, args ...string) (m matrix.Matrix, said string) {
	t.Helper()
	out, said, got := agenttest.Run(t, h.host, "", h.program, append([]string{"matrix", "--probe", "-o", "json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &m); err != nil || got != status {
		t.Fatalf("status %d, want %d; %v\n%s%s", got, status, err, out, said)
	}
	return m, said
}

// cell of a matrix.
func cell(t *testing.T, m *matrix.Matrix, row, column, family string) *matrix.Cell {
	t.Helper()
	i := slices.IndexFunc(m.Cells, func(c matrix.Cell) bool { return c.Row == row && c.Column == column && c.Family == family })
	if i < 0 {
		t.Fatalf("no cell %s from %s to %s", family, row, column)
	}
	return &m.Cells[i]
}

// A host without any cluster, with namespaces that are named: all is as predicted.
func TestPlainHost(t *testing.T) {
	h := newPlainHost(t)
	named := []string{"--namespace=web=" + h.web.Name(), "--namespace=db=" + h.db.Path(), "--namespace=office=" + h.outside.Name()}
	for _, protocol := range []string{"tcp", "udp"} {
		m, said := h.probe(t, 0, append(named, "--protocol="+protocol)...)
		measured, differ := probe.Count(&m)
		if differ > 0 || measured < 24 {
			t.Errorf("%s: %d cells measured, %d differ:\n%s\n%s", protocol, measured, differ, strings.Join(probe.Differing(&m), "\n"), said)
		}
		t.Logf("checked: %d cells by %s", measured, protocol)
		for family, want := range map[string]matrix.Verdict{"ipv4": matrix.Masqueraded, "ipv6": matrix.Kept} {
			c := cell(t, &m, "pod-here", "outside", family)
			if len(c.Measured) != 1 || c.Measured[0].Verdict != want || c.Measured[0].AtName != "office" {
				t.Errorf("%s, %s: the pod is seen outside as %+v, want %s", protocol, family, c.Measured, want)
			}
		}
	}
}

// A published port, whose server is somebody's own and says nothing: whom it sees is in
// the host's connection table.
func TestPublishedPort(t *testing.T) {
	h := newPlainHost(t)
	const published = "table ip p {\n\tchain pre {\n\t\ttype nat hook prerouting priority dstnat\n\t\tiifname != \"br0\" ip daddr 198.51.100.7 tcp dport 8081 dnat to 10.203.77.2:80\n\t}\n}\n"
	if _, err := h.host.Run(published, "nft", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	var server net.Listener
	if err := h.web.Do(func() (err error) { server, err = net.Listen("tcp4", ":80"); return err }); err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	m, said := h.probe(t, 0, "--namespace=db="+h.db.Name(), "--namespace=office="+h.outside.Name())
	c := cell(t, &m, "outside", "published-port", "ipv4")
	if len(c.Measured) != 1 || c.Measured[0].Verdict != matrix.Kept || c.Measured[0].Source.String() != "198.51.100.9" || c.Measured[0].At.String() != "10.203.77.2:80" {
		t.Errorf("measured %+v, predicted %+v\n%s%q", c.Measured, c.Predicted, said, m.Notes)
	}
}

// Containers are found by themselves.
func TestFindsContainers(t *testing.T) {
	h := newPlainHost(t)
	m, said := h.probe(t, 0)
	c := cell(t, &m, "this-node", "pod-here", "ipv4")
	if len(c.Measured) != 1 || c.Measured[0].Verdict != matrix.Kept {
		t.Errorf("the node is seen in a container as %+v\n%s", c.Measured, said)
	}
	names := []string{m.Rows[0].Place.Name}
	for _, r := range m.Rows[1:] {
		names = append(names, r.Place.Name)
	}
	if !slices.Contains(names, h.web.Name()) || !slices.Contains(names, h.db.Name()) {
		t.Errorf("rows %v, want %s and %s among them", names, h.web.Name(), h.db.Name())
	}
}

// What the host's state doesn't show is told: another host that lets nothing in, and one
// that has no way back.
func TestDifferenceIsMarked(t *testing.T) {
	h := newPlainHost(t)
	const closed = "table inet t {\n\tchain in {\n\t\ttype filter hook prerouting priority 0\n\t\tip saddr 198.51.100.7 drop\n\t}\n}\n"
	if _, err := h.outside.Run(closed, "nft", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	if _, err := h.outside.Run("", "ip", "-6", "route", "del", "fd00:203:77::/64"); err != nil {
		t.Fatal(err)
	}
	named := []string{"--namespace=web=" + h.web.Name(), "--namespace=office=" + h.outside.Name()}
	m, said := h.probe(t, 1, named...)
	if want := "measured differ from what was predicted"; !strings.Contains(said, want) {
		t.Errorf("said %q, want %q", said, want)
	}
	for family, why := range map[string]string{"ipv4": "no answer", "ipv6": probe.ArrivedUnanswered} {
		c := cell(t, &m, "pod-here", "outside", family)
		if !c.Differs || len(c.Measured) != 1 || c.Measured[0].Verdict != matrix.Lost || c.Measured[0].Why != why {
			t.Errorf("%s: %+v, want a difference: lost, %s", family, c, why)
		}
	}
	if c := cell(t, &m, "this-node", "pod-here", "ipv4"); c.Differs || len(c.Measured) == 0 {
		t.Errorf("%+v, want it as predicted", c)
	}
	out, _, status := agenttest.Run(t, h.host, "", h.program, append([]string{"matrix", "--probe"}, named...)...)
	if status != 1 || !strings.Contains(out, "measured: lost") {
		t.Errorf("status %d\n%s", status, out)
	}
}

func TestHostUsage(t *testing.T) {
	program := agenttest.Program(t)
	host := netnstest.Test(t, "host")
	for _, c := range []struct{ args, want string }{
		{"--snapshot=" + os.DevNull, "--probe measures this host as it is"},
		{"--namespace=web", `--namespace "web"; expected NAME=NAMESPACE`},
		{"--namespace=web=nowhere", `--namespace web: no network namespace "nowhere": want a process's number, a path, or a name`},
		{"--namespace=web=/etc/hostname", "/etc/hostname is no network namespace"},
	} {
		out, said, status := agenttest.Run(t, host, "", program, "matrix", "--probe", c.args)
		if status != 2 || !strings.Contains(said, c.want) {
			t.Errorf("%s: status %d, want 2\n%s%s\nwant: %s", c.args, status, out, said, c.want)
		}
	}
	if _, said, status := agenttest.Run(t, host, "", program, "matrix", "--namespace=web=1"); status != 2 || !strings.Contains(said, "--namespace is for --probe") {
		t.Errorf("--namespace alone: status %d, %s", status, said)
	}
}
