package route

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
)

// linkLine reads a line of ip link, ip addr or bridge link, -d and -o included:
//
//	3: v0@v0p: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue master br0 state UP group default qlen 1000
//	    link/ether e6:86:25:b3:95:63 brd ff:ff:ff:ff:ff:ff link-netnsid 0 promiscuity 0
//	    vxlan id 5 local 10.0.0.1 dev v0 srcport 0 0 dstport 8472 nolearning
//	    inet 10.9.0.1 peer 10.9.0.2/32 scope global secondary v0
//	       valid_lft forever preferred_lft forever
//	3: v0    inet 10.0.0.1/24 brd 10.0.0.255 scope global v0\       valid_lft forever
func (r *reader) linkLine(words []string, line string) {
	if index, ok := strings.CutSuffix(words[0], ":"); ok && len(words) > 1 && isNumber(index) {
		r.linkHeader(index, words[1:], line)
		return
	}
	if r.link < 0 {
		r.problem(line, "not the beginning of a link: expected NUMBER: NAME: <FLAGS>")
		return
	}
	link := &r.n.Links[r.link]
	switch first := words[0]; {
	case strings.HasPrefix(first, "link/"):
		link.hardware(words)
	case first == "inet" || first == "inet6":
		r.addressLine(link.Name, words, line)
	case first == "hairpin" && len(words) > 1: // of bridge -d link
		link.Hairpin = words[1]
	case slices.Contains(ignoredLinkLines, first), strings.HasPrefix(first, "prog/"), strings.HasSuffix(first, "_slave"):
	case isLinkKind(first) || slices.Contains(words, "addrgenmode"):
		link.Kind = first
		link.details(words[1:])
	case isNumber(first): // counters below RX: and TX:
	default:
		r.problem(line, "not understood as part of link %s", link.Name)
	}
}

// ignoredLinkLines begin lines that say nothing of routing.
var ignoredLinkLines = []string{
	"valid_lft", "altname", "alias", "RX:", "TX:", "RX", "TX", "vf", "parentbus", "parentdev", "permaddr", "link-netns", "prog",
}

// isLinkKind knows the kinds that `ip -d link` puts at the head of a line.
func isLinkKind(word string) bool {
	return slices.Contains([]string{
		"amt", "bareudp", "batadv", "bond", "bridge", "can", "dsa", "dummy", "erspan", "geneve", "gre", "gretap", "gtp", "hsr",
		"ifb", "ip6erspan", "ip6gre", "ip6gretap", "ip6tnl", "ipip", "ipoib", "ipvlan", "ipvtap", "lowpan", "macsec",
		"macvlan", "macvtap", "netdevsim", "netkit", "nlmon", "openvswitch", "ppp", "rmnet", "sit", "team", "tun", "vcan",
		"veth", "virt_wifi", "vlan", "vrf", "vti", "vti6", "vxcan", "vxlan", "wireguard", "wwan", "xfrm",
	}, word)
}

// linkHeader begins a link, or, of ip -o, goes on with it.
func (r *reader) linkHeader(index string, words []string, line string) {
	name, isHeader := strings.CutSuffix(words[0], ":")
	name, peer, _ := strings.Cut(name, "@")
	if name == "" || len(words) < 2 || isHeader && !strings.HasPrefix(words[1], "<") {
		r.problem(line, "expected NUMBER: NAME: <FLAGS>")
		r.finishLink()
		return
	}
	if r.link < 0 || r.n.Links[r.link].Name != name {
		r.finishLink()
		r.link = r.linkNamed(name)
	}
	link := &r.n.Links[r.link]
	link.Index, _ = strconv.Atoi(index)
	if !isHeader { // "3: v0    inet …"
		r.linkLine(words[1:], line)
		return
	}
	r.peer = peer
	link.flags(strings.Split(strings.Trim(words[1], "<>"), ","))
	for i := 2; i+1 < len(words); i++ {
		switch words[i] {
		case "master":
			link.Master = words[i+1]
		case "group":
			link.Group = words[i+1]
		}
	}
}

