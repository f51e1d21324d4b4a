// Package cni finds, in CNI network configuration files, the subnets that
// pods of this host get their addresses from. It is not a CNI runtime: what
// it doesn't understand it leaves alone.
//
//	subnets, warnings := cni.Read("/etc/cni/net.d")
//	// 10.244.1.0/24 CNI network cbr0 in /etc/cni/net.d/10-cbr0.conflist
package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/unmasq/unmasq/internal/facts"
)

// DefaultDir is where kubelet, containerd and podman look.
const DefaultDir = "/etc/cni/net.d"

// maxSize of a file that is taken for a configuration.
const maxSize = 1 << 20

// Read collects the host-local subnets of every network in a directory, in the
// order of file names. A runtime uses the first file alone, multus and
// podman use the others. An absent directory has no networks. What can't be
// read or makes no sense becomes a warning that names the file.
func Read(dir string) (subnets []facts.Found[netip.Prefix], warnings []string) {
	entries, err := os.ReadDir(dir) // sorted
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, []string{"CNI configuration: " + err.Error()}
	}
	for _, e := range entries {
		// The endings that libcni reads (libcni/conf.go).
		if !slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(e.Name())) {
			continue
		}
		path := filepath.Join(dir, e.Name())
		found, warned := readFile(path)
		subnets = append(subnets, found...)
		for _, w := range warned {
			warnings = append(warnings, fmt.Sprintf("CNI configuration %s: %s", path, w))
		}
	}
	return subnets, warnings
}

func readFile(path string) ([]facts.Found[netip.Prefix], []string) {
	content, err := readRegular(path)
	if err != nil {
		return nil, []string{err.Error()}
	}
	network, prefixes, warnings := Parse(content)
	var found []facts.Found[netip.Prefix]
	for _, p := range prefixes {
		found = append(found, facts.Found[netip.Prefix]{Value: p, Origin: fmt.Sprintf("CNI network %s in %s", network, path)})
	}
	return found, warnings
}

// readRegular reads a file of a sensible size, through symbolic links. A pipe
// would block its reader for ever.
func readRegular(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxSize+1))
	if err == nil && len(content) > maxSize {
		err = fmt.Errorf("larger than %d bytes", maxSize)
	}
	return content, err
}

// network is a conflist, a single plugin's conf, or a delegate: the fields
// that can hold subnets, each decoded only when it is looked at.
type network struct {
	Name, Type string
	IPAM       json.RawMessage
	// Plugins of a conflist; Delegate of flannel, Delegates of multus.
	Plugins, Delegate, Delegates json.RawMessage
}

type ipam struct {
	Type   string
	Subnet string
	Ranges [][]struct{ Subnet string }
}

// sharedLinks are the plugins whose pods sit on the host's own network beside
// other machines: their subnet isn't the pods' alone.
var sharedLinks = []string{"macvlan", "ipvlan", "host-device", "vlan", "sriov", "ib-sriov"}

// Parse returns a configuration's network name and the host-local subnets in
// it, without duplicates. Warnings say what was left out.
//
//	{"cniVersion":"0.3.1","name":"kubenet","plugins":[{"type":"bridge","bridge":"cbr0",
//	 "ipam":{"type":"host-local","ranges":[[{"subnet":"10.244.1.0/24"}]]}}]}
func Parse(content []byte) (name string, prefixes []netip.Prefix, warnings []string) {
	var n network
	if err := json.Unmarshal(content, &n); err != nil {
		return "", nil, []string{err.Error()}
	}
	c := collector{}
	c.network(n)
	return n.Name, c.prefixes, c.warnings
}

type collector struct {
	prefixes []netip.Prefix
	warnings []string
}

func (c *collector) warn(format string, args ...any) {
	c.warnings = append(c.warnings, fmt.Sprintf(format, args...))
}

// decode fills v with a field that may be absent.
func (c *collector) decode(field string, raw json.RawMessage, v any) {
	if raw == nil {
		return
	}
	if err := json.Unmarshal(raw, v); err != nil {
		c.warn("%s: %v", field, err)
	}
}

func (c *collector) network(n network) {
	var below []network
	c.decode("plugins", n.Plugins, &below)
	var delegates []network
	c.decode("delegates", n.Delegates, &delegates)
	var delegate *network
	c.decode("delegate", n.Delegate, &delegate)
	if delegate != nil {
		delegates = append(delegates, *delegate)
	}
	c.ipam(n)
	for _, b := range append(below, delegates...) {
		c.network(b)
	}
}

func (c *collector) ipam(n network) {
	var i ipam
	c.decode("ipam", n.IPAM, &i)
	if i.Type != "host-local" {
		return
	}
	subnets := []string{i.Subnet}
	for _, set := range i.Ranges {
		for _, r := range set {
			subnets = append(subnets, r.Subnet)
		}
	}
	for _, s := range subnets {
		if s != "" {
			c.subnet(n.Type, s)
		}
	}
}

func (c *collector) subnet(plugin, s string) {
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		c.warn("subnet %q: expected a prefix such as 10.244.1.0/24", s)
	case p != p.Masked():
		c.warn("subnet %s has host bits set; the network is %s", s, p.Masked())
	case p.Addr().Is4In6():
		c.warn("subnet %s is an IPv4 prefix written as IPv6", s)
	case slices.Contains(sharedLinks, plugin):
		c.warn("subnet %s of plugin %s is shared with the network outside; not taken for pods'", s, plugin)
	case !slices.Contains(c.prefixes, p):
		c.prefixes = append(c.prefixes, p)
	}
}
