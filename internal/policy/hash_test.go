package policy

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
)

// testdata/jhash.txt holds what Linux 6.18 computed for packets from these
// sources, one "MODULUS SOURCE RESULT" a line. It was recorded with the rules
//
//	meta mark set jhash ip saddr mod MODULUS seed 0x756e6d71 add @seen { ip saddr . meta mark }
func TestSNATAddressIsTheKernels(t *testing.T) {
	content, err := os.ReadFile("testdata/jhash.txt")
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for line := range strings.Lines(string(content)) {
		var modulus, want uint32
		var text string
		if _, err := fmt.Sscan(line, &modulus, &text, &want); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		addresses := make([]netip.Addr, modulus)
		for i := range addresses {
			addresses[i] = netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(i))))
		}
		got := SNATAddress(addresses, netip.MustParseAddr(text)).As4()
		if n := binary.BigEndian.Uint32(got[:]); n != want {
			t.Errorf("jhash %s mod %d: got %d, the kernel says %d", text, modulus, n, want)
		}
		checked++
	}
	if checked < 300 {
		t.Errorf("only %d hashes checked", checked)
	}
}