// linkNamed is the place of a link, which is added where it isn't known yet.
func (r *reader) linkNamed(name string) int {
	i, known := r.links[name]
	if !known {
		i = len(r.n.Links)
		r.n.Links = append(r.n.Links, Link{Name: name})
		r.links[name] = i
	}
	return i
}

// finishLink: what follows the @ in a name is the link below for some kinds.
func (r *reader) finishLink() {
	if r.link >= 0 {
		r.n.Links[r.link].onTopOf(r.peer)
	}
	r.link, r.peer = -1, ""
}

// onTopOf notes the lower link; of a veth it is the other end, of a tunnel without one NONE.
func (l *Link) onTopOf(lower string) {
	switch l.Kind {
	case "vlan", "macvlan", "macvtap", "ipvlan", "ipvtap", "macsec":
		if lower != "" && lower != "NONE" {
			l.Underlay = lower
		}
	}
}

func (l *Link) flags(flags []string) {
	l.Up = slices.Contains(flags, "UP")
	l.Carrier = slices.Contains(flags, "LOWER_UP") && !slices.Contains(flags, "NO-CARRIER")
}

// hardware reads link/KIND ADDRESS [brd|peer ADDRESS] …; a tunnel's addresses are those of its ends.
func (l *Link) hardware(words []string) {
	if len(words) < 2 {
		return
	}
	local, err := netip.ParseAddr(words[1])
	if err != nil {
		if strings.Count(words[1], ":") == 5 {
			l.MAC = words[1]
		}
		return
	}
	l.setEnd(&l.Local, local)
	for i := 2; i+1 < len(words); i++ {
		if words[i] == "peer" || words[i] == "brd" {
			if remote, err := netip.ParseAddr(words[i+1]); err == nil {
				l.setEnd(&l.Remote, remote)
			}
		}
	}
}

func (l *Link) setEnd(end *netip.Addr, a netip.Addr) {
	if a.IsValid() && !a.IsUnspecified() {
		*end = a
	}
}

// details reads what `ip -d link` prints after the kind.
func (l *Link) details(words []string) {
	for i := 0; i+1 < len(words); i++ {
		value := words[i+1]
		switch words[i] {
		case "id":
			l.number(value)
		case "local":
			a, _ := netip.ParseAddr(value)
			l.setEnd(&l.Local, a)
		case "remote", "group":
			a, _ := netip.ParseAddr(value)
			l.setEnd(&l.Remote, a)
		case "dev":
			l.Underlay = value
		case "dstport":
			port, _ := strconv.ParseUint(value, 10, 16)
			l.Port = uint16(port)
		case "table":
			table, _ := strconv.ParseUint(value, 10, 32)
			l.Table = uint32(table)
		}
	}
}

// number is a VXLAN's or Geneve's identifier.
func (l *Link) number(value string) {
	if l.Kind != "vxlan" && l.Kind != "geneve" {
		return
	}
	if id, err := strconv.ParseUint(value, 10, 32); err == nil {
		l.VNI = uint32(id)
	}
}

// addressLine reads inet and inet6. What isn't a word of ip's own is the
// address's label.
func (r *reader) addressLine(link string, words []string, line string) {
	a := Address{Interface: link}
	if len(words) < 2 || !a.own(words[1]) {
		r.loseAddress(familyNamed(words[0]), line, "expected an address with its length after "+words[0])
		return
	}
	for i := 2; i < len(words); i++ {
		value := ""
		if i+1 < len(words) {
			value = words[i+1]
		}
		switch words[i] {
		case "peer":
			peer, err := netip.ParsePrefix(value)
			if err != nil {
				r.loseAddress(packet.Of(a.Prefix.Addr()), line, "expected the peer's prefix, not "+strconv.Quote(value))
				return
			}
			a.Peer = peer
			i++
		case "brd":
			a.Broadcast, _ = netip.ParseAddr(value)
			i++
		case "scope":
			scope, ok := scopeNamed(value)
			if !ok {
				r.loseAddress(packet.Of(a.Prefix.Addr()), line, "unknown scope "+strconv.Quote(value))
				return
			}
			a.Scope = scope
			i++
		case "any", "metric", "proto", "flags":
			i++
		default:
			a.flag(words[i])
		}
	}
	r.addAddress(a)
}

