package flows

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/unmasq/unmasq/internal/conntrack"
	"github.com/unmasq/unmasq/internal/explain"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/sim"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// Judge says which rules made a connection what it is. Any number may ask it at
// once.
type Judge struct {
	explainer *explain.Explainer // nil: nobody is to be asked
	host      *snapshot.Host
	// whole families: all their rules were read, so that a translation which none of
	// them makes is older than they are.
	whole map[packet.Family]bool

	mu    sync.Mutex
	known map[class]*verdict
	// ways that led to a service's backends, for another client.
	ways map[backend]sim.Way
}

// backend of a service.
type backend struct {
	protocol          uint8
	service, address  netip.Addr
	servicePort, port uint16
}

func backendOf(e *conntrack.Entry) backend {
	address, port := e.Backend()
	return backend{e.Protocol, e.Original.Destination, address, e.Original.DestinationPort, port}
}

// class of connections that rules can't tell apart, unless they ask for source
// ports.
type class struct {
	protocol                   uint8
	source, seen               netip.Addr
	destination, backend       netip.Addr
	destinationPort, backended uint16
}

// verdict on a class.
type verdict struct {
	kind, byRules, now string
	by, destinationBy  *Decider
	// perPort: a rule asks for the source port, so each connection is its own class.
	perPort bool
}

// NewJudge by the rules, routes and addresses of a host. Its connections don't count.
func NewJudge(h *snapshot.Host) *Judge {
	now := *h
	now.Connections = nil // each is asked for as if it weren't there yet
	j := &Judge{explainer: explain.New(explain.Node{Host: &now}), host: &now, whole: map[packet.Family]bool{}, known: map[class]*verdict{}, ways: map[backend]sim.Way{}}
	for _, f := range packet.Families {
		j.whole[f] = h.IPTables[f] && h.NFTWhole
	}
	return j
}

// NoRules judges by the entries alone.
func NoRules() *Judge { return &Judge{known: map[class]*verdict{}} }

// mostClasses bounds what is remembered: some 20 MB, in an agent's pod of its memory.
const mostClasses = 30000

func (j *Judge) verdict(e *conntrack.Entry) *verdict {
	seen, _ := e.SeenAs()
	backend, backendPort := e.Backend()
	c := class{e.Protocol, e.Original.Source, seen, e.Original.Destination, backend, e.Original.DestinationPort, backendPort}
	j.mu.Lock()
	v := j.known[c]
	j.mu.Unlock()
	if v != nil && !v.perPort {
		return v
	}
	if v != nil {
		return j.ask(e, int(e.Original.SourcePort))
	}
	v = j.ask(e, sim.UnknownPort)
	j.mu.Lock()
	if len(j.known) >= mostClasses {
		clear(j.known)
	}
	j.known[c] = v
	j.mu.Unlock()
	if v.perPort {
		return j.ask(e, int(e.Original.SourcePort))
	}
	return v
}

// ask the simulator for a first packet like the entry's.
func (j *Judge) ask(e *conntrack.Entry, sourcePort int) *verdict {
	v := &verdict{kind: unknownOrKept(e), byRules: Unknown}
	if j.explainer == nil {
		v.now = "the rules weren't asked"
		return v
	}
	q := sim.Question{Source: e.Original.Source, Destination: e.Original.Destination, Protocol: e.Protocol, SourcePort: sim.UnknownPort, DestinationPort: sim.UnknownPort}
	if explain.HasPorts(e.Protocol) {
		q.SourcePort, q.DestinationPort = sourcePort, int(e.Original.DestinationPort)
	}
	if o := j.along(q, e); o != nil {
		v.is(o, e)
		return v
	}
	same := 0
	const most = 4 // shown, where none is the entry's
	outcomes := j.explainer.Outcomes(q, sim.Options{Each: j.remember(e)}, most, func(o *sim.Outcome) bool {
		v.perPort = v.perPort || sourcePort == sim.UnknownPort && slices.ContainsFunc(o.DependsOn, asksForPort)
		if !comesTo(o, e) {
			return false
		}
		same++
		return same == 1
	})
	if same > 0 {
		v.is(&outcomes[0], e)
		return v
	}
	if !j.whole[packet.Of(q.Source)] {
		v.now = "not all rules could be read"
		return v
	}
	v.byRules, v.now = Other, instead(outcomes, e)
	return v
}

