// Package loss_test holds that nothing that happens to unmasq's table leaves a
// packet with a third decision: every new connection gets what the old policy
// says, or what the new one says. Every packet of each load is looked at. It
// holds no code beside its tests.
package loss_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/rig"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// load is traffic on policyText.
var load = rig.Traffic{Flow: flow, Check: check}

// What happens to the table of a running agent, with ownership where the kernel
// has it, and without.
func TestAgent(t *testing.T) {
	binary := program(t)
	tests := []struct {
		name string
		run  func(t *testing.T, m mode)
	}{
		{"other programs' flushes", otherPrograms},
		{"killed and restarted", killed},
		{"policy changed", policyFile},
		{"handed over", handedOver},
		{"layout upgraded", layoutUpgraded},
	}
	for _, m := range []mode{{binary, true}, {binary, false}} {
		for _, tt := range tests {
			t.Run(fmt.Sprintf("%s/%s", m, tt.name), func(t *testing.T) { tt.run(t, m) })
		}
	}
	auto, off := mode{binary, true}, mode{binary, false}
	t.Run(off.String()+"/removed and restored", func(t *testing.T) { removed(t, off) })
	if ownership(t) {
		t.Run(auto.String()+"/removal refused", func(t *testing.T) { removalRefused(t, auto) })
		return
	}
	t.Log("checked: this kernel has no ownership: the agent must do without")
	t.Run(auto.String()+"/removed and restored", func(t *testing.T) { removed(t, auto) })
}

const natTable = "*nat\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:OTHER - [0:0]\n" +
	"-A POSTROUTING -j OTHER\n-A OTHER -s 10.244.0.0/16 -j MASQUERADE\nCOMMIT\n"

const natTable6 = "*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -s fd00:10:244::/48 -j MASQUERADE\nCOMMIT\n"

// iptables flushes and replaces its own nat tables, in both variants and families.
func iptables(t *testing.T, r *rig.Rig) {
	t.Helper()
	for _, variant := range []string{"legacy", "nft"} {
		r.Run(t, natTable, "iptables-"+variant+"-restore")
		r.Run(t, natTable6, "ip6tables-"+variant+"-restore")
		r.Run(t, "", "iptables-"+variant, "-w", "-t", "nat", "-F")
		r.Run(t, "", "ip6tables-"+variant, "-w", "-t", "nat", "-F")
	}
}

func otherPrograms(t *testing.T, m mode) {
	r := newRig(t)
	m.start(t, r.Node, config(t))
	var rounds int
	report := underLoad(t, r, load, func() {
		rounds = during(4*time.Second, func(int) { iptables(t, r) })
	})
	noneWrong(t, report, "%d rounds of iptables -t nat -F and iptables-restore of whole tables, both variants", rounds)
}

// removalRefused tries what deletes or empties every other table.
func removalRefused(t *testing.T, m mode) {
	r := newRig(t)
	m.start(t, r.Node, config(t))
	var rounds int
	report := underLoad(t, r, load, func() {
		rounds = during(4*time.Second, func(n int) {
			if n%2 == 0 { // with a moment in which nobody else masquerades, and without
				r.Run(t, "", "nft", "flush", "ruleset")
			}
			r.NFT(t, "flush ruleset\n"+foreign)
			for _, args := range []string{"delete table inet unmasq", "flush chain inet unmasq postrouting", "flush table inet unmasq"} {
				out, err := r.Node.Run("", "nft", strings.Fields(args)...)
				if err == nil || !strings.Contains(err.Error(), "Operation not permitted") {
					t.Fatalf("nft %s: %q, %v; want Operation not permitted", args, out, err)
				}
			}
		})
	})
	noneWrong(t, report, "%d rounds of nft flush ruleset, and of nft delete table, flush table and flush chain, which were refused", rounds)
}

func killed(t *testing.T, m mode) {
	r := newRig(t)
	file := config(t)
	a := m.start(t, r.Node, file)
	var times int
	report := underLoad(t, r, load, func() {
		times = during(6*time.Second, func(n int) {
			a.end(t, syscall.SIGKILL)
			write(t, file, variant(n))
			if n%3 == 0 {
				a = m.start(t, r.Node, file)
				return
			}
			a = m.launch(t, r.Node, file)
			time.Sleep(time.Duration(n%40) * time.Millisecond) // to be killed at any moment of its start
		})
	})
	noneWrong(t, report, "SIGKILL, in force or on the way there, and restart, %d times", times)
}

