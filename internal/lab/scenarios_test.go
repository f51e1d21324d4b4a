package lab

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/packet"
)

func TestScenariosAreWhole(t *testing.T) {
	for _, s := range Scenarios() {
		t.Run(s.Name, func(t *testing.T) {
			if len(s.Forms) == 0 || s.Summary == "" || s.Story == "" {
				t.Error("needs a summary, a story, and a form")
			}
			checkSpaces(t, &s)
			checkCalls(t, &s)
			for _, f := range s.Forms {
				stages := s.StagesOf(&f)
				if len(stages) < 2 || stages[0].Policy != "" {
					t.Errorf("form %q needs a stage without and one with a policy", f.Name)
				}
				checkStages(t, &s, stages)
				for _, r := range f.Rules {
					if _, err := s.Space(r.On); err != nil {
						t.Errorf("form %q: %v", f.Name, err)
					}
				}
			}
		})
	}
}

func checkSpaces(t *testing.T, s *Scenario) {
	t.Helper()
	seen := map[netip.Addr]string{}
	plugs := map[string]bool{}
	for i := range s.Spaces {
		space := &s.Spaces[i]
		for _, a := range space.addresses() {
			if other := seen[a]; other != "" {
				t.Errorf("%s and %s both have %s", other, space.Name, a)
			}
			seen[a] = space.Name
		}
		for _, p := range space.Ports {
			far, err := s.Space(p.Space)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(far.Bridges, func(b Bridge) bool { return b.Name == p.Bridge }) {
				t.Errorf("%s is plugged into %s of %s, which isn't there", space.Name, p.Bridge, p.Space)
			}
			plug := p.Space + "/" + plugName(space.Name, p.Name)
			if plugs[plug] {
				t.Errorf("two links are named %s", plug)
			}
			plugs[plug] = true
		}
		for _, r := range space.Routes {
			if r.Dev == "" && !onLink(space, r.Via) {
				t.Errorf("%s: %s is on no link", space.Name, r.Via)
			}
		}
	}
}

// onLink says whether an address is a neighbour of the space.
func onLink(s *Space, a netip.Addr) bool {
	var prefixes []netip.Prefix
	for _, p := range s.Ports {
		prefixes = append(prefixes, p.Addresses...)
	}
	for _, b := range s.Bridges {
		prefixes = append(prefixes, b.Addresses...)
	}
	for _, x := range s.Tunnels {
		prefixes = append(prefixes, x.Addresses...)
	}
	for _, r := range s.Routes {
		if r.Dev != "" && r.To.Contains(a) {
			return true
		}
	}
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Masked().Contains(a) && p.Addr() != a })
}

func checkCalls(t *testing.T, s *Scenario) {
	t.Helper()
	for _, c := range s.Calls {
		from, err := s.Space(c.From)
		if err != nil {
			t.Fatal(err)
		}
		if service, err := s.Service(c.Service); err == nil && !c.Ping() && !slices.Contains(service.Backends, c.To) {
			t.Errorf("%s: %s is no backend of it", c, c.To)
		}
		for _, f := range packet.Families {
			if target, err := s.Target(c, f); err != nil || !target.IsValid() || target.Port() == 0 || !from.Address(f).IsValid() {
				t.Errorf("%s: from %v to %v, %v", c, from.Address(f), target, err)
			}
		}
	}
}

func checkStages(t *testing.T, s *Scenario, stages []Stage) {
	t.Helper()
	for _, stage := range stages {
		if len(stage.Expect) != len(s.Calls) {
			t.Errorf("%q expects %d calls of %d", stage.Title, len(stage.Expect), len(s.Calls))
		}
		for _, c := range s.Calls {
			for _, f := range packet.Families {
				checkSight(t, s, stage, c, stage.Expect[c].Of(f))
			}
		}
		if stage.Policy != "" {
			if _, err := s.PolicyText(stage.Policy); err != nil {
				t.Error(err)
			}
		}
	}
}

func checkSight(t *testing.T, s *Scenario, stage Stage, c Call, sight Sight) {
	t.Helper()
	if sight == Itself || sight == NoReply {
		return
	}
	if _, err := s.Space(string(sight)); err != nil {
		t.Errorf("%q, %s: expected as %q: %v", stage.Title, c, sight, err)
	}
}

