//go:build e2e

package e2e

import (
	"maps"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/test/kube"
)

const toolsImage = "unmasq.test/unmasq:tools"

// tools is the image that has the programs which explain reads a node by.
func tools(t *testing.T, program string) kube.Image {
	t.Helper()
	// Without /etc/protocols nft lists numbers for the names of protocols.
	files := map[string]string{"/unmasq": program, "/etc/protocols": "/etc/protocols"}
	for _, name := range []string{"nft", "iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save",
		"ipset", "ip", "bridge", "conntrack"} {
		path, err := exec.LookPath(name)
		if err != nil {
			path, err = exec.LookPath("/usr/sbin/" + name)
		}
		if err != nil {
			t.Fatal(err)
		}
		files["/usr/sbin/"+name] = path
	}
	extensions, err := filepath.Glob("/usr/lib/*/xtables/*.so")
	if err != nil || len(extensions) == 0 {
		t.Fatal("no extensions of iptables: ", err)
	}
	for _, e := range extensions {
		files[e] = e
	}
	library := regexp.MustCompile(`(/\S+) \(0x`)
	programs := slices.DeleteFunc(slices.Collect(maps.Values(files)), func(f string) bool { return f == program || strings.HasPrefix(f, "/etc/") })
	out, err := exec.Command("ldd", programs...).Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range library.FindAllStringSubmatch(string(out), -1) {
		files[m[1]] = m[1]
	}
	return kube.Image{Name: toolsImage, Files: files, Entrypoint: []string{"/unmasq"}}
}
