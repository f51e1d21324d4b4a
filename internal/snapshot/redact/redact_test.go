package redact

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/unmasq/unmasq/internal/snapshot"
)

func redactor(t testing.TB, seed byte) *Redactor {
	t.Helper()
	r, err := New(Key{seed, 31: 1})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// addresses are random ones, most of them near the special prefixes and near
// each other, so that they share prefixes.
func addresses() *rapid.Generator[netip.Addr] {
	return rapid.Custom(func(t *rapid.T) netip.Addr {
		if rapid.Bool().Draw(t, "v6") {
			a := netip.IPv6Unspecified().As16()
			if rapid.Bool().Draw(t, "near") {
				s := special[8+rapid.IntRange(0, len(special)-9).Draw(t, "special")]
				a = s.Addr().As16()
			}
			for range rapid.IntRange(0, 4).Draw(t, "changes") {
				a[rapid.IntRange(0, 15).Draw(t, "octet")] = rapid.Byte().Draw(t, "value")
			}
			return netip.AddrFrom16(a)
		}
		a := special[rapid.IntRange(0, 7).Draw(t, "special")].Addr().As4()
		for range rapid.IntRange(0, 3).Draw(t, "changes") {
			a[rapid.IntRange(0, 3).Draw(t, "octet")] = rapid.Byte().Draw(t, "value")
		}
		return netip.AddrFrom4(a)
	})
}

func TestPrefixesAreKept(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, err := New(Key{rapid.Byte().Draw(t, "key")})
		if err != nil {
			t.Fatal(err)
		}
		all := rapid.SliceOfN(addresses(), 2, 8).Draw(t, "addresses")
		if rapid.Bool().Draw(t, "frozen") {
			r.Freeze(fmt.Sprintf("%s-%s", all[0], all[1]))
		}
		for _, a := range all {
			for _, b := range all {
				if a.BitLen() != b.BitLen() || a.Is4In6() || b.Is4In6() {
					continue
				}
				x, y := r.Address(a), r.Address(b)
				if commonBits(a, b) != commonBits(x, y) {
					t.Fatalf("%s and %s share %d bits; %s and %s %d", a, b, commonBits(a, b), x, y, commonBits(x, y))
				}
				p, _ := a.Prefix(rapid.IntRange(0, a.BitLen()).Draw(t, "bits"))
				if got := r.Prefix(p); got.Contains(y) != p.Contains(b) || got.Bits() != p.Bits() {
					t.Fatalf("%s contains %s: %t; %s contains %s: %t", p, b, p.Contains(b), got, y, got.Contains(y))
				}
				for _, s := range special {
					if s.Contains(a) != s.Contains(x) || s.whole && s.Contains(a) && a != x {
						t.Fatalf("%s → %s, of %s", a, x, s.Prefix)
					}
				}
			}
		}
	})
}

func TestRangesKeepTheirOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := addresses().Draw(t, "first")
		b := addresses().Draw(t, "last")
		in := addresses().Draw(t, "in")
		if a.BitLen() != b.BitLen() || a.BitLen() != in.BitLen() {
			return
		}
		if b.Less(a) {
			a, b = b, a
		}
		r, err := New(Key{rapid.Byte().Draw(t, "key")})
		if err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprintf("-A X -m iprange --src-range %s-%s -j ACCEPT", a, b)
		r.Freeze(text)
		m := rangeText.FindStringSubmatch(r.Text(text))
		first, last := netip.MustParseAddr(m[1]), netip.MustParseAddr(m[2])
		x := r.Address(in)
		was := !in.Less(a) && !b.Less(in)
		is := !x.Less(first) && !last.Less(x)
		if was != is {
			t.Fatalf("%s in %s-%s: %t; %s in %s-%s: %t", in, a, b, was, x, first, last, is)
		}
	})
}

// secret is what must not be left of a text.
var secret = regexp.MustCompile(`10\.2[34]4|192\.0\.2\.|0a:59:75|fd00:10:|payroll|web-front|worker-7`)

