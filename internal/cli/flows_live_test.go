package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unmasq/unmasq/internal/flows"
	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/packet"
)

// routed is a router between a client and a server, each with an address of both
// families, and a service that the router sends to the server.
type routed struct {
	client, router, server *netns.NS
	// datagrams were sent from so many ports, each of which begins a connection.
	datagrams uint16
}

func routedAddress(f packet.Family, network, host int) netip.Addr {
	if f == packet.IPv4Family {
		return netip.AddrFrom4([4]byte{10, byte(network), 0, byte(host)})
	}
	return netip.MustParseAddr(fmt.Sprintf("fd00:%d::%d", network, host))
}

func newRouted(t *testing.T) *routed {
	t.Helper()
	r := &routed{client: netnstest.Test(t, "client"), router: netnstest.Test(t, "router"), server: netnstest.Test(t, "server")}
	check := func(errs ...error) {
		t.Helper()
		for _, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	check(netns.Veth(r.client, "eth0", r.router, "pods"), netns.Veth(r.server, "eth0", r.router, "eth0"))
	check(r.router.Sysctl("net.ipv4.ip_forward", "1"), r.router.Sysctl("net.ipv6.conf.all.forwarding", "1"))
	for _, f := range packet.Families {
		bits := 24
		if f == packet.IPv6Family {
			bits = 64
		}
		a := func(network, host int) netip.Prefix { return netip.PrefixFrom(routedAddress(f, network, host), bits) }
		for host := 7; host <= 11; host++ { // each source has its own fate
			check(r.client.Addr("eth0", a(1, host)))
		}
		check(r.router.Addr("pods", a(1, 1)), r.router.Addr("eth0", a(2, 1)), r.router.Addr("eth0", a(2, 77)), r.server.Addr("eth0", a(2, 9)))
		check(r.client.Route(f.Everywhere(), routedAddress(f, 1, 1), "eth0"), r.server.Route(f.Everywhere(), routedAddress(f, 2, 1), "eth0"))
	}
	return r
}

// Rules by the client's last number: 7 is kept, 8 pinned and 9 masqueraded by
// unmasq, 10 by a rule like flannel's, 11 gets an address by SNAT of nobody known.
const routedPolicy = `
apiVersion: unmasq.io/v1alpha1
kind: SourcePolicy
metadata: {name: lab}
spec:
  rules:
  - {name: keep, from: {cidrs: [10.1.0.8/32, "fd00:1::8/128"]}, action: Keep}
  - {name: mask, from: {cidrs: [10.1.0.9/32, "fd00:1::9/128"]}, action: Masquerade}
`

func (r *routed) rules(t *testing.T) {
	t.Helper()
	for program, rules := range map[string]string{
		"iptables-nft-restore": `*nat
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -s 10.1.0.10/32 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
-A POSTROUTING -s 10.1.0.11/32 -j SNAT --to-source 10.2.0.77
-A PREROUTING -d 10.96.0.1/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.2.0.9:8080
-A PREROUTING -d 10.96.0.1/32 -p udp -m udp --dport 53 -j DNAT --to-destination 10.2.0.9:5353
COMMIT
*raw
-A PREROUTING -s 10.1.0.8/32 -p udp -j CT --zone 7
COMMIT
`,
		"ip6tables-nft-restore": `*nat
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -s fd00:1::10/128 ! -d ff00::/8 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
-A POSTROUTING -s fd00:1::11/128 -j SNAT --to-source fd00:2::77
-A PREROUTING -d fd00:96::1/128 -p tcp -m tcp --dport 80 -j DNAT --to-destination [fd00:2::9]:8080
-A PREROUTING -d fd00:96::1/128 -p udp -m udp --dport 53 -j DNAT --to-destination [fd00:2::9]:5353
COMMIT
`,
	} {
		if _, err := r.router.Run(rules, program); err != nil {
			t.Fatal(err)
		}
	}
	r.unmasq(t, routedPolicy, "apply", "-f", "-")
}

// unmasq on the router.
func (r *routed) unmasq(t *testing.T, stdin string, args ...string) (out, log string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	status := 0
	_ = r.router.Do(func() error {
		status = Main("v0-test", args, strings.NewReader(stdin), &stdout, &stderr)
		return nil
	})
	if status != statusOK {
		t.Fatalf("%v: exit status %d, %s%s", args, status, stdout.String(), stderr.String())
	}
	return stdout.String(), stderr.String()
}

// real is a connection as its ends have it.
type real struct {
	protocol string
	from, to netip.AddrPort
	at, seen netip.AddrPort
}

func (r *routed) tcp(t *testing.T, from, to netip.Addr, port uint16) (c real, end func()) {
	t.Helper()
	c.protocol, c.to = "tcp", netip.AddrPortFrom(to, port)
	var listener *net.TCPListener
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(r.server.Do(func() (err error) {
		at := netip.AddrPortFrom(routedAddress(packet.Of(from), 2, 9), 8080)
		listener, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
		return err
	}))
	defer listener.Close()
	var client *net.TCPConn
	must(r.client.Do(func() (err error) {
		client, err = net.DialTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), net.TCPAddrFromAddrPort(c.to))
		return err
	}))
	server, err := listener.AcceptTCP()
	must(err)
	c.from, c.at, c.seen = plain(client.LocalAddr()), plain(server.LocalAddr()), plain(server.RemoteAddr())
	end = func() { client.Close(); server.Close() }
	t.Cleanup(end)
	return c, end
}

