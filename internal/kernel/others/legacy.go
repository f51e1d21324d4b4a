package others

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/conflict"
)

// legacyTables is ip_tables or ip6_tables: the kernel gives a table's rules to whoever
// has CAP_NET_ADMIN, over a socket of any type. Only tables that are there are asked
// for: a question makes the others.
type legacyTables struct {
	family         byte
	names          string // file with the tables' names
	domain, level  int
	address        int // of an address in bytes
	fixed          int // bytes of struct ipt_entry, ip6t_entry
	protocol, flag int // offsets: protocol, and inversions
	target         int // offset of target_offset, behind which stands next_offset
}

var legacyFamilies = [...]legacyTables{
	{family: unix.NFPROTO_IPV4, names: "ip_tables_names", domain: unix.AF_INET, level: unix.SOL_IP, address: 4, fixed: 112, protocol: 80, flag: 83, target: 88},
	{family: unix.NFPROTO_IPV6, names: "ip6_tables_names", domain: unix.AF_INET6, level: unix.SOL_IPV6, address: 16, fixed: 168, protocol: 128, flag: 132, target: 140},
}

// legacy rules that take tracking away; and whether Cilium masquerades by others,
// which is asked where Cilium is: that table is a large one.
func (r *Reader) legacy(out *conflict.Rules) error {
	for i := range legacyFamilies {
		f := &legacyFamilies[i]
		text, err := os.ReadFile("/proc/thread-self/net/" + f.names)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue // the kernel has none, or it's not for this process to know
		}
		if err != nil {
			return err
		}
		names := strings.Fields(string(text))
		if slices.Contains(names, "raw") {
			blob, first, err := f.entries("raw")
			if err != nil {
				return fmt.Errorf("read table raw of iptables-legacy: %w", err)
			}
			w := legacyWalk{legacyTables: f, blob: blob, out: out}
			w.chain("PREROUTING", first, match{source: anyOf(f.family)}, 0)
		}
		if r.cilium && slices.Contains(names, "nat") {
			blob, _, err := f.entries("nat")
			if err != nil {
				return fmt.Errorf("read table nat of iptables-legacy: %w", err)
			}
			out.CiliumMasquerades = out.CiliumMasquerades || bytes.Contains(blob, []byte(conflict.CiliumMasquerade))
		}
	}
	return nil
}

// Options (linux/netfilter_ipv4/ip_tables.h), the same of both families.
const (
	getInfo    = 64
	getEntries = 65
	tableName  = 32 // bytes, the first of each struct
	sizeofInfo = 84
	// offsets in struct ipt_getinfo
	infoPrerouting = 36
	infoSize       = 80
	// offset of the entries in struct ipt_get_entries, and of their size
	entriesSize, entriesBegin = 32, 40
)

// entries of a table, and where those of prerouting begin.
func (f *legacyTables) entries(table string) (blob []byte, prerouting int, err error) {
	fd, err := unix.Socket(f.domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, 0, err
	}
	defer unix.Close(fd)
	for range 3 { // the table may change between the two questions
		info := make([]byte, sizeofInfo)
		copy(info[:tableName], table)
		if err = getsockopt(fd, f.level, getInfo, info); err != nil {
			return nil, 0, err
		}
		size := binary.NativeEndian.Uint32(info[infoSize:])
		blob = make([]byte, entriesBegin+int(size))
		copy(blob[:tableName], table)
		binary.NativeEndian.PutUint32(blob[entriesSize:], size)
		if err = getsockopt(fd, f.level, getEntries, blob); !errors.Is(err, unix.EAGAIN) {
			return blob[entriesBegin:], int(binary.NativeEndian.Uint32(info[infoPrerouting:])), err
		}
	}
	return nil, 0, err
}

