package conflict

import (
	"fmt"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/owner"
)

// Path says whether pods' packets pass netfilter, where unmasq decides.
type Path struct {
	// Past: they don't, all or some of them. Unclear: it can't be told.
	Past, Unclear bool
	Owner         string
	// Message says what was seen and what to do.
	Message string
	// Programs that nobody is known to attach: they may observe, drop or translate.
	Others []Finding
}

// component with an eBPF data path, by what it attaches and makes.
type component struct {
	owner    string
	programs []string // beginnings of names
	devices  []string // beginnings of names
	judge    func(seen, Programs, *Rules) (past, unclear bool)
	// past and ask are what to do where packets go past netfilter, or may.
	past, ask string
}

// seen is what of Programs is the component's.
type seen struct {
	programs []Program
	devices  []Device
}

var components = [...]component{
	{
		owner: owner.Cilium, programs: []string{"cil_", "bpf_lxc", "bpf_host", "bpf_netdev", "bpf_overlay", "bpf_network"},
		devices: []string{"cilium_"}, judge: cilium,
		past: "Cilium's kube-proxy replacement and eBPF masquerading forward and translate pods' packets past netfilter, so that no policy decides them: " +
			"set bpf.masquerade=false, bpf.hostLegacyRouting=true and no datapath mode netkit, or state the wish as Cilium's",
		ask: "whether Cilium translates in eBPF can't be told here: kubectl -n kube-system exec ds/cilium -- cilium-dbg status shows it under Host Routing and Masquerading. " +
			"Legacy and IPTables: policies decide. BPF: they don't",
	},
	{
		owner: owner.Calico, programs: []string{"cali_", "calico_"}, devices: []string{"bpfin.cali", "bpfout.cali", "bpfnatin", "bpfnatout"},
		judge: func(seen, Programs, *Rules) (bool, bool) { return true, false },
		past: "Calico's eBPF data path forwards pods' packets past netfilter, all but those that its natOutgoing marks, so that no policy decides them: " +
			"set linuxDataplane to Iptables or Nftables, or use Calico's own settings",
	},
}

// PathOf judges what is attached to a node's interfaces. Rules may be nil: not known.
func PathOf(p Programs, r *Rules) Path {
	var path Path
	known := map[Program]bool{}
	for i := range components {
		c := &components[i]
		s := c.sees(p)
		if len(s.programs) == 0 && len(s.devices) == 0 {
			continue
		}
		s.programs = append(s.programs, s.unnamed(p)...)
		for _, x := range s.programs {
			known[x] = true
		}
		past, unclear := c.judge(s, p, r)
		if path.Past || !past && !unclear {
			continue
		}
		path.Past, path.Unclear, path.Owner = past, unclear, c.owner
		path.Message = s.text() + ": " + c.past
		if unclear {
			path.Message = fmt.Sprintf("%s; programs attached by tcx can't be asked for (%s): %s", s.text(), p.Unasked, c.ask)
		}
	}
	path.Others = strangers(p, known)
	return path
}

func (c *component) sees(p Programs) (s seen) {
	for _, d := range p.Devices {
		if hasAnyPrefix(d.Name, c.devices) {
			s.devices = append(s.devices, d)
		}
	}
	for _, x := range p.Programs {
		if hasAnyPrefix(x.Name, c.programs) {
			s.programs = append(s.programs, x)
		}
	}
	return s
}

// unnamed programs are taken for the component's that is there: of XDP nobody sees
// names; by tcx it attaches all of its programs or none.
func (s seen) unnamed(p Programs) (out []Program) {
	for _, x := range p.Programs {
		if x.Unnamed && (x.Hook == "XDP" || len(s.programs) == 0) {
			out = append(out, x)
		}
	}
	return out
}

func hasAnyPrefix(s string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(s, p) })
}

// cilium: with netkit devices it routes in eBPF. While it masquerades by rules it
// doesn't: its eBPF host routing needs eBPF masquerading. Else the programs at the
// node's own interfaces tell: they are those of the kube-proxy replacement, without
// which pods' packets are routed by the kernel. Where tc shows its programs at pods,
// or tcx can be asked, their absence is known.
func cilium(s seen, p Programs, r *Rules) (past, unclear bool) {
	netkit := slices.ContainsFunc(p.Devices, func(d Device) bool { return d.Kind == "netkit" })
	shown := slices.ContainsFunc(s.programs, func(x Program) bool { return !x.Unnamed })
	switch {
	case netkit:
		return true, false
	case r != nil && r.CiliumMasquerades:
		return false, false
	case slices.ContainsFunc(s.programs, atUplink):
		return true, false
	}
	return false, !shown && p.Unasked != ""
}

// atUplink: Cilium's program for what leaves the node (cil_to_netdev), or one without
// a name where that would be.
func atUplink(x Program) bool {
	if strings.HasPrefix(x.Device.Name, "cilium_") || x.Device.Name == "lo" {
		return false
	}
	return x.Unnamed && strings.HasSuffix(x.Hook, "egress") && !x.Device.ofPod() ||
		strings.Contains(x.Name, "to_netdev") || strings.Contains(x.Name, "to-netdev")
}

// ofPod says whether a pod hangs on the interface. The node's own is a veth where it
// is a container itself; then it has an interface's usual name.
func (d Device) ofPod() bool {
	return d.Kind == "netkit" || d.Kind == "veth" && !strings.HasPrefix(d.Name, "eth")
}

// strangers are the programs that no component is known by.
func strangers(p Programs, known map[Program]bool) (out []Finding) {
	var rest []Program
	for _, x := range p.Programs {
		if !known[x] {
			rest = append(rest, x)
		}
	}
	for _, text := range grouped(rest) {
		out = append(out, Finding{Reason: Unknown, Owner: owner.Unknown, Maybe: true, Message: text +
			": it may observe, drop, or translate packets past all rules; bpftool net shows whose it is"})
	}
	return out
}

// text of what was seen: devices, then programs.
func (s seen) text() string {
	var names []string
	for _, d := range s.devices {
		names = append(names, d.Name)
	}
	slices.Sort(names)
	var all []string
	if len(names) > 0 {
		all = append(all, "interfaces "+several(names))
	}
	return strings.Join(append(all, grouped(s.programs)...), "; ")
}

// grouped says for each name where such programs are. Pods' interfaces come and go:
// they have no names here, so that the text stays the same.
func grouped(programs []Program) []string {
	where := map[string][]string{}
	for _, x := range programs {
		name := "program " + strings.TrimSuffix(x.Name, "-"+x.Device.Name)
		switch {
		case x.Unnamed:
			name = "a program without a visible name"
		case x.Name == "":
			name = "a program without a name"
		}
		at := x.Device.Name
		if x.Device.ofPod() {
			at = x.Device.Kind + " interfaces"
		}
		where[name] = append(where[name], at+" ("+x.Hook+")")
	}
	var out []string
	for name, at := range where {
		slices.Sort(at)
		out = append(out, name+" at "+several(slices.Compact(at)))
	}
	slices.Sort(out)
	return out
}

// several names the first of many.
func several(all []string) string {
	const most = 4
	if len(all) <= most {
		return strings.Join(all, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:most], ", "), len(all)-most)
}