func plain(a net.Addr) netip.AddrPort {
	p := netip.MustParseAddrPort(a.String())
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// udp sends one datagram, which isn't answered.
func (r *routed) udp(t *testing.T, from, to netip.Addr, port uint16) real {
	t.Helper()
	c := real{protocol: "udp", to: netip.AddrPortFrom(to, port)}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var server *net.UDPConn
	must(r.server.Do(func() (err error) {
		c.at = netip.AddrPortFrom(routedAddress(packet.Of(from), 2, 9), 5353)
		server, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(c.at))
		return err
	}))
	defer server.Close()
	must(r.client.Do(func() error {
		r.datagrams++
		client, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 30000+r.datagrams)), net.UDPAddrFromAddrPort(c.to))
		if err != nil {
			return err
		}
		defer client.Close()
		c.from = plain(client.LocalAddr())
		_, err = client.Write([]byte("x"))
		return err
	}))
	_, seen, err := server.ReadFromUDPAddrPort(make([]byte, 8))
	must(err)
	c.seen = netip.AddrPortFrom(seen.Addr().Unmap(), seen.Port())
	return c
}

// listed is `flows -o json`.
type listed struct {
	Version int          `json:"version"`
	Flows   []flows.Flow `json:"flows"`
	Notes   []string     `json:"notes"`
}

func (r *routed) flows(t *testing.T, args ...string) listed {
	t.Helper()
	out, _ := r.unmasq(t, "", append([]string{"flows", "-o", "json"}, args...)...)
	var l listed
	if err := json.Unmarshal([]byte(out), &l); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if l.Version != 1 {
		t.Errorf("version %d", l.Version)
	}
	return l
}

// find the flow of a real connection, by what the client knows.
func find(t *testing.T, all []flows.Flow, c real) *flows.Flow {
	t.Helper()
	i := slices.IndexFunc(all, func(f flows.Flow) bool {
		return f.Protocol == c.protocol && f.Source == c.from.Addr() && f.SourcePort != nil && *f.SourcePort == c.from.Port() && f.Destination == c.to.Addr() && *f.DestinationPort == c.to.Port()
	})
	if i < 0 {
		t.Fatalf("%+v isn't among %d flows", c, len(all))
	}
	return &all[i]
}

// agrees holds a flow against what the server saw.
func agrees(t *testing.T, f *flows.Flow, c real) {
	t.Helper()
	if got := netip.AddrPortFrom(f.SeenAs, *f.SeenAsPort); got != c.seen {
		t.Errorf("%s: seen as %s, the server saw %s", c.from, got, c.seen)
	}
	backend := netip.AddrPortFrom(f.Destination, *f.DestinationPort)
	if f.Backend != nil {
		backend = netip.AddrPortFrom(*f.Backend, *f.BackendPort)
	}
	if backend != c.at || (f.Backend != nil) != (c.at != c.to) {
		t.Errorf("%s: ends up at %s, really at %s", c.from, backend, c.at)
	}
}

