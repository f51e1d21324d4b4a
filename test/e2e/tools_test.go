//go:build e2e

package e2e

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/unmasq/unmasq/test/kube"
)

const toolsImage = "unmasq.test/unmasq:tools"

// tools is the image that has the programs which explain reads a node by.
func tools(t *testing.T, program string) kube.Image {
	t.Helper()
	// Without /etc/protocols nft lists numbers for the names of protocols.
	files := map[string]string{"/unmasq": program, "/etc/protocols": "/etc/protocols"}
	library := regexp.MustCompile(`(/\S+) \(0x`)
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
		out, err := exec.Command("ldd", path).Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range library.FindAllStringSubmatch(string(out), -1) {
			files[m[1]] = m[1]
		}
	}
	extensions, err := filepath.Glob("/usr/lib/*/xtables/*.so")
	if err != nil || len(extensions) == 0 {
		t.Fatal("no extensions of iptables: ", err)
	}
	for _, e := range extensions {
		files[e] = e
	}
	return kube.Image{Name: toolsImage, Files: files, Entrypoint: []string{"/unmasq"}}
}
