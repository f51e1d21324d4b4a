package judge_test

import (
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/unmasq/unmasq/internal/kernel/wires"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/rig"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
	"github.com/unmasq/unmasq/internal/sim"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// packetsRepeated of each dump and family, to see all that chance may do.
const packetsRepeated = 10

// givenEvery so many packets, the dump's own files are asked too.
const givenEvery = 4

// TestDumps loads what real programs wrote (testdata/dumps, made by hack/dumps)
// into a node like theirs.
func TestDumps(t *testing.T) {
	files, err := filepath.Glob("testdata/dumps/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no dumps: %v", err)
	}
	var dumps tallies
	for i, file := range files {
		dumps.progress(t, uint64(i), uint64(len(files)))
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		t.Run(name, func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range packet.Families {
				d := openDump(t, archive, f)
				d.sum = dumps.of(name)
				d.judge(t)
			}
			dumps.of(name).Rulesets++
		})
	}
	dumps.report(t)
	sum := dumps.sum()
	for reason, n := range sum.Reasons { // nothing in these dumps depends on what isn't in them
		t.Errorf("unknown %d times: %s", n, reason)
	}
	t.Logf("checked: %d packets, %d dumps of real programs: %s; conntrack says the same of %d", sum.Packets, sum.Rulesets, sum, sum.Connections)
}

// dump is what packets are derived from: the rules of one family, and the node
// that they were on.
type dump struct {
	situation
	family packet.Family
	// variant of the iptables rules, and their text.
	variant, text string
	rules         *ruleset
	// native tables, of which iptables is none.
	native *nftables.Ruleset
}

// realDump is a dump in a node.
type realDump struct {
	*node
	dump *dump
	// host is the node as it stands in the namespace, given as the dump has it.
	host, given *snapshot.Host
	sum         *tally
}

func file(a *txtar.Archive, name string) string {
	for _, f := range a.Files {
		if f.Name == name {
			return string(f.Data)
		}
	}
	return ""
}

func readDump(t *testing.T, a *txtar.Archive, f packet.Family) *dump {
	t.Helper()
	d := &dump{situation: parseSituation(t, file(a, "situation")), family: f, variant: "nft", native: parseNative(t, a)}
	name := map[packet.Family]string{packet.IPv4Family: snapshot.FileIPTables, packet.IPv6Family: snapshot.FileIP6Tables}[f]
	if file(a, snapshot.FileIPTablesLegacy) != "" {
		d.variant, name = "legacy", map[packet.Family]string{packet.IPv4Family: snapshot.FileIPTablesLegacy, packet.IPv6Family: snapshot.FileIP6TablesLegacy}[f]
	}
	d.text = file(a, name)
	d.rules = parseRules(d.variant, f, d.text, file(a, snapshot.FileIPSet))
	d.sysctls = parseSysctls(file(a, snapshot.FileSysctl))
	d.neighbours = neighbours(d.rules, d.native, f)
	return d
}

// own addresses of the node, of the dump's family.
func (d *dump) own() []netip.Addr {
	all := append(slices.Clone(d.addresses), netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback())
	return slices.DeleteFunc(all, func(a netip.Addr) bool { return packet.Of(a) != d.family })
}

func openDump(t *testing.T, a *txtar.Archive, f packet.Family) *realDump {
	t.Helper()
	from := readDump(t, a, f)
	d := &realDump{dump: from, node: newNode(t, from.situation)}
	if sets := file(a, snapshot.FileIPSet); sets != "" {
		d.run(t, sets, "ipset", "restore")
	}
	if from.text != "" {
		d.must(t, wires.AddAccounting(d.ns, from.text))
		d.must(t, d.restore(from.variant, f, from.text))
	}
	if tables := file(a, fileNative); tables != "" {
		d.run(t, tables, "nft", "-f", "-")
	}
	d.capture(t)
	host, err := snapshot.Read([]string{d.dir}, strings.NewReader(""))
	d.must(t, err)
	d.host, d.given = host, readArchive(t, a)
	return d
}

// fileNative is a dump's nft.json once more, as text that nft -f takes, without
// the tables of iptables.
const fileNative = "ruleset.nft"

func parseNative(t *testing.T, a *txtar.Archive) *nftables.Ruleset {
	t.Helper()
	r, problems := nftables.ReadText(file(a, fileNative), 1)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return r
}

// extract writes the dump's own files into a folder, as a snapshot.
func extract(t *testing.T, a *txtar.Archive) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, f := range a.Files {
		if f.Name == "situation" || f.Name == fileNative {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, f.Name), f.Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// readArchive reads the dump's own files.
func readArchive(t *testing.T, a *txtar.Archive) *snapshot.Host {
	t.Helper()
	host, err := snapshot.Read([]string{extract(t, a)}, strings.NewReader(""))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range host.Notes {
		t.Errorf("%s:%d: %s: %s", n.File, n.Line, n.Why, n.Text)
	}
	return host
}

// parseSituation reads what hack/dumps wrote: veth NAME, bridge NAME PORT,
// sysctl KEY=VALUE, ip COMMAND.
func parseSituation(t *testing.T, text string) (s situation) {
	t.Helper()
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		switch words[0] {
		case "veth":
			s.veths = append(s.veths, words[1])
		case "bridge":
			s.bridges = append(s.bridges, bridge{words[1], words[2]})
		case "sysctl": // in the dump's own list of sysctls
		case "ip":
			s.ip = append(s.ip, strings.TrimSpace(strings.TrimPrefix(line, "ip ")))
			if words[1] == "addr" {
				a := netip.MustParsePrefix(words[3]).Addr()
				if !slices.Contains(s.addresses, a) {
					s.addresses = append(s.addresses, a)
				}
			}
		default:
			t.Fatalf("situation: %q", line)
		}
	}
	return s
}

