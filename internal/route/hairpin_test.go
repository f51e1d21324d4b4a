package route_test

import (
	"testing"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/route"
)

// A bridge's port says whether it gives back what came from there.
func TestHairpin(t *testing.T) {
	const json = `[{"ifindex":5,"link":"eth0","ifname":"veth1","flags":["UP"],"master":"cni0","state":"forwarding","hairpin":true,"guard":false},
{"ifindex":6,"link":"eth0","ifname":"veth2","flags":["UP"],"master":"cni0","state":"forwarding","hairpin":false,"guard":false},
{"ifindex":7,"link":"eth0","ifname":"veth3","flags":["UP"],"master":"cni0","state":"forwarding"}]`
	const text = `5: veth1@eth0: <BROADCAST,UP,LOWER_UP> mtu 1500 master cni0 state forwarding priority 32 cost 2
    hairpin on guard off root_block off fastleave off learning on flood on
6: veth2@eth0: <BROADCAST,UP,LOWER_UP> mtu 1500 master cni0 state forwarding priority 32 cost 2
    hairpin off guard off root_block off fastleave off learning on flood on
7: veth3@eth0: <BROADCAST,UP,LOWER_UP> mtu 1500 master cni0 state forwarding priority 32 cost 2
`
	var fromJSON, fromText route.Network
	problems := fromJSON.ReadJSON(route.BridgeLinks, json, 1, packet.IPv4Family)
	problems = append(problems, fromText.ReadText(route.BridgeLinks, text, 1, packet.IPv4Family)...)
	if len(problems) > 0 {
		t.Errorf("problems: %v", problems)
	}
	for what, n := range map[string]*route.Network{"JSON": &fromJSON, "text": &fromText} {
		n.Complete()
		for name, want := range map[string]string{"veth1": "on", "veth2": "off", "veth3": ""} {
			if l := n.Link(name); l == nil || l.Hairpin != want {
				t.Errorf("%s of %s: %+v, want hairpin %q", name, what, l, want)
			}
		}
	}
}
