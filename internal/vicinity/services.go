// Package vicinity finds what stands around a node by the node's own state: the
// networks of containers that it forwards for, other nodes with theirs, and the
// services that its rules translate. It names what the state shows, and guesses
// nothing: a node without kube-proxy's rules has no services.
package vicinity

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// ServiceKind says by which of its doors a service is entered.
type ServiceKind uint8

const (
	// ClusterIP is an address of the service's own.
	ClusterIP ServiceKind = iota
	// ExternalIP is an external address or a load balancer's.
	ExternalIP
	// NodePort is a port of all of the node's addresses that kube-proxy opened.
	NodePort
	// Published is such a port that a container engine opened, or the plugin portmap.
	Published
)

// Service is what rules translate to somewhere else.
type Service struct {
	Kind ServiceKind
	// Name is namespace/name, with :port where the port has a name; empty where the rules don't tell.
	Name   string
	Family packet.Family
	// Address is invalid where any address of the node will do.
	Address  netip.Addr
	Protocol uint8
	Port     uint16
	// Local: the external traffic policy is Local.
	Local bool
	// NoBackends: the rules refuse it, or drop it, since it has none.
	NoBackends bool
}

// Services that the node's rules name, in the order of their names; no more than most.
func Services(h *snapshot.Host, most int) []Service {
	var all []Service
	seen := map[Service]bool{}
	add := func(s Service, ok bool) {
		if key := s.door(); ok && len(all) < most && !seen[key] {
			seen[key] = true
			all = append(all, s)
		}
	}
	for _, t := range h.Rules.Tables {
		switch {
		case t.Native != nil:
			nativeServices(t, add)
		case t.Name == "nat" || t.Name == "filter":
			for _, c := range t.Chains {
				for i := range c.Rules {
					add(ruleService(t, c, &c.Rules[i]))
				}
			}
		}
	}
	virtualServers(h, add)
	slices.SortStableFunc(all, func(a, b Service) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Kind, b.Kind), a.Address.Compare(b.Address), cmp.Compare(a.Port, b.Port))
	})
	return all
}

// door is what tells services apart: where they are entered.
func (s Service) door() Service {
	return Service{Family: s.Family, Address: s.Address, Protocol: s.Protocol, Port: s.Port}
}

// ruleService is that of a rule such as
//
//	-A KUBE-SERVICES -d 10.96.0.10/32 -p udp … --comment "kube-system/dns:dns cluster IP" … --dport 53 -j KUBE-SVC-TCOU7JCQXEZGVUNU
//	-A KUBE-NODEPORTS -p tcp … --comment "default/web:http" … --dport 30080 -j KUBE-EXT-…
//	-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
//	-A KUBE-SERVICES -d 10.96.0.5/32 -p tcp … --comment "default/none:http has no endpoints" … --dport 80 -j REJECT …   in table filter
func ruleService(t *ruleset.Table, c *ruleset.Chain, rule *ruleset.Rule) (Service, bool) {
	s := Service{Family: t.Family, Protocol: rule.Protocol.Number}
	name, what := serviceComment(rule.Comment)
	s.Name, s.NoBackends = name, what == "has no endpoints" || what == "has no local endpoints"
	var to string
	switch target := rule.Target.(type) {
	case ruleset.Jump:
		to = target.Chain
	case ruleset.DNAT:
	default:
		if t.Name != "filter" || !s.NoBackends {
			return Service{}, false
		}
	}
	if t.Name == "filter" && !s.NoBackends || !rule.Protocol.Is || rule.Protocol.Not || rule.Destination.Not {
		return Service{}, false
	}
	if d := rule.Destination.Prefix; d.IsValid() {
		if !d.IsSingleIP() {
			return Service{}, false
		}
		s.Address = d.Addr()
	}
	s.Port = onePort(rule)
	s.Kind = ruleKind(&s, c.Name, what)
	s.Local = s.Kind != ClusterIP && isLocalPolicy(t.Chain(to)) || what == "has no local endpoints" && s.Kind != ClusterIP
	return s, s.Port != 0
}

func ruleKind(s *Service, chain, what string) ServiceKind {
	switch {
	case what == "external IP" || what == "loadbalancer IP" || chain == "KUBE-EXTERNAL-SERVICES" && s.Address.IsValid():
		return ExternalIP
	case s.Address.IsValid() && (what == "cluster IP" || strings.HasPrefix(chain, "KUBE-")):
		return ClusterIP
	case strings.HasPrefix(chain, "KUBE-"):
		return NodePort
	}
	return Published
}

// onePort is the destination port that the rule asks for, 0 where it asks for none or
// several.
func onePort(rule *ruleset.Rule) uint16 {
	for _, m := range rule.Matches {
		ports, ok := m.(ruleset.Ports)
		if ok && ports.Side == ruleset.Destination && !ports.Not && len(ports.Ranges) == 1 && ports.Ranges[0].First == ports.Ranges[0].Last {
			return ports.Ranges[0].First
		}
	}
	return 0
}

// serviceComment parts kube-proxy's comments: "default/web:http cluster IP" is
// default/web:http, cluster IP. All others name no service.
func serviceComment(text string) (name, what string) {
	name, what, _ = strings.Cut(text, " ")
	if namespace, rest, ok := strings.Cut(name, "/"); !ok || namespace == "" || rest == "" {
		return "", ""
	}
	return name, what
}

