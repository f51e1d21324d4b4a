package cli

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const oneRule = "*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -s 10.244.0.0/16 -j MASQUERADE\nCOMMIT\n"

// TestExplainRefuses: a mistake in what was typed is named with what was
// expected, on one line, and nothing is answered.
func TestExplainRefuses(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	files := map[string]string{
		"node": oneRule, "none.txt": "hello\n", "empty": "", "broken.tar.gz": truncated(t), "names": "10.244.1.7 web\n10.244.1.8\n", "pair": "10.0.0.1 web\n10.0.0.2 web\n", "names.json": `{"web": 7}`,
		"links": "1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 qdisc noqueue state UNKNOWN mode DEFAULT group default qlen 1000\n    link/loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ args, want string }{
		// words
		{"--snapshot node", `expected a source and a destination, such as 10.244.1.7 192.168.200.253:443; found []`},
		{"--snapshot node 10.0.0.1", `expected a source and a destination, such as 10.244.1.7 192.168.200.253:443; found ["10.0.0.1"]`},
		{"--snapshot node 10.0.0.1 10.0.0.2 10.0.0.3", `expected a source and a destination, such as 10.244.1.7 192.168.200.253:443; found ["10.0.0.1" "10.0.0.2" "10.0.0.3"]`},
		{"--snapshot node -o yaml 10.0.0.1 10.0.0.2", `-o "yaml"; expected json, dot, svg or text`},
		{"--snapshot node --colour 10.0.0.1 10.0.0.2", "unknown flag: --colour (see `unmasq explain --help`)"},
		// addresses, ports, protocols
		{"--snapshot node 10.0.0.1 2001:db8::1", `source 10.0.0.1 is IPv4, destination 2001:db8::1 is IPv6; expected one family`},
		{"--snapshot node 10.0.0.256 10.0.0.2", `source "10.0.0.256": "10.0.0.256" is not an address; names need --names FILE; nor is it an interface of the node`},
		{"--snapshot node 10.0.0.1 10.0.0", `destination "10.0.0": "10.0.0" is not an address; names need --names FILE`},
		{"--snapshot node 10.0.0.1 10.0.0.2:0", `destination "10.0.0.2:0": port "0"; expected a number from 1 to 65535`},
		{"--snapshot node 10.0.0.1 10.0.0.2:65536", `destination "10.0.0.2:65536": port "65536"; expected a number from 1 to 65535`},
		{"--snapshot node 10.0.0.1 10.0.0.2:http", `destination "10.0.0.2:http": port "http"; expected a number from 1 to 65535`},
		{"--snapshot node 10.0.0.1 10.0.0.2:", `destination "10.0.0.2:": port ""; expected a number from 1 to 65535`},
		{"--snapshot node 10.0.0.1 10.0.0.2/tpc", `destination "10.0.0.2/tpc": protocol "tpc"; expected tcp, udp, sctp, icmp, icmpv6, gre, esp, or a number up to 255`},
		{"--snapshot node 10.0.0.1 10.0.0.2/256", `destination "10.0.0.2/256": protocol "256"; expected tcp, udp, sctp, icmp, icmpv6, gre, esp, or a number up to 255`},
		{"--snapshot node 10.0.0.1 10.0.0.0/33", `destination "10.0.0.0/33": 10.0.0.0/33 is not a network; expected one such as 10.0.0.0/8`},
		{"--snapshot node 10.0.0.1 10.0.0.2:80/icmp", `destination "10.0.0.2:80/icmp": icmp has no ports; expected tcp, udp or sctp`},
		{"--snapshot node 10.0.0.1 10.0.0.2/icmpv6", `protocol icmpv6 is IPv6's; expected icmp`},
		{"--snapshot node fd00::1 fd00::2/icmp", `protocol icmp is IPv4's; expected icmpv6`},
		{"--snapshot node fd00::1 fe80::1%eth0", `destination "fe80::1%eth0": zone eth0; expected the address alone, and --in-interface or --out-interface`},
		{"--snapshot node fd00::1 [fd00::2:80", `destination "[fd00::2:80": expected [IPV6]:PORT`},
		{"--snapshot node 10.0.0.1:80 10.0.0.2", `source "10.0.0.1:80": a source has no port here; expected --source-port 80`},
		{"--snapshot node 10.0.0.1/tcp 10.0.0.2", `source "10.0.0.1/tcp": the protocol stands behind the destination; expected an address`},
		{"--snapshot node 224.0.0.1 10.0.0.2", `source 224.0.0.1: a multicast address is no interface's; expected a host's address`},
		{"--snapshot node 255.255.255.255 10.0.0.2", `source 255.255.255.255: the broadcast address is no interface's; expected a host's address`},
		{"--snapshot node 0.0.0.0 10.0.0.2", `source 0.0.0.0: no interface has that address; expected a host's address`},
		{"--snapshot node :: fd00::2", `source ::: no interface has that address; expected a host's address`},
		{"--snapshot node 10.0.0.1 0.0.0.0", `destination 0.0.0.0: no packet goes there; expected an address`},
		{"--snapshot node --in-interface eth0 127.0.0.1 10.0.0.2", `source 127.0.0.1: a loopback address comes in by no interface but lo; expected --local without --in-interface`},
		{"--snapshot node 10.0.0.0/8 10.1.0.0/16", `source 10.0.0.0/8 and destination 10.1.0.0/16 are both networks; expected one of them to be an address`},
		{"--snapshot node 10.0.0.0/8 fd00::/8", `source 10.0.0.0 is IPv4, destination fd00:: is IPv6; expected one family`},
		{"--snapshot node eth9 10.0.0.2", `source "eth9": "eth9" is not an address; names need --names FILE; nor is it an interface of the node`},
		// flags
		{"--snapshot node --via fd00::1 10.0.0.1 10.0.0.2", `--via fd00::1 is IPv6, the flow is IPv4; expected one family`},
		{"--snapshot node --at b 10.0.0.1 10.0.0.2", `--at "b" is none of the nodes that --snapshot NAME=PATH names`},
		{"--snapshot node --via gateway 10.0.0.1 10.0.0.2", `--via "gateway": "gateway" is not an address; names need --names FILE`},
		{"--snapshot node --mark 0x1ffffffff 10.0.0.1 10.0.0.2", `--mark "0x1ffffffff": expected a number of 32 bits, such as 0x4000 or 16384`},
		{"--snapshot node --mark 0x4000/0x4000 10.0.0.1 10.0.0.2", `--mark "0x4000/0x4000": expected a number of 32 bits, such as 0x4000 or 16384`},
		{"--snapshot node --mark -1 10.0.0.1 10.0.0.2", `--mark "-1": expected a number of 32 bits, such as 0x4000 or 16384`},
		{"--snapshot node --source-port 0 10.0.0.1 10.0.0.2:80", `--source-port "0": port "0"; expected a number from 1 to 65535`},
		{"--snapshot node --source-port x 10.0.0.1 10.0.0.2:80", `--source-port "x": port "x"; expected a number from 1 to 65535`},
		{"--snapshot node --source-port 40000 10.0.0.1 10.0.0.2/icmp", `--source-port 40000: protocol icmp has no ports; expected a destination with /tcp, /udp or /sctp`},
		{"--snapshot node --source-port 40000 10.0.0.1 10.0.0.2", `--source-port 40000: protocol any has no ports; expected a destination with /tcp, /udp or /sctp`},
		{"--snapshot node --local --in-interface eth0 10.0.0.1 10.0.0.2", `--in-interface eth0: what the node itself sends comes in by none; expected it or --local (or an interface as source), not both`},
		{"--snapshot node --snapshot links --in-interface eth7 10.0.0.1 10.0.0.2", `--in-interface eth7: the node has none of that name; expected one of lo`},
		{"--snapshot node --snapshot links --out-interface eth7 10.0.0.1 10.0.0.2", `--out-interface eth7: the node has none of that name; expected one of lo`},
		{"--snapshot node --rule POSTROUTING:2 10.0.0.1 10.0.0.0/8", "--rule \"POSTROUTING:2\": no such IPv4 rule; expected CHAIN:INDEX as `iptables --line-numbers` counts, TABLE CHAIN handle N as `nft -a` shows it, or the rule's text"},
		{"--snapshot node --rule nonsense 10.0.0.1 10.0.0.0/8", "--rule \"nonsense\": no such IPv4 rule; expected CHAIN:INDEX as `iptables --line-numbers` counts, TABLE CHAIN handle N as `nft -a` shows it, or the rule's text"},
		{"--snapshot node --rule POSTROUTING:1 fd00::1 fd00::/8", "--rule \"POSTROUTING:1\": no such IPv6 rule; expected CHAIN:INDEX as `iptables --line-numbers` counts, TABLE CHAIN handle N as `nft -a` shows it, or the rule's text"},
		{"--snapshot node -o svg 10.0.0.1 10.0.0.0/8", `-o svg draws one packet's way; expected one source and one destination, no network and no --rule`},
		{"--snapshot node -o dot --rule POSTROUTING:1 10.0.0.1 10.0.0.2", `-o dot draws one packet's way; expected one source and one destination, no network and no --rule`},
		// files
		{"--snapshot nowhere 10.0.0.1 10.0.0.2", `nowhere: no such file or directory`},
		{"--snapshot none.txt 10.0.0.1 10.0.0.2", `none.txt: nothing in it is recognised (it begins "hello"); known are iptables-save, iptables -S, iptables -L, ipset save, ipset list, ip -j or plain (addr, link, route, rule, neigh), bridge link, bridge fdb, nft list ruleset (JSON or text), sysctl -a, conntrack -L, conntrack -S, ipvsadm -Sn`},
		{"--snapshot empty 10.0.0.1 10.0.0.2", `empty: the file is empty`},
		{"--snapshot broken.tar.gz 10.0.0.1 10.0.0.2", `broken.tar.gz: the gzip file is cut off`},
		{"--snapshot a=node --snapshot node 10.0.0.1 10.0.0.2", `--snapshot node has no name; of several nodes, expected NAME=PATH for each`},
		{"--snapshot a=nowhere --snapshot b=node 10.0.0.1 10.0.0.2", `nowhere: no such file or directory`},
		{"--snapshot a= 10.0.0.1 10.0.0.2", `--snapshot "a="; expected PATH, or NAME=PATH`},
		{"--snapshot =node 10.0.0.1 10.0.0.2", `--snapshot "=node"; expected PATH, or NAME=PATH`},
		{"--snapshot = 10.0.0.1 10.0.0.2", `--snapshot "="; expected PATH, or NAME=PATH`},
		{"--snapshot node --names nowhere 10.0.0.1 10.0.0.2", `--names: open nowhere: no such file or directory`},
		{"--snapshot node --names names 10.0.0.1 10.0.0.2", `names:2: "10.244.1.8"; expected an address and its names`},
		{"--snapshot node --names names.json 10.0.0.1 10.0.0.2", `names.json: "web": 7; expected an address, or a list of them`},
		{"--snapshot node --names pair web 10.0.0.9", `source "web": "web" has several addresses in pair; expected one of 10.0.0.1, 10.0.0.2; nor is it an interface of the node`},
		{"--snapshot node --names pair db 10.0.0.9", `source "db": "db" is neither an address nor a name of pair; nor is it an interface of the node`},
	} {
		status, out, log := unmasq(append([]string{"explain"}, strings.Fields(c.args)...)...)
		if want := "unmasq: " + c.want + "\n"; status != statusUsage || out != "" || log != want {
			t.Errorf("explain %s: status %d, %s%swant 2, %s", c.args, status, out, log, want)
		}
	}
}

// truncated is an archive that ends too early.
func truncated(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(bytes.Repeat([]byte("node/iptables-save.txt"), 100)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()[:b.Len()/2]
}
