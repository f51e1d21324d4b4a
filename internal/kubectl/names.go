package kubectl

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// name of a pod or a service as it was typed, with what stands behind it.
type name struct {
	namespace, name string
	// port is a number or a name; protocol a word. Empty where left out.
	port, protocol string
	// service: written as DNS has it, so it is no pod.
	service bool
}

func (n name) String() string { return n.namespace + "/" + n.name }

// destinationForms are what is understood.
const destinationForms = "expected NAMESPACE/NAME[:PORT][/PROTOCOL] of a service or pod, NAME.NAMESPACE.svc[:PORT][/PROTOCOL] of a service, or an address"

// isAddress says whether the text is an address or a network, with whatever behind
// it; unmasq explain reads those.
func isAddress(text string) bool {
	if strings.HasPrefix(text, "[") {
		return true
	}
	head, _, _ := strings.Cut(text, "/")
	if _, err := netip.ParseAddr(head); err == nil {
		return true
	}
	host, _, _ := strings.Cut(head, ":")
	_, err := netip.ParseAddr(host)
	return err == nil
}

// parseName reads, where the namespace of bare names is default,
//
//	web  web:80  web:http/tcp  default/web  default/web:53/udp  default/web/udp
//	web.default.svc:80  web.default.svc.cluster.local
func parseName(text, namespace string) (n name, err error) {
	n.namespace = namespace
	parts := strings.Split(text, "/")
	host, port, hasPort := strings.Cut(parts[0], ":")
	rest := parts[1:]
	if service, ns, ok := dnsName(host); ok {
		n.name, n.namespace, n.service = service, ns, true
	} else if n.name = host; !hasPort && len(parts) > 1 {
		n.namespace = host
		n.name, port, hasPort = strings.Cut(parts[1], ":")
		rest = parts[2:]
	}
	switch {
	case len(rest) > 1, hasPort && port == "", len(rest) == 1 && rest[0] == "":
		return name{}, errors.New(destinationForms)
	case len(rest) == 1:
		n.protocol = strings.ToLower(rest[0])
	}
	n.port = port
	if validation.IsDNS1123Label(n.namespace) != nil || validation.IsDNS1123Subdomain(n.name) != nil {
		return name{}, errors.New(destinationForms)
	}
	return n, nil
}

// dnsName reads web.default.svc, with or without the cluster's domain.
func dnsName(host string) (service, namespace string, ok bool) {
	labels := strings.Split(host, ".")
	if len(labels) < 3 || labels[2] != "svc" {
		return "", "", false
	}
	return labels[0], labels[1], true
}

// podName reads a source.
func podName(text, namespace string) (name, error) {
	n, err := parseName(text, namespace)
	switch {
	case err != nil || n.service || n.protocol != "":
		return name{}, errors.New("expected a pod, NAMESPACE/POD or POD, or an address with --node")
	case n.port != "":
		return name{}, fmt.Errorf("a source has no port here; expected --source-port %s", n.port)
	}
	return n, nil
}

// isNumber: a port's number, not its name.
func isNumber(port string) bool {
	_, err := strconv.ParseUint(port, 10, 64)
	return err == nil
}

// join an address with a port and a protocol, as unmasq explain reads it.
func join(a netip.Addr, port int, protocol string) string {
	text := a.String()
	if port != 0 {
		text = netip.AddrPortFrom(a, uint16(port)).String()
	}
	if protocol != "" {
		text += "/" + protocol
	}
	return text
}
