package owner

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/ruleset"
)

var loopback = netip.PrefixFrom(netip.AddrFrom4([4]byte{127}), 8)

// dockerChain knows the chains of dockerd ≥ 1.10 and those in a swarm
// container's own namespace (DOCKER_OUTPUT, DOCKER_POSTROUTING).
func dockerChain(chain string) bool {
	return chain == "DOCKER-USER" || dockerWrites(chain)
}

// dockerWrites all rules of these chains.
func dockerWrites(chain string) bool {
	switch chain {
	case "DOCKER", "DOCKER-FORWARD", "DOCKER-BRIDGE", "DOCKER-CT", "DOCKER-INTERNAL", "DOCKER-INGRESS",
		"DOCKER-ISOLATION", "DOCKER-ISOLATION-STAGE-1", "DOCKER-ISOLATION-STAGE-2", "DOCKER_OUTPUT", "DOCKER_POSTROUTING":
		return true
	}
	return false
}

// readDocker remembers the bridges and the container addresses that a chain of
// docker's names.
//
//	-A DOCKER ! -i bridge1 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 192.0.2.2:80
func (x *Index) readDocker(c *ruleset.Chain) {
	for i := range c.Rules {
		r := &c.Rules[i]
		for _, face := range [...]ruleset.Interface{r.In, r.Out} {
			if face.Name != "" && face.Name != "lo" && !face.Wildcard {
				x.bridges[face.Name] = true
			}
		}
		if d, ok := r.Target.(ruleset.DNAT); ok && d.First.IsValid() {
			x.published[d.First] = true
		}
	}
}

// bridge says whether an interface is a docker network's: its default names, or
// a name that docker's own chains use.
func (x *Index) bridge(i ruleset.Interface) bool {
	if i.Wildcard {
		return false
	}
	id, made := strings.CutPrefix(i.Name, "br-")
	return i.Name == "docker0" || i.Name == "docker_gwbridge" || made && len(id) == 12 && hexadecimal(id) || x.bridges[i.Name]
}

// dockerRule recognises what docker writes into built-in chains without a comment.
func dockerRule(p place) bool {
	switch p.table.Name {
	case "nat":
		return p.chain.Name == "POSTROUTING" && (p.dockerNetwork() || p.dockerNetworkUnseen() || p.dockerFromHost() || p.dockerHairpin() || p.dockerIngress())
	case "filter":
		return p.chain.Name == "FORWARD" && p.dockerForward()
	case "raw":
		return p.chain.Name == "PREROUTING" && p.dockerRaw()
	}
	return false
}

// dockerNetwork hides a network behind the node.
//
//	-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
//	-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j SNAT --to-source 192.0.2.1
func (p place) dockerNetwork() bool {
	r := p.rule
	return asked(r) == source|out && !r.Source.Not && r.Out.Not && p.bridge(r.Out) && dockerTranslates(r.Target)
}

// dockerNetworkUnseen is the same rule in a listing without interfaces: a network
// of docker's default pools where docker is at work.
func (p place) dockerNetworkUnseen() bool {
	r := p.rule
	return r.NoInterfaces && asked(r) == source && !r.Source.Not && bareMasquerade(r.Target) && p.tables[p.table]["DOCKER"] && dockerPool(r.Source.Prefix)
}

// dockerPool: 172.17.0.0/16 to 172.31.0.0/16, 192.168.0.0/20 to 192.168.240.0/20.
func dockerPool(n netip.Prefix) bool {
	if !n.Addr().Is4() {
		return false
	}
	a := n.Addr().As4()
	return n.Bits() == 16 && a[0] == 172 && a[1] >= 17 && a[1] <= 31 || n.Bits() == 20 && a[0] == 192 && a[1] == 168
}

func dockerTranslates(t ruleset.Target) bool {
	if s, ok := t.(ruleset.SNAT); ok {
		return s.Ports == nil && s.First.IsValid() && s.First == s.Last && s.NATFlags == ruleset.NATFlags{}
	}
	return bareMasquerade(t)
}

// dockerFromHost hides the node's own address from containers, where docker has
// no user-land proxy, and on the swarm's gateway.
//
//	-A POSTROUTING -o docker_gwbridge -m addrtype --src-type LOCAL -j MASQUERADE
func (p place) dockerFromHost() bool {
	r := p.rule
	return asked(r) == out|matches && named(r.Out) && p.bridge(r.Out) && sourceIsLocal(r) && dockerTranslates(r.Target)
}

