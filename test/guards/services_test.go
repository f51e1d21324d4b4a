package guards_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/plan"
	"github.com/unmasq/unmasq/internal/policy"
	"github.com/unmasq/unmasq/internal/policy/policytest"
	"github.com/unmasq/unmasq/internal/rig"
)

// serviceWorld is kube-proxy's service, whose one backend is web or a pod of another
// node, with kube-proxy marking what comes from outside of the cluster or not: it
// does where it is told the cluster's CIDR.
type serviceWorld struct {
	rulesOf
	variant        foreign.Variant
	family         packet.Family
	remote, marked bool
}

// elsewhere and elsewhere6 are a pod of another node.
var elsewhere, elsewhere6 = addr("10.244.2.7"), addr("fd00:10:244:2::7")

func serviceWorlds() (out []serviceWorld) {
	for _, c := range []rulesOf{
		{"kube-proxy iptables", kubeService, false},
		{"kube-proxy nftables 1.35", kubeNFTables135, true}, {"kube-proxy nftables 1.36", kubeNFTables136, true},
	} {
		for _, v := range c.variants() {
			for _, f := range packet.Families {
				for _, remote := range []bool{false, true} {
					out = append(out, serviceWorld{c, v, f, remote, false}, serviceWorld{c, v, f, remote, true})
				}
			}
		}
	}
	return out
}

func (w serviceWorld) String() string {
	return fmt.Sprintf("%s %s %s remote=%t marked=%t", w.name, w.variant, w.family, w.remote, w.marked)
}

// build loads kube-proxy's rules, and of its iptables mode those for a node port.
func (w serviceWorld) build(t *testing.T, r *rig.Rig) {
	t.Helper()
	texts := []string{w.rules}
	if !w.native {
		kubeMasquerade(w.variant, w.family)(t, r)
		texts = append(texts, kubeNodePort)
	}
	for _, text := range texts {
		var lines []string
		for line := range strings.Lines(text) {
			if marks := strings.Contains(line, "! -s 10.244.0.0/16") || strings.Contains(line, "ip saddr != 10.244.0.0/16"); w.marked || !marks {
				lines = append(lines, line)
			}
		}
		text = inFamily(strings.Join(lines, ""), w.family)
		if w.remote {
			text = strings.NewReplacer("10.244.1.7", "10.244.2.7", "fd00:10:244:1::7", "fd00:10:244:2::7", "fd00.10.244.1..7", "fd00.10.244.2..7").Replace(text)
		}
		loadText(t, r, text, w.variant, w.family)
	}
}

func (w serviceWorld) backend() netip.Addr {
	if w.remote {
		return choose(w.family, elsewhere, elsewhere6)
	}
	return choose(w.family, web, web6)
}

// shop is the service as a cluster says it is.
func shop() policy.Service {
	return policy.Service{Namespace: "default", Name: "web", ClusterIPs: policytest.Addrs("10.96.83.77", "fd00:96::8a5"),
		Ports: []policy.ServicePort{{Protocol: packet.TCP, Port: 80, NodePort: 8080}}}
}

func serviceFacts() *policy.Facts {
	f := facts()
	f.ServiceCIDRs = policytest.Prefixes("10.96.0.0/12", "fd00:96::/112")
	f.Services = []policy.Service{shop()}
	return f
}

func serviceRule(action policy.Action, override bool, s policy.Services) policy.Rule {
	return policy.Rule{Document: "guards", Name: "services", Number: 1, From: policy.From{Forwarded: true}, To: policy.To{Services: &s}, Action: action, OverrideServiceMasquerade: override}
}

// TestServicePolicies: beside kube-proxy's own rules, of both modes, a policy for
// services decides by what a client connected to and by where the backend is.
func TestServicePolicies(t *testing.T) {
	connections := 0
	for _, w := range serviceWorlds() {
		t.Run(w.String(), func(t *testing.T) {
			r := rig.New(t)
			w.build(t, r)
			table := openTable(t, r)
			for _, c := range w.cases() {
				connections++
				facts := serviceFacts()
				sync(t, table, plan.Compile(&policy.Policy{Rules: []policy.Rule{c.rule}}, facts, plan.Options{}))
				r.Forget(t)
				seen, err := r.Send(c.flow)
				if err != nil {
					t.Fatalf("%s: %v", c.name, err)
				}
				hidden := seen.Source != c.flow.Source
				if hidden != c.hidden || seen.Destination != w.backend() && c.flow.Destination != w.backend() {
					t.Errorf("%s: %s came to %s as %s; want hidden: %t", c.name, c.flow.Source, seen.Destination, seen.Source, c.hidden)
				}
				leaves := c.flow
				leaves.OriginalDestination, leaves.OriginalPort, leaves.Destination, leaves.DestinationPort = c.flow.Destination, c.flow.DestinationPort, w.backend(), 80
				if c.marked {
					leaves.Mark = serviceBit
				}
				if d := policy.Decide(&policy.Policy{Rules: []policy.Rule{c.rule}}, facts, leaves); c.hidden != (d.Action == policy.Masquerade || d.Guard == policy.GuardServiceMark) {
					t.Errorf("%s: Decide says %+v", c.name, d)
				}
			}
		})
	}
	t.Logf("checked: %d connections to services of kube-proxy", connections)
}

// serviceCase is one client's first packet under one rule.
type serviceCase struct {
	name   string
	rule   policy.Rule
	flow   packet.Flow
	marked bool // by kube-proxy
	hidden bool
}

func (w serviceWorld) cases() []serviceCase {
	client := toService(choose(w.family, vpn, vpn6))
	remote := policy.Services{Backends: policy.RemoteBackends}
	local := policy.Services{Backends: policy.LocalBackends}
	named := policy.Services{Names: []string{"default/web"}}
	gone := policy.Services{Names: []string{"default/gone"}}
	out := []serviceCase{
		{"nobody speaks of it", serviceRule(policy.Keep, true, gone), client, w.marked, w.marked},
		{"remote backends masqueraded", serviceRule(policy.Masquerade, false, remote), client, w.marked, w.marked || w.remote},
		{"local backends kept", serviceRule(policy.Keep, true, local), client, w.marked, w.marked && w.remote},
		{"kept, but marks are kube-proxy's", serviceRule(policy.Keep, false, named), client, w.marked, w.marked},
		{"kept by name", serviceRule(policy.Keep, true, named), client, w.marked, false},
		{"masqueraded by name", serviceRule(policy.Masquerade, true, named), client, w.marked, true},
	}
	if !w.native {
		nodePort := toPublished(choose(w.family, vpn, vpn6))
		via := func(v policy.Via, b policy.Backends) policy.Services { return policy.Services{Via: v, Backends: b} }
		out = append(out,
			serviceCase{"node port, ClusterIPs kept", serviceRule(policy.Keep, true, via(policy.ViaClusterIP, "")), nodePort, true, true},
			serviceCase{"node port kept", serviceRule(policy.Keep, true, via(policy.ViaNodePort, "")), nodePort, true, false},
			serviceCase{"node port kept where local", serviceRule(policy.Keep, true, via(policy.ViaNodePort, policy.LocalBackends)), nodePort, true, w.remote},
			serviceCase{"ClusterIP, node ports kept", serviceRule(policy.Keep, true, via(policy.ViaNodePort, "")), client, w.marked, w.marked})
	}
	return out
}
