package judge_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
)

// generator makes random rulesets whose rules have much in common, so that
// packets meet them.
type generator struct {
	*rand.Rand
	family packet.Family
	words  *words
	// kinds of sets that the kernel has.
	kinds []string
	sets  []*set
	// hooks that the rule that is being made can be reached from, its table.
	hooks []string
	table string
	// protocol that the rule has asked for, as rules write it; empty for none.
	protocol string
}

// words that rules of a family are made of.
type words struct {
	prefixes, backends, sources, icmp, icmpTypes, rejects, links, networks, types []string
}

var vocabulary = map[packet.Family]*words{
	packet.IPv4Family: {
		prefixes: []string{"10.244.0.0/16", "10.244.1.0/24", "10.244.1.7", "10.244.1.128/25", "10.96.0.0/12", "10.96.0.10", "192.0.2.0/24", "192.0.2.1",
			"192.0.2.7", "198.51.100.0/24", "203.0.113.0/24", "203.0.113.64/26", "8.8.8.8", "8.8.0.0/13", "10.0.0.0/8", "0.0.0.0/1", "10.245.1.2", "10.9.0.0/16", "10.244.0.0/255.255.0.255"},
		backends: []string{"10.244.1.5", "10.244.1.7", "10.244.2.1-10.244.2.4", "203.0.113.70", "10.245.1.2", "192.0.2.1", "8.8.4.4", "198.51.100.9"},
		sources:  []string{"192.0.2.200", "192.0.2.201-192.0.2.204", "198.51.100.1", "10.244.1.7", "203.0.113.200"},
		icmp:     []string{"icmp"}, icmpTypes: []string{"8", "echo-request", "any", "8/0", "0", "3/1"},
		rejects:  []string{"", "icmp-port-unreachable", "icmp-host-prohibited", "icmp-admin-prohibited", "icmp-net-unreachable", "icmp-host-unreachable", "icmp-proto-unreachable", "icmp-net-prohibited"},
		links:    []string{"eth0", "eth1", "docker0", "cali1a", "cali1b", "cali+", "eth+", "docker0+", "lo", "+", "veth+"},
		networks: []string{"10.50.0.0/16", "203.0.113.0/24", "10.244.3.0/24", "198.51.100.64/28"},
		types:    []string{"LOCAL", "LOCAL", "UNICAST", "UNICAST,LOCAL", "BROADCAST", "MULTICAST"},
	},
	packet.IPv6Family: {
		prefixes: []string{"fd00:10:244::/48", "fd00:10:244:1::/64", "fd00:10:244:1::7", "fd00:10:244:1::80/121", "fd00:96::/108", "fd00:96::a", "2001:db8::/64", "2001:db8::1",
			"2001:db8:1::/64", "2001:db8:113::/48", "2001:db8:113::40/122", "2001:4860::8888", "2001:4860::/32", "fd00::/8", "2000::/3", "fd00:10:245:1::2"},
		backends: []string{"fd00:10:244:1::5", "fd00:10:244:1::7", "fd00:10:244:2::1-fd00:10:244:2::4", "2001:db8:113::46", "fd00:10:245:1::2", "2001:db8::1", "2001:4860::8844"},
		sources:  []string{"2001:db8::200", "2001:db8::201-2001:db8::204", "2001:db8:1::1", "fd00:10:244:1::7"},
		icmp:     []string{"ipv6-icmp"}, icmpTypes: []string{"128", "echo-request", "128/0", "129", "1"},
		rejects:  []string{"", "icmp6-port-unreachable", "icmp6-adm-prohibited", "icmp6-addr-unreachable", "icmp6-no-route", "icmp6-policy-fail", "icmp6-reject-route"},
		links:    []string{"eth0", "eth1", "docker0", "cali1a", "cali1b", "cali+", "eth+", "lo", "+"},
		networks: []string{"fd00:50::/48", "2001:db8:113::/48", "fd00:10:244:3::/64"},
		types:    []string{"LOCAL", "LOCAL", "UNICAST", "UNICAST,LOCAL", "MULTICAST"},
	},
}

