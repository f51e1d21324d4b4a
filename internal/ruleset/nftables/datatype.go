package nftables

import "strings"

// datatypes are those that sets are declared with, by name. What nft describes
// with no length of its own (integer, string) has none here.
var datatypes = map[string]Datatype{
	"verdict":      {Name: "verdict"},
	"integer":      {Name: "integer"},
	"bitmask":      {Name: "bitmask", Flags: true},
	"string":       {Name: "string", Bytes: nameBytes},
	"nf_proto":     {Name: "nf_proto", Bytes: 1},
	"ipv4_addr":    {Name: "ipv4_addr", Bytes: 4},
	"ipv6_addr":    {Name: "ipv6_addr", Bytes: 16},
	"ether_addr":   {Name: "ether_addr", Bytes: 6},
	"ether_type":   {Name: "ether_type", Bytes: 2},
	"arp_op":       {Name: "arp_op", Bytes: 2},
	"inet_proto":   {Name: "inet_proto", Bytes: 1},
	"inet_service": {Name: "inet_service", Bytes: 2},
	"icmp_type":    {Name: "icmp_type", Bytes: 1},
	"icmp_code":    {Name: "icmp_code", Bytes: 1},
	"icmpv6_type":  {Name: "icmpv6_type", Bytes: 1},
	"icmpv6_code":  {Name: "icmpv6_code", Bytes: 1},
	"icmpx_code":   {Name: "icmpx_code", Bytes: 1},
	"igmp_type":    {Name: "igmp_type", Bytes: 1},
	"tcp_flag":     {Name: "tcp_flag", Bytes: 1, Flags: true},
	"dccp_pkttype": {Name: "dccp_pkttype", Bytes: 1, Bits: 4},
	"mh_type":      {Name: "mh_type", Bytes: 1},
	"dscp":         {Name: "dscp", Bytes: 1, Bits: 6},
	"ecn":          {Name: "ecn", Bytes: 1, Bits: 2},
	"mark":         {Name: "mark", Bytes: 4},
	"ifname":       {Name: "ifname", Bytes: nameBytes},
	"iface_index":  {Name: "iface_index", Bytes: nameBytes},
	"iface_type":   {Name: "iface_type", Bytes: 2},
	"devgroup":     {Name: "devgroup", Bytes: 4},
	"realm":        {Name: "realm", Bytes: 4},
	"classid":      {Name: "classid", Bytes: 4},
	"uid":          {Name: "uid", Bytes: 4},
	"gid":          {Name: "gid", Bytes: 4},
	"cgroupsv2":    {Name: "cgroupsv2", Bytes: 8},
	"pkt_type":     {Name: "pkt_type", Bytes: 1},
	"fib_addrtype": {Name: "fib_addrtype", Bytes: 4},
	"boolean":      {Name: "boolean", Bytes: 1, Bits: 1},
	"ct_state":     {Name: "ct_state", Bytes: 4, Flags: true},
	"ct_status":    {Name: "ct_status", Bytes: 4, Flags: true},
	"ct_event":     {Name: "ct_event", Bytes: 4, Flags: true},
	"ct_dir":       {Name: "ct_dir", Bytes: 1},
	"ct_label":     {Name: "ct_label", Bytes: 16, Flags: true},
	"time":         {Name: "time", Bytes: 8},
	"day":          {Name: "day", Bytes: 1},
	"hour":         {Name: "hour", Bytes: 4},
}

// nameBytes of an interface, of ct helper, of osf name.
const nameBytes = 16

// relativeTime is ct expiration: milliseconds. nft calls it time too, as it does
// meta time, which has twice the bytes.
var relativeTime = Datatype{Name: "time", Bytes: 4}

// DatatypeOf gives the datatype that nft calls by a name.
func DatatypeOf(name string) (Datatype, bool) {
	d, known := datatypes[name]
	return d, known
}

// IntegerOf gives the datatype of a number of so many bits.
func IntegerOf(bits int) Datatype {
	d := Datatype{Name: "integer", Bytes: (bits + 7) / 8}
	if bits%8 != 0 {
		d.Bits = bits
	}
	return d
}

// metaTypes of meta KEY. A word with a digit is an integer of so many bits.
var metaTypes = map[string]string{
	"length": "32", "protocol": "ether_type", "priority": "classid", "mark": "mark", "iif": "iface_index",
	"oif": "iface_index", "iifname": "ifname", "oifname": "ifname", "iiftype": "iface_type", "oiftype": "iface_type",
	"skuid": "uid", "skgid": "gid", "nftrace": "1", "rtclassid": "realm", "secmark": "32", "nfproto": "nf_proto",
	"l4proto": "inet_proto", "ibrname": "ifname", "obrname": "ifname", "ibriport": "ifname", "obriport": "ifname",
	"pkttype": "pkt_type", "cpu": "32", "iifgroup": "devgroup", "oifgroup": "devgroup", "cgroup": "32",
	"random": "32", "ipsec": "boolean", "secpath": "boolean", "iifkind": "ifname", "oifkind": "ifname",
	"ibrpvid": "16", "ibrvproto": "ether_type", "time": "time", "day": "day", "hour": "hour", "sdif": "iface_index",
	"sdifname": "ifname", "broute": "1", "ibrhwaddr": "ether_addr",
}

// ctTypes of ct KEY; addresses by family, expiration: ctType.
var ctTypes = map[string]string{
	"state": "ct_state", "direction": "ct_dir", "status": "ct_status", "mark": "mark", "helper": "string",
	"l3proto": "nf_proto", "protocol": "inet_proto", "proto-src": "inet_service", "proto-dst": "inet_service",
	"label": "ct_label", "packets": "64", "bytes": "64", "avgpkt": "64", "zone": "16", "event": "ct_event",
	"secmark": "32", "id": "32", "count": "32",
}