// loseAddress notes an address that could not be read.
func (r *reader) loseAddress(f packet.Family, line, why string) {
	r.problem(line, "%s", why)
	r.n.lose(f, "address", r.line)
	if r.n.addressLost == nil {
		r.n.addressLost = map[packet.Family]bool{}
	}
	r.n.addressLost[f] = true
}

// own sets the address; without a length it is a point-to-point link's.
func (a *Address) own(text string) bool {
	if prefix, err := netip.ParsePrefix(text); err == nil {
		a.Prefix = prefix
		return true
	}
	own, err := netip.ParseAddr(text)
	if err != nil || own.Zone() != "" {
		return false
	}
	a.Prefix = netip.PrefixFrom(own, own.BitLen())
	return true
}

func (a *Address) flag(name string) {
	v6 := a.Prefix.Addr().Is6()
	switch name {
	case "secondary", "temporary": // one bit in the kernel
		a.Secondary, a.Temporary = !v6, v6
	case "deprecated":
		a.Deprecated = true
	case "tentative":
		a.Tentative = true
	case "dadfailed":
		a.Failed = true
	case "optimistic":
		a.Optimistic = true
	case "noprefixroute":
		a.NoPrefixRoute = true
	}
}

// addAddress adds an address that isn't there yet.
func (r *reader) addAddress(a Address) {
	key := addressKey{a.Interface, a.Prefix, a.Peer}
	if i, known := r.addresses[key]; known {
		r.n.Addresses[i] = a
		return
	}
	r.addresses[key] = len(r.n.Addresses)
	r.n.Addresses = append(r.n.Addresses, a)
}

// addressKey: the kernel has each once.
type addressKey struct {
	link         string
	prefix, peer netip.Prefix
}

func scopeNamed(name string) (Scope, bool) {
	switch name {
	case "global", "universe":
		return ScopeUniverse, true
	case "site":
		return ScopeSite, true
	case "link":
		return ScopeLink, true
	case "host":
		return ScopeHost, true
	case "nowhere":
		return ScopeNowhere, true
	}
	number, err := strconv.ParseUint(name, 0, 8)
	return Scope(number), err == nil
}

func isNumber(s string) bool {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != ""
}

// neighborLine reads a line of ip neigh:
//
//	10.0.0.9 dev v0 lladdr 02:00:00:00:00:09 router PERMANENT
//	10.0.0.5 dev v0  FAILED
func (r *reader) neighborLine(words []string) {
	line := strings.Join(words, " ")
	a, err := netip.ParseAddr(words[0])
	if err != nil {
		r.problem(line, "expected an address first, not %q", words[0])
		return
	}
	neighbor := Neighbor{Address: a}
	for i := 1; i+1 < len(words); i++ {
		switch words[i] {
		case "dev":
			neighbor.Interface = words[i+1]
		case "lladdr":
			neighbor.MAC = words[i+1]
		}
	}
	if neighbor.Interface == "" {
		r.problem(line, "expected dev NAME")
		return
	}
	if neighbor.MAC != "" { // others have no answer yet
		r.n.Neighbors = append(r.n.Neighbors, neighbor)
	}
}

// forwardLine reads a line of bridge fdb:
//
//	02:00:00:00:00:10 dev vx0 dst 10.0.0.50 self permanent
func (r *reader) forwardLine(words []string) {
	line := strings.Join(words, " ")
	if strings.Count(words[0], ":") != 5 {
		r.problem(line, "expected a hardware address first, not %q", words[0])
		return
	}
	forward := Forward{MAC: words[0]}
	for i := 1; i+1 < len(words); i++ {
		switch words[i] {
		case "dev":
			forward.Interface = words[i+1]
		case "dst":
			remote, err := netip.ParseAddr(words[i+1])
			if err != nil {
				r.problem(line, "expected an address after dst, not %q", words[i+1])
				return
			}
			forward.Remote = remote
		}
	}
	if forward.Interface == "" {
		r.problem(line, "expected dev NAME")
		return
	}
	r.n.Forwarding = append(r.n.Forwarding, forward)
}