var ports = []string{"53", "80", "443", "8080", "8000:8010", "1024:65535", "0:1023", "30080", "30000:32767"}

func newGenerator(seed uint64, f packet.Family) *generator {
	return &generator{Rand: rand.New(rand.NewPCG(seed, 11)), family: f, words: vocabulary[f], kinds: setKinds}
}

func (g *generator) of(list ...string) string { return list[g.IntN(len(list))] }

// chance is once in oneIn times, which may be a fraction.
func (g *generator) chance(oneIn float64) bool { return g.Float64()*oneIn < 1 }

// hooksOf tables.
var hooksOf = map[string][]string{
	"raw":    {"PREROUTING", "OUTPUT"},
	"mangle": {"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"},
	"nat":    {"PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"},
	"filter": {"INPUT", "FORWARD", "OUTPUT"},
}

var tableNames = []string{"raw", "mangle", "nat", "filter"}

// ruleset makes one for the variants.
func (g *generator) ruleset(variants ...string) *ruleset {
	r := &ruleset{family: g.family}
	g.sets = nil
	for i := range g.IntN(4) {
		g.sets = append(g.sets, g.set(fmt.Sprintf("s%d", i)))
	}
	if len(g.sets) > 1 && g.chance(3) {
		list := &set{name: "list", options: "list:set size 8"}
		for _, s := range g.sets {
			list.elements = append(list.elements, s.name)
		}
		g.sets = append(g.sets, list)
	}
	r.sets = g.sets
	for _, v := range variants {
		if v == "native" {
			r.native = g.native()
			continue
		}
		busy := g.of("nat", "nat", "nat", "mangle", "filter", "raw")
		for _, name := range tableNames {
			rules := 0
			if name == busy || name == "nat" || g.chance(2.5) {
				rules = 2 + g.IntN(10)
			}
			r.tables = append(r.tables, g.makeTable(v, name, rules))
		}
	}
	return r
}

// makeTable fills the hooks and up to four chains of its own. A chain of its own
// is reached from one group of hooks, since not every target may stand at each.
func (g *generator) makeTable(variant, name string, rules int) *table {
	t := &table{variant: variant, name: name}
	g.table = name
	for _, hook := range hooksOf[name] {
		policy := "ACCEPT"
		if name == "filter" && g.chance(15) || name == "mangle" && g.chance(50) {
			policy = "DROP"
		}
		t.chains = append(t.chains, &chain{name: hook, policy: policy})
	}
	own := map[string][]string{} // of a chain: its hooks
	for i := range g.IntN(4) {
		if rules == 0 {
			break
		}
		c := &chain{name: fmt.Sprintf("%s-%d", strings.ToUpper(name[:3]), i), policy: "-"}
		own[c.name] = g.group(name)
		t.chains = append(t.chains, c)
	}
	for range rules {
		i := g.IntN(len(t.chains))
		c := t.chains[i]
		g.hooks = own[c.name]
		if c.policy != "-" {
			g.hooks = []string{c.name}
		}
		c.rules = append(c.rules, g.rule(c, g.callable(t, i, own)))
	}
	return t
}

// group of hooks that a chain may be called from.
func (g *generator) group(table string) []string {
	if table != "nat" {
		return hooksOf[table]
	}
	switch g.IntN(3) {
	case 0:
		return []string{"PREROUTING", "OUTPUT"}
	case 1:
		return []string{"INPUT", "POSTROUTING"}
	}
	return []string{"POSTROUTING"}
}

// callable chains from chain i: later ones, so that there are no loops, whose
// hooks hold those that lead here.
func (g *generator) callable(t *table, i int, own map[string][]string) []string {
	var out []string
	for _, c := range t.chains[i+1:] {
		if hooks, ok := own[c.name]; ok && !slices.ContainsFunc(g.hooks, func(h string) bool { return !slices.Contains(hooks, h) }) {
			out = append(out, c.name)
		}
	}
	return out
}

