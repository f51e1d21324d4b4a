package judge_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/replay"
	"github.com/unmasq/unmasq/internal/sim"
)

// tally of what was checked of one source of cases: a dump, or random rulesets
// of a kind. hack/judge reads what report prints.
type tally struct {
	Source string `json:"source"`
	// Rulesets that were loaded. Packets = Right + Unknown + Wrong; Depends are
	// those of Right that had several outcomes, Conditional those that came with
	// what they depend on, such as the process that sends.
	Rulesets    int `json:"rulesets"`
	Packets     int `json:"packets"`
	Right       int `json:"right"`
	Depends     int `json:"depends"`
	Conditional int `json:"conditional"`
	Unknown     int `json:"unknown"`
	Wrong       int `json:"wrong"`
	// Connections that conntrack was asked about.
	Connections int `json:"connections"`
	// Reasons of what is unknown, and Conditions of what is conditional, each with
	// the number of packets that had it.
	Reasons    map[string]int `json:"reasons,omitempty"`
	Conditions map[string]int `json:"conditions,omitempty"`
}

// count one packet.
func (s *tally) count(result replay.Result, outcomes []sim.Outcome) {
	s.Packets++
	switch result {
	case wrong:
		s.Wrong++
	case unknown:
		s.Unknown++
		s.because(reasons(outcomes)...)
	case right:
		s.Right++
		if len(outcomes) > 1 {
			s.Depends++
		}
		if all := reasons(outcomes); len(all) > 0 {
			s.Conditional++
			s.Conditions = counted(s.Conditions, all)
		}
	}
}

// reasons of an answer, each once, without the conditions of its single outcomes.
func reasons(outcomes []sim.Outcome) (all []string) {
	for _, o := range outcomes {
		for _, d := range o.DependsOn {
			if text := strings.TrimSuffix(d.What+": "+d.Why, ": "); !slices.Contains(all, text) {
				all = append(all, text)
			}
		}
	}
	return all
}

// because counts why an answer was unknown.
func (s *tally) because(why ...string) { s.Reasons = counted(s.Reasons, why) }

func counted(times map[string]int, all []string) map[string]int {
	if times == nil {
		times = map[string]int{}
	}
	for _, text := range all {
		times[text]++
	}
	return times
}

// tallies by source, in the order of their first cases.
type tallies struct {
	all  []*tally
	last time.Time
}

// of returns a source's tally.
func (s *tallies) of(source string) *tally {
	for _, t := range s.all {
		if t.Source == source {
			return t
		}
	}
	t := &tally{Source: source}
	s.all = append(s.all, t)
	return t
}

// sum of all sources.
func (s *tallies) sum() tally {
	sum := tally{Reasons: map[string]int{}, Conditions: map[string]int{}}
	for _, t := range s.all {
		sum.Rulesets += t.Rulesets
		sum.Packets += t.Packets
		sum.Right += t.Right
		sum.Depends += t.Depends
		sum.Conditional += t.Conditional
		sum.Unknown += t.Unknown
		sum.Wrong += t.Wrong
		sum.Connections += t.Connections
		for why, n := range t.Reasons {
			sum.Reasons[why] += n
		}
		for why, n := range t.Conditions {
			sum.Conditions[why] += n
		}
	}
	return sum
}

func (t tally) String() string {
	return fmt.Sprintf("%d right (%d of them one of several, %d under a condition), %d unknown, %d wrong", t.Right, t.Depends, t.Conditional, t.Unknown, t.Wrong)
}

// String is how many packets each source had.
func (s *tallies) String() string {
	var all []string
	for _, t := range s.all {
		all = append(all, fmt.Sprintf("%s %d", strings.TrimPrefix(t.Source, "random "), t.Packets))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// progress says every few seconds how far a long run is.
func (s *tallies) progress(t *testing.T, done, of uint64) {
	const pause = 3 * time.Second
	now := time.Now()
	if s.last.IsZero() {
		s.last = now
	}
	if now.Sub(s.last) > pause {
		s.last = now
		sum := s.sum()
		t.Logf("progress: %d of %d sets of rules, %d packets: %s", done, of, sum.Packets, sum)
	}
}

// report prints a line for each source, and why answers were unknown.
func (s *tallies) report(t *testing.T) {
	sum := s.sum()
	for _, why := range slices.Sorted(maps.Keys(sum.Reasons)) {
		t.Logf("unknown %d times: %s", sum.Reasons[why], why)
	}
	for _, why := range slices.Sorted(maps.Keys(sum.Conditions)) {
		t.Logf("conditional %d times: %s", sum.Conditions[why], why)
	}
	slices.SortFunc(s.all, func(a, b *tally) int { return strings.Compare(a.Source, b.Source) })
	for _, x := range s.all {
		line, err := json.Marshal(x)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("judged: %s", line)
	}
}

// A report has every packet once.
func TestTallies(t *testing.T) {
	var s tallies
	s.of("a").Packets, s.of("a").Right = 2, 1
	s.of("b").Packets, s.of("b").Unknown, s.of("a").Wrong = 1, 1, 1
	s.of("b").because(reasons([]sim.Outcome{{DependsOn: []sim.Dependency{{What: "routes", Why: "none", If: "a"}, {What: "routes", Why: "none", If: "b"}}}})...)
	sum := s.sum()
	if len(s.all) != 2 || sum.Packets != 3 || sum.Right+sum.Unknown+sum.Wrong != 3 || sum.Reasons["routes: none"] != 1 || !strings.Contains(sum.String(), "1 unknown, 1 wrong") {
		t.Errorf("%+v", sum)
	}
}
