package importer_test

import (
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/importer"
)

// dockerInspect is what `docker network inspect` prints of the dumps' networks,
// without what isn't about them.
const dockerInspect = `[
    {
        "Name": "bridge", "Id": "3f2c", "Scope": "local", "Driver": "bridge", "EnableIPv4": true, "EnableIPv6": true,
        "IPAM": {"Driver": "default", "Options": null, "Config": [
            {"Subnet": "172.17.0.0/16", "Gateway": "172.17.0.1"}, {"Subnet": "fd00:d0c::/64", "Gateway": "fd00:d0c::1"}]},
        "Internal": false, "Ingress": false, "Containers": {},
        "Options": {
            "com.docker.network.bridge.default_bridge": "true", "com.docker.network.bridge.enable_icc": "true",
            "com.docker.network.bridge.enable_ip_masquerade": "true", "com.docker.network.bridge.name": "docker0",
            "com.docker.network.driver.mtu": "1500"
        },
        "Labels": {}
    },
    {
        "Name": "blue", "Id": "0123456789ab", "Scope": "local", "Driver": "bridge", "EnableIPv4": true, "EnableIPv6": true,
        "IPAM": {"Driver": "default", "Options": {}, "Config": [{"Subnet": "172.18.0.0/16"}, {"Subnet": "fd00:b1::/64"}]},
        "Internal": false, "Containers": {}, "Options": {}, "Labels": {}
    },
    {"Name": "host", "Driver": "host", "IPAM": {"Driver": "default", "Options": null, "Config": []}, "Options": {}}
]
`

func dockerNode() layout {
	return layout{
		links: []string{"eth0", "eth1", "docker0", "br-0123456789ab"},
		ip: []string{
			"addr add 192.168.5.10/24 dev eth0", "addr add fd00:192:168:5::10/64 dev eth0 nodad",
			"addr add 172.31.0.10/24 dev eth1", "addr add fd00:172:31::10/64 dev eth1 nodad",
			"addr add 172.17.0.1/16 dev docker0", "addr add fd00:d0c::1/64 dev docker0 nodad",
			"addr add 172.18.0.1/16 dev br-0123456789ab", "addr add fd00:b1::1/64 dev br-0123456789ab nodad",
			"route add default via 192.168.5.1 dev eth0", "route add default via fd00:192:168:5::1 dev eth0",
		},
	}
}

// dockerFlows are the usual ones with a container for a pod, without those of other
// nodes' pods, of which docker knows nothing, and some of its networks.
func dockerFlows() (all []flow) {
	container, blue, outside, own := [2]string{"172.17.0.2", "fd00:d0c::2"}, [2]string{"172.18.0.3", "fd00:b1::3"}, [2]string{"203.0.113.5", "2001:db8:113::5"}, [2]string{"192.168.5.10", "fd00:192:168:5::10"}
	uplink, neighbour := [2]string{"172.31.0.99", "fd00:172:31::99"}, [2]string{"172.17.0.9", "fd00:d0c::9"}
	for _, r := range []row{
		{name: "container to the outside", link: "docker0", source: container, target: outside},
		{name: "container to a second uplink's network", link: "docker0", source: container, target: uplink},
		{name: "container to the host", link: "docker0", source: container, target: own},
		{name: "container to its own network", link: "docker0", source: container, target: neighbour},
		{name: "container to another network", link: "docker0", source: container, target: blue},
		{name: "container of a second network to the outside", link: "br-0123456789ab", source: blue, target: outside},
		{name: "stranger behind the bridge to the outside", link: "docker0", source: [2]string{"10.1.2.3", "fd00:1:2::3"}, target: outside},
		{name: "outside to a container", link: "eth0", source: outside, target: container},
		{name: "outside through the host", link: "eth0", source: outside, target: uplink},
		{name: "host to a container", source: own, target: container},
		{name: "host to the outside", source: own, target: outside},
		{name: "the bridge's own address to the outside", source: [2]string{"172.17.0.1", "fd00:d0c::1"}, target: outside},
	} {
		all = append(all, r.flows()...)
	}
	return all
}

// masquerading are the lines that hide docker's networks.
func masquerading(line string) bool {
	return strings.Contains(line, "-j MASQUERADE") || strings.Contains(line, `masquerade comment "MASQUERADE"`)
}

// TestDocker: the rules of docker 20.10 and 29; the other node's docker has been told
// to masquerade no more, and writes all its other rules.
func TestDocker(t *testing.T) {
	for _, name := range []string{"docker-legacy", "docker-nft", "docker-nftables"} {
		t.Run(name, func(t *testing.T) {
			c := comparison{
				kind: "docker", files: []importer.File{text("networks.json", dockerInspect)},
				node: dockerNode(), peer: dump(name), ours: dump(name, masquerading), flows: dockerFlows(),
			}
			if name != "docker-nftables" { // which goes by the incoming interface
				c.meant = []difference{{"the host's own packets are no containers', whichever of its addresses they come from", keptHere("the bridge's own address to the outside")}}
			}
			c.run(t)
		})
	}
}
