package nft

import (
	"bytes"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/plan"
	"github.com/unmasq/unmasq/internal/policy"
	"github.com/unmasq/unmasq/internal/render"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range texts {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func addrs(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range texts {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// everything is a policy that uses every statement there is.
func everything() (*policy.Policy, *policy.Facts) {
	web := &policy.PodSelector{Pod: labels.SelectorFromSet(labels.Set{"app": "web"}), Namespace: labels.Everything()}
	p := &policy.Policy{Rules: []policy.Rule{
		{Name: "inside", From: policy.From{PodCIDRs: true}, To: policy.To{PodCIDRs: true, Nodes: true}, Action: policy.Keep},
		{Name: "office", From: policy.From{PodCIDRs: true}, To: policy.To{CIDRs: prefixes("192.168.200.0/24", "10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32"), Except: prefixes("192.168.200.128/25")}, Action: policy.Leave},
		{Name: "web", From: policy.From{Pods: web}, To: policy.To{CIDRs: prefixes("203.0.113.0/24"), Ports: []policy.PortMatch{{Protocol: packet.TCP, PortRange: policy.PortRange{First: 443, Last: 445}}, {Protocol: packet.UDP, PortRange: policy.PortRange{First: 1, Last: 65535}}}}, Action: policy.SNAT, Addresses: addrs("192.0.2.7", "192.0.2.8", "192.0.2.9", "2001:db8::7"), OverrideServiceMasquerade: true},
		{Name: "shop", From: policy.From{CIDRs: prefixes("172.30.0.0/16", "fd00:172:30::/48")}, To: policy.To{Except: prefixes("10.244.9.0/24"), Services: &policy.Services{Names: []string{"shop/web"}, Backends: policy.RemoteBackends}}, Action: policy.Masquerade},
		{Name: "services", From: policy.From{CIDRs: prefixes("172.30.0.0/16", "fd00:172:30::/48")}, To: policy.To{Services: &policy.Services{Backends: policy.LocalBackends, Ports: []policy.PortMatch{{Protocol: packet.TCP, PortRange: policy.PortRange{First: 80, Last: 90}}}}}, Action: policy.Keep, OverrideServiceMasquerade: true},
		{Name: "fixed", From: policy.From{CIDRs: prefixes("10.9.0.0/16"), Except: prefixes("10.9.9.0/24")}, To: policy.To{Everywhere: true}, Action: policy.SNAT, Addresses: addrs("192.0.2.7"), FullyRandom: true},
		{Name: "own", From: policy.From{Node: true}, To: policy.To{CIDRs: prefixes("198.51.100.0/24")}, Action: policy.Masquerade, OverrideServiceMasquerade: true},
		{Name: "internet", From: policy.From{PodCIDRs: true, Node: true}, To: policy.To{Everywhere: true}, OutInterfaces: []string{"eth0", "wan*"}, Action: policy.Masquerade, FullyRandom: true, Ports: policy.PortRange{First: 1024, Last: 29999}},
		{Name: "rest", From: policy.From{Forwarded: true}, To: policy.To{Everywhere: true, Except: prefixes("10.0.0.0/8")}, Action: policy.Keep},
	}}
	for i := range p.Rules {
		p.Rules[i].Document, p.Rules[i].Number = "default", i+1
	}
	facts := &policy.Facts{
		PodCIDRs: prefixes("10.244.0.0/16", "fd00:10:244::/48"), LocalPodCIDRs: prefixes("10.244.1.0/24"),
		ServiceCIDRs: prefixes("10.96.0.0/12", "fd00:96::/112"), NodeAddresses: addrs("192.0.2.1", "2001:db8::1"),
		Services: []policy.Service{{Namespace: "shop", Name: "web", ClusterIPs: addrs("10.96.0.80", "fd00:96::80"), ExternalIPs: addrs("203.0.113.80"),
			Ports: []policy.ServicePort{{Protocol: packet.TCP, Port: 80, NodePort: 30080}, {Protocol: packet.UDP, Port: 53}, {Protocol: packet.TCP, Port: 443}}}},
		Nodes: addrs("192.0.2.1", "2001:db8::1"), Broadcasts: addrs("192.0.2.255"), TunnelPorts: []uint16{4790},
		ServiceMark: policy.DefaultServiceMark, HostPortMark: policy.DefaultHostPortMark, PodsKnown: true,
		Pods: []policy.Pod{{Namespace: "a", Name: "w", Labels: labels.Set{"app": "web"}, Addresses: addrs("10.244.1.7", "fd00:10:244:1::7")},
			{Namespace: "a", Name: "x", Addresses: addrs("10.244.1.8")}},
	}
	return p, facts
}

func compile(p *policy.Policy, f *policy.Facts) *plan.Table {
	return plan.Compile(p, f, plan.Options{HashFrom: 1, About: []string{"podCIDRs: 10.244.0.0/16 (stated)"}})
}

func open(t *testing.T, ns *netns.NS) *Table {
	t.Helper()
	var table *Table
	err := ns.Do(func() (err error) {
		table, err = Open(slog.New(slog.DiscardHandler))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { table.Close() })
	return table
}

func list(t *testing.T, ns *netns.NS, table string) string {
	t.Helper()
	out, err := ns.Run("", "nft", "list", "table", "inet", table)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func rendered(t *testing.T, table *plan.Table) string {
	t.Helper()
	var b bytes.Buffer
	if err := render.Table(&b, table); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// What netlink installs is what the rendered text installs, loaded by nft.
func TestNetlinkEqualsRender(t *testing.T) {
	want := compile(everything())
	byNetlink, byText := netnstest.Test(t, "netlink"), netnstest.Test(t, "text")
	if err := open(t, byNetlink).Start(want); err != nil {
		t.Fatal(err)
	}
	if _, err := byText.Run(rendered(t, want), "nft", "-f", "-"); err != nil {
		t.Fatalf("%v\n%s", err, rendered(t, want))
	}
	if diff := cmp.Diff(list(t, byText, plan.TableName), list(t, byNetlink, plan.TableName)); diff != "" {
		t.Errorf("-render +netlink\n%s", diff)
	}
}

// However a table came about, it is the same in the end.
func TestWaysToATable(t *testing.T) {
	p, facts := everything()
	want := compile(p, facts)
	clean := netnstest.Test(t, "clean")
	if err := open(t, clean).Start(want); err != nil {
		t.Fatal(err)
	}
	wantText := list(t, clean, plan.TableName)

	other := *facts
	other.Nodes = append(addrs("192.0.2.77"), facts.Nodes...)
	less := &policy.Policy{Rules: p.Rules[:3]}
	empty := &policy.Policy{}
	tests := []struct {
		name  string
		steps []*plan.Table
	}{
		{"from other facts", []*plan.Table{compile(p, &other), want}},
		{"from fewer rules", []*plan.Table{compile(less, facts), want}},
		{"from nothing", []*plan.Table{compile(empty, facts), want}},
		{"there and back", []*plan.Table{want, compile(less, &other), compile(p, &other), compile(empty, facts), want}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ns := netnstest.Test(t, "ways")
			table := open(t, ns)
			for i, step := range tt.steps {
				if err := table.Sync(step); err != nil {
					t.Fatalf("step %d: %v", i+1, err)
				}
			}
			if diff := cmp.Diff(wantText, withoutGenerations(list(t, ns, plan.TableName))); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func withoutGenerations(s string) string {
	for g := range 20 {
		s = strings.ReplaceAll(s, names{g}.name("")+" ", " ")
		s = strings.ReplaceAll(s, names{g}.name("")+",", ",")
		s = strings.ReplaceAll(s, names{g}.name("")+"\n", "\n")
	}
	return s
}

func TestOwnership(t *testing.T) {
	if !probe(t).Ownership {
		noOwnership(t)
		return
	}
	want := compile(everything())
	ns := netnstest.Test(t, "owned")
	first := open(t, ns)
	first.UseOwnership(true)
	if err := first.Start(want); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"delete", "table", "inet", "unmasq"}, {"flush", "chain", "inet", "unmasq", "postrouting"}} {
		if out, err := ns.Run("", "nft", args...); err == nil || !strings.Contains(err.Error(), "Operation not permitted") {
			t.Errorf("nft %v: %s, %v; want Operation not permitted", args, out, err)
		}
	}
	if out, err := ns.Run("", "nft", "flush", "ruleset"); err != nil {
		t.Errorf("flush ruleset: %s %v", out, err)
	}

	second := open(t, ns)
	second.UseOwnership(true)
	var owned *OwnedError
	if err := second.Start(want); !errors.As(err, &owned) {
		t.Fatalf("a second owner got %v, want OwnedError", err)
	}
	if _, err := second.Clear(); !errors.As(err, &owned) {
		t.Fatalf("clear against an owner got %v, want OwnedError", err)
	}
	first.conn.close() // as SIGKILL does
	first.conn.fd = -1
	if s := state(t, second); !s.Orphan() {
		t.Fatalf("the dead owner's table is %+v, want an orphan", s)
	}
	if err := second.Start(want); err != nil {
		t.Fatalf("adopt: %v", err)
	}
	if err := second.Release(); err != nil {
		t.Fatalf("release: %v", err)
	}
	if s := state(t, second); s.Flags != 0 || !s.Exists {
		t.Errorf("after release: %+v, want a plain table", s)
	}
	third := open(t, ns)
	third.UseOwnership(true)
	if err := third.Start(want); err != nil {
		t.Fatalf("from plain to owned: %v", err)
	}
	if s := state(t, third); s.Owner != third.Port() {
		t.Errorf("after start on a plain table: %+v, want owner %d", s, third.Port())
	}
	if _, err := third.Clear(); err != nil {
		t.Fatal(err)
	}
	if out, _ := ns.Run("", "nft", "list", "ruleset"); out != "" {
		t.Errorf("after clear there is still\n%s", out)
	}
}

func state(t *testing.T, table *Table) State {
	t.Helper()
	s, err := table.conn.state(plan.TableName)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func probe(t *testing.T) Features {
	t.Helper()
	var f Features
	ns := netnstest.Test(t, "probe")
	if err := ns.Do(func() (err error) { f, err = Probe(); return err }); err != nil {
		t.Fatal(err)
	}
	if out, _ := ns.Run("", "nft", "list", "ruleset"); out != "" {
		t.Errorf("the probe left\n%s", out)
	}
	return f
}

// A batch that the kernel refuses leaves everything as it was, and the next one works.
func TestRefusedChange(t *testing.T) {
	p, facts := everything()
	ns := netnstest.Test(t, "refused")
	table := open(t, ns)
	if err := table.Start(compile(p, facts)); err != nil {
		t.Fatal(err)
	}
	before := list(t, ns, plan.TableName)
	bad := compile(p, facts)
	bad.Chains = append(bad.Chains, plan.Chain{Name: "bad", Rules: []plan.Rule{{Statements: []plan.Statement{plan.Verdict{Kind: plan.Goto, Chain: "missing"}}}}})
	err := table.Sync(bad)
	if err == nil || !strings.Contains(err.Error(), "rule 1 of chain bad") {
		t.Errorf("error %v, want one that names the rule", err)
	}
	if diff := cmp.Diff(before, list(t, ns, plan.TableName)); diff != "" {
		t.Errorf("-before +after\n%s", diff)
	}
	if err := table.Sync(compile(&policy.Policy{Rules: p.Rules[1:]}, facts)); err != nil {
		t.Errorf("the change after it: %v", err)
	}
}

// What an exchange cut short built is not taken for what is in force: the next
// change is made to the latter.
func TestChangeAfterRefusedExchange(t *testing.T) {
	p, facts := everything()
	moreNodes := *facts
	moreNodes.Nodes = append(addrs("192.0.2.77"), facts.Nodes...)
	bad := compile(p, facts)
	bad.Chains = append(bad.Chains[:1:1], bad.Chains...)
	bad.Chains[1] = plan.Chain{Name: "bad", Rules: []plan.Rule{{Statements: []plan.Statement{plan.Verdict{Kind: plan.Goto, Chain: "missing"}}}}}
	tests := []struct {
		name   string
		before []string // what somebody does to the table, as nft's arguments
		fails  *plan.Table
	}{
		{"refused when it was built", nil, bad},
		{"refused at the base chain", []string{"delete chain inet unmasq postrouting; add chain inet unmasq postrouting { type nat hook postrouting priority 50; }"},
			compile(&policy.Policy{Rules: p.Rules[1:]}, facts)},
	}
	clean := netnstest.Test(t, "clean")
	if err := open(t, clean).Start(compile(p, &moreNodes)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ns := netnstest.Test(t, "after")
			table := open(t, ns)
			if err := table.Start(compile(p, facts)); err != nil {
				t.Fatal(err)
			}
			if tt.before != nil {
				if _, err := ns.Run("", "nft", tt.before...); err != nil {
					t.Fatal(err)
				}
			}
			if err := table.Sync(tt.fails); err == nil {
				t.Fatal("the exchange was not refused")
			}
			if err := table.Sync(compile(p, &moreNodes)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(list(t, clean, plan.TableName), withoutGenerations(list(t, ns, plan.TableName))); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// A helper that can't be removed decides before the table, so that it isn't
// forgotten about.
func TestHelperInTheWay(t *testing.T) {
	want := compile(everything())
	ns := netnstest.Test(t, "helper")
	other, table := open(t, ns), open(t, ns)
	if err := other.whole(plan.HandoverName, flagOwner, want, nil); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := table.Sync(want); err == nil {
			t.Error("no error with another's helper in the way")
		}
	}
	if err := other.delete(plan.HandoverName); err != nil {
		t.Fatal(err)
	}
	if err := table.Sync(want); err != nil {
		t.Fatal(err)
	}
}

// What others put into the table goes away again, whatever it is.
func TestForeignThingsInTheTable(t *testing.T) {
	want := compile(everything())
	clean := netnstest.Test(t, "clean")
	if err := open(t, clean).Start(want); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, text string }{
		{"a base chain", "add chain inet unmasq x { type nat hook postrouting priority -198; }; add rule inet unmasq x accept"},
		{"a counter", "add counter inet unmasq x"},
		{"a quota and its rule", "add quota inet unmasq x { over 20 mbytes; }; add chain inet unmasq c; add rule inet unmasq c quota name x"},
		{"a quota by a counter's name", "add quota inet unmasq rule/default/inside { over 20 mbytes; }"},
		{"a map to our chain", "add map inet unmasq x { type ipv4_addr : verdict; elements = { 192.0.2.1 : goto guards-ip }; }"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ns := netnstest.Test(t, "foreign")
			table := open(t, ns)
			if err := table.Start(want); err != nil {
				t.Fatal(err)
			}
			if _, err := ns.Run("", "nft", tt.text); err != nil {
				t.Fatal(err)
			}
			table.Forget()
			if err := table.Sync(want); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(list(t, clean, plan.TableName), withoutGenerations(list(t, ns, plan.TableName))); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}
