package others

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/conflict"
)

// link is an interface as the kernel lists it.
type link struct {
	conflict.Device
	index uint32
	xdp   bool
}

// Programs reads the interfaces, and the eBPF programs at them. Those attached by
// links of their own (tcx, netkit, Linux 6.6) are asked for with bpf(2), which
// containers' seccomp profiles refuse: then it is said that they aren't known.
func (r *Reader) Programs() (conflict.Programs, error) {
	var out conflict.Programs
	links, err := r.links()
	if err != nil {
		return out, fmt.Errorf("list interfaces: %w", err)
	}
	disciplines, err := r.disciplines()
	if err != nil {
		return out, fmt.Errorf("list queueing disciplines: %w", err)
	}
	cilium := false
	for _, l := range links {
		out.Devices = append(out.Devices, l.Device)
		cilium = cilium || strings.HasPrefix(l.Name, "cilium_")
		if l.xdp {
			out.Programs = append(out.Programs, conflict.Program{Device: l.Device, Hook: "XDP", Unnamed: true})
		}
		if disciplines[l.index] {
			if err := r.filters(l, &out); err != nil {
				return out, fmt.Errorf("list filters of %s: %w", l.Name, err)
			}
		}
		attached(l, &out)
	}
	r.cilium = cilium
	return out, nil
}

// Attributes of struct ifinfomsg (linux/if_link.h); statistics are left out.
const (
	extMaskSkipStats = 1 << 3 // RTEXT_FILTER_SKIP_STATS
	xdpAttached      = 2      // IFLA_XDP_ATTACHED
)

func (r *Reader) links() ([]link, error) {
	body := make([]byte, unix.SizeofIfInfomsg)
	e := netlink.NewAttributeEncoder()
	e.Uint32(unix.IFLA_EXT_MASK, extMaskSkipStats)
	mask, err := e.Encode()
	if err != nil {
		return nil, err
	}
	messages, err := r.dump(unix.RTM_GETLINK, append(body, mask...))
	var out []link
	for _, m := range messages {
		if len(m) < unix.SizeofIfInfomsg {
			continue
		}
		l := link{index: binary.NativeEndian.Uint32(m[4:])}
		attributes(m[unix.SizeofIfInfomsg:], func(d *netlink.AttributeDecoder) {
			switch d.Type() {
			case unix.IFLA_IFNAME:
				l.Name = d.String()
			case unix.IFLA_LINKINFO:
				attributes(d.Bytes(), func(d *netlink.AttributeDecoder) {
					if d.Type() == unix.IFLA_INFO_KIND {
						l.Kind = d.String()
					}
				})
			case unix.IFLA_XDP:
				attributes(d.Bytes(), func(d *netlink.AttributeDecoder) {
					l.xdp = l.xdp || d.Type() == xdpAttached && d.Uint8() != 0
				})
			}
		})
		out = append(out, l)
	}
	return out, err
}

func (r *Reader) dump(typ uint16, body []byte) ([][]byte, error) {
	return r.route.ask(typ, unix.NLM_F_DUMP, body)
}

// sizeofTcMsg: struct tcmsg: family, padding, interface, handle, parent, info.
const sizeofTcMsg = 20

// disciplines are the interfaces that have clsact or ingress, where filters are.
func (r *Reader) disciplines() (map[uint32]bool, error) {
	messages, err := r.dump(unix.RTM_GETQDISC, make([]byte, sizeofTcMsg))
	out := map[uint32]bool{}
	for _, m := range messages {
		if len(m) < sizeofTcMsg {
			continue
		}
		attributes(m[sizeofTcMsg:], func(d *netlink.AttributeDecoder) {
			if d.Type() == unix.TCA_KIND && (d.String() == "clsact" || d.String() == "ingress") {
				out[binary.NativeEndian.Uint32(m[4:])] = true
			}
		})
	}
	return out, err
}

// Parents of filters (linux/pkt_sched.h), which ingress and clsact both know.
const (
	parentIngress = 0xfffffff2
	parentEgress  = 0xfffffff3
)

// filters of one interface.
func (r *Reader) filters(l link, out *conflict.Programs) error {
	for _, side := range [...]struct {
		parent uint32
		hook   string
	}{{parentIngress, "tc ingress"}, {parentEgress, "tc egress"}} {
		body := make([]byte, sizeofTcMsg)
		binary.NativeEndian.PutUint32(body[4:], l.index)
		binary.NativeEndian.PutUint32(body[12:], side.parent)
		messages, err := r.dump(unix.RTM_GETTFILTER, body)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) {
			continue // it went, or has no such side
		}
		if err != nil {
			return err
		}
		for _, m := range messages {
			if name, is := filterName(m); is {
				out.Programs = append(out.Programs, conflict.Program{Device: l.Device, Hook: side.hook, Name: name})
			}
		}
	}
	return nil
}

// filterName of a filter that is a BPF program with actions of its own; the message
// that stands for its priority alone has no options.
func filterName(message []byte) (name string, is bool) {
	const bpfName = 7 // TCA_BPF_NAME
	if len(message) < sizeofTcMsg {
		return "", false
	}
	kind, options := "", []byte(nil)
	attributes(message[sizeofTcMsg:], func(d *netlink.AttributeDecoder) {
		switch d.Type() {
		case unix.TCA_KIND:
			kind = d.String()
		case unix.TCA_OPTIONS:
			options = d.Bytes()
		}
	})
	if kind != "bpf" || options == nil {
		return "", false
	}
	attributes(options, func(d *netlink.AttributeDecoder) {
		if d.Type() == bpfName {
			name = withoutID(d.String())
		}
	})
	return name, true
}

// withoutID takes the program's id off the name that libbpf makes:
// cali_tc_preambl:[42]. Old Ciliums' bpf_host.o:[to-netdev] stay as they are.
func withoutID(name string) string {
	if i := strings.LastIndex(name, ":["); i >= 0 && strings.Trim(name[i:], ":[0123456789]") == "" {
		return name[:i]
	}
	return name
}

// bpfProgQuery is the part of union bpf_attr that BPF_PROG_QUERY reads.
type bpfProgQuery struct {
	target, attachType, queryFlags, attachFlags uint32
	ids                                         uint64
	count, _                                    uint32
	_                                           [4]uint64
}

// attached counts programs that have links of their own. They show no names without
// CAP_SYS_ADMIN.
func attached(l link, out *conflict.Programs) {
	const progQuery = 16
	types := []struct {
		typ  uint32
		hook string
	}{{46, "tcx ingress"}, {47, "tcx egress"}}
	if l.Kind == "netkit" {
		types = append(types, types[0], types[1])
		types[2].typ, types[2].hook, types[3].typ, types[3].hook = 54, "netkit", 55, "netkit peer"
	}
	for _, t := range types {
		if out.Unasked != "" {
			return
		}
		q := bpfProgQuery{target: l.index, attachType: t.typ}
		_, _, errno := unix.Syscall(unix.SYS_BPF, progQuery, uintptr(unsafe.Pointer(&q)), unsafe.Sizeof(q))
		switch {
		case errno == unix.EPERM || errno == unix.ENOSYS || errno == unix.EACCES:
			out.Unasked = errno.Error()
		case errno == 0:
			for range q.count {
				out.Programs = append(out.Programs, conflict.Program{Device: l.Device, Hook: t.hook, Unnamed: true})
			}
		} // EINVAL: a kernel before tcx has none
	}
}
