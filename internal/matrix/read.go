package matrix

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/policy"
)

// reader of a file of places or expectations, YAML or JSON, strictly. Its errors name
// file, line, field, value, and what was expected.
type reader struct{ file string }

func (r reader) errorf(n *yaml.Node, path, format string, args ...any) error {
	if path != "" {
		path += ": "
	}
	return fmt.Errorf("%s:%d: %s%s", r.file, n.Line, path, fmt.Sprintf(format, args...))
}

// root is the one document of a file.
func (r reader) root(text string, expected string) (*yaml.Node, error) {
	roots, bad := policy.YAML(policy.Source{Name: r.file, Content: []byte(text)})
	switch {
	case bad != nil:
		return nil, bad
	case len(roots) == 0:
		return nil, fmt.Errorf("%s: is empty; expected %s", r.file, expected)
	case len(roots) > 1:
		return nil, r.errorf(roots[1], "", "a second document; expected one")
	}
	return roots[0], nil
}

// fields of a mapping, each one of those known.
func (r reader) fields(n *yaml.Node, path string, known ...string) (map[string]*yaml.Node, error) {
	if n.Kind != yaml.MappingNode {
		return nil, r.errorf(n, path, "%s; expected a mapping with %s", what(n), strings.Join(known, ", "))
	}
	all := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode || !slices.Contains(known, key.Value) {
			return nil, r.errorf(key, path, "%q is no field; expected %s", key.Value, strings.Join(known, ", "))
		}
		if all[key.Value] != nil {
			return nil, r.errorf(key, path, "%s stands there twice", key.Value)
		}
		all[key.Value] = value
	}
	return all, nil
}

// list of a field; nil where there is none.
func (r reader) list(n *yaml.Node, path string) ([]*yaml.Node, error) {
	if n == nil {
		return nil, nil
	}
	if n.Kind != yaml.SequenceNode {
		return nil, r.errorf(n, path, "%s; expected a list", what(n))
	}
	return n.Content, nil
}

// text of a field; empty where there is none.
func (r reader) text(n *yaml.Node, path string) (string, error) {
	if n == nil {
		return "", nil
	}
	if n.Kind != yaml.ScalarNode || n.ShortTag() == "!!null" || n.Value == "" {
		return "", r.errorf(n, path, "%s; expected a word", what(n))
	}
	return n.Value, nil
}

// texts of several fields, by name.
func (r reader) texts(fields map[string]*yaml.Node, path string, names ...string) (map[string]string, error) {
	all := map[string]string{}
	for _, name := range names {
		text, err := r.text(fields[name], join(path, name))
		if err != nil {
			return nil, err
		}
		all[name] = text
	}
	return all, nil
}

func join(path, name string) string { return strings.TrimPrefix(path+"."+name, ".") }

func what(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "found a mapping"
	case yaml.SequenceNode:
		return "found a list"
	case yaml.AliasNode:
		return "found an alias"
	}
	if n.Value == "" || n.ShortTag() == "!!null" {
		return "found nothing"
	}
	return fmt.Sprintf("found %q", n.Value)
}

// ReadPlaces reads a file of places.
//
//	places:
//	- {kind: outside, name: office, node: node-a, interface: eth1, addresses: [192.168.200.10]}
//	- {kind: network, name: mirror, cidr: 192.168.201.0/24}
//	- {kind: pod, name: default/web-0, node: node-a, addresses: [10.244.1.8, "fd00::8"], port: 8080, only: destination}
func ReadPlaces(file, text string) ([]Place, error) {
	r := reader{file}
	root, err := r.root(text, "places:")
	if err != nil {
		return nil, err
	}
	top, err := r.fields(root, "", "places")
	if err != nil {
		return nil, err
	}
	items, err := r.list(top["places"], "places")
	if err != nil {
		return nil, err
	}
	if len(items) == 0 {
		return nil, r.errorf(root, "places", "none are there; expected a list of them")
	}
	var all []Place
	for i, n := range items {
		path := fmt.Sprintf("places[%d]", i)
		p, err := r.place(n, path)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(all, func(o Place) bool { return o.Name == p.Name }) {
			return nil, r.errorf(n, path+".name", "%q is another place's name too", p.Name)
		}
		all = append(all, p)
	}
	return all, nil
}

