// Package otherstest attaches eBPF programs to interfaces as other components do,
// under the names that theirs have. Each lets every packet pass. It is for tests only.
//
//	otherstest.TC(t, ns, "eth0", otherstest.Egress, "cil_to_netdev-eth0")
package otherstest

import (
	"errors"
	"testing"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/kernel/netns"
)

// Sides of an interface.
const (
	Ingress = netlink.HANDLE_MIN_INGRESS
	Egress  = netlink.HANDLE_MIN_EGRESS
)

// Root says whether programs can be loaded: not in a user namespace of its own.
func Root(t testing.TB) bool {
	t.Helper()
	fd, err := load(unix.BPF_PROG_TYPE_SCHED_CLS)
	if errors.Is(err, unix.EPERM) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	return true
}

// load a program of two instructions: r0 = -1 (tc: go on), or 2 for XDP (pass); exit.
func load(typ uint32) (int, error) {
	result := int32(-1)
	if typ == unix.BPF_PROG_TYPE_XDP {
		result = 2
	}
	code := [2]uint64{0xb7 | uint64(uint32(result))<<32, 0x95}
	license := [...]byte{'G', 'P', 'L', 0}
	attr := struct {
		typ, count    uint32
		code, license uint64
		_             [88]byte
	}{typ: typ, count: uint32(len(code)), code: uint64(uintptr(unsafe.Pointer(&code))), license: uint64(uintptr(unsafe.Pointer(&license)))}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

func inside(t testing.TB, ns *netns.NS, do func() error) {
	t.Helper()
	if err := ns.Do(do); err != nil {
		t.Fatal(err)
	}
}

// TC attaches a filter at clsact, and returns what takes it away.
func TC(t testing.TB, ns *netns.NS, device string, side uint32, name string) (detach func()) {
	t.Helper()
	filter := &netlink.BpfFilter{Name: name, DirectAction: true}
	inside(t, ns, func() error {
		l, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		if filter.Fd, err = load(unix.BPF_PROG_TYPE_SCHED_CLS); err != nil {
			return err
		}
		defer unix.Close(filter.Fd)
		at := netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}
		if err := netlink.QdiscAdd(&netlink.GenericQdisc{QdiscAttrs: at, QdiscType: "clsact"}); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		filter.FilterAttrs = netlink.FilterAttrs{LinkIndex: l.Attrs().Index, Parent: side, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 1}
		return netlink.FilterAdd(filter)
	})
	return func() {
		t.Helper()
		inside(t, ns, func() error { return netlink.FilterDel(filter) })
	}
}

// TCX attaches a program by a link of its own (Linux 6.6), until detached.
func TCX(t testing.TB, ns *netns.NS, device string, egress bool) (detach func()) {
	t.Helper()
	const linkCreate, tcxIngress = 28, 46
	var fd uintptr
	inside(t, ns, func() error {
		l, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		program, err := load(unix.BPF_PROG_TYPE_SCHED_CLS)
		if err != nil {
			return err
		}
		defer unix.Close(program)
		attr := struct{ program, target, typ, flags, _, _, _, _ uint32 }{program: uint32(program), target: uint32(l.Attrs().Index), typ: tcxIngress}
		if egress {
			attr.typ++
		}
		var errno unix.Errno
		if fd, _, errno = unix.Syscall(unix.SYS_BPF, linkCreate, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr)); errno != 0 {
			return errno
		}
		return nil
	})
	return func() { unix.Close(int(fd)) }
}

// XDP attaches a program to a driver's receive path, in its generic form.
func XDP(t testing.TB, ns *netns.NS, device string) (detach func()) {
	t.Helper()
	set := func(program int) error {
		l, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		return netlink.LinkSetXdpFdWithFlags(l, program, 1<<1) // XDP_FLAGS_SKB_MODE
	}
	inside(t, ns, func() error {
		program, err := load(unix.BPF_PROG_TYPE_XDP)
		if err != nil {
			return err
		}
		defer unix.Close(program)
		return set(program)
	})
	return func() {
		t.Helper()
		inside(t, ns, func() error { return set(-1) })
	}
}