// isLocalPolicy: the chain treats what comes from the node itself apart, as kube-proxy
// has it for external traffic policy Local alone.
//
//	-A KUBE-EXT-… --comment "masquerade LOCAL traffic for default/web:http external destinations" -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ
//	fib saddr type local meta mark set meta mark | 0x00004000 comment "masquerade local traffic"
func isLocalPolicy(c *ruleset.Chain) bool {
	return c != nil && slices.ContainsFunc(c.Rules, func(r ruleset.Rule) bool {
		if r.Native != nil {
			return strings.HasPrefix(strings.TrimSpace(r.Text), "fib saddr type local")
		}
		return strings.HasPrefix(r.Comment, "masquerade LOCAL traffic")
	})
}

// nativeServices are elements of kube-proxy's verdict maps.
func nativeServices(t *ruleset.Table, add func(Service, bool)) {
	clusterIPs := members(t.Native.Set("cluster-ips"))
	for _, set := range t.Native.Sets {
		if !set.Map {
			continue
		}
		for i := range set.Elements {
			s, ok := elementService(t, set, &set.Elements[i])
			if s.NoBackends && s.Kind == ClusterIP && clusterIPs != nil && !clusterIPs[s.Address.String()] {
				s.Kind = ExternalIP
			}
			add(s, ok)
		}
	}
	for _, c := range t.Native.Chains {
		for _, rule := range c.Rules {
			add(nativePublished(t, rule))
		}
	}
}

// nativePublished is the port of a rule that a container engine writes:
//
//	iifname != "docker0" ip daddr 192.168.5.10 tcp dport 8081 dnat to 172.17.0.2:81
func nativePublished(t *ruleset.Table, rule *nftables.Rule) (s Service, ok bool) {
	s = Service{Kind: Published, Family: t.Family}
	for _, statement := range rule.Statements {
		switch x := statement.(type) {
		case nftables.Match:
			left, right := nftables.ExprText(x.Left), nftables.ExprText(x.Right)
			protocol := protocols[strings.TrimSuffix(left, " dport")]
			port, err := strconv.ParseUint(right, 10, 16)
			switch a, errAddress := netip.ParseAddr(right); {
			case x.Op != "==" && x.Op != "in":
			case protocol != 0 && err == nil && strings.HasSuffix(left, " dport"):
				s.Protocol, s.Port = protocol, uint16(port)
			case strings.HasSuffix(left, " daddr") && errAddress == nil:
				s.Address = a
			}
		case nftables.NAT:
			ok = ok || x.Kind == nftables.DNAT
		}
	}
	return s, ok && s.Port != 0 && s.Family != 0 && !s.Address.IsLoopback()
}

var protocols = map[string]uint8{"tcp": packet.TCP, "udp": packet.UDP, "sctp": packet.SCTP}

// members of a set, as text; nil where there is no such set.
func members(set *nftables.Set) map[string]bool {
	if set == nil {
		return nil
	}
	all := map[string]bool{}
	for i := range set.Elements {
		all[nftables.ExprText(set.Elements[i].Key)] = true
	}
	return all
}

// elementService is that of
//
//	10.96.0.10 . udp . 53 : goto service-ABCDEFGH-kube-system/dns/udp/dns
//	tcp . 30080 : goto external-…
//	10.96.0.5 . tcp . 80 comment "default/none:http" : goto reject-chain
//	tcp . 30081 comment "default/far:http" : drop
func elementService(t *ruleset.Table, set *nftables.Set, e *nftables.Element) (Service, bool) {
	key, ok := e.Key.(nftables.Concat)
	if !ok || len(key.Parts) < 2 || len(key.Parts) > 3 {
		return Service{}, false
	}
	parts := make([]string, len(key.Parts))
	for i, part := range key.Parts {
		parts[i] = nftables.ExprText(part)
	}
	s := Service{Family: t.Family, Kind: NodePort, NoBackends: strings.HasPrefix(set.Name, "no-endpoint-"), Name: e.Comment}
	if len(parts) == 3 {
		a, err := netip.ParseAddr(parts[0])
		if err != nil {
			return Service{}, false
		}
		s.Address, parts, s.Kind = a, parts[1:], ClusterIP
	}
	s.Protocol = protocols[parts[0]]
	port, err := strconv.ParseUint(parts[1], 10, 16)
	s.Port = uint16(port)
	v, ok := e.Data.(nftables.VerdictValue)
	// What other nodes have backends of is dropped, the rest is rejected.
	s.Local = ok && s.NoBackends && s.Kind == NodePort && v.Verdict.Kind == nftables.Drop
	if ok && !s.NoBackends {
		chain := v.Verdict.Chain
		s.Name = chainService(chain)
		if strings.HasPrefix(chain, "external-") || strings.HasPrefix(chain, "firewall-") {
			s.Kind, s.Local = max(s.Kind, ExternalIP), isLocalPolicy(t.Chain(chain))
		}
	}
	return s, err == nil && s.Protocol != 0 && s.Port != 0
}

// chainService is the service that a chain of kube-proxy's is of: external-LJ3JKJC4-default/web/tcp/http
// is of default/web:http.
func chainService(chain string) string {
	_, rest, _ := strings.Cut(chain, "-")
	_, rest, _ = strings.Cut(rest, "-")
	parts := strings.Split(rest, "/")
	switch {
	case len(parts) != 4:
		return ""
	case parts[3] == "":
		return parts[0] + "/" + parts[1]
	}
	return parts[0] + "/" + parts[1] + ":" + parts[3]
}

// virtualServers are those of IPVS, which has no names; its addresses that are the
// node's own are node ports.
func virtualServers(h *snapshot.Host, add func(Service, bool)) {
	for _, v := range h.VirtualServers {
		at, err := netip.ParseAddrPort(v.Address)
		if err != nil || at.Addr().IsLoopback() {
			continue
		}
		add(Service{Family: packet.Of(at.Addr()), Address: at.Addr(), Port: at.Port(), Protocol: v.Protocol, NoBackends: len(v.Servers) == 0}, true)
	}
}