func (g *generator) at(hooks ...string) bool {
	return !slices.ContainsFunc(g.hooks, func(h string) bool { return !slices.Contains(hooks, h) })
}

// rule without its chain.
func (g *generator) rule(c *chain, callable []string) string {
	g.protocol = ""
	var words []string
	add := func(text string) {
		if text != "" {
			words = append(words, text)
		}
	}
	add(g.addresses())
	add(g.interfaces(c))
	add(g.protocols())
	matches := []func() string{g.mark, g.addressType, g.conntrack, g.statistic, g.setMatch, g.ipRange, g.connMark, g.rest}
	for _, m := range matches {
		if g.chance(9) {
			add(m())
		}
	}
	add(g.target(callable))
	if len(words) == 0 {
		return "-j RETURN"
	}
	return strings.Join(words, " ")
}

func (g *generator) not(oneIn float64) string {
	if g.chance(oneIn) {
		return "! "
	}
	return ""
}

func (g *generator) addresses() (text string) {
	if g.chance(3) {
		text += g.not(3) + "-s " + g.of(g.words.prefixes...) + " "
	}
	if g.chance(2.5) {
		text += g.not(3) + "-d " + g.of(g.words.prefixes...)
	}
	return strings.TrimSpace(text)
}

// interfaces: iptables refuses -i and -o only in the built-in chains where a
// packet has none; in chains of its own they may stand, and see no name.
func (g *generator) interfaces(c *chain) (text string) {
	own := c.policy == "-"
	if g.chance(6) && (own || slices.Contains([]string{"PREROUTING", "INPUT", "FORWARD"}, c.name)) {
		text += g.link("-i") + " "
	}
	if g.chance(6) && (own || slices.Contains([]string{"POSTROUTING", "OUTPUT", "FORWARD"}, c.name)) {
		text += g.link("-o")
	}
	return strings.TrimSpace(text)
}

// link with its ! where negated. Not "! -i +", which never matches and which
// iptables-nft-save lists as if it always did.
func (g *generator) link(option string) string {
	not, name := g.not(3), g.of(g.words.links...)
	if name == "+" {
		not = ""
	}
	return not + option + " " + name
}

func (g *generator) protocols() string {
	if !g.chance(2.2) {
		return ""
	}
	switch g.IntN(12) {
	case 0:
		return "-p " + g.of(g.words.icmp...)
	case 1:
		protocol := g.of(g.words.icmp...)
		name := map[string]string{"icmp": "-m icmp %s--icmp-type ", "ipv6-icmp": "-m icmp6 %s--icmpv6-type "}[protocol]
		kind := g.of(g.words.icmpTypes...)
		not := g.not(4)
		if kind == "any" {
			not = ""
		}
		return "-p " + protocol + " " + fmt.Sprintf(name, not) + kind
	case 2:
		return g.not(2) + "-p " + g.of("gre", "sctp", "132", "17")
	case 3:
		return "! -p " + g.of("tcp", "udp")
	case 4:
		g.protocol = g.of("tcp", "udp", "sctp")
		return "-p " + g.protocol + " -m multiport " + g.not(3) + g.of("--dports ", "--sports ", "--ports ") + g.of("53,80,443", "80,8000:8010", "1024:65535", "0:1023,30000:32767")
	case 5:
		g.protocol = "tcp"
		return "-p tcp -m tcp " + g.not(3) + g.of("--syn", "--tcp-flags SYN,ACK SYN", "--tcp-flags ALL NONE", "--tcp-flags FIN,SYN,RST,ACK SYN")
	}
	g.protocol = g.of("tcp", "udp", "tcp", "udp", "sctp")
	text := "-p " + g.protocol + " -m " + g.protocol
	not := ""
	if g.chance(1.3) {
		not = g.not(4)
		text += " " + not + "--dport " + g.of(ports...)
	}
	if g.chance(5) {
		// Not two of them: iptables-nft 1.8.9 takes ! --dport A ! --sport B for
		// "not both", and lists it as it was written.
		if not == "" {
			not = g.not(4)
		} else {
			not = ""
		}
		text += " " + not + "--sport " + g.of("1024:65535", "2000:2050", "0:1023", "5353")
	}
	return text
}

