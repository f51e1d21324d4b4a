package lab

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/packet"
)

func TestScenariosAreWhole(t *testing.T) {
	for _, s := range Scenarios() {
		t.Run(s.Name, func(t *testing.T) {
			if len(s.Forms) == 0 || len(s.Stages) < 2 || s.Stages[0].Policy != "" || s.Summary == "" || s.Story == "" {
				t.Error("needs a summary, a story, a form, and a stage without and one with a policy")
			}
			checkSpaces(t, &s)
			checkStages(t, &s)
			for _, f := range s.Forms {
				for _, r := range f.Rules {
					if _, err := s.space(r.On); err != nil {
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
			far, err := s.space(p.Space)
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
			if !onLink(space, r.Via) {
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
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Masked().Contains(a) && p.Addr() != a })
}

func checkStages(t *testing.T, s *Scenario) {
	t.Helper()
	for _, c := range s.Calls {
		for _, name := range []string{c.From, c.To} {
			space, err := s.space(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range packet.Families {
				if !space.address(f).IsValid() {
					t.Errorf("%s is called and has no %v address", name, f)
				}
			}
		}
	}
	for _, stage := range s.Stages {
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
	if _, err := s.space(string(sight)); err != nil {
		t.Errorf("%q, %s to %s: expected as %q: %v", stage.Title, c.From, c.To, sight, err)
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
		space, err := s.space(c.space)
		if err != nil {
			t.Fatal(err)
		}
		if got := space.address(packet.IPv4Family).String(); got != c.address {
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
		"dokcer":      `no scenario "dokcer" (there are: docker, flannel, kube-router, cni-bridge)`,
		"flannel/new": `scenario flannel has no form "new" (its forms: old, iptables, nftables)`,
	} {
		if _, _, err := Find(name); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", name, err, want)
		}
	}
}

func TestVariantsOfForms(t *testing.T) {
	want := map[string]int{"docker": 2, "flannel/old": 2, "flannel/iptables": 2, "flannel/nftables": 1,
		"kube-router": 2, "cni-bridge/iptables": 2, "cni-bridge/nftables": 1}
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
