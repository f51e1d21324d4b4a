package conflict_test

import (
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/conflict"
)

// node is what stands at its interfaces: "DEVICE[/KIND]", or that with
// "@HOOK[=NAME]"; a program without a name can't be seen better.
func node(unasked string, all ...string) conflict.Programs {
	p := conflict.Programs{Unasked: unasked}
	for _, text := range all {
		device, program, is := strings.Cut(text, "@")
		name, kind, _ := strings.Cut(device, "/")
		d := conflict.Device{Name: name, Kind: kind}
		p.Devices = append(p.Devices, d)
		if is {
			hook, name, named := strings.Cut(program, "=")
			p.Programs = append(p.Programs, conflict.Program{Device: d, Hook: hook, Name: name, Unnamed: !named})
		}
	}
	return p
}

func TestPathOf(t *testing.T) {
	const eperm = "operation not permitted"
	byRules := &conflict.Rules{CiliumMasquerades: true}
	tc := []string{"lxc1/veth@tc ingress=cil_from_container-lxc1", "lxc2/veth@tc ingress=cil_from_container-lxc2", "cilium_host/veth@tc ingress=cil_to_host-cilium_host"}
	for _, tt := range []struct {
		name     string
		programs conflict.Programs
		rules    *conflict.Rules
		want     string // path, then owner; then the others' number
		says     []string
	}{
		{"nothing", node("", "eth0", "cni0/bridge", "veth1/veth"), nil, "netfilter  0", nil},
		{"nothing, in a container", node(eperm, "eth0"), nil, "netfilter  0", nil},
		{"Cilium in place of kube-proxy", node("", append(tc, "eth0@tc egress=cil_to_netdev-eth0")...), nil, "past cilium 0",
			[]string{"cilium_host", "program cil_to_netdev at eth0 (tc egress)", "program cil_from_container at veth interfaces (tc ingress)", "bpf.masquerade=false"}},
		{"in kind", node("", append(tc, "eth0/veth@tc egress=cil_to_netdev-eth0")...), nil, "past cilium 0", []string{"cil_to_netdev at eth0 (tc egress)"}},
		{"in kind by tcx", node("", "cilium_host/veth", "lxc1/veth@tcx egress", "eth0/veth@tcx egress"), nil, "past cilium 0", nil},
		{"an old one", node("", "eth0@tc egress=bpf_netdev_eth0.o:[to-netdev]"), nil, "past cilium 0", []string{"bpf_netdev_eth0.o:[to-netdev] at eth0"}},
		{"Cilium by tcx, in a container", node(eperm, "cilium_host/veth", "cilium_net/veth", "lxc1/veth", "eth0"), nil, "unclear cilium 0", []string{eperm, "cilium-dbg status"}},
		{"Cilium by tcx, asked", node("", "cilium_host/veth", "lxc1/veth@tcx ingress", "eth0@tcx egress"), nil, "past cilium 0", []string{"a program without a visible name at eth0 (tcx egress)"}},
		{"Cilium by tcx, beside kube-proxy", node("", "cilium_host/veth", "lxc1/veth@tcx ingress", "eth0"), nil, "netfilter  0", nil},
		{"Cilium with netkit", node(eperm, "cilium_host/veth", "lxc1/netkit", "eth0"), byRules, "past cilium 0", nil},
		{"Cilium masquerading by rules", node(eperm, append(tc, "eth0@tc egress=cil_to_netdev-eth0")...), byRules, "netfilter  0", nil},
		{"Cilium beside kube-proxy", node(eperm, append(tc, "eth0")...), nil, "netfilter  0", nil},
		{"Cilium with IPsec alone", node(eperm, append(tc, "eth0@tc ingress=cil_from_netdev-eth0")...), nil, "netfilter  0", nil},
		{"Cilium and an observer by tcx", node("", append(tc, "eth0@tcx egress")...), nil, "netfilter  1", nil},
		{"Calico", node(eperm, "cali1/veth@tc ingress=cali_tc_preambl", "eth0@tc egress=calico_to_host_ep"), nil, "past calico 0", []string{"linuxDataplane", "program cali_tc_preambl at veth interfaces"}},
		{"Calico by tcx, in a container", node(eperm, "bpfin.cali/veth", "bpfout.cali/veth", "cali1/veth"), nil, "past calico 0", []string{"bpfin.cali, bpfout.cali"}},
		{"Calico with rules", node(eperm, "cali1/veth", "vxlan.calico/vxlan"), nil, "netfilter  0", nil},
		{"an observer", node("", "eth0@tc ingress=watch_packets", "eni1/veth@tc ingress=watch_packets", "eth1@XDP"), nil, "netfilter  2", nil},
		{"a program of classic BPF", node("", "eth0@tc ingress="), nil, "netfilter  1", nil},
		{"netkit alone", node(eperm, "pod1/netkit"), nil, "netfilter  0", nil},
		{"an observer beside Cilium", node("", append(tc, "eth0@tc egress=cil_to_netdev-eth0", "eth0@tc ingress=watch_packets")...), nil, "past cilium 1", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := conflict.PathOf(tt.programs, tt.rules)
			got := "netfilter"
			switch {
			case p.Past && !p.Unclear:
				got = "past"
			case p.Unclear && !p.Past:
				got = "unclear"
			}
			got += " " + p.Owner + " " + string(rune('0'+len(p.Others)))
			if got != tt.want {
				t.Errorf("%q, want %q\n%s\n%v", got, tt.want, p.Message, p.Others)
			}
			for _, s := range tt.says {
				if !strings.Contains(p.Message, s) {
					t.Errorf("%q isn't said in %q", s, p.Message)
				}
			}
			if len(p.Message) > 1024 {
				t.Errorf("a message of %d bytes", len(p.Message))
			}
			for _, f := range p.Others {
				if !f.Maybe || f.Reason != conflict.Unknown || !strings.Contains(f.Message, "at eth") {
					t.Errorf("%+v", f)
				}
			}
		})
	}
}

// Pods' interfaces come and go: what is said stays the same.
func TestPathOfIsSteady(t *testing.T) {
	text := func(pods ...string) string {
		all := []string{"eth0@tc egress=cil_to_netdev-eth0"}
		for _, p := range pods {
			all = append(all, p+"/veth@tc ingress=cil_from_container-"+p, p+"/veth@tcx ingress")
		}
		p := conflict.PathOf(node("", all...), nil)
		for _, f := range p.Others {
			p.Message += "\n" + f.Message
		}
		return p.Message
	}
	if a, b := text("lxc1", "lxc2"), text("lxc7", "lxc3", "lxc5"); a != b {
		t.Errorf("%s\nand\n%s", a, b)
	}
}
