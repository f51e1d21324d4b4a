package judge_test

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/sim"
)

const (
	// seedVariable repeats a run, or one case of it, rulesVariable makes a longer
	// one: UNMASQ_SEED=N UNMASQ_RULESETS=5000 go test ./test/judge -run Random.
	seedVariable  = "UNMASQ_SEED"
	rulesVariable = "UNMASQ_RULESETS"

	defaultRulesets   = 160
	packetsPerRuleset = 100
	// fewestPackets of a run with at least so many rulesets.
	fewestPackets = 5000
)

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

func TestRandomRulesets(t *testing.T) {
	seed := number(t, seedVariable, uint64(time.Now().UnixNano())/casesPerBlock*casesPerBlock)
	count := number(t, rulesVariable, defaultRulesets)
	var sums tallies
	for i := uint64(0); i < count; {
		b := &block{number: blockOf(seed + i), worlds: map[int]*world{}}
		t.Run(fmt.Sprintf("block %d", b.number), func(t *testing.T) {
			for ; i < count && blockOf(seed+i) == b.number; i++ {
				w := b.of(t, seed+i)
				c := &testcase{world: w, seed: seed + i, sum: sums.of(w.source())}
				c.run(t)
				sums.progress(t, i+1, count)
			}
		})
	}
	sums.report(t)
	sum := sums.sum()
	if sum.Rulesets < int(count)*9/10 {
		t.Errorf("the programs took only %d of %d random rulesets", sum.Rulesets, count)
	}
	if count >= defaultRulesets && (sum.Packets < fewestPackets || len(sums.all) < len(kinds())/4) {
		t.Errorf("only %d packets, of %d sources", sum.Packets, len(sums.all))
	}
	t.Logf("checked: %d packets, %d random rulesets (%s): %s (seed %d)", sum.Packets, sum.Rulesets, &sums, sum, seed)
}

// testcase is one ruleset with its packets.
type testcase struct {
	*world
	seed    uint64
	sum     *tally
	rules   *ruleset
	predict predictor
}

// String is the command that makes the case again.
func (c *testcase) String() string {
	return fmt.Sprintf("again: %s=%d %s=1 go test -count=1 -run TestRandomRulesets ./test/judge", seedVariable, c.seed, rulesVariable)
}

// run loads the ruleset and judges packets until one is wrong.
func (c *testcase) run(t *testing.T) {
	g := newGenerator(c.seed, c.family)
	g.kinds = c.setKinds
	c.rules = g.ruleset(c.variants...)
	var err error
	if c.predict, err = c.load(c.rules); refused(err) {
		t.Logf("%s\n%v", c, err)
		return
	}
	if err != nil {
		t.Fatalf("%s\n%v\n%s", c, err, c.rules)
	}
	c.sum.Rulesets++
	s := newSender(g.Rand, c.node, c.rules, randomPool(c.family))
	var flows []packet.Flow
	for len(flows) < packetsPerRuleset {
		if f := s.packet(); !c.floods(f) {
			flows = append(flows, f)
		}
	}
	predicted := make([][]sim.Outcome, len(flows))
	for i, f := range flows {
		predicted[i] = c.predict(f)
	}
	c.meet(t, predicted)
	fates, err := c.send(flows)
	if err != nil {
		t.Fatalf("%s\n%v", c, err)
	}
	for i, f := range flows {
		outcomes := predicted[i]
		result := compare(f, fates[i], outcomes, mayBeLost)
		c.sum.count(result, outcomes)
		if result == wrong {
			c.fail(t, f, fmt.Sprintf("%s: %s", flowText(f), fateText(fates[i])))
			return
		}
		if i%8 == 0 && result == right && !c.multipath && !c.rules.hashes() && chancy(outcomes) && !c.chance(t, f, outcomes) {
			return
		}
	}
}

// chance repeats a packet whose fate is a matter of chance; false where that
// was wrong.
func (c *testcase) chance(t *testing.T, f packet.Flow, outcomes []sim.Outcome) bool {
	missing, disagrees, err := never(c.node, f, c.predict)
	switch {
	case err != nil:
		t.Fatalf("%s\n%v", c, err)
	case disagrees != "":
		c.sum.Right, c.sum.Wrong = c.sum.Right-1, c.sum.Wrong+1
		c.fail(t, f, disagrees)
		return false
	case missing != "":
		c.sum.Right, c.sum.Wrong = c.sum.Right-1, c.sum.Wrong+1
		t.Errorf("%s\n%snever seen in %d times: %s\n%s\n%s\npredicted:%s", c, c.situation, repeats, missing, flowText(f), c.rules, outcomesText(outcomes))
		return false
	}
	return true
}
