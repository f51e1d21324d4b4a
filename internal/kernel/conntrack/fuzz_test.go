package conntrack

import (
	"encoding/binary"
	"net/netip"
	"testing"

	ct "github.com/unmasq/unmasq/internal/conntrack"
)

// attr appends an attribute.
func attr(b []byte, typ uint16, data []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(data)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, data...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func u32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
func u16(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }

const nested = 0x8000

// encodeTuple is CTA_TUPLE_ORIG and _REPLY as the kernel writes and reads them.
func encodeTuple(protocol uint8, t ct.Tuple) []byte {
	var ip, proto []byte
	source, destination := uint16(1), uint16(2)
	if t.Source.Is6() {
		source, destination = 3, 4
	}
	ip = attr(attr(nil, source, t.Source.AsSlice()), destination, t.Destination.AsSlice())
	proto = attr(nil, 1, []byte{protocol})
	switch protocol {
	case 1:
		proto = attr(attr(attr(proto, 4, u16(t.ID)), 5, []byte{t.Type}), 6, []byte{t.Code})
	case 58:
		proto = attr(attr(attr(proto, 7, u16(t.ID)), 8, []byte{t.Type}), 9, []byte{t.Code})
	default:
		proto = attr(attr(proto, 2, u16(t.SourcePort)), 3, u16(t.DestinationPort))
	}
	return attr(attr(nil, nested|attrTupleIP, ip), nested|attrTupleProtocol, proto)
}

// encode an entry as the kernel does.
func encode(e *ct.Entry) []byte {
	b := []byte{2, 0, 0, 0}
	b = attr(b, nested|attrOriginal, encodeTuple(e.Protocol, e.Original))
	b = attr(b, nested|attrReply, encodeTuple(e.Protocol, e.Reply))
	status := uint32(0)
	for bit, on := range map[uint32]bool{statusSeenReply: e.SeenReply, statusAssured: e.Assured, 1 << 14: e.Offloaded} {
		if on {
			status |= bit
		}
	}
	b = attr(b, attrStatus, u32(status))
	for i, s := range states[1] {
		if s == e.State {
			b = attr(b, nested|attrProtocolState, attr(nil, nested|1, attr(nil, 1, []byte{byte(i)})))
		}
	}
	b = attr(b, attrMark, u32(e.Mark))
	b = attr(b, attrZone, u16(e.Zone))
	return attr(b, attrID, u32(e.ID))
}

func example() ct.Entry {
	return ct.Entry{
		Protocol: 6, State: "ESTABLISHED", SeenReply: true, Assured: true, Mark: 0x1234, Zone: 7, OriginalZone: 7, ReplyZone: 7, ID: 99,
		Original: ct.Tuple{Source: netip.MustParseAddr("10.9.0.1"), Destination: netip.MustParseAddr("10.9.0.9"), SourcePort: 5555, DestinationPort: 80},
		Reply:    ct.Tuple{Source: netip.MustParseAddr("10.9.0.2"), Destination: netip.MustParseAddr("10.9.0.7"), SourcePort: 7000, DestinationPort: 5555},
	}
}

func TestParse(t *testing.T) {
	six := ct.Entry{
		Protocol: 58, ID: 1,
		Original: ct.Tuple{Source: netip.MustParseAddr("fd00::1"), Destination: netip.MustParseAddr("fd00::2"), ID: 4, Type: 128},
		Reply:    ct.Tuple{Source: netip.MustParseAddr("fd00::2"), Destination: netip.MustParseAddr("fd00::1"), ID: 4, Type: 129},
	}
	for _, want := range []ct.Entry{example(), six} {
		var got ct.Entry
		if err := parse(encode(&want), &got); err != nil || got != want {
			t.Errorf("%v\n got %+v\nwant %+v", err, got, want)
		}
		// A message that is cut anywhere is refused, or was cut between attributes
		// behind the tuples.
		whole := encode(&want)
		for n := range whole {
			var part ct.Entry
			if parse(whole[:n], &part) == nil && (part.Original != want.Original || part.Reply != want.Reply) {
				t.Errorf("cut at %d: %+v", n, part)
			}
		}
	}
	// Unknown attributes are passed over.
	e, got := example(), ct.Entry{}
	if err := parse(attr(encode(&e), 200, []byte("new")), &got); err != nil || got != e {
		t.Errorf("%v, %+v", err, got)
	}
}

func FuzzParse(f *testing.F) {
	e := example()
	f.Add(encode(&e))
	f.Add([]byte{})
	f.Add([]byte{2, 0, 0, 0, 8, 0, 1, 0x80, 4, 0, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		for range messages(b) {
		}
		var e ct.Entry
		if parse(b, &e) != nil {
			return
		}
		if !e.Original.Source.IsValid() || !e.Reply.Destination.IsValid() || e.Original.Source.Is4() != e.Reply.Source.Is4() {
			t.Errorf("taken for an entry: %+v", e)
		}
		if e.Protocol != 6 || e.Original.Source.Zone() != "" {
			return
		}
		// What it says goes back and forth.
		e.OriginalZone, e.ReplyZone, e.Counted, e.Packets, e.Bytes, e.Start, e.Stop = e.Zone, e.Zone, false, [2]uint64{}, [2]uint64{}, 0, 0
		e.Original.ID, e.Original.Type, e.Original.Code, e.Reply.ID, e.Reply.Type, e.Reply.Code = 0, 0, 0, 0, 0, 0
		if e.State != "" && e.State != "ESTABLISHED" {
			e.State = ""
		}
		var again ct.Entry
		if err := parse(encode(&e), &again); err != nil || again != e {
			t.Errorf("%v\n got %+v\nwant %+v", err, again, e)
		}
	})
}
