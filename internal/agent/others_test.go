package agent

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/unmasq/unmasq/api/v1alpha1"
	"github.com/unmasq/unmasq/internal/cluster"
	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/kernel/nft"
	"github.com/unmasq/unmasq/internal/kernel/others/otherstest"
	"github.com/unmasq/unmasq/internal/plan"
	"github.com/unmasq/unmasq/internal/policy"
)

// reporting is an agent of a fake cluster whose reports are looked at.
type reporting struct {
	*testing.T
	n *netns.NS
	f *fakeCluster
	a *Agent
}

func newReporting(t *testing.T, n *netns.NS) *reporting {
	t.Helper()
	f := &fakeCluster{view: cluster.Join(large(3, 2))}
	a, err := New(Options{Cluster: f, Log: slog.New(slog.DiscardHandler), Version: "v1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.closeTable)
	a.status.setCluster(f.Stale)
	a.reloadCluster()
	return &reporting{t, n, f, a}
}

// shows what is reported now: "CONDITION STATUS REASON" of Enforced and Conflict,
// and the conflicts' reasons and owners. Nothing is reported twice.
func (r *reporting) shows(when, want string) *v1alpha1.NodeReportStatus {
	r.Helper()
	before := len(r.f.reports)
	for range 2 {
		r.a.around.programsAt, r.a.around.rulesAt = time.Time{}, time.Time{} // at once
		r.a.report()
	}
	if n := len(r.f.reports) - before; n != 1 {
		r.Errorf("%s: %d reports, want one", when, n)
	}
	s := &r.f.reports[len(r.f.reports)-1]
	var out []string
	for _, c := range s.Conditions {
		if c.Type == v1alpha1.ConditionEnforced || c.Type == v1alpha1.ConditionConflict {
			out = append(out, fmt.Sprint(c.Type, " ", c.Status, " ", c.Reason))
		}
	}
	for _, c := range s.Conflicts {
		out = append(out, c.Reason+" "+c.Owner)
	}
	if got := strings.Join(out, "; "); got != want {
		r.Errorf("%s: %q, want %q\n%+v", when, got, want, s.Conflicts)
	}
	return s
}

// run a program in the namespace.
func (r *reporting) run(stdin, name string, args ...string) {
	r.Helper()
	if out, err := r.n.Run(stdin, name, args...); err != nil {
		r.Fatal(out, err)
	}
}

// Another process' table is a conflict, first of all.
func TestOwnedTableIsReported(t *testing.T) {
	n := netnstest.Test(t, "owned")
	must(t, n.Do(func() error {
		other, err := nft.Open(slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		other.UseOwnership(true)
		if err := other.Start(plan.Compile(&policy.Policy{}, &policy.Facts{}, plan.Options{})); err != nil {
			return err
		}
		r := newReporting(t, n)
		name, err := os.ReadFile("/proc/self/comm")
		if err != nil {
			return err
		}
		r.shows("owned by another", "Enforced False TableOwned; Conflict True TableOwned; TableOwned "+strings.TrimSpace(string(name)))
		return other.Close()
	}))
}

const atEase = "Enforced True InForce; Conflict False NoneFound"

// A program at an interface is reported as long as it is there: as a bypass where
// its component is known for it, else as something that can't be told of.
func TestProgramsAreReported(t *testing.T) {
	n := netnstest.Test(t, "programs")
	must(t, n.Do(func() error {
		r := newReporting(t, n)
		r.run("link add eth0 type veth peer name up\nlink add lxc1 type veth peer name p1\n", "ip", "-batch", "-")
		r.shows("without programs", atEase)
		if !otherstest.Root(t) { // a program without a name, as anybody may attach it
			r.run("", "tc", "qdisc", "add", "dev", "eth0", "clsact")
			r.run("", "tc", "filter", "add", "dev", "eth0", "egress", "bpf", "bytecode", "1,6 0 0 4294967295,")
			r.shows("classic", "Enforced True InForce; Conflict Unknown UnknownProgram; UnknownProgram unknown")
			return nil
		}
		watch := otherstest.TC(t, n, "eth0", otherstest.Ingress, "watch_packets")
		r.shows("an observer", "Enforced True InForce; Conflict Unknown UnknownProgram; UnknownProgram unknown")
		// eth0 of a node is no veth.
		r.run("link add wan0 type bridge\n", "ip", "-batch", "-")
		cilium := otherstest.TC(t, n, "wan0", otherstest.Egress, "cil_to_netdev-wan0")
		pod := otherstest.TC(t, n, "lxc1", otherstest.Ingress, "cil_from_container-lxc1")
		s := r.shows("Cilium", "Enforced False BypassedByEBPF; Conflict True BypassedByEBPF; BypassedByEBPF cilium; UnknownProgram unknown")
		for _, text := range []string{"cil_to_netdev at wan0", "cil_from_container at veth interfaces", "bpf.masquerade=false"} {
			if !strings.Contains(s.Conditions[0].Message, text) {
				t.Errorf("%q isn't said in %q", text, s.Conditions[0].Message)
			}
		}
		if notes, problem := r.a.status.ready(); problem != nil || !strings.Contains(strings.Join(notes, "\n"), "don't come to the policies") {
			t.Errorf("ready: %q, %v", notes, problem)
		}
		cilium()
		r.shows("without the kube-proxy replacement", "Enforced True InForce; Conflict Unknown UnknownProgram; UnknownProgram unknown")
		watch()
		pod()
		r.shows("without programs again", atEase)
		calico := otherstest.TC(t, n, "lxc1", otherstest.Egress, "cali_tc_preambl:[42]")
		r.shows("Calico", "Enforced False BypassedByEBPF; Conflict True BypassedByEBPF; BypassedByEBPF calico")
		calico()
		r.shows("without", atEase)
		return nil
	}))
}

// Rules that win, and whoever changes the table, are reported, and no longer when
// they are gone.
func TestRivalsAreReported(t *testing.T) {
	n := netnstest.Test(t, "rivals")
	must(t, n.Do(func() error {
		r := newReporting(t, n)
		r.shows("alone", atEase)
		r.run("table inet x { chain c { type filter hook prerouting priority raw; ip saddr 10.244.0.0/16 notrack; }; }", "nft", "-f", "-")
		s := r.shows("untracked", "Enforced True InForce; Conflict True Untracked; Untracked unknown")
		if m := s.Conflicts[0].Message; !strings.Contains(m, "from 10.244.0.0/16 in table inet x, chain c (prerouting, priority -300)") {
			t.Errorf("message %q", m)
		}
		r.run("", "nft", "delete", "table", "inet", "x")
		r.shows("tracked", atEase)
		r.a.metrics.intruded(nft.Intrusion{PID: 7, Name: "nft"})
		r.a.metrics.intruded(nft.Intrusion{PID: 8, Name: "nft"})
		r.shows("changed", "Enforced True InForce; Conflict True TableChanged; TableChanged nft")
		r.a.metrics.intruded(nft.Intrusion{Lost: true}) // there may have been none
		r.a.metrics.intruded(nft.Intrusion{PID: 9})
		r.shows("by somebody too", "Enforced True InForce; Conflict True TableChanged; TableChanged nft; TableChanged unknown")
		for name := range r.a.metrics.recent.last {
			r.a.metrics.recent.last[name] = time.Now().Add(-changedFor - time.Second)
		}
		r.shows("minutes later", atEase)
		return nil
	}))
}