// Real connections of each kind are told as the server saw them, with who did it.
func TestFlowsLive(t *testing.T) {
	r := newRouted(t)
	r.rules(t)
	checked := 0
	var all []real
	for _, f := range packet.Families {
		service := routedAddress(f, 96, 1)
		for _, x := range []struct {
			host     int
			kind, by string
		}{
			{7, "kept", "kept"},
			{8, "pinned", "pinned by lab/keep"},
			{9, "masqueraded", "masqueraded by lab/mask"},
			{10, "masqueraded", "masqueraded by flannel: FLANNEL-POSTRTG:1"},
			{11, "snat", "snat by POSTROUTING:2"},
		} {
			from := routedAddress(f, 1, x.host)
			direct, _ := r.tcp(t, from, routedAddress(f, 2, 9), 8080)
			through, _ := r.tcp(t, from, service, 80)
			connections := []real{direct, through, r.udp(t, from, routedAddress(f, 2, 9), 5353), r.udp(t, from, service, 53)}
			all = append(all, connections...)
			l := r.flows(t)
			for _, c := range connections {
				got := find(t, l.Flows, c)
				agrees(t, got, c)
				by := x.by
				if c.at != c.to {
					by += "; dnat in PREROUTING"
				}
				if got.SourceKind != x.kind || got.By() != by || got.ByRules != flows.Same || got.Direction != "forwarded" {
					t.Errorf("%s %s: %s, %q, %s, %s; want %s, %q", c.protocol, c.from, got.SourceKind, got.By(), got.ByRules, got.Direction, x.kind, by)
				}
				checked++
			}
		}
	}
	for host, by := range map[int]string{9: "masqueraded by lab/mask", 10: "masqueraded by flannel: FLANNEL-POSTRTG:1"} {
		checked += r.pings(t, host, by)
	}
	if l := r.flows(t, "-4", "--source", "10.1.0.8", "--protocol", "udp"); len(l.Flows) != 2 || l.Flows[0].Zone != 7 || l.Flows[1].Zone != 7 {
		t.Errorf("in the zone: %+v", l.Flows)
	}
	sameAsConntrack(t, r)
	r.filters(t)
	out, log := r.unmasq(t, "", "flows", "10.1.0.9", "--protocol", "tcp", "--port", "80")
	if !strings.HasPrefix(out, "PROTO  SOURCE") || strings.Count(out, "\n") != 2 || !strings.Contains(out, "10.96.0.1:80  10.2.0.9:8080  ESTABLISHED  masqueraded by lab/mask; dnat in PREROUTING\n") {
		t.Errorf("text:\n%s", out)
	}
	if !strings.Contains(log, "not recorded by this kernel: packets and bytes (sysctl -w net.netfilter.nf_conntrack_acct=1)") {
		t.Errorf("said:\n%s", log)
	}
	t.Logf("checked: %d connections\n%s", checked, out)
	r.changed(t, all)
}

