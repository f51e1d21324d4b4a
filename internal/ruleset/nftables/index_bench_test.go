package nftables

import (
	"fmt"
	"testing"
)

// services are kube-proxy's map of that many services.
func services(n int) (*Table, *Set, [][]Part) {
	s := &Set{
		Name: "service-ips", Map: true, Type: []string{"ipv4_addr", "inet_proto", "inet_service"}, DataType: []string{"verdict"},
	}
	keys := make([][]Part, n)
	for i := range n {
		address := fmt.Sprintf("10.96.%d.%d", i>>8, i&0xff)
		s.Elements = append(s.Elements, Element{
			Key:  Concat{[]Expr{Literal{address}, Literal{"tcp"}, Literal{"80"}}},
			Data: VerdictValue{Verdict{Kind: Goto, Chain: fmt.Sprintf("service-%d", i)}},
		})
		keys[i] = []Part{{Value: Value([]byte{10, 96, byte(i >> 8), byte(i)})}, {Value: "\x06"}, {Value: "\x00\x50"}}
	}
	return &Table{Family: "ip", Sets: []*Set{s}}, s, keys
}

func TestFindDoesNotAllocate(t *testing.T) {
	table, s, keys := services(2000)
	x, problems := table.IndexOf(s, nil)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	i := 0
	if n := testing.AllocsPerRun(1000, func() {
		found, certain := x.Find(keys[i])
		if len(found) != 1 || !certain || found[0].Element != &s.Elements[i] {
			t.Fatal(i, found, certain)
		}
		i++
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkFind(b *testing.B) {
	table, s, keys := services(20_000)
	x, _ := table.IndexOf(s, nil)
	b.Run("index", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if found, _ := x.Find(keys[i%len(keys)]); len(found) != 1 {
				b.Fatal(i)
			}
		}
	})
	type key struct {
		address [4]byte
		proto   byte
		port    [2]byte
	}
	plain := map[key]*Element{}
	of := func(k []Part) (r key) {
		copy(r.address[:], k[0].Value)
		r.proto = k[1].Value[0]
		copy(r.port[:], k[2].Value)
		return r
	}
	for i, k := range keys {
		plain[of(k)] = &s.Elements[i]
	}
	b.Run("Go map", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if plain[of(keys[i%len(keys)])] == nil {
				b.Fatal(i)
			}
		}
	})
	b.Run("port open", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			k := keys[i%len(keys)]
			if found, _ := x.Find([]Part{k[0], k[1], {Open: true}}); len(found) != 1 {
				b.Fatal(i)
			}
		}
	})
}

func BenchmarkIndexOf(b *testing.B) {
	for _, n := range []int{10_000, 100_000, 1_000_000} {
		for _, kind := range []string{"exact", "prefixes", "prefixes . port"} {
			s := &Set{Type: []string{"ipv4_addr"}}
			if kind == "prefixes . port" {
				s.Type = append(s.Type, "inet_service")
			}
			for i := range n {
				var e Expr = Literal{fmt.Sprintf("10.%d.%d.%d", i>>15&0xff, i>>7&0xff, i<<1&0xff)}
				if kind != "exact" {
					e = Prefix{e, 31}
				}
				if len(s.Type) == 2 {
					e = Concat{[]Expr{e, Literal{"443"}}}
				}
				s.Elements = append(s.Elements, Element{Key: e})
			}
			table := &Table{Family: "ip"}
			b.Run(fmt.Sprintf("%s/%d", kind, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, problems := table.IndexOf(s, nil); len(problems) > 0 {
						b.Fatal(problems)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/element")
			})
		}
	}
}