// dockerHairpin lets a container reach its own published port.
//
//	-A POSTROUTING -s 172.17.0.2/32 -d 172.17.0.2/32 -p tcp -m tcp --dport 80 -j MASQUERADE
func (p place) dockerHairpin() bool {
	r := p.rule
	from, ok := single(r.Source)
	to, also := single(r.Destination)
	if !ok || !also || from != to || asked(r) != source|destination|protocol|matches || !destinationPort(r) {
		return false
	}
	return bareMasquerade(r.Target) && (p.published[from] || p.table.Excerpt && p.inDockerNetwork(from))
}

// inDockerNetwork: one of docker's rules in the chain hides its network. An
// excerpt shows no more.
func (p place) inDockerNetwork(a netip.Addr) bool {
	return slices.ContainsFunc(p.dockerNetworks[p.chain], func(n netip.Prefix) bool { return n.Contains(a) })
}

// findDockerNetworks needs the bridges' names, which other tables may tell.
func (x *Index) findDockerNetworks(tables []*ruleset.Table) {
	for _, t := range tables {
		post := t.Chain("POSTROUTING")
		if t.Name != "nat" || post == nil {
			continue
		}
		for i := range post.Rules {
			p := place{Index: x, table: t, chain: post, rule: &post.Rules[i]}
			if p.dockerNetwork() {
				x.dockerNetworks[post] = append(x.dockerNetworks[post], p.rule.Source.Prefix)
			}
		}
	}
}

// dockerIngress stands in the namespace of a swarm's ingress network.
//
//	-A POSTROUTING -d 10.0.0.0/24 -m ipvs --ipvs -j SNAT --to-source 10.0.0.2
func (p place) dockerIngress() bool {
	r := p.rule
	text, ok := extension(r, "ipvs")
	if !ok || asked(r) != destination|matches || only(r) == nil || !p.tables[p.table]["DOCKER_POSTROUTING"] {
		return false
	}
	_, snat := r.Target.(ruleset.SNAT)
	return snat && !strings.Contains(text, "vdir") && !strings.Contains(text, "vaddr")
}

// dockerForward lets packets through from and to a network.
//
//	-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
//	-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
//	-A FORWARD -i docker0 -o docker0 -j ACCEPT
func (p place) dockerForward() bool {
	r := p.rule
	switch asked(r) {
	case out | matches:
		return named(r.Out) && p.bridge(r.Out) && established(r) && accepts(r.Target)
	case in | out:
		same := named(r.In) && p.bridge(r.In) && r.Out.Name == r.In.Name && !r.Out.Wildcard
		return same && (accepts(r.Target) || drops(r.Target) && !r.Out.Not)
	}
	return false
}

// dockerRaw keeps outsiders from container addresses and from ports that are
// published on the loopback address.
//
//	-A PREROUTING -d 172.18.0.2/32 ! -i br-0123456789ab -j DROP
//	-A PREROUTING -d 127.0.0.1/32 ! -i lo -p tcp -m tcp --dport 8080 -j DROP
func (p place) dockerRaw() bool {
	r := p.rule
	to, ok := single(r.Destination)
	if !ok || !drops(r.Target) || !r.In.Not || r.In.Wildcard {
		return false
	}
	if asked(r) == destination|in {
		return p.bridge(r.In)
	}
	return asked(r) == destination|in|protocol|matches && r.In.Name == "lo" && to.IsLoopback() && destinationPort(r) && p.node["DOCKER"]
}

// docker describes a rule of docker's.
func (p place) docker() Owner {
	o := Owner{Name: Docker, Version: p.dockerVersion()}
	target, _ := jump(p.rule)
	switch {
	case p.chain.Name == "DOCKER-USER":
		if asked(p.rule) != 0 || !returns(p.rule.Target) {
			return unknown("added by hand to chain DOCKER-USER, which docker keeps for such rules")
		}
	case p.chain.Name == "POSTROUTING" && translatesSource(p.rule.Target):
		p.dockerHides(&o)
	case strings.HasPrefix(p.chain.Name, "DOCKER_"), strings.HasPrefix(target, "DOCKER_"):
		o.Setting = "docker's DNS at 127.0.0.11"
		o.Because = "a container asks docker's DNS"
	case p.chain.Name == "DOCKER" && p.table.Name == "nat", target == "DOCKER" && p.table.Name == "nat":
		o.Setting = "--publish"
		o.Change = []string{"run the container without -p, or with -p ADDRESS:PORT:PORT"}
	case p.table.Name == "raw":
		p.dockerKeepsOut(&o)
	case p.chain.Name != "DOCKER-USER" && (drops(p.rule.Target) || target == "DOCKER-USER"):
		o.Because = p.dockerDrops()
		o.Change = []string{"iptables -I DOCKER-USER -s FROM -d TO -j ACCEPT   # docker keeps this chain for exceptions"}
	}
	return o
}

