package snapshot

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/conflict"
	"github.com/unmasq/unmasq/internal/ruleset"
)

// finishPrograms when all rules are known.
func (b *builder) finishPrograms() {
	var rules conflict.Rules
	for _, t := range b.host.Rules.Tables {
		c := t.Chain("CILIUM_POST_nat")
		rules.CiliumMasquerades = rules.CiliumMasquerades || c != nil &&
			slices.ContainsFunc(c.Rules, func(r ruleset.Rule) bool { return r.Comment == conflict.CiliumMasquerade })
	}
	for _, f := range b.programs {
		all, bypass := programs(f.content, &rules)
		for _, why := range all {
			b.note(f.name, 0, "", why)
		}
		b.host.Bypass = cmp.Or(b.host.Bypass, bypass)
	}
}

// programs at interfaces may drop or translate packets past all tables. What is said
// of them is what an agent reports of its node.
func programs(content []byte, rules *conflict.Rules) (why []string, bypass string) {
	p, ok := readPrograms(content)
	if !ok || len(p.Programs) == 0 {
		// tc has a kind for each filter, bpftool an id for each program.
		text := string(content)
		if strings.Contains(text, `"kind"`) || strings.Contains(text, `"id"`) || strings.Contains(text, `"prog_id"`) {
			why = append(why, "programs and filters at interfaces (tc, XDP) may drop or translate packets past all tables; they aren't followed")
		}
		return why, ""
	}
	path := conflict.PathOf(p, rules)
	if path.Past {
		why, bypass = append(why, path.Message), path.Message
	}
	for _, f := range path.Others {
		why = append(why, f.Message)
	}
	if !path.Past && len(path.Others) == 0 {
		why = append(why, "eBPF programs at interfaces aren't followed; they are of a component that leaves pods' packets to the tables where it doesn't replace kube-proxy, or masquerades by rules")
	}
	return why, bypass
}

// readPrograms of either dump:
//
//	bpftool -j net: [{"xdp":[{"devname":"eth0","ifindex":2,"mode":"driver","id":7}],
//	  "tc":[{"devname":"eth0","ifindex":2,"kind":"tcx/egress","name":"cil_to_netdev","prog_id":7}],"flow_dissector":[],…}]
//	tc, by interface: [{"dev":"eth0","hook":"egress","filters":[{"protocol":"all","pref":1,"kind":"bpf","chain":0},
//	  {"kind":"bpf","options":{"handle":"0x1","bpf_name":"cil_to_netdev-eth0","direct-action":true,…}}]}]
func readPrograms(content []byte) (p conflict.Programs, ok bool) {
	type attached struct {
		Device string `json:"devname"`
		Kind   string `json:"kind"`
		Name   string `json:"name"`
	}
	var all []struct {
		XDP, TC []attached
		Device  string `json:"dev"`
		Hook    string `json:"hook"`
		Filters []struct {
			Kind    string `json:"kind"`
			Options *struct {
				Name string `json:"bpf_name"`
			} `json:"options"`
		} `json:"filters"`
	}
	if json.Unmarshal(content, &all) != nil {
		return p, false
	}
	add := func(device, hook, name string, unnamed bool) {
		d := conflict.Device{Name: device}
		if strings.HasPrefix(device, "lxc") || strings.HasPrefix(device, "cali") || strings.HasPrefix(device, "veth") {
			d.Kind = "veth" // the dump doesn't say; what tools call pods' interfaces
		}
		p.Devices = append(p.Devices, d)
		p.Programs = append(p.Programs, conflict.Program{Device: d, Hook: hook, Name: name, Unnamed: unnamed})
	}
	for _, x := range all {
		for _, a := range x.XDP {
			add(a.Device, "XDP", a.Name, a.Name == "")
		}
		for _, a := range x.TC {
			add(a.Device, a.Kind, a.Name, false)
		}
		for _, f := range x.Filters {
			if f.Kind == "bpf" && f.Options != nil {
				add(x.Device, "tc "+x.Hook, f.Options.Name, false)
			}
		}
	}
	return p, true
}
