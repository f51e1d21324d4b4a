package judge_test

import (
	"fmt"
	"maps"
	"slices"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/sim"
)

// repeats of a packet whose fate is a matter of chance.
const repeats = 60

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
