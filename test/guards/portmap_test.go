package guards_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/rig"
)

// portmapPlugin is the CNI plugin itself, built from its source.
type portmapPlugin struct{ binary string }

func buildPortmap(t *testing.T) portmapPlugin {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "portmap")
	build := exec.Command("go", "build", "-C", "../tools", "-o", binary, "github.com/containernetworking/plugins/plugins/meta/portmap")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the CNI plugin portmap (where there is no network: fetch it first with `go build -C test/tools -o /dev/null tool`): %v\n%s", err, out)
	}
	return portmapPlugin{binary}
}

// add publishes web's port 80 as 8080, in both families.
func (p portmapPlugin) add(v foreign.Variant, nftables bool) func(*testing.T, *rig.Rig) {
	return func(t *testing.T, r *rig.Rig) {
		t.Helper()
		backend := "iptables"
		if nftables {
			backend = "nftables"
		}
		type object = map[string]any
		config, err := json.Marshal(object{
			"cniVersion": "1.0.0", "name": "podnet", "type": "portmap", "snat": true, "backend": backend,
			"capabilities":  object{"portMappings": true},
			"runtimeConfig": object{"portMappings": []object{{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}}},
			"prevResult": object{
				"cniVersion": "1.0.0",
				"interfaces": []object{{"name": "eth0", "sandbox": "/run/netns/web"}},
				"ips": []object{
					{"interface": 0, "address": web.String() + "/24", "gateway": "10.244.1.1"},
					{"interface": 0, "address": web6.String() + "/64", "gateway": "fd00:10:244:1::1"},
				},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		cmd := r.Node.Command(t.Context(), p.binary)
		cmd.Env = append(os.Environ(), "CNI_COMMAND=ADD", "CNI_CONTAINERID=pod-1", "CNI_NETNS=/run/netns/web", "CNI_IFNAME=eth0",
			"CNI_PATH="+filepath.Dir(p.binary), "PATH="+withVariant(t, v)+":"+os.Getenv("PATH"))
		cmd.Stdin = bytes.NewReader(config)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("portmap: %v\n%s", err, out)
		}
	}
}

// withVariant is a folder in which iptables is the variant.
func withVariant(t *testing.T, v foreign.Variant) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"iptables", "ip6tables"} {
		for _, suffix := range []string{"", "-save", "-restore"} {
			program, err := exec.LookPath(strings.Join([]string{name, string(v)}, "-") + suffix)
			if err == nil {
				err = os.Symlink(program, filepath.Join(dir, name+suffix))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}
