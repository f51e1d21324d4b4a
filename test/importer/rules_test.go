package importer_test

import (
	"bytes"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/unmasq/unmasq/internal/importer"
	"github.com/unmasq/unmasq/internal/kernel/capture"
	"github.com/unmasq/unmasq/internal/policy"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// TestRules imports what real programs wrote, not their settings: in what is NAT no
// difference is meant.
func TestRules(t *testing.T) {
	for _, name := range []string{
		"flannel-legacy", "flannel-nftables", "ip-masq-agent-nft", "kube-router-legacy", "kube-router-nft", "cni-bridge-nft", "cni-bridge-nftables", "docker-legacy", "docker-nftables", "k3s-nft",
	} {
		t.Run(name, func(t *testing.T) {
			node, flows := usual(), usualFlows(ownAddresses()...)
			switch {
			case strings.HasPrefix(name, "docker"):
				node, flows = dockerNode(), dockerFlows()
			case strings.HasPrefix(name, "cni"): // its rules name each pod
				flows = moved(flows, "10.244.1.7", "10.244.1.2", "fd00:10:244:1::7", "fd00:10:244:1::2")
			}
			c := comparison{kind: "iptables-save", files: dumped(t, name), node: node, peer: dump(name), flows: flows}
			if strings.HasPrefix(name, "docker") {
				c.meant = []difference{{"docker's rules that drop are no NAT", func(_ flow, peer, _ string) bool { return peer == "nothing" }}}
			}
			c.run(t)
		})
	}
}

// byHand branches in every way: jumps and gotos that come back, negations, marks that
// rules give and ask for, the node's own packets.
const byHand = `*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:ONE - [0:0]
:TWO - [0:0]
:HIDE - [0:0]
-A POSTROUTING -j ONE
-A POSTROUTING -s POD -p udp -j MASQUERADE
-A POSTROUTING ! -s CLUSTER ! -d CLUSTER -o eth1 -j SNAT --to-source UPLINK
-A POSTROUTING -m mark --mark 0x10/0x10 -j HIDE
-A ONE -d CLUSTER -j RETURN
-A ONE -s POD ! -o eth1 -p tcp -m multiport --dports 80,440:445 -j MASQUERADE --random-fully
-A ONE -m addrtype --src-type LOCAL ! -o eth0 -j ACCEPT
-A ONE -s CLUSTER -p sctp -j MARK --set-xmark 0x10/0x10
-A ONE -s CLUSTER -g TWO
-A TWO ! -p udp -o eth1 -j ACCEPT
-A TWO -p tcp -j RETURN
-A HIDE -j MARK --set-xmark 0x0/0xffffffff
-A HIDE -j MASQUERADE
COMMIT
`

func TestRulesByHand(t *testing.T) {
	v4 := strings.NewReplacer("POD", "10.244.1.0/24", "CLUSTER", "10.244.0.0/16", "UPLINK", "172.31.0.10").Replace(byHand)
	v6 := strings.NewReplacer("POD", "fd00:10:244:1::/64", "CLUSTER", "fd00:10:244::/48", "UPLINK", "fd00:172:31::10").Replace(byHand)
	files := []importer.File{{Name: snapshot.FileIPTables, Data: []byte(v4)}, {Name: snapshot.FileIP6Tables, Data: []byte(v6)}}
	for _, f := range dumped(t, "flannel-legacy") {
		if f.Name == snapshot.FileAddresses {
			files = append(files, f)
		}
	}
	c := comparison{kind: "iptables-save", files: files, node: usual(), peer: rulesText("nft", v4, v6), flows: usualFlows(ownAddresses()...)}
	c.run(t)
}

// dumped are a dump's files that a person would import: rules, sets, the node's addresses.
func dumped(t *testing.T, name string) (files []importer.File) {
	t.Helper()
	a, err := txtar.ParseFile("../judge/testdata/dumps/" + name + ".txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range a.Files {
		rules := strings.HasSuffix(f.Name, "-save.txt") && !strings.HasSuffix(name, "-nftables") || f.Name == "ruleset.nft" && strings.HasSuffix(name, "-nftables")
		if rules || f.Name == snapshot.FileIPSet || f.Name == snapshot.FileAddresses {
			files = append(files, importer.File{Name: f.Name, Data: f.Data})
		}
	}
	return files
}

// ownAddresses are more flows of the node itself.
func ownAddresses() []row {
	gateway, own := [2]string{"10.244.1.1", "fd00:10:244:1::1"}, [2]string{"192.168.5.10", "fd00:192:168:5::10"}
	return []row{
		{name: "the node's own address among the pods to a remote pod", source: gateway, target: [2]string{"10.244.2.7", "fd00:10:244:2::7"}},
		{name: "node to a second uplink's network, from the first's address", source: own, target: [2]string{"172.31.0.99", "fd00:172:31::99"}},
	}
}

// TestFromNode imports a running node on which several components have written rules,
// through what is captured of it, a document for each.
func TestFromNode(t *testing.T) {
	theirs, mine := newNode(t, usual()), newNode(t, usual())
	dump("ip-masq-agent-nft")(t, theirs)
	dump("kube-router-legacy")(t, theirs)
	dump("flannel-nftables")(t, theirs)
	theirs.run(t, "", "iptables-nft", "-t", "nat", "-A", "POSTROUTING", "-o", "eth1", "-j", "SNAT", "--to-source", "172.31.0.10")
	var host *snapshot.Host
	theirs.must(t, theirs.ns.Do(func() (err error) {
		host, err = capture.Live(t.Context(), capture.Options{})
		return err
	}))
	result, err := importer.Node(host, importer.Options{})
	theirs.must(t, err)
	for _, w := range result.Warnings {
		t.Logf("warning: %s", w)
	}
	var text bytes.Buffer
	theirs.must(t, result.WriteYAML(&text))
	for _, owner := range []string{"ip-masq-agent", "kube-router", "flannel", "by-hand"} {
		if !strings.Contains(text.String(), "metadata: {name: "+owner) {
			t.Errorf("there is no document of %s:\n%s", owner, text.Bytes())
		}
	}
	loaded, err := policy.Load([]policy.Source{{Name: "imported", Content: text.Bytes()}}, policy.Options{})
	theirs.must(t, err)
	mine.apply(t, loaded)
	flows := usualFlows(ownAddresses()...)
	want, got := theirs.fates(t, flows), mine.fates(t, flows)
	for i, f := range flows {
		if want[i] != got[i] {
			t.Errorf("%s\n\tthe node: %s\n\tits import: %s", f, want[i], got[i])
		}
	}
	t.Logf("checked: %d flows", len(flows))
	mine.must(t, mine.ns.Do(func() (err error) {
		host, err = capture.Live(t.Context(), capture.Options{})
		return err
	}))
	if again, err := importer.Node(host, importer.Options{}); err != nil || len(again.Documents) > 0 {
		t.Errorf("unmasq's own table is imported: %v", err)
	}
}