// policies decide the load's flows alike, each by other rules.
func variant(n int) string {
	rules := policyText
	if n%2 == 1 { // other elements
		rules = strings.Replace(rules, "198.18.0.0/17", "198.18.0.0/18, 198.18.32.0/19, 198.18.64.0/18", 1)
		rules = strings.Replace(rules, `"2001:db8:b::/48"`, `"2001:db8:b::/49", "2001:db8:b:8000::/49"`, 1)
	}
	if n%3 == 1 { // another rule that overlaps all
		rules += "  - name: rest\n    from: {pods: {}}\n    action: Masquerade\n"
	}
	if n%4 >= 2 { // rules of another source in front
		rules = strings.Replace(rules, "  rules:\n", "  rules:\n  - name: vpn\n    from: {cidrs: [172.30.0.0/16]}\n    to: {except: [198.18.0.0/15]}\n    action: Masquerade\n", 1)
	}
	if n%5 == 1 { // a hash of many destinations
		var many strings.Builder
		for i := range 600 + n {
			fmt.Fprintf(&many, "100.%d.%d.0/24, ", 64+i/256, i%256)
		}
		rules = strings.Replace(rules, "cidrs: [198.18.128.0/17", "cidrs: ["+many.String()+"198.18.128.0/17", 1)
	}
	if n%7 == 1 { // an exception in the middle, of the same action
		rules = strings.Replace(rules, "  - name: masquerade\n", "  - name: part\n    from: {pods: {}}\n    to: {cidrs: [198.19.17.0/24]}\n    action: Masquerade\n    masquerade: {ports: 20000-20999}\n  - name: masquerade\n", 1)
	}
	return rules
}

func policyFile(t *testing.T, m mode) {
	r := newRig(t)
	file := config(t)
	a := m.start(t, r.Node, file)
	const reloads = `unmasq_config_reloads_total{result="ok"}`
	var times int
	report := underLoad(t, r, load, func() {
		times = during(6*time.Second, func(n int) {
			before := a.metric(reloads)
			write(t, file, variant(n+1))
			a.await(t, "done with the changed policy", func() bool { return a.metric(reloads) > before })
			a.await(t, "ready", func() bool { return a.get("/readyz") == "ok\n" })
		})
	})
	noneWrong(t, report, "policy file changed %d times", times)
	if failed := a.metric(`unmasq_table_writes_total{result="error"}`); failed > 0 {
		t.Errorf("%v changes were refused by the kernel:\n%s", failed, a.log)
	}
}

func handedOver(t *testing.T, m mode) {
	r := newRig(t)
	file := config(t)
	m.unmasq(t, r.Node, "apply", "-f", file)
	var times int
	report := underLoad(t, r, load, func() {
		times = during(6*time.Second, func(n int) {
			switch n % 3 {
			case 0:
				m.start(t, r.Node, file).end(t, syscall.SIGTERM)
			case 1: // an orphan
				m.start(t, r.Node, file).end(t, syscall.SIGKILL)
			case 2: // cut short
				a := m.launch(t, r.Node, file)
				time.Sleep(time.Duration(10+n%30) * time.Millisecond)
				a.end(t, syscall.SIGKILL)
			}
			if n/3%2 == 0 {
				m.unmasq(t, r.Node, "apply", "-f", file)
			}
		})
	})
	noneWrong(t, report, "apply, agent, SIGTERM or SIGKILL and again, %d times", times)
}

// layoutUpgraded starts the agent on a table of an older version, whose base
// chain has another name.
func layoutUpgraded(t *testing.T, m mode) {
	r := newRig(t)
	file := config(t)
	text := m.unmasq(t, r.Node, "render", "-f", file)
	older := strings.NewReplacer("chain postrouting ", "chain decide-source ", "layout-1", "layout-0").Replace(text)
	if older == text || !strings.Contains(older, "chain layout-0") || !strings.Contains(older, "chain decide-source ") {
		t.Fatalf("this is no table of layout-1:\n%s", text)
	}
	// While the test itself puts the older table in place, another decides.
	standIn := strings.NewReplacer("table inet unmasq ", "table inet stand-in ", "priority -199", "priority -198").Replace(text)
	r.NFT(t, older)
	var times int
	report := underLoad(t, r, load, func() {
		times = during(6*time.Second, func(n int) {
			a := m.start(t, r.Node, file)
			if got := r.Run(t, "", "nft", "list", "table", "inet", "unmasq"); strings.Contains(got, "layout-0") || strings.Contains(got, "decide-source") {
				t.Fatalf("the older layout still stands:\n%s", got)
			}
			a.end(t, syscall.SIGTERM)
			r.NFT(t, standIn)
			r.NFT(t, "delete table inet unmasq\n")
			r.NFT(t, older)
			r.NFT(t, "delete table inet stand-in\n")
		})
	})
	noneWrong(t, report, "layout-0 upgraded %d times", times)
}
