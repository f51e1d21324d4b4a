package ipset_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/ipset"
)

const many = 100_000

// bigSet is the text of a set with many elements, as ipset saves it.
func bigSet(typeName string, element func(i int) string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "create big %s family inet hashsize 65536 maxelem 200000 bucketsize 12 initval 0x20b69f6d\n", typeName)
	for i := range many {
		b.WriteString("add big " + element(i) + "\n")
	}
	return b.String()
}

func addressAt(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

var bigSets = []struct {
	typeName string
	element  func(i int) string
}{
	{"hash:ip", func(i int) string { return addressAt(i).String() }},
	{"hash:net", func(i int) string { // lengths 17 to 32
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(i >> 8), byte(i), 0x80 | byte(i>>4), byte(i)}), 17+i%16)
		return strings.TrimSuffix(p.Masked().String(), "/32")
	}},
	{"hash:ip,port", func(i int) string { return fmt.Sprintf("%s,tcp:%d", addressAt(i/4), 80+i%4) }},
	{"hash:ip,port,ip", func(i int) string { return fmt.Sprintf("%s,tcp:80,%s", addressAt(i), addressAt(i+1)) }},
}

func BenchmarkRead(b *testing.B) {
	for _, s := range bigSets {
		text := bigSet(s.typeName, s.element)
		b.Run(s.typeName, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				if sets, problems := ipset.Read(text, 1); sets["big"].Len() != many || len(problems) > 0 {
					b.Fatal(problems)
				}
			}
		})
	}
}

func BenchmarkContains(b *testing.B) {
	for _, s := range bigSets {
		sets, _ := ipset.Read(bigSet(s.typeName, s.element), 1)
		set := sets["big"]
		b.Run(s.typeName, func(b *testing.B) {
			p := ipset.Packet{Source: addressAt(0), Protocol: 6, SourcePort: 1024, DestinationPort: 80}
			sides := []bool{false, false, true}
			i := 0
			for b.Loop() {
				p.Destination = addressAt(i % (2 * many)) // every other one is in the set
				p.Source = addressAt(i%many + 1)
				set.Contains(sets, p, sides)
				i++
			}
		})
	}
}