func getsockopt(fd, level, name int, b []byte) error {
	size := uint32(len(b))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// legacyWalk goes through a table's entries.
type legacyWalk struct {
	*legacyTables
	blob   []byte
	chains int
	rules  int
	out    *conflict.Rules
}

// legacyHeader of a match and of a target: size, name, revision.
const legacyHeader = 32

// chain from the entry at an offset, under what was asked on the way there.
func (w *legacyWalk) chain(name string, at int, asked match, depth int) {
	if w.chains++; w.chains > mostChains || depth > mostChains {
		w.out.Cut = true
		return
	}
	var taken []netip.Prefix // from the rules to come
	for {
		if w.rules++; w.rules > mostRules {
			w.out.Cut = true
			return
		}
		e, next, ok := w.entry(at)
		if !ok {
			return
		}
		x, target, verdict := w.rule(e, asked)
		if x.effect != "" {
			w.out.Rules = append(w.out.Rules, conflict.Rule{Legacy: true, Family: familyName(w.family), Table: "raw", Chain: name, Comment: x.comment,
				Hook: "prerouting", Priority: -300, Effect: x.effect, Source: x.source, Destination: x.destination, Protocol: x.protocol, Port: x.port, More: x.more, Except: taken})
		}
		switch {
		case target == "ERROR", target == "" && verdict < 0 && x.match == asked:
			return // the end of the chain
		case target == "" && verdict >= 0 && int(verdict) != at+next:
			w.chain(w.nameOf(int(verdict)), int(verdict), x.match, depth+1)
		}
		if x.ends = target == "" && verdict < 0; x.takes() {
			taken = append(slices.Clip(taken), x.source)
		}
		at += next
	}
}

// entry at an offset, and how far it is to the next one.
func (w *legacyWalk) entry(at int) (e []byte, next int, ok bool) {
	if at < 0 || at+w.fixed+legacyHeader > len(w.blob) {
		return nil, 0, false
	}
	next = int(binary.NativeEndian.Uint16(w.blob[at+w.target+2:]))
	target := int(binary.NativeEndian.Uint16(w.blob[at+w.target:]))
	if target < w.fixed || next < target+legacyHeader || at+next > len(w.blob) {
		return nil, 0, false
	}
	return w.blob[at : at+next], next, true
}

// rule of an entry, its target's name, and the verdict of the one without a name: a
// place to jump to, or less than 0.
func (w *legacyWalk) rule(e []byte, asked match) (x rule, target string, verdict int32) {
	x.match = asked
	address := func(i int) []byte { return e[i*w.address : (i+1)*w.address] }
	x.source = w.prefix(x.source, address(0), address(2), &x.more)
	x.destination = w.prefix(x.destination, address(1), address(3), &x.more)
	interfaces := e[4*w.address+2*unix.IFNAMSIZ : 4*w.address+4*unix.IFNAMSIZ]
	x.more = x.more || e[w.flag] != 0 || bytes.ContainsFunc(interfaces, func(r rune) bool { return r != 0 })
	if p := binary.NativeEndian.Uint16(e[w.protocol:]); p != 0 {
		x.protocol = uint8(p)
	}
	end := int(binary.NativeEndian.Uint16(e[w.target:]))
	for at := w.fixed; at+legacyHeader <= end; {
		size := int(binary.NativeEndian.Uint16(e[at:]))
		if size < legacyHeader || at+size > end {
			x.more = true
			break
		}
		x.xtMatch(extensionName(e[at:]), e[at+legacyHeader:at+size])
		at += size
	}
	target, info := extensionName(e[end:]), e[end+legacyHeader:]
	if target == "" && len(info) >= 4 {
		return x, target, int32(binary.NativeEndian.Uint32(info))
	}
	x.xtTarget(target, info)
	return x, target, -1
}

func extensionName(header []byte) string {
	name, _, _ := bytes.Cut(header[2:legacyHeader-1], []byte{0})
	return string(name)
}

// prefix narrows what was asked before by an address and its mask.
func (w *legacyWalk) prefix(before netip.Prefix, address, mask []byte, more *bool) netip.Prefix {
	ones := maskBits(mask)
	switch {
	case !slices.ContainsFunc(mask, func(b byte) bool { return b != 0 }):
		return before
	case ones < 0:
		*more = true
		return before
	}
	return narrow(before, address, load{bits: ones, size: w.address})
}

// nameOf a chain: the entry before its first one is its head.
func (w *legacyWalk) nameOf(first int) string {
	for at := 0; at < first; {
		e, next, ok := w.entry(at)
		if !ok {
			break
		}
		if end := int(binary.NativeEndian.Uint16(e[w.target:])); at+next == first && extensionName(e[end:]) == "ERROR" {
			name, _, _ := bytes.Cut(e[end+legacyHeader:], []byte{0})
			return string(name)
		}
		at += next
	}
	return "?"
}
