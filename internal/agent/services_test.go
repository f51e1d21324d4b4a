package agent

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/cluster"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/policy"
)

func policyObject(t *testing.T, name, generation, rule string) cluster.Policy {
	t.Helper()
	text := `{"apiVersion":"unmasq.io/v1alpha1","kind":"SourcePolicy","metadata":{"name":"` + name + `"},"spec":{"rules":[` + rule + `]}}`
	return cluster.Policy{Name: name, Generation: int64(len(generation)), Source: policy.Source{Name: "sourcepolicies/" + name, Content: []byte(text), NoLines: true}}
}

// Services are asked for while a policy of this node needs them. Until they are known
// what was in force stays; where they can't be, the policy alone is refused.
func TestServicesAsAPolicyNeedsThem(t *testing.T) {
	n := netnstest.Test(t, "services")
	must(t, n.Do(func() error {
		f := &fakeCluster{changed: make(chan struct{})}
		a, err := New(Options{Cluster: f, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		defer a.closeTable()
		const plain = `{"name":"r","from":{"cidrs":["172.31.0.0/16"]},"action":"Keep"}`
		const named = `{"name":"r","from":{"cidrs":["172.30.0.0/16"]},"to":{"services":{"names":["shop/web"]}},"action":"Masquerade"}`
		step := func(what string, change func(*cluster.Input), asked bool, inForce string, refusal string) {
			t.Helper()
			in := large(0, 0)
			in.Policies = []cluster.Policy{policyObject(t, "other", "1", plain)}
			change(&in)
			f.view = cluster.Join(in)
			a.reloadCluster()
			var names []string
			for _, r := range a.cluster.want.Policy.Rules {
				names = append(names, r.ID()+" "+string(r.Action))
			}
			if got := strings.Join(names, ", "); got != inForce || f.services != asked {
				t.Errorf("%s: in force %s, want %s; services are asked for: %t, want %t", what, got, inForce, f.services, asked)
			}
			if got := errorText(a.cluster.answer.err()); !strings.Contains(got, refusal) || (got == "") != (refusal == "") {
				t.Errorf("%s: refused %q, want %q", what, got, refusal)
			}
		}
		use := func(in *cluster.Input) { in.Policies = append(in.Policies, policyObject(t, "shop", "22", named)) }
		known := func(in *cluster.Input) {
			use(in)
			in.ServicesKnown = true
			in.Services = []cluster.Service{{Namespace: "shop", Name: "web", ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.80")}, Ports: []policy.ServicePort{{Protocol: packet.TCP, Port: 80}}}}
		}
		const old, both = "other/r Keep", "other/r Keep, shop/r Masquerade"
		step("nobody needs them", func(*cluster.Input) {}, false, old, "")
		step("not needed here", func(in *cluster.Input) {
			p := policyObject(t, "shop", "1", named)
			p.Source.Content = []byte(strings.Replace(string(p.Source.Content), `"rules"`, `"nodeSelector":{"matchLabels":{"zone":"elsewhere"}},"rules"`, 1))
			in.Policies = append(in.Policies, p)
		}, false, old, "")
		step("needed, asked a moment ago", use, true, old, "")
		step("they can't be known", func(in *cluster.Input) { use(in); in.NoServices = "services is forbidden" }, true, old,
			"spec.rules[0].to.services: needs the cluster's Services, which aren't known: services is forbidden")
		step("known", known, true, both, "")
		if w := strings.Join(a.cluster.want.Warnings, "\n"); w != "" {
			t.Errorf("warnings: %s", w)
		}
		step("away for a moment", use, true, both, "")
		step("another needs what isn't stated", func(in *cluster.Input) {
			known(in)
			in.Policies = append(in.Policies, policyObject(t, "all", "1", strings.Replace(named, `"names":["shop/web"]`, "", 1)))
		}, true, both, "spec.rules[0].to.services: needs to know the networks of ClusterIPs")
		step("no longer needed", func(*cluster.Input) {}, false, old, "")
		return nil
	}))
}