// typeOfWord reads a value of the tables above.
func typeOfWord(word string) (Datatype, bool) {
	if word == "" {
		return Datatype{}, false
	}
	if word[0] >= '0' && word[0] <= '9' {
		bits, err := number(word)
		return IntegerOf(int(bits)), err == nil
	}
	return DatatypeOf(word)
}

// TypeOf gives the datatypes of an expression in a rule or set of the table: one
// per part of a concatenation. known is false where an expression isn't
// understood, or takes its type from where it stands: constants, and maps
// written in the rule. Of a set's name they are those of its keys. The constants
// of a comparison have the types of its left side, but see [Table.TypeOfMatch].
func (t *Table) TypeOf(e Expr) (types []Datatype, known bool) {
	switch e := e.(type) {
	case Concat:
		return t.typesOfParts(e.Parts)
	case Lookup:
		if ref, named := e.Map.(SetRef); named {
			if s := t.Set(ref.Name); s != nil {
				return t.DataTypes(s)
			}
		}
		return nil, false
	case SetRef:
		if s := t.Set(e.Name); s != nil {
			return t.KeyTypes(s)
		}
		return nil, false
	case Binary:
		if types, known := t.TypeOf(e.Left); known {
			return types, true
		}
		return t.TypeOf(e.Right)
	}
	d, known := t.typeOfOne(e)
	if !known {
		return nil, false
	}
	return []Datatype{d}, true
}

// TypeOfMatch gives the datatypes that a comparison's right side is read with:
// those of its left, but "fib … oif exists" asks for a boolean.
func (t *Table) TypeOfMatch(m Match) ([]Datatype, bool) {
	if f, is := m.Left.(FIB); is && f.Result != "type" {
		if l, is := m.Right.(Literal); is {
			if _, err := appendValue(nil, datatypes["boolean"], l.Text); err == nil && l.Text != "0" && l.Text != "1" {
				return []Datatype{datatypes["boolean"]}, true
			}
		}
	}
	return t.TypeOf(m.Left)
}

// KeyTypes of a set or map, as it was declared.
func (t *Table) KeyTypes(s *Set) ([]Datatype, bool) { return t.declared(s.Type, s.TypeOf) }

// DataTypes of a map, as it was declared: verdict for verdict maps.
func (t *Table) DataTypes(s *Set) ([]Datatype, bool) {
	if !s.Map {
		return nil, false
	}
	return t.declared(s.DataType, s.DataTypeOf)
}

// declared types: known only where each has a length.
func (t *Table) declared(names []string, typeOf Expr) ([]Datatype, bool) {
	var types []Datatype
	for _, name := range names {
		for part := range strings.SplitSeq(name, " . ") {
			d, known := DatatypeOf(strings.TrimSpace(part))
			if !known || d.Bytes == 0 && d.Name != "verdict" {
				return nil, false
			}
			types = append(types, d)
		}
	}
	if len(types) > 0 || typeOf == nil {
		return types, len(types) > 0
	}
	if ref, self := typeOf.(SetRef); self && t.Set(ref.Name) != nil && t.Set(ref.Name).TypeOf != nil {
		return nil, false // a set's type by a set's type: nft doesn't write that
	}
	return t.TypeOf(typeOf)
}

func (t *Table) typesOfParts(parts []Expr) ([]Datatype, bool) {
	types := make([]Datatype, 0, len(parts))
	for _, p := range parts {
		of, known := t.TypeOf(p)
		if !known {
			return nil, false
		}
		types = append(types, of...)
	}
	return types, len(types) > 0
}

// typeOfOne is that of an expression of one part.
func (t *Table) typeOfOne(e Expr) (Datatype, bool) {
	switch e := e.(type) {
	case Meta:
		return typeOfWord(metaTypes[e.Key])
	case CT:
		return t.ctType(e)
	case Payload:
		return typeOfWord(payloadTypes[e.Protocol+" "+e.Field])
	case RawPayload:
		return IntegerOf(e.Length), e.Length > 0
	case FIB:
		return DatatypeOf(fibTypes[e.Result])
	case RT:
		return t.rtType(e)
	case Numgen, JHash, SymHash:
		return IntegerOf(32), true
	case VerdictValue:
		return DatatypeOf("verdict")
	}
	return Datatype{}, false
}

var fibTypes = map[string]string{
	"type": "fib_addrtype", "oif": "iface_index", "oifname": "ifname", "check": "boolean", "present": "boolean",
}

func (t *Table) ctType(e CT) (Datatype, bool) {
	switch e.Key {
	case "saddr", "daddr":
		return t.addressType(e.Family)
	case "expiration":
		return relativeTime, true
	}
	return typeOfWord(ctTypes[e.Key])
}

func (t *Table) rtType(e RT) (Datatype, bool) {
	switch e.Key {
	case "nexthop":
		return t.addressType(e.Family)
	case "classid":
		return DatatypeOf("realm")
	case "mtu":
		return IntegerOf(16), true
	case "ipsec":
		return DatatypeOf("boolean")
	}
	return Datatype{}, false
}

// addressType by the family an expression names, else by the table's.
func (t *Table) addressType(family string) (Datatype, bool) {
	if family == "" {
		family = t.Family
	}
	switch family {
	case "ip":
		return DatatypeOf("ipv4_addr")
	case "ip6":
		return DatatypeOf("ipv6_addr")
	}
	return Datatype{}, false
}
