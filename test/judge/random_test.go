package judge_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/sim"
	"github.com/unmasq/unmasq/internal/snapshot"
)

const (
	// seedVariable repeats a run that failed, rulesVariable makes a longer one:
	// UNMASQ_SEED=N UNMASQ_RULESETS=5000 go test ./test/judge -run Random.
	seedVariable  = "UNMASQ_SEED"
	rulesVariable = "UNMASQ_RULESETS"

	defaultRulesets   = 160
	packetsPerRuleset = 100
	// repeats of a packet whose fate is a matter of chance.
	repeats = 60
)

// randomPool are addresses that packets go between, whatever the rules say.
func randomPool(f packet.Family) (pool []netip.Addr) {
	texts := []string{"10.244.1.7", "10.244.1.5", "10.244.2.2", "10.245.1.2", "8.8.8.8", "203.0.113.70", "192.0.2.9", "198.51.100.9", "192.0.2.1", "198.51.100.1", "10.96.0.10",
		"10.66.0.5", "10.66.1.5", "10.66.2.5", "10.9.255.255", "192.0.2.255", "127.0.0.1"}
	if f == packet.IPv6Family {
		texts = []string{"fd00:10:244:1::7", "fd00:10:244:1::5", "fd00:10:245:1::2", "2001:4860::8888", "2001:db8:113::46", "2001:db8::9", "2001:db8:1::9", "2001:db8::1", "fd00:96::a",
			"fd00:66::5", "fd00:66:1::5", "fd00:66:2::5", "::1"}
	}
	for _, a := range texts {
		pool = append(pool, netip.MustParseAddr(a))
	}
	return pool
}

func number(t *testing.T, variable string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return n
}

// world is a node for random rulesets of one family in some variants.
type world struct {
	*node
	family   packet.Family
	variants []string
	kinds    []string // of sets that the kernel has
	// multipath: the kernel hashes a flow to one of several next hops, the same
	// each time where no source port makes a difference.
	multipath bool
	made      int
}

// source of its rulesets, for the report.
func (w *world) source() string {
	names := map[string]string{"nft": "iptables-nft", "legacy": "iptables-legacy", "native": "nftables"}
	var all []string
	for _, v := range w.variants {
		all = append(all, names[v])
	}
	return "random " + strings.Join(all, " + ")
}

// worlds are a plain and a random one for each family and choice of variants.
func worlds(t *testing.T, seed uint64) (all []*world) {
	r := rand.New(rand.NewPCG(seed, 3))
	for _, variants := range [][]string{{"nft"}, {"legacy"}, {"nft", "legacy"}, {"native"}, {"native", "nft"}} {
		for _, f := range packet.Families {
			for _, s := range []situation{plainSituation(f), randomSituation(r, f)} {
				n := newNode(t, s)
				n.native = slices.Contains(variants, "native")
				n.must(t, os.Remove(filepath.Join(n.dir, snapshot.FileNFT))) // it isn't listed for each ruleset
				multipath := slices.ContainsFunc(s.ip, func(line string) bool { return strings.Contains(line, "nexthop") })
				all = append(all, &world{node: n, family: f, variants: variants, kinds: addRareKinds(n), multipath: multipath})
			}
		}
	}
	return all
}

func TestRandomRulesets(t *testing.T) {
	seed := number(t, seedVariable, uint64(time.Now().UnixNano()))
	count := number(t, rulesVariable, defaultRulesets)
	all := worlds(t, seed)
	var kinds tallies
	for i := range count {
		w := all[rand.New(rand.NewPCG(seed+i, 1)).IntN(len(all))]
		c := &testcase{world: w, seed: seed + i, sum: kinds.of(w.source())}
		c.run(t)
		kinds.progress(t, i+1, count)
	}
	kinds.report(t)
	sum := kinds.sum()
	if sum.Rulesets < int(count)*9/10 {
		t.Errorf("the programs took only %d of %d random rulesets", sum.Rulesets, count)
	}
	t.Logf("checked: %d packets, %d random rulesets: %s (seed %d)", sum.Packets, sum.Rulesets, sum, seed)
}

// testcase is one ruleset with its packets.
type testcase struct {
	*world
	seed  uint64
	sum   *tally
	rules *ruleset
}

// fresh names of sets, since a kernel may still hold an old one for a while.
func (c *testcase) fresh(name string) string {
	c.made++
	return fmt.Sprintf("x%d-%s", c.made, strings.TrimLeft(name, "x0123456789-"))
}

