package snapshot

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/unmasq/unmasq/internal/conntrack"
	"github.com/unmasq/unmasq/internal/packet"
)

// manySysctls is more than a person picks: what is missing then isn't there.
const manySysctls = 100

// sysctls reads sysctl -a, and what grep -r . /proc/sys prints. A slash in a
// name stands for a dot in an interface's name; here both are dots.
//
//	net.ipv4.conf.eth0/100.rp_filter = 2
//	/proc/sys/net/ipv4/ip_forward:1
func (b *builder) sysctls(f *file, text string, line int) {
	if b.host.Sysctls == nil {
		b.host.Sysctls = map[string]string{}
	}
	count := 0
	for raw := range strings.SplitSeq(text, "\n") {
		number := line
		line++
		s := strings.TrimSpace(raw)
		if s == "" || s[0] == '#' || isFence(s) {
			continue
		}
		key, value, ok := cutSysctl(s)
		if !ok {
			if _, is := parseCommand(s); !is {
				b.note(f.name, number, s[:min(len(s), 200)], "no setting: expected NAME = VALUE")
			}
			continue
		}
		count++
		if before, twice := b.host.Sysctls[key]; twice && before != value {
			b.note(f.name, number, s, "the setting is given twice; the value that was given first, "+before+", counts")
			continue
		}
		b.host.Sysctls[key] = value
	}
	if f.member && f.base() == FileSysctl || count >= manySysctls {
		b.host.AllSysctls = true
	}
}

// counters reads /proc/net/stat/nf_conntrack and conntrack -S. Where both were given
// they are of about one time: the higher ones count.
func (b *builder) counters(name, text string, line int) {
	counters, found := conntrack.ReadCounters(text, line)
	if b.host.Counters == nil {
		b.host.Counters = counters
	}
	for counter, n := range counters {
		b.host.Counters[counter] = max(b.host.Counters[counter], n)
	}
	var p problems
	for _, x := range found {
		p.add(x.Line, x.Text, x.Why)
	}
	b.problems(name, p)
}

func cutSysctl(s string) (key, value string, ok bool) {
	if rest, file := strings.CutPrefix(s, "/proc/sys/"); file {
		i := strings.IndexAny(rest, ":=")
		if i < 0 {
			return "", "", false
		}
		key, value = rest[:i], rest[i+1:]
	} else if key, value, ok = strings.Cut(s, "="); !ok {
		return "", "", false
	}
	key = strings.ReplaceAll(strings.TrimSpace(key), "/", ".")
	return key, strings.Join(strings.Fields(value), " "), key != "" && !strings.Contains(key, " ")
}

// virtualServers reads ipvsadm -Sn and ipvsadm -Ln.
//
//	-A -t 10.96.0.1:443 -s rr
//	-a -t 10.96.0.1:443 -r 172.18.0.2:6443 -m -w 1
//
//	TCP  10.96.0.1:443 rr
//	  -> 172.18.0.2:6443              Masq    1      3          0
func (b *builder) virtualServers(name, text string, line int) {
	b.host.VirtualServersGiven = true
	servers := places{from: len(b.host.VirtualServers), at: map[place]int{}}
	for raw := range strings.SplitSeq(text, "\n") {
		number := line
		line++
		s := strings.TrimSpace(raw)
		f := strings.Fields(s)
		if len(f) == 0 || s[0] == '#' || isFence(s) || strings.HasPrefix(s, "IP Virtual Server") || f[0] == "Prot" || len(f) > 1 && f[1] == "RemoteAddress:Port" {
			continue
		}
		why := ""
		switch {
		case f[0] == "-A" || f[0] == "-a":
			why = b.savedServer(f, &servers)
		case f[0] == "->":
			why = b.listedReal(f[1:], servers.from)
		default:
			if _, is := parseCommand(s); is {
				continue
			}
			why = b.listedServer(f)
		}
		if why != "" {
			b.note(name, number, s[:min(len(s), 200)], why)
		}
	}
}

func ipvsProtocol(word string) (uint8, bool) {
	switch word {
	case "-t", "TCP", "--tcp-service":
		return packet.TCP, true
	case "-u", "UDP", "--udp-service":
		return packet.UDP, true
	case "--sctp-service", "SCTP":
		return packet.SCTP, true
	case "-f", "FWM", "--fwmark-service":
		return 0, true
	}
	return 0, false
}

const byMark = "a virtual server by firewall mark: not followed"

// places are the virtual servers of one text, the last of each address.
type places struct {
	from int
	at   map[place]int
}

type place struct {
	protocol uint8
	address  string
}

// savedServer reads a line of ipvsadm -S.
func (b *builder) savedServer(f []string, servers *places) (why string) {
	v, r, real := VirtualServer{}, RealServer{Method: "route", Weight: 1}, f[0] == "-a"
	for i := 1; i < len(f); i++ {
		value := ""
		if i+1 < len(f) {
			value = f[i+1]
		}
		if p, ok := ipvsProtocol(f[i]); ok {
			v.Protocol, v.Address = p, value
			i++
			continue
		}
		switch f[i] {
		case "-s":
			v.Scheduler = value
			i++
		case "-r":
			r.Address = value
			i++
		case "-w":
			w, err := strconv.ParseUint(value, 10, 16)
			if err != nil {
				return "no weight"
			}
			r.Weight = int(w)
			i++
		case "-m":
			r.Method = "masq"
		case "-g":
			r.Method = "route"
		case "-i":
			r.Method = "tunnel"
		case "-p", "-M", "-b", "--pe", "--tun-type":
			if value != "" && value[0] != '-' {
				i++
			}
		}
	}
	if real {
		at, ok := servers.at[place{v.Protocol, v.Address}]
		if !ok {
			return "a real server of a virtual one that isn't there"
		}
		b.host.VirtualServers[at].Servers = append(b.host.VirtualServers[at].Servers, r)
		return ""
	}
	servers.at[place{v.Protocol, v.Address}] = len(b.host.VirtualServers)
	b.host.VirtualServers = append(b.host.VirtualServers, v)
	return checkServer(v)
}

func checkServer(v VirtualServer) string {
	if v.Protocol == 0 {
		return byMark
	}
	if _, err := netip.ParseAddrPort(v.Address); err != nil {
		return "not ADDRESS:PORT in numbers: print it by ipvsadm -Sn"
	}
	return ""
}

// listedServer: TCP  10.96.0.1:443 rr persistent 10800
func (b *builder) listedServer(f []string) string {
	p, ok := ipvsProtocol(f[0])
	if !ok || len(f) < 2 {
		return "not a line of ipvsadm"
	}
	v := VirtualServer{Protocol: p, Address: f[1]}
	if len(f) > 2 {
		v.Scheduler = f[2]
	}
	b.host.VirtualServers = append(b.host.VirtualServers, v)
	return checkServer(v)
}

// listedReal: 172.18.0.2:6443 Masq 1 3 0
func (b *builder) listedReal(f []string, from int) string {
	if len(f) < 3 || len(b.host.VirtualServers) == from {
		return "not a real server of a virtual one"
	}
	weight, err := strconv.ParseUint(f[2], 10, 16) // as ipvsadm takes them
	if err != nil {
		return "no weight"
	}
	method := map[string]string{"Masq": "masq", "Route": "route", "Tunnel": "tunnel", "Local": "masq"}[f[1]]
	if method == "" {
		return "no forwarding method of that name is known"
	}
	v := &b.host.VirtualServers[len(b.host.VirtualServers)-1]
	v.Servers = append(v.Servers, RealServer{Address: f[0], Method: method, Weight: int(weight)})
	return ""
}
