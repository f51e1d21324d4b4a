package importer_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/dockerd"
	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/importer"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
)

// TestRealDocker asks a real daemon for its networks, as `docker network inspect` does:
// what is imported says of each subnet what the rules say that this daemon wrote.
func TestRealDocker(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	ns := netnstest.Test(t, "docker")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	d, err := dockerd.Start(ctx, ns, dockerd.Options{Variant: foreign.NFT, Bridge: netip.MustParsePrefix("172.5.138.1/24")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Stop() })
	for _, body := range []string{
		`{"Name": "blue", "Driver": "bridge", "EnableIPv6": true, "IPAM": {"Config": [{"Subnet": "172.30.7.0/24"}, {"Subnet": "fd00:b1::/64"}]}}`,
		`{"Name": "plain", "Driver": "bridge", "IPAM": {"Config": [{"Subnet": "172.30.8.0/24"}]}, "Options": {"com.docker.network.bridge.enable_ip_masquerade": "false"}}`,
		`{"Name": "inside", "Driver": "bridge", "Internal": true, "IPAM": {"Config": [{"Subnet": "172.30.9.0/24"}]}}`,
		`{"Name": "stated", "Driver": "bridge", "IPAM": {"Config": [{"Subnet": "172.30.10.0/24"}]}, "Options": {"com.docker.network.host_ipv4": "192.0.2.7"}}`,
	} {
		engine(ctx, t, d, http.MethodPost, "/networks/create", body)
	}
	inspected := engine(ctx, t, d, http.MethodGet, "/networks", "")
	kind, _ := importer.Named("docker")
	result, err := importer.Run(kind, []importer.File{text("networks.json", inspected)}, importer.Options{})
	if err != nil {
		t.Fatalf("%v\n%s", err, inspected)
	}
	var imported []string
	for _, r := range result.Documents[0].Rules {
		for _, c := range r.From.CIDRs {
			if r.Action != "Leave" {
				imported = append(imported, fmt.Sprint(c, " ", r.Action, " ", r.SNAT != nil && r.SNAT.Addresses[0] == "192.0.2.7"))
			}
		}
	}
	written := dockerRules(t, ns.Run)
	slices.Sort(imported)
	if !slices.Equal(imported, written) || len(written) < 4 {
		t.Errorf("docker hides %q, its import %q\n%s", written, imported, inspected)
	}
	t.Logf("checked: %d networks of a real docker daemon, %d rules of it", strings.Count(inspected, `"Driver":"bridge"`), len(written))
}

// dockerRules are the subnets that docker's rules hide, in the words of an import.
func dockerRules(t *testing.T, run func(stdin, name string, args ...string) (string, error)) (all []string) {
	t.Helper()
	rule := regexp.MustCompile(`-A POSTROUTING -s (\S+) ! -o \S+ -j (MASQUERADE|SNAT --to-source (\S+))`)
	for _, program := range []string{"iptables-nft-save", "ip6tables-nft-save"} {
		saved, err := run("", program, "-t", "nat")
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range rule.FindAllStringSubmatch(saved, -1) {
			action := map[bool]string{true: "SNAT", false: "Masquerade"}[m[3] != ""]
			all = append(all, fmt.Sprint(m[1], " ", action, " ", m[3] == "192.0.2.7"))
		}
	}
	slices.Sort(all)
	return all
}

// engine makes one call of the Engine API.
func engine(ctx context.Context, t *testing.T, d *dockerd.Daemon, method, path, body string) string {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(d.Host(), "unix://"))
	}}}
	req, err := http.NewRequestWithContext(ctx, method, "http://docker"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 300 {
		t.Fatalf("%s %s: %s: %v: %s", method, path, resp.Status, err, said)
	}
	return string(said)
}