var marks = []string{"0x4000/0x4000", "0x1", "0x100/0x100", "0x0/0xff", "0x2/0x3", "0x4001"}

func (g *generator) mark() string { return "-m mark " + g.not(3) + "--mark " + g.of(marks...) }

func (g *generator) connMark() string {
	return "-m connmark " + g.not(3) + "--mark " + g.of(marks...)
}

func (g *generator) addressType() string {
	text := "-m addrtype " + g.not(3) + g.of("--dst-type ", "--dst-type ", "--src-type ") + g.of(g.words.types...)
	if g.chance(6) {
		switch {
		case g.at("PREROUTING", "INPUT"):
			text += " --limit-iface-in"
		case g.at("POSTROUTING", "OUTPUT"):
			text += " --limit-iface-out"
		}
	}
	return text
}

func (g *generator) conntrack() string {
	not := g.not(3)
	address := func() string {
		for {
			if a := g.of(g.words.prefixes...); !strings.Contains(a, "/255.") {
				return a
			}
		}
	}
	switch g.IntN(9) {
	case 0:
		return "-m conntrack " + not + g.of("--ctorigdst ", "--ctorigsrc ", "--ctreplsrc ", "--ctrepldst ") + address()
	case 1:
		return "-m conntrack --ctproto 6 " + not + g.of("--ctorigdstport ", "--ctreplsrcport ") + g.of("80", "443", "8080", "30080")
	case 2:
		return "-m conntrack --ctdir " + g.of("ORIGINAL", "REPLY")
	case 3:
		return "-m conntrack " + not + "--ctstatus " + g.of("NONE", "SEEN_REPLY", "ASSURED", "CONFIRMED", "EXPECTED")
	case 4:
		return "-m conntrack " + not + "--ctproto " + g.of("6", "17")
	case 5:
		return "-m state " + not + "--state " + g.of("NEW", "RELATED,ESTABLISHED", "UNTRACKED", "INVALID")
	}
	return "-m conntrack " + not + "--ctstate " + g.of("NEW", "RELATED,ESTABLISHED", "UNTRACKED", "INVALID", "DNAT", "SNAT", "NEW,DNAT", "INVALID,UNTRACKED", "ESTABLISHED")
}

func (g *generator) statistic() string {
	if g.chance(6) {
		return "-m statistic --mode nth --every 2 --packet 0"
	}
	return "-m statistic --mode random " + g.not(5) + "--probability " + g.of("0.5", "0.33333333349", "0.25", "0.66")
}

func (g *generator) ipRange() string {
	first, last := "10.244.1.5", "10.244.2.9"
	if g.family == packet.IPv6Family {
		first, last = "fd00:10:244:1::5", "fd00:10:244:2::9"
	}
	return "-m iprange " + g.not(3) + g.of("--src-range ", "--dst-range ") + first + "-" + last
}

func (g *generator) rest() string {
	switch g.IntN(4) {
	case 0:
		return `-m comment --comment "a random rule"`
	case 1:
		if g.at("PREROUTING") && g.table != "nat" {
			return "-m rpfilter" + g.of("", " --invert", " --loose")
		}
	case 2:
		if g.at("OUTPUT", "POSTROUTING") {
			return "-m owner " + g.not(2) + g.of("--uid-owner 0", "--uid-owner 1000", "--socket-exists")
		}
	case 3:
		return "-m limit --limit 1000/sec"
	}
	return "-m pkttype " + g.not(3) + "--pkt-type unicast"
}

