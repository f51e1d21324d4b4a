package cli

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestPlanLabs(t *testing.T) {
	for _, c := range []struct {
		name, variant string
		names         []string
		all           bool
		want          string
	}{
		{name: "all, by default", variant: "nft",
			want: "docker (nft), flannel/old (nft), flannel/iptables (nft), flannel/nftables, kube-router (nft), cni-bridge/iptables (nft), cni-bridge/nftables, office/iptables (nft), office/nftables, office/iptables-clustercidr (nft), office/nftables-clustercidr, services/iptables (nft), services/nftables"},
		{name: "both variants where there are two", variant: "both", names: []string{"cni-bridge"},
			want: "cni-bridge/iptables (legacy), cni-bridge/iptables (nft), cni-bridge/nftables"},
		{name: "one form", variant: "legacy", names: []string{"flannel/nftables", "docker"}, want: "flannel/nftables, docker (legacy)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			runs, err := planLabs(c.names, &labOptions{variant: c.variant, all: c.all})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range runs {
				got = append(got, strings.ReplaceAll(labTitle(r.scenario.Name, r.form.Name, r.form.VariantName(r.variant)), "(iptables-", "("))
			}
			if joined := strings.Join(got, ", "); joined != c.want {
				t.Errorf("got  %s\nwant %s", joined, c.want)
			}
		})
	}
}

func TestLabUsage(t *testing.T) {
	for _, c := range []struct {
		args, want string
	}{
		{"run dokcer", `no scenario "dokcer" (there are: docker, flannel, kube-router, cni-bridge, office, services)`},
		{"run docker --variant new", `variant "new": want legacy, nft or both`},
		{"run --all docker", "either names or --all"},
		{"run docker -o yaml", `output "yaml": want json`},
		{"list -o yaml", `output "yaml": want json`},
		{"up docker --variant both", "up builds one form: --variant legacy or nft"},
		{"up flannel", "flannel has the forms old, iptables and nftables: name one, such as flannel/old"},
		{"up", "name one scenario: docker, flannel, kube-router, cni-bridge, office, services (see `lab up --help`)"},
		{"donw", `unknown command "donw"; did you mean "down"?`},
		{"down nothing", `no scenario "nothing" (there are: docker, flannel, kube-router, cni-bridge, office, services)`},
	} {
		t.Run(c.args, func(t *testing.T) {
			cmd := newLab()
			cmd.SetArgs(strings.Fields(c.args))
			cmd.SetOut(io.Discard)
			cmd.SetErr(io.Discard)
			err := cmd.ExecuteContext(context.Background())
			status, ok := errors.AsType[inputError](err)
			if !ok || status.ExitStatus() != statusUsage || err.Error() != c.want {
				t.Errorf("got %v, want status 2 and %s", err, c.want)
			}
		})
	}
}

func TestLabList(t *testing.T) {
	var out strings.Builder
	cmd := newLab()
	cmd.SetArgs([]string{"list"})
	cmd.SetOut(&out)
	if err := cmd.ExecuteContext(context.Background()); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 6 || !strings.HasPrefix(lines[0], "docker       two docker hosts") {
		t.Errorf("got\n%s", out.String())
	}
}