// is the outcome.
func (v *verdict) is(o *explain.Outcome, e *conntrack.Entry) {
	v.byRules, v.kind = Same, o.SourceKind
	v.by, v.destinationBy = decider(o.DecidedBy), destinationDecider(o, e)
}

// mostWays bounds what is remembered: some 20 MB.
const mostWays = 100000

// along the way of another client to the same backend of the same service; nil where
// none is known, or where it leads elsewhere. A service of hundreds of endpoints has
// as many ways, of which each later one is long.
func (j *Judge) along(q sim.Question, e *conntrack.Entry) *explain.Outcome {
	if !e.DestinationTranslated() {
		return nil
	}
	j.mu.Lock()
	w, known := j.ways[backendOf(e)]
	j.mu.Unlock()
	if !known {
		return nil
	}
	return j.explainer.Along(q, w, func(o *sim.Outcome, open []string) bool {
		return comesTo(o, e) && (q.SourcePort != sim.UnknownPort || !slices.Contains(open, sourcePortWord))
	})
}

// remember the ways to a service's backends.
func (j *Judge) remember(e *conntrack.Entry) func(*sim.Outcome, sim.Way) {
	if !e.DestinationTranslated() {
		return nil
	}
	b := backendOf(e)
	return func(o *sim.Outcome, w sim.Way) {
		if len(w) == 0 || o.Destination == b.service {
			return
		}
		to := b
		to.address, to.port = o.Destination, uint16(max(o.DestinationPort, 0))
		j.mu.Lock()
		defer j.mu.Unlock()
		if len(j.ways) >= mostWays {
			clear(j.ways)
		}
		if _, known := j.ways[to]; !known {
			j.ways[to] = w
		}
	}
}

const sourcePortWord = "source port"

func asksForPort(d sim.Dependency) bool { return d.What == sourcePortWord }

func unknownOrKept(e *conntrack.Entry) string {
	if e.SourceTranslated() {
		return string(sim.SourceUnknown)
	}
	return string(sim.Kept)
}

// comesTo says whether the outcome is what the entry has: the same backend, seen as
// the same address.
func comesTo(o *sim.Outcome, e *conntrack.Entry) bool {
	backend, port := e.Backend()
	if o.Verdict == sim.Dropped || o.Verdict == sim.Rejected || o.Destination != backend || o.DestinationPort != sim.UnknownPort && o.DestinationPort != int(port) {
		return false
	}
	if !o.Source.IsValid() {
		return o.SourceKind == sim.Masqueraded && e.SourceTranslated()
	}
	seen, _ := e.SeenAs()
	return o.Source == seen
}

func stopped(o *explain.Outcome) bool {
	return o.Verdict == string(sim.Dropped) || o.Verdict == string(sim.Rejected)
}

func sameBackend(o *explain.Outcome, e *conntrack.Entry) bool {
	backend, port := e.Backend()
	return o.Destination == backend && (o.DestinationPort == nil || *o.DestinationPort == int(port))
}

// instead is what the rules would do, in a few words.
func instead(outcomes []explain.Outcome, e *conntrack.Entry) string {
	var elsewhere []string
	for i := range outcomes {
		o := &outcomes[i]
		switch {
		case stopped(o):
			return o.Verdict + by(decider(o.DecidedBy))
		case sameBackend(o, e):
			text := o.SourceKind + by(decider(o.DecidedBy))
			if o.Source != nil && o.SourceKind != string(sim.Kept) && o.SourceKind != string(sim.Pinned) {
				text += ", seen as " + o.Source.String()
			}
			return text
		}
		elsewhere = append(elsewhere, o.Destination.String())
	}
	const most = 3
	if len(elsewhere) > most {
		elsewhere = append(elsewhere[:most], "…")
	}
	return "sent to " + strings.Join(elsewhere, ", ")
}

// by is " by flannel: FLANNEL-POSTRTG:5", or nothing.
func by(d *Decider) string {
	if d == nil {
		return ""
	}
	return " by " + d.String()
}

