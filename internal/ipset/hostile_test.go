package ipset_test

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/ipset"
)

// TestHostile reads text that is made to cost much. What is allocated in all
// stays within a few dozen times its size.
func TestHostile(t *testing.T) {
	size := 2 << 20
	if os.Getenv("HOSTILE") != "" {
		size = 100 << 20
	}
	repeat := func(head string, line func(i int) string) func() string {
		return func() string {
			b := strings.Builder{}
			b.WriteString(head)
			for i := 0; b.Len() < size; i++ {
				b.WriteString(line(i))
			}
			return b.String()
		}
	}
	same := func(head, tail string) func() string {
		return func() string { return head + strings.Repeat(tail, size/len(tail)) }
	}
	const create = "create a hash:ip,port\ncreate n hash:net\ncreate i hash:net,iface\ncreate l list:set\ncreate nn hash:net,port,net\n"
	tests := []struct {
		name string
		text func() string
	}{
		{"blanks", same("", " ")},
		{"newlines", same("", "\n")},
		{"carriage returns", same("", "\r")},
		{"one line", same(create+"add a ", "1")},
		{"zeros", same("", "\x00")},
		{"short lines", same("", "x\n")},
		{"sets", repeat("", func(i int) string { return fmt.Sprintf("create %d hash:ip\n", i) })},
		{"the same set", same("", "create a hash:ip\n")},
		{"sets with blanks", repeat("", func(i int) string { return fmt.Sprintf("create a %d hash:ip\nadd a %d 10.0.0.1\n", i, i) })},
		{"lists", repeat("", func(i int) string { return fmt.Sprintf("Name: %d\n", i) })},
		{"elements", repeat(create, func(i int) string { return fmt.Sprintf("add n %d.%d.%d.%d\n", i>>24, i>>16&255, i>>8&255, i&255) })},
		{"the same element", same(create, "add n 1.1.1.1\n")},
		{"ports", repeat(create, func(i int) string { return fmt.Sprintf("add a 1.1.1.1,%d\n", i%65536) })},
		{"all ports", same(create, "add a 1.1.1.1,0-65535\n")},
		{"interfaces", repeat(create, func(i int) string { return fmt.Sprintf("add i 1.1.1.1,%d\n", i) })},
		{"ranges", repeat(create, func(i int) string { return fmt.Sprintf("add a 0.0.0.1-255.255.255.254,%d\n", i%65536) })},
		{"ranges of both", same(create, "add nn 0.0.0.1-255.255.255.254,80,0.0.0.1-255.255.255.254\n")},
		{"lengths", repeat(create, func(i int) string { return fmt.Sprintf("add nn 1.1.1.1/%d,%d,1.1.1.1/%d\n", i%33, i%65536, i/33%33) })},
		{"no set", repeat("", func(i int) string { return fmt.Sprintf("add %d 1.1.1.1\n", i) })},
		{"members", repeat(create, func(i int) string { return fmt.Sprintf("add l %d\n", i) })},
		{"members before others", repeat(create, func(i int) string { return fmt.Sprintf("add l %d before 0\n", i%40_000) })},
		{"flushes", same(create, "flush\nadd a 1.1.1.1,80\n")},
		{"long lines", repeat("", func(i int) string { return fmt.Sprintf("create %d hash:ip\n%s\n", i, strings.Repeat("y", 5000)) })},
		{"comments", same(create, "add n 1.1.1.1 comment \"\n")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			text := tt.text()
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			sets, problems := ipset.Read(text, 1)
			runtime.ReadMemStats(&after)
			if got := (after.TotalAlloc - before.TotalAlloc) / uint64(len(text)); got > 64 {
				t.Errorf("allocates %d times its size", got)
			}
			if len(problems) > 1001 {
				t.Errorf("%d problems", len(problems))
			}
			p := ipset.Packet{Source: addressAt(1), Destination: addressAt(2), Protocol: 6, SourcePort: 1, DestinationPort: 80, NoIn: true, NoOut: true}
			for _, s := range sets {
				s.Contains(sets, p, []bool{true, true, false})
			}
		})
	}
}
