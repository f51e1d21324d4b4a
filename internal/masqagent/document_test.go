package masqagent_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unmasq/unmasq/internal/masqagent"
	"github.com/unmasq/unmasq/internal/policy"
)

func parse(t *testing.T, s masqagent.Settings, text string) masqagent.Config {
	t.Helper()
	var files []masqagent.File
	if text != "" {
		files = []masqagent.File{{Name: "ip-masq-agent", Data: []byte(text)}}
	}
	c, _, err := masqagent.Parse(files, s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// rules of a document as status prints them, once internal/policy has read it.
func rules(t *testing.T, c masqagent.Config) (out []string) {
	t.Helper()
	d := c.Document()
	source, err := d.Source("/etc/config")
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := policy.Load([]policy.Source{source}, policy.Options{})
	if err != nil {
		t.Fatalf("%v\n%s", err, source.Content)
	}
	for i := range loaded.Policy.Rules {
		r := &loaded.Policy.Rules[i]
		from, to := policy.Describe(r)
		line := r.ID() + ": from " + from + " to " + to + ": " + string(r.Action)
		if r.FullyRandom {
			line += " fully random"
		}
		if r.Ports.Last != 0 {
			line += " ports"
		}
		out = append(out, line)
	}
	return out
}

// TestDocument is what configurations come to.
func TestDocument(t *testing.T) {
	for _, tt := range []struct {
		name     string
		settings masqagent.Settings
		text     string
		want     []string
	}{
		{"no file", masqagent.Settings{Dialect: masqagent.Kubernetes, RandomFully: true}, "", []string{
			"ip-masq-agent/link-local: from this node + 0.0.0.0/0 to 169.254.0.0/16: Leave",
			"ip-masq-agent/listed-kept: from pods to 10.0.0.0/8 and 2 more: Keep",
			"ip-masq-agent/listed: from this node + 0.0.0.0/0 to 10.0.0.0/8 and 2 more: Leave",
			"ip-masq-agent/pods: from pods to 0.0.0.0/0: Masquerade fully random",
			"ip-masq-agent/to-pods: from this node + 0.0.0.0/0 to pods: Leave",
			"ip-masq-agent/masquerade: from this node + 0.0.0.0/0 to 0.0.0.0/0: Masquerade fully random",
		}},
		{"everything is masqueraded, inbound too", masqagent.Settings{Dialect: masqagent.Azure, Inbound: true, Chain: "MY_MASQ"}, "nonMasqueradeCIDRs: []\nmasqLinkLocal: true", []string{
			"my-masq/masquerade: from this node + 0.0.0.0/0 to 0.0.0.0/0: Masquerade",
		}},
		{"both families", masqagent.Settings{Dialect: masqagent.Kubernetes, EnableIPv6: true, Inbound: true, Ports: policy.PortRange{First: 1024, Last: 2047}},
			"nonMasqueradeCIDRs: [10.0.0.0/8, fc00::/7, 10.0.0.0/8]", []string{
				"ip-masq-agent/link-local: from this node + 2 CIDRs to 169.254.0.0/16 and fe80::/10: Leave",
				"ip-masq-agent/listed-kept: from pods to 10.0.0.0/8 and fc00::/7: Keep",
				"ip-masq-agent/listed: from this node + 2 CIDRs to 10.0.0.0/8 and fc00::/7: Leave",
				"ip-masq-agent/masquerade: from this node + 2 CIDRs to 0.0.0.0/0 and ::/0: Masquerade ports",
			}},
		{"eleven ranges", masqagent.Settings{Dialect: masqagent.Kubernetes, AllReserved: true, Inbound: true}, "", []string{
			"ip-masq-agent/link-local: from this node + 0.0.0.0/0 to 169.254.0.0/16: Leave",
			"ip-masq-agent/listed-kept: from pods to 10.0.0.0/8 and 10 more: Keep",
			"ip-masq-agent/listed: from this node + 0.0.0.0/0 to 10.0.0.0/8 and 10 more: Leave",
			"ip-masq-agent/masquerade: from this node + 0.0.0.0/0 to 0.0.0.0/0: Masquerade",
		}},
		{"IPv6's link-local too", masqagent.Settings{Dialect: masqagent.Kubernetes, EnableIPv6: true, Inbound: true}, "nonMasqueradeCIDRs:\nmasqLinkLocalIPv6: true", []string{
			"ip-masq-agent/link-local: from this node + 2 CIDRs to 169.254.0.0/16: Leave",
			"ip-masq-agent/masquerade: from this node + 2 CIDRs to 0.0.0.0/0 and ::/0: Masquerade",
		}},
		{"Cilium's pods alone", masqagent.Settings{Dialect: masqagent.Cilium}, "nonMasqueradeCIDRs: [2.2.2.2/16, fc00::/7]", []string{
			"ip-masq-agent/link-local: from pods to 169.254.0.0/16: Leave",
			"ip-masq-agent/listed-kept: from pods to 2.2.0.0/16: Keep",
			"ip-masq-agent/pods: from pods to 0.0.0.0/0: Masquerade",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, rules(t, parse(t, tt.settings, tt.text))); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestNotes: each part of a document says where it comes from.
func TestNotes(t *testing.T) {
	d := parseDocument(t, masqagent.Settings{Dialect: masqagent.Kubernetes, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}}, "nonMasqueradeCIDRs:\n- 10.0.0.0/8\n- 172.16.0.0/12\n")
	var got []string
	for _, n := range d.Notes {
		got = append(got, n.Path+": "+n.Text)
	}
	want := []string{
		"rules[0]: masqLinkLocal and masqLinkLocalIPv6",
		"rules[1]: nonMasqueradeCIDRs, for pods",
		"rules[1].to.cidrs[0]: ip-masq-agent:2",
		"rules[1].to.cidrs[1]: ip-masq-agent:3",
		"rules[2]: nonMasqueradeCIDRs, for everybody else",
		"rules[3]: what pods send elsewhere",
		"rules[4]: not outbound: what comes in for pods, through node ports and load balancers too",
		"rules[5]: what everybody else sends elsewhere",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	source, err := d.Source("x")
	if err != nil || !strings.Contains(string(source.Content), `"facts":{"podCIDRs":["10.244.0.0/16"]}`) {
		t.Errorf("%s: %v", source.Content, err)
	}
}

func parseDocument(t *testing.T, s masqagent.Settings, text string) masqagent.Document {
	t.Helper()
	c := parse(t, s, text)
	return c.Document()
}
