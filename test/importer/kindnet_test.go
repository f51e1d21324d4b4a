package importer_test

import (
	"testing"

	"github.com/unmasq/unmasq/internal/importer"
)

const kindnetLine = "/bin/kindnetd --hostname-override=node-1 --no-masquerade-cidr 198.51.100.0/24,2001:db8:51::/48\n"

// TestKindnet: its table, as its own test has it.
func TestKindnet(t *testing.T) {
	c := comparison{
		kind: "kindnet", files: []importer.File{text("kindnetd.txt", kindnetLine)},
		facts: usualFacts(), node: usual(), peer: recorded("testdata/kindnet-nftables.txt"),
		flows: usualFlows(
			row{name: "pod to a listed network", link: "cni0", source: [2]string{"10.244.1.7", "fd00:10:244:1::7"}, target: [2]string{"198.51.100.7", "2001:db8:51::7"}},
			row{name: "stranger behind the pods' link to the outside", link: "cni0", source: [2]string{"172.30.0.7", "fd00:172:30::7"}, target: [2]string{"203.0.113.5", "2001:db8:113::5"}},
		),
	}
	c.run(t)
}