func (c *testcase) run(t *testing.T) {
	g := newGenerator(c.seed, c.family)
	g.kinds = c.kinds
	c.rules = g.ruleset(c.variants...)
	predict, err := c.load(c.rules)
	if refused(err) {
		t.Logf("seed %d: %v", c.seed, err)
		return
	}
	if err != nil {
		t.Fatalf("seed %d: %v\n%s", c.seed, err, c.rules)
	}
	c.sum.Rulesets++
	s := newSender(g.Rand, c.node, c.rules, randomPool(c.family))
	var flows []packet.Flow
	for len(flows) < packetsPerRuleset {
		flows = append(flows, s.packet())
	}
	fates, err := c.send(flows)
	if err != nil {
		t.Fatalf("seed %d: %v", c.seed, err)
	}
	for i, f := range flows {
		c.sum.Packets++
		outcomes := predict(f)
		switch compare(f, fates[i], outcomes, mayBeLost) {
		case wrong:
			c.sum.Wrong++
			c.fail(t, f, fmt.Sprintf("%s: %s", flowText(f), fateText(fates[i])))
			return
		case unknown:
			c.sum.Unknown++
			c.sum.reason(outcomes)
		case right:
			c.sum.Right++
			if len(outcomes) > 1 {
				c.sum.Depends++
			}
			if i%8 != 0 || c.multipath || c.rules.hashes() || !chancy(outcomes) {
				continue
			}
			missing, disagrees, err := never(c.node, f, predict)
			if err != nil {
				t.Fatal(err)
			}
			if disagrees != "" {
				c.sum.Right, c.sum.Wrong = c.sum.Right-1, c.sum.Wrong+1
				c.fail(t, f, disagrees)
				return
			}
			if missing != "" {
				t.Fatalf("seed %d: never seen in %d times: %s\n%s\n%s\npredicted:%s", c.seed, repeats, missing, flowText(f), c.rules, outcomesText(outcomes))
			}
		}
	}
}

type predictor func(packet.Flow) []sim.Outcome

// load puts rules in and reads the host back.
func (c *testcase) load(r *ruleset) (predictor, error) {
	r.renameSets(c.fresh)
	if err := r.load(c.node); err != nil {
		return nil, err
	}
	host, err := c.read(c.family)
	if err != nil {
		return nil, err
	}
	n := sim.New(host)
	return func(f packet.Flow) []sim.Outcome { return n.Run(question(f), sim.Options{}) }, nil
}

// chancy outcomes must be seen, each with at least this probability.
const least = 0.2

func chancy(outcomes []sim.Outcome) bool {
	return slices.ContainsFunc(outcomes, func(o sim.Outcome) bool { return o.Probability >= least && o.Probability < 0.999 }) &&
		!slices.ContainsFunc(outcomes, uncertain)
}

// never repeats a packet with other source ports. It names an outcome that it
// should have had and never did, or says how a repeated packet disagreed.
func never(n *node, f packet.Flow, predict predictor) (missing, disagrees string, err error) {
	want, seen, same := probabilities(predict(f)), map[string]bool{}, true
	flows := make([]packet.Flow, repeats)
	for i := range flows {
		flows[i] = f
		if f.HasPorts() || f.Protocol == packet.ICMP || f.Protocol == packet.ICMPv6 {
			flows[i].SourcePort = uint16(40000 + i)
		}
	}
	fates, err := n.send(flows)
	if err != nil {
		return "", "", err
	}
	for i, again := range flows {
		outcomes := predict(again)
		if compare(again, fates[i], outcomes, mayBeLost) == wrong {
			return "", fmt.Sprintf("%s: %s", flowText(again), fateText(fates[i])), nil
		}
		same = same && maps.Equal(want, probabilities(outcomes)) // unless a rule asks for the source port
		for _, o := range outcomes {
			if agrees(again, fates[i], o, mayBeLost) {
				seen[key(o)] = true
			}
		}
	}
	for k, p := range want {
		if p >= least && same && !seen[k] {
			return fmt.Sprintf("p=%.2f %s", p, k), "", nil
		}
	}
	return "", "", nil
}

// probabilities of outcomes that differ in more than the source port.
func probabilities(outcomes []sim.Outcome) map[string]float64 {
	all := map[string]float64{}
	for _, o := range outcomes {
		all[key(o)] += o.Probability
	}
	return all
}

// fail looks for the smallest ruleset that still disagrees, and shows it.
func (c *testcase) fail(t *testing.T, f packet.Flow, first string) {
	t.Helper()
	small, said := c.rules, c.disagreement(c.rules, f)
	for shrunk := said != ""; shrunk; {
		shrunk = false
		for _, r := range small.smaller() {
			if text := c.disagreement(r, f); text != "" {
				small, said, shrunk = r, text, true
				break
			}
		}
	}
	if said == "" {
		said = "not seen again"
	}
	t.Errorf("seed %d\n%sfirst: %s\n%s%s", c.seed, c.situation, first, small, said)
}

// disagreement loads rules and sends a packet some times; empty where all agrees.
func (c *testcase) disagreement(r *ruleset, f packet.Flow) string {
	predict, err := c.load(r)
	if err != nil {
		return ""
	}
	outcomes := predict(f)
	times := 1
	if len(outcomes) > 1 {
		times = 20
	}
	for range times {
		fates, err := c.send([]packet.Flow{f})
		if err == nil && compare(f, fates[0], outcomes, mayBeLost) == wrong {
			return fmt.Sprintf("%s\nthe kernel: %s\npredicted:%s", flowText(f), fateText(fates[0]), outcomesText(outcomes))
		}
	}
	return ""
}
