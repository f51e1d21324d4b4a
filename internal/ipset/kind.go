package ipset

// kind is what the elements of a type are made of.
type kind struct {
	// parts in their order.
	parts []part
	// nomatch: the type knows elements that take others back.
	nomatch bool
	// families is what the type can hold.
	families families
}

// part is one dimension of an element.
type part uint8

const (
	// host is an address; in text also a prefix or range, for all addresses in it.
	host part = iota + 1
	// network is a prefix, the most specific one of which decides.
	network
	// port has a protocol, plainPort has none.
	port
	plainPort
	mac
	// optionalMAC may be left out: any address of a card is meant.
	optionalMAC
	mark
	iface
	set
)

type families uint8

const (
	bothFamilies families = iota
	onlyIPv4
	// noFamily: the type has no addresses, or asks others.
	noFamily
)

// kindOf a type by its name; parts are nil where there is no such type.
// Names of before 2011 (ipset 4) are the same types.
func kindOf(name string) (canonical string, k kind) {
	switch name {
	case "iphash":
		name = "hash:ip"
	case "nethash":
		name = "hash:net"
	case "ipporthash":
		name = "hash:ip,port"
	case "ipportiphash":
		name = "hash:ip,port,ip"
	case "ipportnethash":
		name = "hash:ip,port,net"
	case "ipmap":
		name = "bitmap:ip"
	case "macipmap":
		name = "bitmap:ip,mac"
	case "portmap":
		name = "bitmap:port"
	case "setlist":
		name = "list:set"
	}
	return name, kinds(name)
}

func kinds(name string) kind {
	switch name {
	case "hash:ip":
		return kind{parts: []part{host}}
	case "hash:mac":
		return kind{parts: []part{mac}, families: noFamily}
	case "hash:ip,mac":
		return kind{parts: []part{host, mac}}
	case "hash:ip,mark":
		return kind{parts: []part{host, mark}}
	case "hash:ip,port":
		return kind{parts: []part{host, port}}
	case "hash:ip,port,ip":
		return kind{parts: []part{host, port, host}}
	case "hash:ip,port,net":
		return kind{parts: []part{host, port, network}, nomatch: true}
	case "hash:net":
		return kind{parts: []part{network}, nomatch: true}
	case "hash:net,net":
		return kind{parts: []part{network, network}, nomatch: true}
	case "hash:net,port":
		return kind{parts: []part{network, port}, nomatch: true}
	case "hash:net,port,net":
		return kind{parts: []part{network, port, network}, nomatch: true}
	case "hash:net,iface":
		return kind{parts: []part{network, iface}, nomatch: true}
	case "bitmap:ip":
		return kind{parts: []part{host}, families: onlyIPv4}
	case "bitmap:ip,mac":
		return kind{parts: []part{host, optionalMAC}, families: onlyIPv4}
	case "bitmap:port":
		return kind{parts: []part{plainPort}, families: noFamily}
	case "list:set":
		return kind{parts: []part{set}, families: noFamily}
	}
	return kind{}
}

// other is the part that is no address, and its place; 0 where there is none.
// No type has two.
func (k kind) other() (p part, at int) {
	for i, p := range k.parts {
		if p != host && p != network {
			return p, i
		}
	}
	return 0, -1
}
