package bench

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/plan"
	"github.com/unmasq/unmasq/internal/render"
)

const syncRounds = 9

// mixed are n disjoint prefixes of many lengths, which no hash holds alone.
func mixed(n int) []netip.Prefix {
	out := make([]netip.Prefix, n)
	for i := range out {
		v := uint32(10)<<24 + uint32(i)<<8
		out[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), 0}), 24+i%9)
	}
	return out
}

// What it takes to install a whole policy, and what nft takes for the same.
func BenchmarkFullSync(b *testing.B) {
	for _, n := range []int{10000, 100000} {
		var compile, unmasq, nft []time.Duration
		p, f := keepList(mixed(n)), facts()
		for range syncRounds {
			byNetlink, byText := netnstest.Test(b, "sync"), netnstest.Test(b, "nft")
			start := time.Now()
			table := plan.Compile(p, f, plan.Options{})
			compile = append(compile, time.Since(start))

			kernel := openTable(b, byNetlink)
			start = time.Now()
			if err := kernel.Start(table); err != nil {
				b.Fatal(err)
			}
			unmasq = append(unmasq, time.Since(start))

			var text bytes.Buffer
			if err := render.Table(&text, table); err != nil {
				b.Fatal(err)
			}
			start = time.Now()
			if _, err := byText.Run(text.String(), "nft", "-f", "-"); err != nil {
				b.Fatal(err)
			}
			nft = append(nft, time.Since(start))
		}
		report("%6d CIDRs: compile %6.1f ms, install %6.1f ms; nft -f of the same %7.1f ms", n, ms(median(compile)), ms(median(unmasq)), ms(median(nft)))
		b.ReportMetric(ms(median(compile))+ms(median(unmasq)), fmt.Sprintf("ms-for-%d", n))
	}
	b.ReportMetric(0, "ns/op")
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// One more CIDR in a list of 10,000, beside `nft add element`.
func BenchmarkAddOne(b *testing.B) {
	for _, list := range []struct {
		name string
		make func(int) []netip.Prefix
	}{{"of one length", cidrs}, {"of many lengths", mixed}} {
		const n = 10000
		all := list.make(n + syncRounds)
		ns := netnstest.Test(b, "add")
		kernel := openTable(b, ns)
		if err := kernel.Start(plan.Compile(keepList(all[:n]), facts(), plan.Options{})); err != nil {
			b.Fatal(err)
		}
		var elements []string
		for _, c := range all[:n] {
			elements = append(elements, c.String())
		}
		if _, err := ns.Run("table ip beside {\nset peers {\ntype ipv4_addr; flags interval\nelements = {"+strings.Join(elements, ",")+"}\n}\n}\n", "nft", "-f", "-"); err != nil {
			b.Fatal(err)
		}
		var compile, unmasq, nft []time.Duration
		for i := range syncRounds {
			start := time.Now()
			table := plan.Compile(keepList(all[:n+i+1]), facts(), plan.Options{})
			compile = append(compile, time.Since(start))
			start = time.Now()
			if err := kernel.Sync(table); err != nil {
				b.Fatal(err)
			}
			unmasq = append(unmasq, time.Since(start))
			start = time.Now()
			if _, err := ns.Run("", "nft", "add", "element", "ip", "beside", "peers", fmt.Sprintf("{ 240.0.%d.0/24 }", i)); err != nil {
				b.Fatal(err)
			}
			nft = append(nft, time.Since(start))
		}
		report("one more CIDR %-15s: compile %.2f ms, install %.2f ms; nft add element %.2f ms", list.name, ms(median(compile)), ms(median(unmasq)), ms(median(nft)))
		b.ReportMetric(ms(median(unmasq)), "ms-"+strings.ReplaceAll(list.name, " ", "-"))
	}
	b.ReportMetric(0, "ns/op")
}

// The agent's memory with 10,000 CIDRs, and what it does when nothing happens.
func BenchmarkAgent(b *testing.B) {
	for _, n := range []int{10, 10000} {
		agent := startAgent(b, n)
		time.Sleep(2 * time.Second)
		rss := agent.status(b, "VmRSS:")
		before, start := agent.wakeUps(b), time.Now()
		time.Sleep(20 * time.Second)
		per10 := float64(agent.wakeUps(b)-before) / time.Since(start).Seconds() * 10
		report("agent with %5d CIDRs: %5.1f MB resident, woken %.1f times in 10 s of nothing", n, float64(rss)/1024, per10)
		b.ReportMetric(float64(rss)/1024, fmt.Sprintf("MB-%d", n))
		b.ReportMetric(per10, fmt.Sprintf("wakeups-%d", n))
		agent.stop(b)
	}
	b.ReportMetric(0, "ns/op")
}

type agent struct{ cmd *netns.Cmd }

func startAgent(b *testing.B, n int) *agent {
	b.Helper()
	dir := b.TempDir()
	binary := filepath.Join(dir, "unmasq")
	if out, err := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, "../../cmd/unmasq").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	var doc strings.Builder
	doc.WriteString("apiVersion: unmasq.io/v1alpha1\nkind: SourcePolicy\nmetadata: {name: bench}\nspec:\n  facts: {podCIDRs: [10.244.0.0/16]}\n  rules:\n  - from: {pods: {}}\n    action: Keep\n    to:\n      cidrs:\n")
	for _, c := range cidrs(n) {
		fmt.Fprintf(&doc, "      - %s\n", c)
	}
	file := filepath.Join(dir, "policy.yaml")
	if err := os.WriteFile(file, []byte(doc.String()), 0o644); err != nil {
		b.Fatal(err)
	}
	ns := netnstest.Test(b, "agent")
	cmd := ns.Command(context.Background(), binary, "agent", "--config", file)
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = cmd.Process.Kill() })
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if _, err := ns.Run("", binary, "status"); err == nil {
			return &agent{cmd}
		}
		if time.Now().After(deadline) {
			b.Fatalf("the agent is not ready:\n%s", log.String())
		}
	}
}

func (a *agent) stop(b *testing.B) {
	b.Helper()
	if err := a.cmd.Process.Signal(os.Interrupt); err != nil {
		b.Fatal(err)
	}
	_ = a.cmd.Wait()
}

// status is a number of /proc/PID/status.
func (a *agent) status(b *testing.B, field string) int {
	b.Helper()
	return statusField(b, fmt.Sprintf("/proc/%d/status", a.cmd.Process.Pid), field)
}

// wakeUps counts how often any thread went to sleep, which is as often as it woke.
func (a *agent) wakeUps(b *testing.B) int {
	b.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", a.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	sum := 0
	for _, task := range tasks {
		sum += statusField(b, task, "voluntary_ctxt_switches:")
	}
	return sum
}

func statusField(b *testing.B, path, field string) int {
	b.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	for _, line := range strings.Split(string(text), "\n") {
		if rest, ok := strings.CutPrefix(line, field); ok {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				b.Fatal(err)
			}
			return n
		}
	}
	b.Fatalf("%s has no %s", path, field)
	return 0
}
