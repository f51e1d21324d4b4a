package doctor_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/doctor"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// misreadLessons are about rules that the node's programs can't read.
var misreadLessons = []lesson{
	{
		code: "rules-misread", name: "nft's rules in iptables' tables",
		provoke: "nft add rule ip nat POSTROUTING ip daddr 203.0.113.99 snat to 192.0.2.1; nft add rule ip6 nat POSTROUTING ct state new oifname eth1 masquerade",
		alike: map[string]string{
			"in a table of its own": "nft add table ip nat2; nft add chain ip nat2 out '{ type nat hook postrouting priority 110; }'; nft add rule ip nat2 out ip daddr 203.0.113.99 snat to 192.0.2.1",
			"all that iptables has": docker + flannel + clusterIP + "iptables -A FORWARD -p tcp -m multiport --dports 80,443 -m conntrack --ctstate NEW -m limit --limit 5/s -j REJECT --reject-with tcp-reset; iptables -t raw -A PREROUTING -i eth1 -j CT --notrack",
			"nft's, that it takes":  "nft add rule ip nat POSTROUTING oifname eth1 ip saddr 10.9.0.0/16 counter accept",
		},
		call: &call{from: pod1, to: out, address: "203.0.113.9:80", before: "192.0.2.1", after: "192.0.2.1"},
	},
	{
		code: "rules-misread", name: "newer than nft",
		before: func(l *lab) { l.newer() },
		mended: func(l *lab) { l.shell(l.node, "nft delete table ip newer") }, // there is no newer nft here
	},
	{
		code: "rules-misread", name: "the agent was killed",
		provoke: killed,
		mended: func(l *lab) {
			l.shell(l.node, applied(`{name: all, from: {cidrs: [10.244.1.0/24]}, action: Masquerade}`)+"nft list ruleset | nft -c -f -")
		},
	},
}

// killed leaves the table of an agent that had no time to hand it over. nft lists it, and
// can't load what it has listed.
var killed = "dir=$(dirname $(command -v unmasq)); cat >$dir/policy.yaml <<'END'\n" + ownPolicy + `END
unmasq agent --config $dir/policy.yaml --metrics-address 127.0.0.1:0 >$dir/log 2>&1 &
tries=0; until nft list chain inet unmasq postrouting >/dev/null 2>&1; do tries=$((tries+1)); test $tries -lt 300; sleep 0.1; done
kill -9 $!; wait $! || true
if nft list ruleset | nft -c -f - 2>/dev/null; then exit 1; fi
`

// newer makes a rule that combines two registers, which Linux knows since 6.13 and nft
// since 1.1.2: older ones abort.
//
//	ip saddr & ip daddr == 10.0.0.0 drop
func (l *lab) newer() {
	l.t.Helper()
	l.shell(l.node, "nft add table ip newer; nft add chain ip newer out '{ type filter hook postrouting priority 0; }'")
	const and, operation, second = 3, 6, 8 // NFT_BITWISE_AND, NFTA_BITWISE_OP, NFTA_BITWISE_SREG2
	address := func(register, offset uint32) []byte {
		return expression("payload", number(unix.NFTA_PAYLOAD_DREG, register), number(unix.NFTA_PAYLOAD_BASE, unix.NFT_PAYLOAD_NETWORK_HEADER),
			number(unix.NFTA_PAYLOAD_OFFSET, offset), number(unix.NFTA_PAYLOAD_LEN, 4))
	}
	rule := slices.Concat(
		attribute(unix.NFTA_RULE_TABLE, []byte("newer\x00")), attribute(unix.NFTA_RULE_CHAIN, []byte("out\x00")),
		attribute(unix.NFTA_RULE_EXPRESSIONS|unix.NLA_F_NESTED,
			address(unix.NFT_REG32_00, 12), address(unix.NFT_REG32_01, 16),
			expression("bitwise", number(unix.NFTA_BITWISE_SREG, unix.NFT_REG32_00), number(unix.NFTA_BITWISE_DREG, unix.NFT_REG32_00),
				number(unix.NFTA_BITWISE_LEN, 4), number(operation, and), number(second, unix.NFT_REG32_01)),
			expression("cmp", number(unix.NFTA_CMP_SREG, unix.NFT_REG32_00), number(unix.NFTA_CMP_OP, unix.NFT_CMP_EQ),
				attribute(unix.NFTA_CMP_DATA|unix.NLA_F_NESTED, attribute(unix.NFTA_DATA_VALUE, []byte{10, 0, 0, 0})))))
	must(l.t, l.node.Do(func() error { return transact(newRule(rule)) }))
}