func TestFiles(t *testing.T) {
	files := map[string][]byte{
		snapshot.FileMeta: []byte(`{"version":1,"host":"worker-7","kernel":"6.1.0","programs":{"nft":"nftables v1.0.6"},"missing":{"wg.txt":"wg is not installed"}}`),
		snapshot.FileIPTables: []byte(`*nat
-A POSTROUTING -s 10.244.0.0/16 ! -d 10.244.0.0/255.255.0.0 -j MASQUERADE
-A KUBE-SERVICES -d 10.234.0.9/32 -p tcp -m comment --comment "payroll/web-front:http cluster IP" -m tcp --dport 80 -j KUBE-SVC-X
-A KUBE-SEP-1 -s 10.244.1.7/32 -m comment --comment "payroll/web-front:http" -j KUBE-MARK-MASQ
-A KUBE-SEP-1 -p tcp -m comment --comment "payroll/web-front:http -> 10.244.1.7:8080" -m tcp -j DNAT --to-destination 10.244.1.7:8080
-A KUBE-SEP-2 -p tcp -j DNAT --to-destination [fd00:10:244::7]:8080
-A POSTROUTING -m comment --comment "default/kubernetes:https on worker-7.example" -j SNAT --to-source 192.0.2.7-192.0.2.9
COMMIT
`),
		snapshot.FileNFT: []byte(`{"rule": {"chain": "endpoint-ZFYI5TOO-payroll/web-front/tcp/http__10.244.1.11/8080", "expr": [{"prefix": {"addr": "10.244.0.0", "len": 16}}]}}
{"chain": "endpoint-ZFYI5TOO-payroll/web-front/tcp/http__fd00.10.244.1..11/8080"}
`),
		snapshot.FileRules:         []byte(`[{"priority":512,"src":"10.244.0.0","srclen":16,"table":"100"}]`),
		snapshot.FileLinks:         []byte(`[{"ifname":"eth0","address":"0a:59:75:53:a7:1a","broadcast":"ff:ff:ff:ff:ff:ff"},{"bridge_id":"8000.0a:59:75:53:a7:1a"}]`),
		snapshot.FileConntrackStat: []byte("entries  found insert_failed drop\n00000007  00000000 00000003 deadbeef\n"),
		snapshot.FileConntrack:     []byte("tcp 6 1 ESTABLISHED src=10.244.1.7 dst=192.0.2.9 sport=1 dport=2 src=192.0.2.9 dst=192.0.2.7 sport=2 dport=1\n"),
	}
	out, err := Files(files, Key{5})
	if err != nil {
		t.Fatal(err)
	}
	all := ""
	for name, text := range out {
		all += string(text)
		if left := secret.FindString(string(text)); left != "" {
			t.Errorf("%s still has %q:\n%s", name, left, text)
		}
		if strings.Count(string(text), "\n") < strings.Count(string(files[name]), "\n") {
			t.Errorf("%s lost lines:\n%s", name, text)
		}
	}
	again, err := Files(files, Key{5})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(out, again); diff != "" {
		t.Errorf("not the same with the same key: %s", diff)
	}
	if counters := out[snapshot.FileConntrackStat]; string(counters) != string(files[snapshot.FileConntrackStat]) {
		t.Errorf("counters have changed: %s", counters)
	}
	for _, want := range []string{`default/kubernetes:https`, `"redacted": true`, `ff:ff:ff:ff:ff:ff`, "-j MASQUERADE", `cluster IP"`, "v1.0.6"} {
		if !strings.Contains(all, want) {
			t.Errorf("lost %q in\n%s", want, all)
		}
	}
	r, err := New(Key{5})
	if err != nil {
		t.Fatal(err)
	}
	pod, pods := r.Address(netip.MustParseAddr("10.244.1.7")), r.Prefix(netip.MustParsePrefix("10.244.0.0/16"))
	for _, want := range []string{
		fmt.Sprintf("-s %s ! -d %s/255.255.0.0", pods, pods.Addr()), fmt.Sprintf("--to-destination %s:8080", pod), fmt.Sprintf("-> %s:8080", pod),
		fmt.Sprintf(`{"addr": "%s", "len": 16}`, pods.Addr()), fmt.Sprintf(`"src":"%s","srclen":16`, pods.Addr()), "src=" + pod.String() + " ",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("want %q in\n%s", want, all)
		}
	}
}

func TestWhatStays(t *testing.T) {
	r := redactor(t, 3)
	for _, text := range []string{
		"0.0.0.0/0 ::/0 127.0.0.1 ::1 224.0.0.0/4 255.255.255.255 169.254.169.254 ff02::1 00:00:00:00:00:00 33:33:00:00:00:01",
		"# Generated by iptables-save v1.8.9 (nf_tables) on Sat Nov 21 10:24:05 2026",
		":POSTROUTING ACCEPT [65:3916]",
		"-A X -m set --match-set inet6:kube-router-pod-subnets src -m tcp --dport 80:90 -j KUBE::X",
		"net.ipv4.conf.eth0/100.rp_filter = 2",
	} {
		if got := r.Text(text); got != text {
			t.Errorf("%s\nbecame\n%s", text, got)
		}
	}
	if got := r.Text("10.1.0.0-10.1.255.255"); regexp.MustCompile(`^10\.(\d+)\.0\.0-10\.(\d+)\.255\.255$`).FindString(got) == "" || got == "10.1.0.0-10.1.255.255" {
		t.Errorf("a range that is a prefix became %s", got)
	}
}

func FuzzText(f *testing.F) {
	f.Add("-s 10.244.0.0/16 [fd00::1]:80 10.0.0.1-10.0.0.9 ip-10-0-0-1 8000.2:42:ac:11:0:2")
	f.Add(`"range": ["10.0.0.1", "10.9.0.9"] -ULMVA6XW-a/b/tcp/c__1.2.3.4/80`)
	f.Fuzz(func(t *testing.T, text string) {
		r := redactor(t, 1)
		r.Freeze(text)
		if a, b := strings.Count(text, "\n"), strings.Count(r.Text(text), "\n"); a != b {
			t.Errorf("%d lines became %d", a, b)
		}
	})
}
