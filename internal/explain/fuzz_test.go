package explain

import (
	"net/netip"
	"strconv"
	"testing"

	"github.com/unmasq/unmasq/internal/sim"
)

// FuzzParseEnd: no text panics, and what is read means the same when it is
// written in full.
func FuzzParseEnd(f *testing.F) {
	for _, seed := range []string{
		"192.0.2.7", "192.0.2.7:443", "192.0.2.7/udp", "192.0.2.7:443/udp", "web-0", "default/web-0:80", "default/web-0/tcp",
		"2001:db8::7", "[2001:db8::7]:443/udp", "10.0.0.0/8", "10.0.0.0/8:443/tcp", "[2001:db8::/32]:443", "2001:db8::/32",
		"[2001:db8::]/32:443", "::ffff:192.0.2.7", "fe80::1%eth0", "", ":", "[", "[]", "[::1", "10.0.0.0/33", "10.0.0.1/17", "1.2.3.4:", "1.2.3.4:0/x", "::/1/3",
	} {
		f.Add(seed)
	}
	names, err := ReadNames("names", "192.0.2.9 web-0 default/web-0\nfd00::9 web-0\n")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		e, err := parseEnd(text, names)
		if err != nil {
			return
		}
		if len(e.addresses) == 0 {
			t.Fatalf("%q: no address", text)
		}
		for _, a := range e.addresses {
			if !a.IsValid() || a.Zone() != "" || a.Is4In6() {
				t.Fatalf("%q: address %v", text, a)
			}
		}
		if len(e.addresses) > 1 {
			return // a name
		}
		full := inFull(&e)
		again, err := parseEnd(full, Names{})
		if err != nil {
			t.Fatalf("%q is %q: %v", text, full, err)
		}
		if again.addresses[0] != e.addresses[0] || again.network != e.network || again.port != e.port || again.protocol != e.protocol {
			t.Fatalf("%q is %+v; %q is %+v", text, e, full, again)
		}
	})
}

func inFull(e *end) string {
	text := e.addresses[0].String()
	if e.network != (netip.Prefix{}) {
		text = e.network.String()
	}
	if e.addresses[0].Is6() {
		text = "[" + text + "]"
	}
	if e.port != sim.UnknownPort {
		text += ":" + strconv.Itoa(e.port)
	}
	return text + "/" + protocolName(e.protocol)
}