// newRule is a batch that adds a rule of family ip.
func newRule(rule []byte) []byte {
	const ours = unix.NFNL_SUBSYS_NFTABLES << 8
	return slices.Concat(
		message(unix.NFNL_MSG_BATCH_BEGIN, 0, unix.NFNL_SUBSYS_NFTABLES, nil),
		message(ours|unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND|unix.NLM_F_ACK, 0, rule),
		message(unix.NFNL_MSG_BATCH_END, 0, unix.NFNL_SUBSYS_NFTABLES, nil))
}

// transact sends a batch, and returns the error that the kernel answers with.
func transact(batch []byte) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, batch, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	if _, _, err := unix.Recvfrom(fd, answer, 0); err != nil {
		return err
	}
	if code := int32(binary.NativeEndian.Uint32(answer[unix.NLMSG_HDRLEN:])); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}

func message(kind, flags, resource uint16, body []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+4+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|flags)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0, unix.NFPROTO_IPV4, unix.NFNETLINK_V0)
	return append(binary.BigEndian.AppendUint16(b, resource), body...)
}

func attribute(kind uint16, data ...[]byte) []byte {
	all := slices.Concat(data...)
	b := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofNlAttr+len(all)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), all...)
	return append(b, make([]byte, -len(b)&3)...)
}

func number(kind uint16, n uint32) []byte {
	return attribute(kind, binary.BigEndian.AppendUint32(nil, n))
}

func expression(name string, data ...[]byte) []byte {
	return attribute(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, attribute(unix.NFTA_EXPR_NAME, []byte(name+"\x00")), attribute(unix.NFTA_EXPR_DATA|unix.NLA_F_NESTED, data...))
}

// TestMisreadDumps: what programs print in place of what they don't know. The first
// three are recorded from containers with an older iptables, or by a newer nft.
func TestMisreadDumps(t *testing.T) {
	for _, c := range []struct {
		name, dump string
		found      int
	}{
		{"an older iptables", `*nat
:PREROUTING ACCEPT [0:0]
:KUBE-SEP-XYZ - [0:0]
-A KUBE-SEP-XYZ -s 10.244.1.4/32 -m comment --comment "default/web" -j KUBE-MARK-MASQ
-A KUBE-SEP-XYZ -p tcp -m comment --comment "default/web" -m tcp -j DNAT [unsupported revision]
COMMIT
`, 1},
		{"an older nft", "table inet newer {\n\tchain out {\n\t\ttype filter hook output priority filter; policy accept;\n\t\tmeta l4proto tcp \"# Unknown features used (old nft version?)\"\n\t}\n}\n", 1},
		{"not iptables' any more", "# Table `nat' is incompatible, use 'nft' tool.\n*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n", 1},
		{"flags that it knows", "table inet unmasq {\n\tflags owner,persist\n\tchain c {\n\t}\n}\ntable inet b {\n\tflags dormant\n}\n", 0},
		{"a flag that it doesn't, of a table with an owner", "table inet unmasq { # progname unmasq\n\tflags owner\n\tchain c {\n\t}\n}\n", 0},
		{"legacy tables beside it", "# Warning: iptables-legacy tables present, use iptables-legacy-save to see them\n*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n", 0},
		{"a comment", "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -m comment --comment \"is incompatible, use the 'nft' tool\" -j ACCEPT\nCOMMIT\n", 0},
	} {
		file := filepath.Join(t.TempDir(), "dump.txt")
		must(t, os.WriteFile(file, []byte(c.dump), 0o600))
		host, err := snapshot.Read([]string{file}, nil)
		must(t, err)
		r := doctor.Examine(doctor.Node{Host: host})
		if got := strings.Count(strings.Join(codes(&r), " "), "rules-misread"); got != c.found {
			t.Errorf("%s: %d findings, expected %d\n%s", c.name, got, c.found, text(&r))
		}
	}
}
