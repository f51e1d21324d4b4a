package probe

import (
	"encoding/hex"
	"net/netip"
	"testing"

	"github.com/unmasq/unmasq/internal/packet"
)

func TestEchoRequest(t *testing.T) {
	for _, c := range []struct {
		name, payload, want string
		family              packet.Family
	}{
		{"IPv4 with its checksum", "abcd", "0800" + "292d" + "0a0b" + "0001" + "61626364", packet.IPv4Family},
		{"IPv4, odd length", "abc", "0800" + "2991" + "0a0b" + "0001" + "616263", packet.IPv4Family},
		{"IPv6 leaves it to the kernel", "abcd", "8000" + "0000" + "0a0b" + "0001" + "61626364", packet.IPv6Family},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := echoRequest(c.family, 0x0a0b, c.payload)
			if hex.EncodeToString(got) != c.want {
				t.Errorf("got %x, want %s", got, c.want)
			}
			if c.family == packet.IPv4Family && checksum(got) != 0 {
				t.Errorf("checksum over %x is %#x, want 0", got, checksum(got))
			}
			reply, payload, ok := parseEcho(c.family, got)
			if reply || !ok || payload != c.payload {
				t.Errorf("parsed as reply=%v payload=%q ok=%v", reply, payload, ok)
			}
		})
	}
}

func TestParseEcho(t *testing.T) {
	for _, c := range []struct {
		name, packet, payload string
		family                packet.Family
		reply, ok             bool
	}{
		{"IPv4 reply", "0000000000010001" + "6869", "hi", packet.IPv4Family, true, true},
		{"IPv6 reply", "8100000000010001" + "6869", "hi", packet.IPv6Family, true, true},
		{"no payload", "0800000000010001", "", packet.IPv4Family, false, true},
		{"destination unreachable", "0301000000000000" + "4500", "", packet.IPv4Family, false, false},
		{"neighbour solicitation", "8700000000000000" + "fe80", "", packet.IPv6Family, false, false},
		{"cut off", "08000000", "", packet.IPv4Family, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := hex.DecodeString(c.packet)
			if err != nil {
				t.Fatal(err)
			}
			reply, payload, ok := parseEcho(c.family, b)
			if reply != c.reply || payload != c.payload || ok != c.ok {
				t.Errorf("got reply=%v payload=%q ok=%v, want %v %q %v", reply, payload, ok, c.reply, c.payload, c.ok)
			}
		})
	}
}

func TestParseSYN(t *testing.T) {
	segment := func(port, flags string) string {
		return "9c40" + port + "00000001" + "00000000" + "50" + flags + "ffff00000000"
	}
	for _, c := range []struct {
		name, segment string
		ok            bool
	}{
		{"SYN to our port", segment("1b5f", "02"), true},
		{"SYN with ECN", segment("1b5f", "c2"), true},
		{"SYN and ACK", segment("1b5f", "12"), false},
		{"ACK", segment("1b5f", "10"), false},
		{"another port", segment("0016", "02"), false},
		{"cut off", "9c401b5f", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := hex.DecodeString(c.segment)
			if err != nil {
				t.Fatal(err)
			}
			if port, ok := parseSYN(b, Port); ok != c.ok || ok && port != 40000 {
				t.Errorf("got port %d, %v; want 40000, %v", port, ok, c.ok)
			}
		})
	}
}

func TestParseUDP(t *testing.T) {
	port, text, ok := parseUDP([]byte("\x9c\x40\x1b\x5f\x00\x0a\x00\x00hi"), Port)
	if port != 40000 || text != "hi" || !ok {
		t.Errorf("got %d %q %v", port, text, ok)
	}
	for _, other := range []string{"", "\x9c\x40\x1b\x5f", "\x9c\x40\x00\x35\x00\x0a\x00\x00hi"} {
		if _, _, ok := parseUDP([]byte(other), Port); ok {
			t.Errorf("%x is taken for a call", other)
		}
	}
}

func TestStripIPv4(t *testing.T) {
	header := make([]byte, 24)
	header[0] = 0x46 // four bytes of options
	if got := stripIPv4(packet.IPv4Family, append(header, "x"...)); string(got) != "x" {
		t.Errorf("got %q, want the payload", got)
	}
	if got := stripIPv4(packet.IPv4Family, []byte{0x4f}); len(got) != 0 {
		t.Errorf("of a cut off packet %x is left", got)
	}
	if got := stripIPv4(packet.IPv6Family, []byte("x")); string(got) != "x" {
		t.Errorf("IPv6: got %q", got)
	}
}

func TestAnswer(t *testing.T) {
	for _, text := range []string{"192.168.5.138:41234", "[fd00:172:5:138::2]:7"} {
		for name, want := range map[string]string{"": "you are " + text + "\n", "web": "you are " + text + " says web\n"} {
			seen := netip.MustParseAddrPort(text)
			line := formatAnswer(seen, name)
			if line != want {
				t.Errorf("answer %q, want %q", line, want)
			}
			if got, by, err := parseAnswer(line); err != nil || got != seen || by != name {
				t.Errorf("parsed %q as %v of %q, %v", line, got, by, err)
			}
		}
	}
	if line := formatAnswer(netip.MustParseAddrPort("[::ffff:192.0.2.1]:7"), ""); line != "you are 192.0.2.1:7\n" {
		t.Errorf("mapped address: %q", line)
	}
	for _, wrong := range []string{"", "hello", "you are", "you are 192.0.2.1", "you are 192.0.2.1:7:8"} {
		if got, _, err := parseAnswer(wrong); err == nil {
			t.Errorf("parsed %q as %v", wrong, got)
		}
	}
}
