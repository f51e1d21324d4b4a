package discover_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/unmasq/unmasq/internal/discover"
	"github.com/unmasq/unmasq/internal/facts"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func TestDiscover(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "10-cbr0.conflist")
	content := `{"name":"cbr0","plugins":[{"type":"bridge","ipam":{"type":"host-local","ranges":[[{"subnet":"172.16.4.0/24"}],[{"subnet":"fd00:4::/64"}]]}}]}`
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "20-bad.conf"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n := netnstest.Test(t, "host")
	if err := errors.Join(n.Bridge("cni0"), n.Addr("cni0", netip.MustParsePrefix("172.16.4.1/24"))); err != nil {
		t.Fatal(err)
	}
	var got facts.Discovered
	var warnings []string
	err := n.Do(func() (err error) { got, warnings, err = discover.Discover(dir); return err })
	if err != nil {
		t.Fatal(err)
	}
	want := facts.Discovered{
		NodeAddresses: []facts.Found[netip.Addr]{{Value: netip.MustParseAddr("172.16.4.1"), Origin: "interface cni0"}},
		Broadcasts:    []facts.Found[netip.Addr]{{Value: netip.MustParseAddr("172.16.4.255"), Origin: "interface cni0"}},
		LocalPodCIDRs: []facts.Found[netip.Prefix]{
			{Value: netip.MustParsePrefix("172.16.4.0/24"), Origin: "bridge cni0 (CNI bridge)"},
			{Value: netip.MustParsePrefix("172.16.4.0/24"), Origin: "CNI network cbr0 in " + path},
			{Value: netip.MustParsePrefix("fd00:4::/64"), Origin: "CNI network cbr0 in " + path},
		},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if len(warnings) != 1 {
		t.Errorf("warnings %v, want one about 20-bad.conf", warnings)
	}
}
