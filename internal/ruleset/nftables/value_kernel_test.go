package nftables

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
)

// hostOrder are the datatypes whose values the kernel has in the machine's order.
var hostOrder = []string{
	"mark", "ct_state", "ct_status", "ct_event", "fib_addrtype", "uid", "gid", "devgroup", "realm", "classid", "iface_type", "integer",
	"time", "day", "nf_proto", "pkt_type", "ct_dir", "cgroupsv2",
}

// TestValuesAreTheKernels gives sets of each datatype to the kernel, reads them
// back as text, and compares what the text is parsed to with the bytes that the
// kernel holds: nft --debug=netlink prints them, as words of the machine.
func TestValuesAreTheKernels(t *testing.T) {
	host := netnstest.Test(t, "host")
	covered := map[string]bool{}
	for i, c := range []struct{ declared, elements string }{
		{"type ipv4_addr", "10.0.0.1, 255.255.255.255, 0.0.0.0"},
		{"type ipv6_addr", "::1, fd00::1:2, ::ffff:10.0.0.1"},
		{"type ether_addr", "02:00:00:00:00:01, ff:ff:ff:ff:ff:ff"},
		{"type ether_type", "ip, ip6, arp, vlan, 8021ad, 0x9000"},
		{"type arp_op", "request, reply, nak, 77"},
		{"type inet_proto", "tcp, udp, sctp, icmp, ipv6-icmp, esp, ah, gre, 0, 253"},
		{"type inet_service", "ssh, http, https, domain, 0, 65535, 8080"},
		{"type icmp_type", "echo-request, echo-reply, time-exceeded, address-mask-reply, 200"},
		{"type icmp_code", "net-unreachable, frag-needed, admin-prohibited, 77"},
		{"type icmpv6_type", "nd-neighbor-solicit, nd-redirect, mld-listener-done, echo-request, 200"},
		{"type icmpv6_code", "no-route, policy-fail, 77"},
		{"type icmpx_code", "port-unreachable, no-route, 77"},
		{"type igmp_type", "membership-query, leave-group, 77"},
		{"type tcp_flag", "syn, fin, ack, cwr"},
		{"type dccp_pkttype", "request, sync, 12"},
		{"type mh_type", "home-test, binding-error, 77"},
		{"type dscp", "cs0, cs7, ef, af43, va, 63"},
		{"type mark", "0x1, 0x4000, 4294967295"},
		{"type ifname", `"lo", "eth0", "a23456789012345"`},
		{"type iface_type", "ether, loopback, 0xfffe"},
		{"type devgroup", "default, 77"},
		{"type realm", "cosmos, 77"},
		{"type classid", "1:a, ffff:1"},
		{"type uid", "1000, 4294967294"},
		{"type gid", "1000"},
		{"type pkt_type", "host, broadcast, multicast, other"},
		{"type fib_addrtype", "local, unicast, broadcast, prohibit, unspec"},
		{"type boolean", "exists, missing"},
		{"type ct_state", "new, established, related, invalid, untracked"},
		{"type ct_status", "snat, dnat, dying, assured"},
		{"type ct_dir", "original, reply"},
		{"typeof meta day", `"Sunday", "Saturday"`},
		{"type nf_proto", "ipv4, ipv6"},
		{"typeof ip dscp", "cs1, ef"},
		{"typeof ip ecn", "ce, ect0"},
		{"typeof ip6 flowlabel", "0x12345, 1"},
		{"typeof vlan id", "1, 4095"},
		{"typeof numgen inc mod 7", "0, 6"},
		{"typeof ct zone", "1, 258"},
		{"typeof ct expiration", "1s, 2h30m, 1d2h3m4s"},
		{"typeof meta length", "77, 65536"},
		{"typeof ip length", "77, 1500"},
		{"typeof meta cgroup", "77"},
	} {
		name := fmt.Sprintf("s%d", i)
		rules := fmt.Sprintf("add table inet t\nadd set inet t %s { %s; }\nadd element inet t %s { %s }\n", name, c.declared, name, c.elements)
		if _, err := host.Run(rules, "nft", "-f", "-"); err != nil {
			t.Errorf("%s: %v", c.declared, err)
			continue
		}
		for _, flags := range []string{"-a", "-n", "-S"} { // -a changes nothing in elements
			out, err := host.Run("", "nft", "--debug=netlink", flags, "list", "set", "inet", "t", name)
			if err != nil {
				t.Fatal(err)
			}
			d := declaredType(t, c.declared)
			covered[d.Name] = true
			sameBytes(t, d, c.declared+" "+flags, out)
		}
	}
	for name := range datatypes {
		if !covered[name] && !slices.Contains([]string{
			"verdict", "bitmask", "string", "iface_index", "hour", "cgroupsv2", // no constants of these that a dump could tell
			"ct_label", "ct_event", // nft 1.0.6 can't list its own sets of them
		}, name) {
			t.Errorf("no set of %s", name)
		}
	}
}

func declaredType(t *testing.T, declared string) Datatype {
	t.Helper()
	kind, of, _ := strings.Cut(declared, " ")
	table := &Table{Family: "inet"}
	set := &Set{Type: []string{of}}
	if kind == "typeof" {
		set = &Set{TypeOf: expressionOf(of)}
	}
	types, known := table.KeyTypes(set)
	if !known || len(types) != 1 {
		t.Fatalf("%s: %v", declared, types)
	}
	return types[0]
}

// sameBytes compares the elements of the listing with its raw ones, as sets:
// they are in no common order.
func sameBytes(t *testing.T, d Datatype, what, out string) {
	t.Helper()
	var kernel, ours []string
	for line := range strings.Lines(out) {
		if words, is := strings.CutPrefix(line, "\telement "); is {
			words, _, _ = strings.Cut(words, " :")
			kernel = append(kernel, hex.EncodeToString(memory(t, d, what, strings.Fields(words))))
		}
	}
	for _, e := range elementsOf(out) {
		v, err := Parse(d, e.Key.(Concat).Parts[0])
		if err != nil || !v.Single() {
			t.Errorf("%s: %v", what, err)
			continue
		}
		ours = append(ours, hex.EncodeToString([]byte(v.First)))
	}
	slices.Sort(kernel)
	slices.Sort(ours)
	if len(ours) == 0 || !slices.Equal(slices.Compact(kernel), slices.Compact(ours)) {
		t.Errorf("%s:\nkernel %s\nours   %s\n%s", what, kernel, ours, out)
	}
}

// memory gives the bytes of words, in network order.
func memory(t *testing.T, d Datatype, what string, words []string) []byte {
	t.Helper()
	var b []byte
	for _, w := range words {
		raw, err := hex.DecodeString(w)
		if err != nil || len(raw) != 4 {
			t.Fatalf("%s: %q", d.Name, words)
		}
		b = binary.NativeEndian.AppendUint32(b, binary.BigEndian.Uint32(raw))
	}
	b = b[:d.Bytes]
	field := strings.HasPrefix(what, "typeof ip") || strings.HasPrefix(what, "typeof vlan") // of a packet
	if !field && slices.Contains(hostOrder, d.Name) && binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		slices.Reverse(b)
	}
	return b
}