// The situations of the field keep the addresses that operators reported.
func TestFieldAddresses(t *testing.T) {
	for _, c := range []struct{ scenario, space, address string }{
		{"docker", "host1", "192.168.5.138"},
		{"docker", "host2", "192.168.5.139"},
		{"docker", "pod1", "172.5.138.2"},
		{"docker", "pod2", "172.5.139.2"},
		{"flannel", "pod1", "172.16.4.11"},
		{"flannel", "office", "192.168.200.253"},
		{"kube-router", "pod1", "10.42.1.5"},
	} {
		s, _, err := Find(c.scenario)
		if err != nil {
			t.Fatal(err)
		}
		space, err := s.Space(c.space)
		if err != nil {
			t.Fatal(err)
		}
		if got := space.Address(packet.IPv4Family).String(); got != c.address {
			t.Errorf("%s of %s is %s, want %s", c.space, c.scenario, got, c.address)
		}
	}
}

func TestFind(t *testing.T) {
	for _, c := range []struct {
		name, want string
		forms      int
	}{
		{"docker", "docker", 1},
		{"flannel", "flannel", 3},
		{"flannel/nftables", "flannel", 1},
		{"cni-bridge", "cni-bridge", 2},
	} {
		s, forms, err := Find(c.name)
		if err != nil || s.Name != c.want || len(forms) != c.forms {
			t.Errorf("%s: got %v with %d forms, %v", c.name, s, len(forms), err)
		}
	}
	for name, want := range map[string]string{
		"dokcer":      `no scenario "dokcer" (there are: docker, flannel, kube-router, cni-bridge, office, services)`,
		"flannel/new": `scenario flannel has no form "new" (its forms: old, iptables, nftables)`,
	} {
		if _, _, err := Find(name); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", name, err, want)
		}
	}
}

func TestVariantsOfForms(t *testing.T) {
	want := map[string]int{"docker": 2, "flannel/old": 2, "flannel/iptables": 2, "flannel/nftables": 1,
		"kube-router": 2, "cni-bridge/iptables": 2, "cni-bridge/nftables": 1,
		"office/iptables": 2, "office/nftables": 1, "office/iptables-clustercidr": 2, "office/nftables-clustercidr": 1,
		"services/iptables": 2, "services/nftables": 1}
	for _, s := range Scenarios() {
		for i := range s.Forms {
			f := &s.Forms[i]
			name := (&Result{Scenario: s.Name, Form: f.Name}).Title()
			if got := len(f.Variants()); got != want[name] {
				t.Errorf("%s has %d variants, want %d", name, got, want[name])
			}
			if one := f.VariantName(foreign.NFT) == ""; one != (want[name] == 1) {
				t.Errorf("%s: variant name %q", name, f.VariantName(foreign.NFT))
			}
		}
	}
}

// What was recorded of kube-proxy is of the addresses that the scenario has now.
func TestRecordings(t *testing.T) {
	for _, s := range Scenarios() {
		for _, k := range s.Recorded {
			text, err := s.PolicyText(k.File())
			if err != nil {
				t.Error(err)
				continue
			}
			recording := parseRecording(text)
			if got, _, _ := strings.Cut(text, "\n"); got+"\n"+recording.Format(&s) != text {
				t.Errorf("%s %s: reading and writing it doesn't come to the same", s.Name, k)
			}
			for _, host := range s.Hosts() {
				for _, f := range packet.Families {
					checkRecording(t, &s, k.String()+" "+host, recording[host][f], f)
				}
			}
		}
	}
}

func checkRecording(t *testing.T, s *Scenario, name, rules string, f packet.Family) {
	t.Helper()
	for _, service := range s.Services {
		want := []string{service.Address(f).String()}
		if service.NodePort != 0 {
			want = append(want, fmt.Sprint(service.NodePort))
		}
		for _, b := range service.Backends {
			pod, err := s.Space(b)
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, pod.Address(f).String())
		}
		for _, w := range want {
			if !strings.Contains(rules, w) {
				t.Errorf("%s %s: service %s: %s isn't there: go run ./hack/dumps -only lab/%[1]s", s.Name, name, service.Name, w)
			}
		}
	}
}
