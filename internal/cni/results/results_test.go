package results

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// real is a file that containerd 1.6 left (with bridge 1.9.1); the configuration is cut.
const real = `{"kind":"cniCacheV1","containerId":"6f0d","config":"eyJjbmlWZXJzaW9uIjoiMS4wLjAifQ==","ifName":"eth0","networkName":"pods",
"cniArgs":[["IgnoreUnknown","1"],["K8S_POD_NAMESPACE","web"],["K8S_POD_NAME","nginx-0"],["K8S_POD_INFRA_CONTAINER_ID","6f0d"],["K8S_POD_UID","0c1e"]],
"capabilityArgs":{"dns":{},"portMappings":[]},
"result":{"cniVersion":"1.0.0","dns":{},"interfaces":[{"mac":"8e:1c","name":"cni0"},{"mac":"12:3e","name":"vethf2"},{"mac":"1a:95","name":"eth0","sandbox":"/var/run/netns/cni-0f"}],
"ips":[{"address":"10.244.1.7/24","gateway":"10.244.1.1","interface":2},{"address":"fd00:10:244:1::7/64","gateway":"fd00:10:244:1::1","interface":2}],
"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]}}`

func addrs(texts ...string) (out []netip.Addr) {
	for _, t := range texts {
		out = append(out, netip.MustParseAddr(t))
	}
	return out
}

func TestParse(t *testing.T) {
	pod := `"cniArgs":[["K8S_POD_NAMESPACE","web"],["K8S_POD_NAME","nginx-0"]]`
	for _, tt := range []struct {
		name, text string
		want       Result
		err        string // part of it
	}{
		{name: "containerd", text: real, want: Result{Namespace: "web", Name: "nginx-0", UID: "0c1e", Sandbox: "6f0d", Network: "pods", Interface: "eth0",
			Addresses: addrs("10.244.1.7", "fd00:10:244:1::7")}},
		{name: "specification 0.2", text: `{"kind":"cniCacheV1",` + pod + `,"result":{"cniVersion":"0.2.0","ip4":{"ip":"10.1.2.3/24"},"ip6":{"ip":"fd00::3/64"}}}`,
			want: Result{Namespace: "web", Name: "nginx-0", Addresses: addrs("10.1.2.3", "fd00::3")}},
		{name: "without interfaces", text: `{"kind":"cniCacheV1",` + pod + `,"result":{"ips":[{"version":"4","address":"10.1.2.3/32"}]}}`,
			want: Result{Namespace: "web", Name: "nginx-0", Addresses: addrs("10.1.2.3")}},
		{name: "loopback and link-local", text: `{"kind":"cniCacheV1","ifName":"lo",` + pod + `,"result":{"ips":[{"address":"127.0.0.1/8"},{"address":"::1/128"},{"address":"fe80::1/64"}]}}`,
			want: Result{Namespace: "web", Name: "nginx-0", Interface: "lo"}},
		{name: "host's end", text: `{"kind":"cniCacheV1",` + pod + `,"result":{"interfaces":[{"name":"veth1"}],"ips":[{"address":"10.1.2.3/32","interface":0}]}}`,
			want: Result{Namespace: "web", Name: "nginx-0"}},
		{name: "no result", text: `{"kind":"cniCacheV1",` + pod + `}`, want: Result{Namespace: "web", Name: "nginx-0"}},
		{name: "an interface too many", text: `{"kind":"cniCacheV1",` + pod + `,"result":{"ips":[{"address":"10.1.2.3/32","interface":1}]}}`, err: "is of interface 1, of which there are 0"},
		{name: "no address", text: `{"kind":"cniCacheV1",` + pod + `,"result":{"ips":[{"address":"10.1.2/24"}]}}`, err: `address "10.1.2/24": expected one such as 10.244.1.7/24`},
		{name: "half-written", text: real[:200], err: "unexpected end of JSON input"},
		{name: "empty", err: "unexpected end of JSON input"},
		{name: "a container of nerdctl's", text: `{"kind":"cniCacheV1","containerId":"x","result":{}}`, err: ErrForeign.Error()},
		{name: "libcni before 0.8", text: `{"cniVersion":"0.3.1","ips":[{"version":"4","address":"10.1.2.3/24"}]}`, err: ErrForeign.Error()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse([]byte(tt.text))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error: %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// FuzzParse: an error leaves nothing, and addresses are of hosts.
func FuzzParse(f *testing.F) {
	f.Add([]byte(real))
	f.Add([]byte(real[:300]))
	f.Add([]byte(`{"kind":"cniCacheV1","cniArgs":[["K8S_POD_NAME","a"],["K8S_POD_NAMESPACE","b"]],"result":{"ip4":{"ip":"::ffff:1.2.3.4/24"}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := Parse(text)
		if err != nil && !cmp.Equal(r, Result{}) {
			t.Errorf("error %v with %v", err, r)
		}
		for _, a := range r.Addresses {
			if !a.IsValid() || a.IsLoopback() || a.Is4In6() || a.Zone() != "" {
				t.Errorf("address %v", a)
			}
		}
	})
}

func TestDir(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results")
	d := Open(path)
	if _, err := d.Read(); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("absent directory: %v", err)
	}
	must(t, os.Mkdir(path, 0o755))
	write := func(name, text string, at int) {
		t.Helper()
		file := filepath.Join(path, name)
		must(t, os.WriteFile(file, []byte(text), 0o600))
		must(t, os.Chtimes(file, time.Time{}, time.Unix(int64(at), 0)))
	}
	expect := func(when string, unread bool, warnings int, names ...string) {
		t.Helper()
		found, err := d.Read()
		must(t, err)
		var got []string
		for _, r := range found.Results {
			got = append(got, r.Sandbox)
		}
		if !cmp.Equal(got, names) || found.Unread != unread || len(found.Warnings) != warnings {
			t.Errorf("%s: %v, unread %v, warnings %q; want %v, %v, %d", when, got, found.Unread, found.Warnings, names, unread, warnings)
		}
	}
	write("pods-1-eth0", strings.ReplaceAll(real, "6f0d", "one"), 20)
	write("pods-2-eth0", strings.ReplaceAll(real, "6f0d", "two"), 10)
	expect("the oldest first", false, 0, "two", "one")
	write("pods-3-eth0", real[:300], 30)
	expect("half-written", true, 0, "two", "one")
	write("pods-3-eth0", strings.ReplaceAll(real, "6f0d", "three"), 30)
	expect("written", false, 0, "two", "one", "three")
	must(t, os.Remove(filepath.Join(path, "pods-1-eth0")))
	expect("removed", false, 0, "two", "three")

	write("huge", strings.Repeat(" ", maxSize+1), 1)
	write("foreign", "{}", 1)
	must(t, syscall.Mkfifo(filepath.Join(path, "pipe"), 0o600))
	must(t, os.Symlink("/dev/zero", filepath.Join(path, "link")))
	must(t, os.Mkdir(filepath.Join(path, "directory"), 0o755))
	expect("strange", true, 1, "two", "three")
	expect("strange twice", false, 4, "two", "three")
	expect("strange for ever", false, 0, "two", "three")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