// parseSysctls takes those that concern all links, and what docker sets of its bridges.
func parseSysctls(text string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), " = ")
		if ok && (strings.Contains(key, ".conf.all.") || strings.Contains(key, "bridge-nf-call") || strings.HasSuffix(key, ".route_localnet")) {
			out[key] = value
		}
	}
	return out
}

// parseRules splits a dump's text into rules, for hints.
func parseRules(variant string, f packet.Family, text, sets string) *ruleset {
	r := &ruleset{family: f}
	var t *table
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "*"):
			t = &table{variant: variant, name: line[1:]}
			r.tables = append(r.tables, t)
		case strings.HasPrefix(line, ":"):
			words := strings.Fields(line[1:])
			t.chains = append(t.chains, &chain{name: words[0], policy: words[1]})
		case strings.HasPrefix(line, "-A "):
			name, rule, _ := strings.Cut(line[3:], " ")
			c := r.chain(variant, t.name, name)
			c.rules = append(c.rules, rule)
		}
	}
	for line := range strings.Lines(sets) {
		words := strings.SplitN(strings.TrimSpace(line), " ", 3)
		switch words[0] {
		case "create":
			r.sets = append(r.sets, &set{name: words[1], options: words[2]})
		case "add":
			r.sets[len(r.sets)-1].elements = append(r.sets[len(r.sets)-1].elements, words[2])
		}
	}
	return r
}

// dumpPool are addresses that packets go between whatever the rules say.
func dumpPool(f packet.Family) (pool []netip.Addr) {
	texts := []string{"10.244.1.7", "10.244.1.99", "10.244.2.7", "203.0.113.5", "192.168.5.11", "192.168.5.99", "172.31.0.99", "172.17.0.2", "172.18.0.3", "8.8.8.8"}
	if f == packet.IPv6Family {
		texts = []string{"fd00:10:244:1::7", "fd00:10:244:1::99", "fd00:10:244:2::7", "2001:db8:113::5", "fd00:192:168:5::11", "fd00:172:31::99", "fd00:d0c::2", "fd00:b1::3", "2001:4860::8888"}
	}
	for _, a := range texts {
		pool = append(pool, netip.MustParseAddr(a))
	}
	return pool
}

// neighbours that packets may be sent to.
func neighbours(r *ruleset, native *nftables.Ruleset, f packet.Family) []netip.Addr {
	all := append(dumpPool(f), nativeNeighbours(native, f)...)
	for _, t := range r.tables {
		for _, c := range t.chains {
			for _, rule := range c.rules {
				h := hintsOf(rule, r.sets)
				all = append(append(all, h.sources...), h.destinations...)
			}
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	all = slices.Compact(all)
	return slices.DeleteFunc(all, func(a netip.Addr) bool { return !usable(f, a) })
}

func (d *realDump) judge(t *testing.T) {
	t.Helper()
	flows := d.dump.derive()
	for i := range flows {
		flows[i].SourcePort = sourcePort(flows[i], i)
	}
	fates, err := d.sendAnd(flows, func(flows []packet.Flow, fates []rig.Fate) error {
		asked, disagreement, err := d.witness(flows, fates)
		if disagreement != "" {
			t.Error(disagreement)
		}
		d.sum.Connections += asked
		return err
	})
	d.must(t, err)
	n, given, shown := sim.New(d.host), sim.New(d.given), 0
	for i, f := range flows {
		outcomes := n.Run(question(f), sim.Options{})
		result := compare(f, fates[i], outcomes, always)
		d.sum.count(result, outcomes)
		if result == wrong {
			if shown++; shown <= 3 {
				t.Errorf("%s\nthe kernel: %s\npredicted:%s", flowText(f), fateText(fates[i]), outcomesText(outcomes))
			}
		}
		if i%givenEvery != 0 {
			continue
		}
		if here, there := probabilities(outcomes), probabilities(given.Run(question(f), sim.Options{})); !maps.Equal(here, there) {
			t.Errorf("%s: in the namespace %v, by the dump's own files %v", flowText(f), here, there)
		}
	}
	if shown > 3 {
		t.Errorf("%d more packets were wrong", shown-3)
	}
	d.chances(t, n, flows)
}

// chances repeats some packets whose fate is a matter of chance.
func (d *realDump) chances(t *testing.T, n *sim.Node, flows []packet.Flow) {
	predict := func(f packet.Flow) []sim.Outcome { return n.Run(question(f), sim.Options{}) }
	repeated := 0
	for _, f := range flows {
		if repeated == packetsRepeated || !chancy(predict(f)) {
			continue
		}
		repeated++
		missing, disagrees, err := never(d.node, f, predict)
		d.must(t, err)
		if missing != "" || disagrees != "" {
			t.Errorf("%s: in %d times never seen: %s; wrong: %s\npredicted:%s", flowText(f), repeats, missing, disagrees, outcomesText(predict(f)))
		}
	}
}
