package others_test

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/conflict"
	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/kernel/others"
	"github.com/unmasq/unmasq/internal/kernel/others/otherstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// open a reader in a namespace.
func open(t testing.TB, n *netns.NS) *others.Reader {
	t.Helper()
	var r *others.Reader
	if err := n.Do(func() (err error) { r, err = others.Open(); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// programs as "DEVICE KIND HOOK NAME", sorted.
func programs(t testing.TB, n *netns.NS, r *others.Reader) (out []string) {
	t.Helper()
	if err := n.Do(func() error { // bpf(2) asks in the thread's namespace
		p, err := r.Programs()
		for _, x := range p.Programs {
			out = append(out, fmt.Sprint(x.Device.Name, " ", x.Device.Kind, " ", x.Hook, " ", x.Name))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

// Real programs, as their components attach them, are seen with their names, and are
// gone when they are.
func TestPrograms(t *testing.T) {
	n := netnstest.Test(t, "programs")
	ip(t, n, "link add lxc1 type veth peer name p1", "link add eth0 type veth peer name up", "link add cilium_vxlan type vxlan id 1 dstport 8472")
	r := open(t, n)
	if got := programs(t, n, r); len(got) != 0 {
		t.Errorf("without programs: %q", got)
	}
	if !otherstest.Root(t) {
		classic(t, n, r)
		return
	}
	var detach []func()
	for _, x := range []struct {
		device string
		side   uint32
		name   string
	}{{"eth0", otherstest.Egress, "cil_to_netdev-eth0"}, {"lxc1", otherstest.Ingress, "cil_from_container-lxc1"},
		{"cilium_vxlan", otherstest.Ingress, "cali_tc_preambl:[42]"}, {"up", otherstest.Ingress, "bpf_host.o:[from-netdev]"}} {
		detach = append(detach, otherstest.TC(t, n, x.device, x.side, x.name))
	}
	detach = append(detach, otherstest.TCX(t, n, "p1", false), otherstest.TCX(t, n, "p1", true), otherstest.XDP(t, n, "up"))
	want := []string{"cilium_vxlan vxlan tc ingress cali_tc_preambl", "eth0 veth tc egress cil_to_netdev-eth0", "lxc1 veth tc ingress cil_from_container-lxc1",
		"p1 veth tcx egress ", "p1 veth tcx ingress ", "up veth XDP ", "up veth tc ingress bpf_host.o:[from-netdev]"}
	if diff := cmp.Diff(want, programs(t, n, r)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for _, d := range detach {
		d()
	}
	if got := programs(t, n, r); len(got) != 0 {
		t.Errorf("all detached: %q", got)
	}
}

// reduced runs on a thread that is given up afterwards, with less than it has here.
func reduced(t *testing.T, n *netns.NS, less, do func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never back: the thread ends with the goroutine
		err := unix.Setns(n.Fd(), unix.CLONE_NEWNET)
		for _, step := range []func() error{less, do} {
			if err == nil {
				err = step()
			}
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// CAP_NET_ADMIN alone is enough, as the agent's pod has it.
func TestNetAdminIsEnough(t *testing.T) {
	n := netnstest.Test(t, "admin")
	nft(t, n, fmt.Sprintf(raw, "ip saddr 10.244.0.0/16 notrack"))
	if out, err := n.Run("", "iptables-legacy", "-t", "raw", "-A", "PREROUTING", "-s", "10.244.0.0/16", "-j", "NOTRACK"); err != nil {
		t.Fatal(out, err)
	}
	root := otherstest.Root(t) // bpf(2) asks for it in the first user namespace
	reduced(t, n, func() error {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		const admin = 1 << unix.CAP_NET_ADMIN
		data := [2]unix.CapUserData{{Effective: admin, Permitted: admin}}
		return unix.Capset(&header, &data[0])
	}, func() error {
		r, err := others.Open()
		if err != nil {
			return err
		}
		defer r.Close()
		p, err := r.Programs()
		if err != nil || len(p.Devices) != 1 || (p.Unasked == "") != root {
			return fmt.Errorf("programs %+v: %w", p, err)
		}
		found, err := r.Rules()
		if err != nil || len(found.Rules) != 2 || !found.Rules[1].Legacy {
			return fmt.Errorf("rules %+v: %w", found, err)
		}
		return nil
	})
}

// Where bpf(2) is refused, as containers' seccomp profiles do, all else is seen.
func TestBPFRefused(t *testing.T) {
	n := netnstest.Test(t, "seccomp")
	ip(t, n, "link add cilium_host type veth peer name cilium_net")
	reduced(t, n, func() error {
		filter := []unix.SockFilter{
			{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the call's number
			{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_BPF, Jf: 1},
			{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
			{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		}
		program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
		return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
	}, func() error {
		r, err := others.Open()
		if err != nil {
			return err
		}
		defer r.Close()
		p, err := r.Programs()
		path := conflict.PathOf(p, nil)
		if err != nil || len(p.Devices) != 3 || p.Unasked != unix.EPERM.Error() || !path.Unclear {
			return fmt.Errorf("programs %+v, path %+v: %w", p, path, err)
		}
		return nil
	})
}

// classic programs have no names; anybody with a namespace can attach them.
func classic(t *testing.T, n *netns.NS, r *others.Reader) {
	for _, args := range [][]string{{"qdisc", "add", "dev", "eth0", "clsact"}, {"filter", "add", "dev", "eth0", "egress", "bpf", "bytecode", "1,6 0 0 4294967295,"}} {
		if out, err := n.Run("", "tc", args...); err != nil {
			t.Fatal(out, err)
		}
	}
	if diff := cmp.Diff([]string{"eth0 veth tc egress "}, programs(t, n, r)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func ip(t testing.TB, n *netns.NS, lines ...string) {
	t.Helper()
	text := ""
	for _, l := range lines {
		text += l + "\n"
	}
	if out, err := n.Run(text, "ip", "-batch", "-"); err != nil {
		t.Fatal(out, err)
	}
}

func nft(t testing.TB, n *netns.NS, text string) {
	t.Helper()
	if out, err := n.Run(text, "nft", "-f", "-"); err != nil {
		t.Fatal(out, err)
	}
}

func rules(t testing.TB, n *netns.NS, r *others.Reader) (found *conflict.Rules) {
	t.Helper()
	if err := n.Do(func() (err error) { found, err = r.Rules(); return err }); err != nil { // iptables-legacy's are the thread's
		t.Fatal(err)
	}
	return found
}