// target of the rule, or none.
func (g *generator) target(callable []string) string {
	if len(callable) > 0 && g.chance(2.5) {
		return g.of("-j ", "-j ", "-j ", "-g ") + g.of(callable...)
	}
	var choices []string
	add := func(times int, texts ...string) {
		for range times {
			choices = append(choices, g.of(texts...))
		}
	}
	add(1, "-j ACCEPT", "")
	add(1, "-j RETURN")
	add(2, "-j MARK "+g.of("--set-xmark 0x4000/0x4000", "--set-mark 0x1", "--or-mark 0x100", "--and-mark 0xff", "--xor-mark 0x4000", "--set-xmark 0x2/0x3", "--set-mark 0x100/0x100"))
	switch g.table {
	case "raw":
		add(1, "-j NOTRACK", "-j CT --notrack")
		add(1, "-j ACCEPT", "-j ACCEPT", "-j ACCEPT", "-j DROP")
	case "mangle":
		add(2, "-j CONNMARK "+g.of("--set-mark 0x4000/0x4000", "--save-mark", "--restore-mark", "--set-xmark 0x1/0xff", "--restore-mark --nfmask 0xff --ctmask 0xffff", "--save-mark --nfmask 0x4000 --ctmask 0x4000"))
		add(1, "-j ACCEPT", "-j ACCEPT", "-j DROP", "-j TOS --set-tos 0x10")
	case "filter":
		add(2, "-j DROP", "-j ACCEPT", g.reject())
	case "nat":
		add(8, g.nat())
	}
	return choices[g.IntN(len(choices))]
}

func (g *generator) reject() string {
	if g.protocol == "tcp" && g.chance(2) {
		return "-j REJECT --reject-with tcp-reset"
	}
	with := g.of(g.words.rejects...)
	if with != "" {
		with = " --reject-with " + with
	}
	return "-j REJECT" + with
}

// nat is a target that translates. Ports need a protocol.
func (g *generator) nat() string {
	flags := g.of("", "", "", "", " --random", " --persistent")
	ported := g.protocol != "" && g.chance(2)
	bracket := func(address, port string) string {
		if g.family == packet.IPv4Family {
			return address + ":" + port
		}
		return "[" + address + "]:" + port
	}
	if g.at("PREROUTING", "OUTPUT") {
		switch g.IntN(8) {
		case 0, 1:
			if ported {
				return "-j REDIRECT --to-ports " + g.of("8080", "9000-9010") + g.of("", "", " --random")
			}
			return "-j REDIRECT"
		case 2:
			return "-j NETMAP --to " + g.of(g.words.networks...)
		case 3:
			if ported && g.family == packet.IPv4Family {
				return "-j DNAT --to-destination :" + g.of("8080", "9000-9010") + flags
			}
		}
		if ported {
			return "-j DNAT --to-destination " + bracket(g.of(g.words.backends...), g.of("8080", "443", "9000-9010")) + flags
		}
		return "-j DNAT --to-destination " + g.of(g.words.backends...) + flags
	}
	if g.at("POSTROUTING") && g.chance(2) {
		if ported {
			return "-j MASQUERADE --to-ports " + g.of("5000-6000", "40000-65535", "1024-2047") + g.of("", "", " --random", " --random-fully")
		}
		return "-j MASQUERADE" + g.of("", "", " --random-fully")
	}
	if g.chance(6) {
		return "-j NETMAP --to " + g.of(g.words.networks...)
	}
	flags = g.of("", "", "", flags, " --random-fully")
	if ported {
		return "-j SNAT --to-source " + bracket(g.of(g.words.sources...), g.of("5000-6000", "1024-2047", "30000-65535")) + flags
	}
	return "-j SNAT --to-source " + g.of(g.words.sources...) + flags
}
