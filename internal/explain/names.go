package explain

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
)

// Names of addresses, such as namespace/pod. The zero value has none.
type Names struct {
	// file that they come from; empty where none was given.
	file      string
	byName    map[string][]netip.Addr
	byAddress map[netip.Addr]string
}

// ReadNames reads lines "ADDRESS NAME…", as in /etc/hosts, or a JSON object that
// has an address, or a list of them, for each name. Errors name file and line.
//
//	10.244.1.7  default/web-0 web-0   # a comment
//	{"default/web-0": "10.244.1.7", "db": ["10.244.1.8", "fd00::8"]}
func ReadNames(file, text string) (Names, error) {
	n := Names{file, map[string][]netip.Addr{}, map[netip.Addr]string{}}
	if strings.HasPrefix(strings.TrimSpace(text), "{") {
		return n, n.readJSON(text)
	}
	number := 0
	for line := range strings.Lines(text) {
		number++
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		a, err := netip.ParseAddr(words[0])
		if err != nil || len(words) == 1 {
			return Names{}, fmt.Errorf("%s:%d: %q; expected an address and its names", file, number, strings.TrimSpace(line))
		}
		for _, name := range words[1:] {
			n.add(name, a)
		}
	}
	return n, nil
}

func (n Names) readJSON(text string) error {
	var all map[string]any
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		return fmt.Errorf("%s: %w; expected an object of names with their addresses", n.file, err)
	}
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		values, list := all[name].([]any)
		if !list {
			values = []any{all[name]}
		}
		for _, v := range values {
			s, _ := v.(string)
			a, err := netip.ParseAddr(s)
			if err != nil {
				return fmt.Errorf("%s: %q: %v; expected an address, or a list of them", n.file, name, v)
			}
			n.add(name, a)
		}
	}
	return nil
}

// add keeps the first name of an address for printing.
func (n Names) add(name string, a netip.Addr) {
	a = a.Unmap().WithZone("")
	if _, known := n.byAddress[a]; !known {
		n.byAddress[a] = name
	}
	if !slices.Contains(n.byName[name], a) {
		n.byName[name] = append(n.byName[name], a)
	}
}

func (n Names) has(name string) bool { return len(n.byName[name]) > 0 }

// address is what the text stands for: an address, or those of a name, at most
// one of each family.
func (n Names) address(text string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		if a.Zone() != "" {
			return nil, fmt.Errorf("zone %s; expected the address alone, and --in-interface or --out-interface", a.Zone())
		}
		return []netip.Addr{a.Unmap()}, nil
	}
	found := n.byName[text]
	switch {
	case text == "":
		return nil, errors.New("expected an address")
	case len(found) == 0 && n.file == "":
		return nil, fmt.Errorf("%q is not an address; names need --names FILE", text)
	case len(found) == 0:
		return nil, fmt.Errorf("%q is neither an address nor a name of %s", text, n.file)
	}
	for i, a := range found {
		for _, b := range found[:i] {
			if packet.Of(a) == packet.Of(b) {
				return nil, fmt.Errorf("%q has several addresses in %s; expected one of %s, %s", text, n.file, b, a)
			}
		}
	}
	return found, nil
}

// Addresses that a name stands for, or the address that the text is.
func (n Names) Addresses(text string) ([]netip.Addr, error) {
	if all := n.byName[text]; len(all) > 0 {
		return all, nil
	}
	return n.address(text)
}

// Of is the name of an address, empty where it has none.
func (n Names) Of(a netip.Addr) string { return n.byAddress[a] }
