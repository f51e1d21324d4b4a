package explain

import (
	"fmt"
	"net/netip"
	"strings"
)

// Names of addresses, such as namespace/pod. The zero value has none.
type Names struct {
	byName    map[string][]netip.Addr
	byAddress map[netip.Addr]string
}

// ReadNames reads lines "ADDRESS NAME…", as in /etc/hosts. Errors name the line.
func ReadNames(file, text string) (Names, error) {
	n := Names{map[string][]netip.Addr{}, map[netip.Addr]string{}}
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
		if _, known := n.byAddress[a]; !known {
			n.byAddress[a] = words[1]
		}
		for _, name := range words[1:] {
			n.byName[name] = append(n.byName[name], a)
		}
	}
	return n, nil
}

// Address is what the text stands for: an address, or one of the names.
func (n Names) Address(text string) (netip.Addr, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return a.Unmap(), nil
	}
	switch found := n.byName[text]; len(found) {
	case 0:
		return netip.Addr{}, fmt.Errorf("%q is neither an address nor a name that --names has; expected one", text)
	case 1:
		return found[0], nil
	default:
		return netip.Addr{}, fmt.Errorf("%q has several addresses (%s, %s …); expected one of them", text, found[0], found[1])
	}
}

// Of is the name of an address, empty where it has none.
func (n Names) Of(a netip.Addr) string { return n.byAddress[a] }