var kinds = []Kind{Pod, Host, Outside, Network}

func (r reader) place(n *yaml.Node, path string) (Place, error) {
	fields, err := r.fields(n, path, "kind", "name", "node", "interface", "addresses", "cidr", "port", "only")
	if err != nil {
		return Place{}, err
	}
	texts, err := r.texts(fields, path, "kind", "name", "node", "interface", "cidr", "port", "only")
	if err != nil {
		return Place{}, err
	}
	p := Place{Kind: Kind(texts["kind"]), Name: texts["name"], Node: texts["node"], Interface: texts["interface"], Only: texts["only"]}
	if !slices.Contains(kinds, p.Kind) {
		return p, r.errorf(n, path+".kind", "%q; expected pod, node, outside or network", p.Kind)
	}
	if p.Only != "" && p.Only != Source && p.Only != Destination {
		return p, r.errorf(fields["only"], path+".only", "%q; expected %s or %s", p.Only, Source, Destination)
	}
	if texts["port"] != "" {
		port, err := strconv.ParseUint(texts["port"], 10, 16)
		if err != nil || port == 0 {
			return p, r.errorf(fields["port"], path+".port", "%q; expected a number from 1 to 65535", texts["port"])
		}
		p.Port = uint16(port)
	}
	if p.Kind == Network {
		return r.network(n, fields, p, path)
	}
	if fields["cidr"] != nil {
		return p, r.errorf(fields["cidr"], path+".cidr", "is for kind network; expected addresses")
	}
	return r.addresses(n, fields, p, path)
}

func (r reader) addresses(n *yaml.Node, fields map[string]*yaml.Node, p Place, path string) (Place, error) {
	if p.Name == "" {
		return p, r.errorf(n, path, "has no name")
	}
	items, err := r.list(fields["addresses"], path+".addresses")
	if err != nil {
		return p, err
	}
	if len(items) == 0 {
		return p, r.errorf(n, path+".addresses", "none; expected one of each family that it has")
	}
	for i, item := range items {
		at := fmt.Sprintf("%s.addresses[%d]", path, i)
		text, err := r.text(item, at)
		if err != nil {
			return p, err
		}
		a, err := ParseAddress(text)
		if err != nil {
			return p, r.errorf(item, at, "%v", err)
		}
		if p.Address(packet.Of(a)).IsValid() {
			return p, r.errorf(item, at, "%s is a second %s address; expected one of each family", a, packet.Of(a))
		}
		p.Addresses = append(p.Addresses, a)
	}
	return p, nil
}

// ParseAddress of a host.
func ParseAddress(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil || a.Is4In6() || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() {
		return netip.Addr{}, fmt.Errorf("%q; expected a host's address", text)
	}
	return a, nil
}

func (r reader) network(n *yaml.Node, fields map[string]*yaml.Node, p Place, path string) (Place, error) {
	for _, name := range [...]string{"addresses", "node", "interface", "only"} {
		if fields[name] != nil {
			return p, r.errorf(fields[name], path+"."+name, "isn't for kind network; expected cidr")
		}
	}
	if fields["cidr"] == nil {
		return p, r.errorf(n, path+".cidr", "missing; expected a network such as 192.168.200.0/24")
	}
	network, err := ParseNetwork(fields["cidr"].Value)
	if err != nil {
		return p, r.errorf(fields["cidr"], path+".cidr", "%v", err)
	}
	network.Name, network.Port = p.Name, p.Port
	if network.Name == "" {
		network.Name = network.CIDR.String()
	}
	return network, nil
}

// ParseNetwork makes a place of a network, whose first host is asked about.
func ParseNetwork(text string) (Place, error) {
	cidr, err := netip.ParsePrefix(text)
	if err != nil || cidr != cidr.Masked() || cidr.Addr().Is4In6() {
		return Place{}, fmt.Errorf("%q; expected a network such as 192.168.200.0/24", text)
	}
	a := cidr.Addr()
	if cidr.Bits() < a.BitLen()-1 || a.IsUnspecified() {
		a = a.Next()
	}
	return Place{Kind: Network, Name: cidr.String(), CIDR: cidr, Addresses: []netip.Addr{a}}, nil
}