// pings from a host, in both families, which the server's kernel answers.
func (r *routed) pings(t *testing.T, host int, by string) (checked int) {
	t.Helper()
	for f, network := range map[packet.Family]string{packet.IPv4Family: "ip4:1", packet.IPv6Family: "ip6:58"} {
		from, to := routedAddress(f, 1, host), routedAddress(f, 2, 9)
		echo := []byte{8, 0, 0xf7, 0xff - 7, 0, 7, 0, 0} // the kernel makes ICMPv6's checksum
		if f == packet.IPv6Family {
			echo[0] = 128
		}
		err := r.client.Do(func() error {
			c, err := net.DialIP(network, &net.IPAddr{IP: from.AsSlice()}, &net.IPAddr{IP: to.AsSlice()})
			if err != nil {
				return err
			}
			defer c.Close()
			if _, err := c.Write(echo); err != nil {
				return err
			}
			_, err = c.Read(make([]byte, 100))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		l := r.flows(t, from.String(), "--protocol", map[packet.Family]string{packet.IPv4Family: "icmp", packet.IPv6Family: "icmpv6"}[f])
		if len(l.Flows) != 1 || l.Flows[0].By() != by || l.Flows[0].ByRules != flows.Same || !l.Flows[0].Replied || l.Flows[0].SourcePort != nil {
			t.Errorf("%s: %+v", from, l.Flows)
		}
		checked++
	}
	return checked
}

// sameAsConntrack: the set that `conntrack -L` prints.
func sameAsConntrack(t *testing.T, r *routed) {
	t.Helper()
	var printed, told []string
	for _, family := range []string{"ipv4", "ipv6"} {
		text, err := r.router.Run("", "conntrack", "-L", "-o", "id", "-f", family)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(text) {
			if i := strings.LastIndex(line, " id="); i > 0 { // ICMP has others before
				printed = append(printed, strings.TrimSpace(line[i+4:]))
			}
		}
	}
	for _, f := range r.flows(t).Flows {
		told = append(told, fmt.Sprint(f.ID))
	}
	slices.Sort(printed)
	slices.Sort(told)
	if diff := cmp.Diff(printed, told); diff != "" || len(told) < 40 {
		t.Errorf("-conntrack -L +flows, by id:\n%s", diff)
	}
}

// filters each leave what they say.
func (r *routed) filters(t *testing.T) {
	t.Helper()
	for _, x := range []struct {
		args string
		want int
	}{
		{"10.1.0.7", 4},
		{"fd00:1::7", 4},
		{"--source 10.1.0.8/31", 9},
		{"--destination 10.96.0.1", 10},
		{"--destination 10.2.0.9", 22},
		{"--seen-as 10.2.0.77", 4},
		{"-4 --protocol udp", 10},
		{"--family ipv6 --port 80", 5},
		{"-6 --port 8080", 10},
		{"-4 --state established", 10},
		{"-4 --kept", 8},
		{"-4 --translated", 14},
		{"--kind pinned", 8},
		{"--kind snat,pinned -4", 8},
		{"--rule lab/mask", 10},
		{"--rule lab", 18},
		{"--rule la", 0},
		{"--owner flannel", 10},
		{"--limit 3", 3},
		{"-4 --no-rules --translated", 14},
	} {
		if l := r.flows(t, strings.Fields(x.args)...); len(l.Flows) != x.want {
			t.Errorf("%s: %d flows, want %d", x.args, len(l.Flows), x.want)
		}
	}
	out, _ := r.unmasq(t, "", "flows", "--summary", "-4", "--limit", "1", "--protocol", "tcp", "--rule", "lab/mask")
	if want := "FLOWS  PROTO  SOURCE       SEEN AS   DESTINATION             BY\n1      tcp    10.1.0.0/24  10.2.0.1  10.2.0.0/24 port 8080   masqueraded by lab/mask\n1      …\n"; strings.Join(strings.Fields(out), " ") != strings.Join(strings.Fields(want), " ") {
		t.Errorf("summary:\n%s\nwant\n%s", out, want)
	}
}

// changed rules: the connections stay what they are, and it is said that the rules
// would do otherwise now.
func (r *routed) changed(t *testing.T, all []real) {
	t.Helper()
	r.unmasq(t, strings.NewReplacer("Keep", "Masquerade", "Masquerade", "Keep").Replace(routedPolicy), "apply", "-f", "-")
	l := r.flows(t)
	for _, c := range all {
		got := find(t, l.Flows, c)
		agrees(t, got, c)
		switch got.Source {
		case routedAddress(packet.IPv4Family, 1, 8):
			if by := "kept; the rules now: masqueraded by lab/keep, seen as 10.2.0.1"; got.By() != by || got.SourceKind != "kept" || got.ByRules != flows.Other {
				t.Errorf("%q, want %q", got.By(), by)
			}
		case routedAddress(packet.IPv6Family, 1, 9):
			if by := "translated; the rules now: pinned by lab/mask"; got.By() != by || got.SourceKind != "unknown" {
				t.Errorf("%q, want %q", got.By(), by)
			}
		}
	}
}