// String is a policy's rule, or the owner with the place of its rule.
func (d *Decider) String() string {
	place := d.Chain
	switch {
	case d.PolicyRule != "":
		return d.PolicyRule
	case d.Handle > 0:
		place = fmt.Sprintf("%s %s %s handle %d", d.Family, d.Table, d.Chain, d.Handle)
	case d.Index > 0:
		place = fmt.Sprintf("%s:%d", d.Chain, d.Index)
	case place == "":
		place = d.Rule
	}
	if d.Owner == "" || d.Owner == "unknown" {
		return place
	}
	return d.Owner + ": " + place
}

func decider(d *explain.Decider) *Decider {
	if d == nil {
		return nil
	}
	return &Decider{
		Owner: d.Owner, Family: d.Family, Variant: d.Variant, Table: d.Table, Chain: d.Chain, Rule: d.Rule, Index: d.Index, Handle: d.Handle,
		PolicyRule: policyRule(d.Table, d.Chain), Because: d.Because, MarkedBy: d.MarkedBy,
	}
}

// policyRule reads the chain that counts and acts for a rule of a policy, with the
// suffix of its generation:
//
//	rule-ip/default/internet  rule-ip6/default/internet.g3
func policyRule(table, chain string) string {
	if table != "unmasq" && table != "unmasq-handover" {
		return ""
	}
	kind, rule, ok := strings.Cut(chain, "/")
	if !ok || kind != "rule-ip" && kind != "rule-ip6" {
		return ""
	}
	if i := strings.LastIndex(rule, ".g"); i > 0 && strings.Trim(rule[i+2:], "0123456789") == "" && len(rule) > i+2 {
		rule = rule[:i]
	}
	return rule
}

// destinationDecider is the step that translated the destination; nil without.
func destinationDecider(o *explain.Outcome, e *conntrack.Entry) *Decider {
	if !e.DestinationTranslated() {
		return nil
	}
	for _, s := range slices.Backward(o.Steps) {
		if s.Matched && (strings.HasPrefix(s.Effect, "dnat to ") || strings.HasPrefix(s.Effect, "redirect") || strings.HasPrefix(s.Effect, "netmap")) {
			return &Decider{Owner: s.Owner, Table: s.Table, Chain: s.Chain, Rule: s.Rule, Because: s.Because, Service: service(s)}
		}
	}
	return nil
}

// service that kube-proxy's rules are for:
//
//	-A KUBE-SEP-5JXMSOVWQQJZVLZA -p tcp -m comment --comment "default/web:http" -m tcp -j DNAT …
//	chain endpoint-5OJB2KTY-default/web/tcp/http__10.244.1.8/8080
//	chain service-PFISGYVC-default/web/tcp/   # of one endpoint
func service(s explain.Step) string {
	if s.Owner != "kube-proxy" {
		return ""
	}
	if _, comment, ok := strings.Cut(s.Rule, `--comment "`); ok {
		name, _, _ := strings.Cut(comment, `"`)
		return name
	}
	kind, rest, _ := strings.Cut(s.Chain, "-")
	_, rest, _ = strings.Cut(rest, "-")
	name, _, _ := strings.Cut(rest, "__")
	parts := strings.Split(name, "/")
	if kind != "endpoint" && kind != "service" || len(parts) < 3 {
		return ""
	}
	name = parts[0] + "/" + parts[1]
	if len(parts) > 3 && parts[3] != "" {
		name += ":" + parts[3]
	}
	return name
}

// Missing says why not all rules are known; "" where they are.
func (j *Judge) Missing() string {
	if j.host == nil || j.whole[packet.IPv4Family] && j.whole[packet.IPv6Family] {
		return ""
	}
	if j.host.Meta == nil {
		return "not all rules were given"
	}
	var why []string
	for _, file := range []string{
		snapshot.FileNFT, snapshot.FileIPTables, snapshot.FileIPTablesLegacy, snapshot.FileIP6Tables, snapshot.FileIP6TablesLegacy,
	} {
		if text := j.host.Meta.Missing[file]; text != "" && !slices.Contains(why, text) {
			why = append(why, text)
		}
	}
	if why == nil {
		return "not all rules were given"
	}
	return strings.Join(why, "; ")
}
