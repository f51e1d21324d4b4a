package policy

import (
	"fmt"
	"strings"
)

// String is the whole of it: selections of the same text mean the same.
func (s *Services) String() string {
	return fmt.Sprintf("services %v %s %v ports %v backends %s via %s", s.Names, s.Selector, s.CIDRs, s.Ports, s.Backends, s.Via)
}

// String is, for example, "app=web in namespaces team=a"; of none it is "".
func (s *ServiceSelector) String() string {
	if s == nil {
		return ""
	}
	var parts []string
	if !s.Service.Empty() {
		parts = append(parts, selectorText(s.Service))
	}
	if !s.Namespace.Empty() {
		parts = append(parts, "in namespaces "+selectorText(s.Namespace))
	}
	if len(parts) == 0 {
		return "in the cluster"
	}
	return strings.Join(parts, " ")
}

// describe is, for example, "services shop/web tcp/80 via NodePort, remote backends".
func (s *Services) describe(terse bool) string {
	var places []string
	if len(s.Names) > 0 {
		places = append(places, several(s.Names, "services", terse))
	}
	if s.Selector != nil {
		places = append(places, s.Selector.String())
	}
	text := strings.TrimRight("services "+joined(places, s.CIDRs, terse), " ")
	if len(s.Ports) > 0 {
		text += " " + several(portTexts(s.Ports), "ports", terse)
	}
	if s.Via != AnyWay {
		text += " via " + string(s.Via)
	}
	if s.Backends == LocalBackends || s.Backends == RemoteBackends {
		text += ", " + strings.ToLower(string(s.Backends)) + " backends"
	}
	return text
}

func portTexts(ports []PortMatch) (out []string) {
	for _, p := range ports {
		out = append(out, p.String())
	}
	return out
}