// dockerKeepsOut: the rules of table raw, behind which DOCKER-USER isn't asked.
func (p place) dockerKeepsOut(o *Owner) {
	if p.rule.Protocol.Is {
		o.Setting = "--publish 127.0.0.1:PORT:PORT"
		o.Because = "the port is published on the loopback address only"
		return
	}
	o.Setting = "allow-direct-routing"
	o.Because = "a container's own address is reached from outside its bridge"
	o.Change = []string{
		`≥ 28.2: /etc/docker/daemon.json: {"allow-direct-routing": true}, then systemctl restart docker`,
		"docker network create --opt com.docker.network.bridge.trusted_host_interfaces=INTERFACE … (made anew)",
	}
	o.Trap = "chain DOCKER-USER comes too late: table raw is asked first"
}

// dockerDrops says why a rule of table filter drops.
func (p place) dockerDrops() string {
	switch {
	case !drops(p.rule.Target):
		return ""
	case strings.HasPrefix(p.chain.Name, "DOCKER-ISOLATION"):
		return "docker keeps its networks apart"
	case p.chain.Name == "DOCKER-INTERNAL":
		return "the network is internal"
	case p.chain.Name == "DOCKER" && p.rule.In.Not:
		return "the port isn't published"
	case p.rule.In.Name != "" && p.rule.In.Name == p.rule.Out.Name && !p.rule.In.Not && !p.rule.Out.Not:
		return "containers of the network mustn't reach each other: com.docker.network.bridge.enable_icc=false"
	}
	return ""
}

func (p place) dockerHides(o *Owner) {
	o.Trap = "docker puts the rule back, above all others, when it restarts and when a network is made"
	switch {
	case p.dockerFromHost():
		o.Setting = `"userland-proxy": false`
		o.Because = "the node itself reaches a container through one of its addresses"
		o.Change = []string{`/etc/docker/daemon.json: {"userland-proxy": true}, then systemctl restart docker`}
		if p.rule.Out.Name == "docker_gwbridge" {
			o.Setting, o.Change = "the swarm's gateway network docker_gwbridge", nil
		}
	case p.dockerHairpin():
		o.Setting = "--publish"
		o.Because = "hairpin: a container reaches its own published port"
		o.Change = []string{
			`≥ 28: /etc/docker/daemon.json: {"userland-proxy": true}, then systemctl restart docker`,
			"run the container without -p",
		}
	case p.dockerIngress():
		o.Setting = "the swarm's ingress network"
		o.Because = "traffic that came in by the routing mesh"
		o.Change = []string{"docker service create --publish mode=host,…"}
	default:
		p.dockerNetworkSetting(o)
	}
}

func (p place) dockerNetworkSetting(o *Owner) {
	const option = "com.docker.network.bridge.enable_ip_masquerade"
	face := p.rule.Out.Name
	o.Because = "a packet of the network " + p.rule.Source.Prefix.String() + " leaves by another interface than its bridge"
	_, snat := p.rule.Target.(ruleset.SNAT)
	switch {
	case snat:
		o.Setting = "com.docker.network.host_ipv4"
		o.Change = []string{"docker network create --opt " + option + "=false … (made anew)"}
	case face == "docker0" || face == "":
		o.Setting = `"ip-masq": true`
		o.Change = []string{`/etc/docker/daemon.json: {"ip-masq": false}, then systemctl restart docker`}
	default:
		o.Setting = option
		o.Change = []string{"docker network create --opt " + option + "=false … (made anew: docker network rm first)"}
	}
	switch {
	case p.rule.NoInterfaces:
		o.Version = "as far as a listing without interfaces shows; iptables -L -v shows them"
	case !p.table.Excerpt && !p.tables[p.table]["DOCKER"]:
		o.Version = "docker's chain DOCKER isn't in this table: left behind, or written by hand in docker's form"
	}
}

func (p place) dockerVersion() string {
	switch {
	case p.node["DOCKER-FORWARD"]:
		return "≥ 28"
	case p.node["DOCKER-ISOLATION-STAGE-1"]:
		return "before 28"
	}
	return ""
}
