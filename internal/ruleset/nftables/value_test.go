package nftables

import (
	"fmt"
	"testing"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		datatype string
		e        Expr
		want     string // FIRST or FIRST-LAST in hexadecimal, or the error
	}{
		{"ipv4_addr", Literal{"10.0.0.1"}, "0a000001"},
		{"ipv4_addr", Prefix{Literal{"10.1.2.3"}, 8}, "0a000000-0affffff"},
		{"ipv4_addr", Literal{"10.0.0.0/31"}, "0a000000-0a000001"},
		{"ipv4_addr", Literal{"10.0.0.1-10.0.0.3"}, "0a000001-0a000003"},
		{"ipv4_addr", Literal{"::1"}, `"::1" as ipv4_addr: an address of the other family`},
		{"ipv4_addr", Literal{"example.org"}, `"example.org" as ipv4_addr: no address`},
		{"ipv4_addr", Any{}, "00000000-ffffffff"},
		{"ipv6_addr", Literal{"::ffff:10.0.0.1"}, "00000000000000000000ffff0a000001"},
		{"ether_addr", Literal{"0a:0:27:ff:00:1"}, "0a0027ff0001"},
		{"ether_addr", Literal{"0a:00"}, `"0a:00" as ether_addr: no hardware address of 6 bytes`},
		{"inet_service", Literal{"https"}, "01bb"},
		{"inet_service", Literal{"80-90"}, "0050-005a"},
		{"inet_service", Literal{"ftp-data"}, "0014"},
		{"inet_service", Range{Literal{"http"}, Literal{"443"}}, "0050-01bb"},
		{"inet_service", Range{Literal{"443"}, Literal{"80"}}, `"443"-"80" as inet_service: begins after its end`},
		{"inet_service", Literal{"65536"}, "65536 as inet_service: more than 16 bits"},
		{"inet_service", Literal{"nonesuch"}, `"nonesuch" as inet_service: a name that only the node knows, or none that nft prints`},
		{"inet_proto", Literal{"tcp"}, "06"},
		{"inet_proto", Literal{"ip"}, "00"},
		{"mark", Literal{"0x00004000"}, "00004000"},
		{"mark", Literal{"010"}, "00000008"},
		{"mark", Range{Literal{"0x1"}, Literal{"0xff"}}, "00000001-000000ff"},
		{"mark", Prefix{Literal{"0x12340000"}, 16}, "12340000-1234ffff"},
		{"mark", Binary{"|", Literal{"0x1"}, Binary{"<<", Literal{"1"}, Literal{"4"}}}, "00000011"},
		{"ct_state", List{[]Expr{Literal{"established"}, Literal{"related"}}}, "00000006"},
		{"tcp_flag", Binary{"|", Literal{"syn"}, Literal{"ack"}}, "12"},
		{"tcp_flag", Literal{"0x3f"}, "3f"},
		{"ipv4_addr", List{[]Expr{Literal{"10.0.0.1"}, Literal{"10.0.0.2"}}}, `"10.0.0.1","10.0.0.2" as ipv4_addr: no list of flags`},
		{"dscp", Literal{"ef"}, "2e"},
		{"dscp", Any{}, "00-3f"},
		{"dscp", Prefix{Literal{"0x20"}, 1}, "20-3f"},
		{"dscp", Literal{"64"}, "64 as dscp: more than 6 bits"},
		{"ifname", Literal{"eth0"}, "65746830000000000000000000000000"},
		{"ifname", Literal{`"eth*"`}, "65746800000000000000000000000000-657468ffffffffffffffffffffffffff"},
		{"ifname", Literal{`"eth\*"`}, "6574682a000000000000000000000000"},
		{"ifname", Literal{"a234567890123456"}, `"a234567890123456" as ifname: longer than a name can be`},
		{"ifname", Literal{"e-0"}, "652d3000000000000000000000000000"},
		{"iface_index", Literal{`"lo"`}, "6c6f0000000000000000000000000000"},
		{"iface_index", Literal{"7"}, `"7" as iface_index: the name of the interface with this index isn't known`},
		{"iface_index", Literal{`"7"`}, "37000000000000000000000000000000"},
		{"iface_index", Literal{"0"}, "00000000000000000000000000000000"},
		{"boolean", Literal{"missing"}, "00"},
		{"ct_label", Literal{"127"}, "80000000000000000000000000000000"},
		{"ct_label", Literal{"red"}, `"red" as ct_label: a name that only the node knows, or none that nft prints`},
		{"uid", Literal{"root"}, "00000000"},
		{"uid", Literal{"nobody"}, `"nobody" as uid: a name that only the node knows, or none that nft prints`},
		{"uid", Literal{"1000"}, "000003e8"},
		{"classid", Literal{"1:a"}, "0001000a"},
		{"classid", Literal{":1"}, "00000001"},
		{"day", Literal{`"Sunday"`}, "00"},
		{"hour", Literal{`"17:00"`}, `"\"17:00\"" as hour: hours depend on the node's time zone`},
		{"time", Literal{`"2024-01-01 00:00:00"`}, `"\"2024-01-01 00:00:00\"" as time: dates depend on the node's time zone`},
		{"integer", Literal{"1"}, `"1" as integer: the length of its values isn't known`},
		{"verdict", Literal{"accept"}, `"accept" as verdict: the length of its values isn't known`},
		{"mark", SetRef{"s"}, "@s as mark: no constant"},
	} {
		d, known := DatatypeOf(c.datatype)
		if !known {
			t.Fatal(c.datatype)
		}
		checkParse(t, d, c.e, c.want)
	}
	checkParse(t, relativeTime, Literal{"2h30m"}, "00895440")
	checkParse(t, relativeTime, Literal{"1s500ms"}, "000005dc")
	checkParse(t, relativeTime, Literal{"2h30"}, `"2h30" as time: no time as 1d2h3m4s5ms`)
	checkParse(t, IntegerOf(128), Literal{"0x0123456789abcdef0123456789abcdef"}, "0123456789abcdef0123456789abcdef")
	checkParse(t, IntegerOf(20), Any{}, "000000-0fffff")
}

func checkParse(t *testing.T, d Datatype, e Expr, want string) {
	t.Helper()
	i, err := Parse(d, e)
	got := fmt.Sprintf("%x-%x", i.First, i.Last)
	if err != nil {
		got = err.Error()
	} else if i.Single() {
		got = fmt.Sprintf("%x", i.First)
	}
	if got != want {
		t.Errorf("Parse(%s, %s)\ngot  %s\nwant %s", d.Name, describe(e), got, want)
	}
}
