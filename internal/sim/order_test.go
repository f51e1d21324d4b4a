package sim_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/route"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
	"github.com/unmasq/unmasq/internal/sim"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// nodeOf has nftables' tables alone, and all of them.
func nodeOf(t *testing.T, text string) *sim.Node {
	t.Helper()
	rules, problems := nftables.ReadText(text, 1)
	if len(problems) > 0 {
		t.Fatal(problems[0])
	}
	h := &snapshot.Host{
		IPTables: map[packet.Family]bool{packet.IPv4Family: true}, NFTGiven: true, NFTWhole: true,
		Sysctls: map[string]string{"net.ipv4.ip_forward": "1"}, AllSysctls: true,
	}
	for _, table := range rules.Tables {
		h.Rules.Tables = append(h.Rules.Tables, ruleset.FromNative(table))
	}
	h.Network.ReadText(route.Addresses, addresses, 1, packet.IPv4Family)
	h.Network.ReadText(route.Routes, routes, 1, packet.IPv4Family)
	h.Network.ReadText(route.Rules, "0: from all lookup local\n32766: from all lookup main\n32767: from all lookup default\n", 1, packet.IPv4Family)
	h.Network.Complete()
	return sim.New(h)
}

func ask(n *sim.Node, destination string, port int) []sim.Outcome {
	return n.Run(sim.Question{
		Source: netip.MustParseAddr("10.244.0.9"), SourcePort: 40000, Destination: netip.MustParseAddr(destination), DestinationPort: port,
		Protocol: packet.TCP, InInterface: "cni0",
	}, sim.Options{})
}

// TestOrderOfMany: three tables have NAT chains of one priority, but one alone acts
// on the packet, so that each of 500 endpoints has its chance, and no condition.
func TestOrderOfMany(t *testing.T) {
	const endpoints = 500
	var all []string
	for i := range endpoints {
		all = append(all, fmt.Sprintf("%d : 10.244.1.%d", i, i%250))
	}
	text := "table ip kube-proxy {\n\tchain pre {\n\t\ttype nat hook prerouting priority dstnat;\n\t\tip daddr 10.96.0.1 tcp dport 80 dnat to numgen random mod 500 map { " +
		strings.Join(all, ", ") + " }\n\t}\n\tchain post {\n\t\ttype nat hook postrouting priority srcnat;\n\t\tmeta mark 0x4000 masquerade\n\t}\n}\n"
	for _, name := range []string{"docker", "flannel", "cni"} {
		text += "table ip " + name + " {\n\tchain pre {\n\t\ttype nat hook prerouting priority dstnat;\n\t\tip daddr 192.0.2.11 tcp dport 8080 dnat to 172.17.0.2\n\t}\n" +
			"\tchain post {\n\t\ttype nat hook postrouting priority srcnat;\n\t\tip saddr 172.17.0.0/16 oifname != \"docker0\" masquerade\n\t}\n}\n"
	}
	outcomes := ask(nodeOf(t, text), "10.96.0.1", 80)
	sum := 0.0
	for i := range outcomes {
		if sum += outcomes[i].Probability; len(outcomes[i].DependsOn) > 0 {
			t.Fatalf("%s depends on %v", outcomes[i].Destination, outcomes[i].DependsOn)
		}
	}
	if len(outcomes) != 250 || sum < 0.999 || sum > 1.001 {
		t.Errorf("%d outcomes whose probabilities add up to %v", len(outcomes), sum)
	}
}

// TestOrder: what the order of two chains does where both act, where one acts only
// behind the other, and where it makes no difference.
func TestOrder(t *testing.T) {
	chain := func(table, kind, rule string) string {
		return "table ip " + table + " {\n\tchain c {\n\t\ttype " + kind + ";\n\t\t" + rule + "\n\t}\n}\n"
	}
	const filter, nat = "filter hook prerouting priority mangle", "nat hook postrouting priority srcnat"
	masquerade := chain("post", nat, "meta mark 0x1 masquerade") + chain("nobody", nat, "ip saddr 203.0.113.1 masquerade")
	for _, c := range []struct {
		name, text string
		want       string
	}{
		{"both translate", chain("a", nat, "snat to 192.0.2.1") + chain("b", nat, "snat to 192.0.2.2"),
			"192.0.2.1 if nftables ip a c is asked first; 192.0.2.2 if nftables ip b c is asked first"},
		{"one acts behind the other", chain("a", filter, "meta mark set 0x2") + chain("b", filter, "meta mark 0x2 meta mark set 0x1") + masquerade,
			"192.0.2.11 if nftables ip a c is asked first; 10.244.0.9 if nftables ip b c is asked first"},
		{"each acts before the other alone", chain("a", filter, "meta mark 0x0 meta mark set 0x2") + chain("b", filter, "meta mark 0x0 meta mark set 0x1") + masquerade,
			"10.244.0.9 if nftables ip a c is asked first; 192.0.2.11 if nftables ip b c is asked first"},
		{"the same in both orders", chain("a", filter, "meta mark set 0x2") + chain("b", filter, "meta mark 0x0 meta mark set 0x1") + masquerade, "10.244.0.9"},
		{"no difference", chain("a", filter, "ip saddr 10.244.0.9 meta mark set 0x1") + chain("b", filter, "ip saddr 203.0.113.9 meta mark set 0x5") + masquerade, "192.0.2.11"},
	} {
		var got []string
		for _, o := range ask(nodeOf(t, c.text), "198.51.100.7", 443) {
			text := o.Source.String()
			for _, d := range o.DependsOn {
				text += " if " + d.If
			}
			got = append(got, text)
		}
		if text := strings.Join(got, "; "); text != c.want {
			t.Errorf("%s:\n%s, want\n%s", c.name, text, c.want)
		}
	}
}
