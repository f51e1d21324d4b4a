package route

import (
	"fmt"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
)

// Kind of a dump.
type Kind uint8

const (
	// Links: ip -d link.
	Links Kind = iota + 1
	// Addresses: ip addr; it tells links too.
	Addresses
	// Routes: ip route, ip -6 route, with or without show table N or all.
	Routes
	// Rules: ip rule, ip -6 rule.
	Rules
	// Neighbors: ip neigh.
	Neighbors
	// BridgeLinks: bridge link.
	BridgeLinks
	// FDB: bridge fdb.
	FDB
)

// Problem is something in a dump that wasn't understood.
type Problem struct {
	// Line from firstLine.
	Line      int
	Text, Why string
}

// ReadText reads what `ip` and `bridge` print without -j, also with -o and -d,
// and adds it. Lines are counted from firstLine. A command line above the output
// ("$ ip route show table 101") says which table and family follow; family is
// that of routes and rules where neither it nor they tell, 0 where not known.
func (n *Network) ReadText(kind Kind, text string, firstLine int, family packet.Family) []Problem {
	r := newReader(n, kind, family)
	r.expect(strings.Count(text, "\n") + 1)
	r.begin(Command{Kind: kind, Partial: true}) // until there is a line
	lines := 0
	for line := range strings.SplitSeq(strings.ReplaceAll(text, "\r\n", "\n"), "\n") {
		r.line = firstLine + lines
		lines++
		r.textLine(strings.TrimRight(line, " \t\r"))
	}
	r.end()
	return r.problems
}

func newReader(n *Network, kind Kind, family packet.Family) *reader {
	r := &reader{n: n, kind: kind, family: family, links: map[string]int{}, addresses: map[addressKey]int{}}
	for i := range n.Links {
		r.links[n.Links[i].Name] = i
	}
	for i := range n.Addresses {
		a := &n.Addresses[i]
		r.addresses[addressKey{a.Interface, a.Prefix, a.Peer}] = i
	}
	return r
}

// expect makes room for the routes of a text.
func (r *reader) expect(routes int) {
	const most = 1 << 21
	if r.kind == Routes {
		r.routes = make([]routeLine, 0, min(routes, most))
	}
}

// reader adds one dump to a network.
type reader struct {
	n        *Network
	kind     Kind
	family   packet.Family
	line     int
	problems []Problem

	// command above the present block of lines; foreign: another one's.
	command Command
	foreign bool
	// link that the lines below its header belong to, -1 for none; peer is what
	// follows its name after @.
	link int
	peer string
	// routes and rules of the block.
	routes []routeLine
	rules  []ruleLine
	// stated: a command line began the block; seen: there was anything in it.
	stated, seen bool
	// metrics: route -n has them, netstat -rn not.
	metrics bool
	// words of the JSON object that is being read; the next one's memory.
	words []string
	// text of a route with next hops in lines of their own, as far as it was read.
	text []byte
	// lost: the last line of a route wasn't understood.
	lost bool
	// places of links and addresses in the network.
	links     map[string]int
	addresses map[addressKey]int
}

func (r *reader) problem(text, format string, args ...any) {
	const longest = 200
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > longest {
		text = text[:longest]
	}
	r.problems = append(r.problems, Problem{Line: r.line, Text: text, Why: fmt.Sprintf(format, args...)})
}

// begin starts a block of lines below a command.
func (r *reader) begin(c Command) {
	r.command, r.foreign, r.link = c, c.Kind != r.kind || c.Namespace != "", -1
	r.routes, r.rules, r.seen, r.stated, r.lost = r.routes[:0], nil, false, false, false
}

// end finishes a block.
func (r *reader) end() {
	r.finishLink()
	if r.foreign {
		return
	}
	switch r.kind {
	case Links:
		r.n.KnownLinks = r.n.KnownLinks || !r.command.Partial
	case Addresses:
		r.n.KnownLinks = r.n.KnownLinks || !r.command.Partial
		r.n.KnownAddresses = r.n.KnownAddresses || !r.command.Partial
	case Routes:
		r.finishRoutes()
	case Rules:
		r.finishRules()
	}
}

// textLine reads one line, or what looks like one around it: prompts, fences.
func (r *reader) textLine(line string) {
	trimmed := strings.TrimSpace(line)
	if trimmed == "" || strings.HasPrefix(trimmed, "```") {
		return
	}
	if c, ok := ParseCommand(trimmed); ok {
		r.end()
		r.begin(c)
		r.stated = true
		if r.foreign {
			r.problem(trimmed, "another command's output: not read here")
		}
		return
	}
	if r.foreign || strings.HasPrefix(trimmed, "#") {
		return
	}
	if !r.seen && !r.stated {
		r.command.Partial = false
	}
	r.seen = true
	for part := range strings.SplitSeq(line, "\\") { // ip -o
		if fields := strings.Fields(part); len(fields) > 0 {
			r.part(fields, part)
		}
	}
}

// part reads a line without its wrapping, in words.
func (r *reader) part(fields []string, line string) {
	switch r.kind {
	case Links, Addresses:
		r.linkLine(fields, line)
	case BridgeLinks:
		r.linkLine(fields, line)
	case Routes:
		r.routeLine(fields)
	case Rules:
		r.ruleLine(fields)
	case Neighbors:
		r.neighborLine(fields)
	case FDB:
		r.forwardLine(fields)
	}
}

// Missing names what of a family's routing wasn't given and is assumed: the
// default rules, and no addresses other than those that routes tell.
func (n *Network) Missing(f packet.Family) []string {
	var missing []string
	if !n.Of(f).Rules {
		missing = append(missing, "routing rules")
	}
	if !n.localGiven(f) && !n.KnownAddresses { // lost ones follow
		missing = append(missing, "addresses")
	}
	return append(missing, n.unread[f]...)
}

// addressesGiven says whether all of a family's addresses are known.
func (n *Network) addressesGiven(f packet.Family) bool {
	return n.KnownAddresses && !n.addressLost[f]
}

// localGiven says whether the table of the node's own addresses was given.
func (n *Network) localGiven(f packet.Family) bool {
	return n.Of(f).AllTables || n.given[tableKey{f, TableLocal}]
}

// tableGiven says whether all routes of a table are known; readers leave parts
// of tables out. Table default is empty on every node that wasn't told otherwise.
func (n *Network) tableGiven(f packet.Family, table uint32) bool {
	switch known := n.Of(f); {
	case known.AllTables, table == TableLocal, table == TableDefault:
		return true
	case table == TableMain:
		return known.Main
	}
	return n.given[tableKey{f, table}]
}

// give notes that a table was given whole.
func (n *Network) give(f packet.Family, table uint32) {
	if table == TableMain {
		n.Of(f).Main = true
	}
	if n.given == nil {
		n.given = map[tableKey]bool{}
	}
	n.given[tableKey{f, table}] = true
}

// lose notes that a part of a family's routing could not be read.
func (n *Network) lose(f packet.Family, what string, line int) {
	const most = 5
	if n.unread == nil {
		n.unread = map[packet.Family][]string{}
	}
	if len(n.unread[f]) < most {
		n.unread[f] = append(n.unread[f], fmt.Sprintf("the %s of line %d (not understood)", what, line))
	}
}
