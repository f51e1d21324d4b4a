package snapshot

import (
	"strings"
	"testing"
)

func TestPrograms(t *testing.T) {
	for _, tt := range []struct {
		name, content string
		want          []string // parts of each line
	}{
		{"none", `[]`, nil},
		{"bpftool's empty lists", `[{"xdp":[],"tc":[],"flow_dissector":[],"netfilter":[]}]`, nil},
		{"qdiscs without filters", `[{"dev":"eth0","hook":"ingress","filters":[]}]`, nil},
		{"Cilium by bpftool", `[{"xdp":[{"devname":"eth0","ifindex":2,"mode":"driver","id":9}],"tc":[{"devname":"lxc1","ifindex":7,"kind":"tcx/ingress","name":"cil_from_container","prog_id":7},` +
			`{"devname":"eth0","ifindex":2,"kind":"tcx/egress","name":"cil_to_netdev","prog_id":8}]}]`, []string{"program cil_to_netdev at eth0 (tcx/egress)"}},
		{"Cilium by tc", `[{"dev":"eth0","hook":"egress","filters":[{"protocol":"all","pref":1,"kind":"bpf","chain":0},{"protocol":"all","pref":1,"kind":"bpf","chain":0,` +
			`"options":{"handle":"0x1","bpf_name":"cil_to_netdev-eth0","direct-action":true}}]}]`, []string{"program cil_to_netdev at eth0 (tc egress)"}},
		{"Cilium beside kube-proxy", `[{"tc":[{"devname":"lxc1","kind":"tcx/ingress","name":"cil_from_container","prog_id":7}]}]`, []string{"doesn't replace kube-proxy"}},
		{"others", `[{"tc":[{"devname":"eth0","kind":"clsact/ingress","name":"watch_packets","id":7}]}]`, []string{"program watch_packets at eth0 (clsact/ingress): it may observe"}},
		{"filters that are no programs", `[{"dev":"eth0","hook":"ingress","filters":[{"kind":"flower","options":{}}]}]`, []string{"may drop or translate"}},
		{"no JSON", `[{"kind":`, []string{"may drop or translate"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, _ := programs([]byte(tt.content), nil)
			if len(got) != len(tt.want) {
				t.Fatalf("%q, want %q", got, tt.want)
			}
			for i := range got {
				if !strings.Contains(got[i], tt.want[i]) {
					t.Errorf("%q, want %q", got[i], tt.want[i])
				}
			}
		})
	}
}

// Where Cilium masquerades by rules, pods' packets come to them.
func TestProgramsBesideRules(t *testing.T) {
	bpf := []byte(`[{"tc":[{"devname":"eth0","ifindex":2,"kind":"tcx/egress","name":"cil_to_netdev","prog_id":8}]}]`)
	for rule, want := range map[string]string{
		"-A CILIUM_POST_nat -s 10.244.2.0/24 -m comment --comment \"cilium masquerade non-cluster\" -j MASQUERADE\n": "or masquerades by rules",
		"": "past netfilter",
	} {
		h, err := FromFiles(map[string][]byte{FileBPF: bpf, "iptables-save.txt": []byte("*nat\n:POSTROUTING ACCEPT [0:0]\n:CILIUM_POST_nat - [0:0]\n" + rule + "COMMIT\n")})
		if err != nil || len(h.Notes) != 1 || !strings.Contains(h.Notes[0].Why, want) {
			t.Errorf("%q: %+v, %v; want %q", rule, h.Notes, err, want)
		}
	}
}
