package judge_test

import (
	"net/netip"
	"testing"

	"github.com/unmasq/unmasq/internal/packet"
)

// What can't be told before isn't counted as if it were: an answer that goes by
// the sending process is conditional, one that goes by a program that takes
// packets off a queue is unknown, each with its reason.
func TestUnknown(t *testing.T) {
	w := newWorld(t, kind{variants: []string{"native", "nft"}, family: packet.IPv4Family}, nil)
	predict, err := w.load(&ruleset{
		family: packet.IPv4Family,
		tables: []*table{{variant: "nft", name: "filter", chains: []*chain{{"OUTPUT", "ACCEPT", []string{
			"-p tcp -m tcp --dport 81 -j NFQUEUE --queue-num 7", "-p tcp -m tcp --dport 82 -j DROP",
		}}}}},
		native: []*nativeTable{{family: "ip", name: "n0", chains: []*nativeChain{{
			"b0", "type filter hook output priority -10; policy accept;", []string{"tcp dport 80 meta skuid 1000 drop"},
		}}}},
	})
	w.must(t, err)
	var flows []packet.Flow
	for i, port := range []uint16{80, 81, 82, 83} {
		flows = append(flows, packet.Flow{Source: w.addresses[0], Destination: netip.MustParseAddr("8.8.8.8"), Protocol: packet.TCP,
			SourcePort: firstPort + uint16(i), DestinationPort: port, Local: true})
	}
	fates, err := w.send(flows)
	w.must(t, err)
	var sums tallies
	sum := sums.of("rules that can't be told beforehand")
	for i, f := range flows {
		outcomes := predict(f)
		sum.count(compare(f, fates[i], outcomes, mayBeLost), outcomes)
	}
	sum.Rulesets++
	sums.report(t)
	if sum.Packets != 4 || sum.Right != 3 || sum.Conditional != 1 || sum.Unknown != 1 || len(sum.Reasons) == 0 || len(sum.Conditions) == 0 {
		t.Errorf("%+v", sum)
	}
}
