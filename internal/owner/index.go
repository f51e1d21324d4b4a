package owner

import (
	"net/netip"
	"strings"

	"github.com/unmasq/unmasq/internal/ipset"
	"github.com/unmasq/unmasq/internal/ruleset"
)

// Index answers for all rules of a node. It is built once, by one look at the
// chains' names and at the rules of the built-in chains and of docker's, and is
// never written to afterwards: any number of goroutines may use it.
type Index struct {
	// tables that it has seen, with the landmarks of each.
	tables map[*ruleset.Table]landmarks
	// node has the landmarks of all tables.
	node landmarks
	// bridges that docker's chains name.
	bridges map[string]bool
	// published addresses: docker's chain DOCKER translates to them.
	published map[netip.Addr]bool
	// dockerNetworks that docker's own rules hide, by the chain of those rules.
	dockerNetworks map[*ruleset.Chain][]netip.Prefix
	// flannelOld and libvirtOld are the networks of rules that were recognised
	// as a group, by the built-in chain that they stand in.
	flannelOld, libvirtOld map[*ruleset.Chain]map[netip.Prefix]bool
	// serviceLB are the destinations of k3s' service load balancer.
	serviceLB map[backend]bool
	// jumps counts how often built-in chains jump to a chain, by table and chain.
	jumps map[jumpTo]int
}

type jumpTo struct {
	table *ruleset.Table
	chain string
}

// landmarks are chains that tell that a component is or was at work.
type landmarks map[string]bool

// landmark is the name under which a chain is remembered, empty for most.
func landmark(chain string) string {
	switch chain {
	case "DOCKER", "DOCKER-FORWARD", "DOCKER-ISOLATION-STAGE-1", "DOCKER-INGRESS", "DOCKER_POSTROUTING",
		"KUBE-KUBELET-CANARY", "KUBE-MARK-DROP", "KUBE-NODE-PORT", "KUBE-LOAD-BALANCER", "KUBE-SERVICES",
		"OVN-POSTROUTING", "WEAVE", "WEAVE-NPC", "ISTIO_OUTPUT", "cali-nat-outgoing",
		"INPUT_ZONES", "FORWARD_IN_ZONES", "PREROUTING_ZONES", "POSTROUTING_ZONES", "FORWARD_POLICIES_pre",
		"ufw-before-input", "ufw6-before-input", "AZURE-NPM":
		return chain
	}
	if !strings.HasPrefix(chain, "KUBE-S") {
		for _, p := range [...]string{"KUBE-EXT-", "KUBE-XLB-", "OVN-KUBE-", "CRIO-"} {
			if strings.HasPrefix(chain, p) {
				return p
			}
		}
	}
	return ""
}

// New looks at the rules of a node. The sets may be nil.
func New(rules *ruleset.Ruleset, _ ipset.Sets) *Index {
	x := &Index{
		tables:         map[*ruleset.Table]landmarks{},
		node:           landmarks{},
		bridges:        map[string]bool{},
		published:      map[netip.Addr]bool{},
		dockerNetworks: map[*ruleset.Chain][]netip.Prefix{},
		flannelOld:     map[*ruleset.Chain]map[netip.Prefix]bool{},
		libvirtOld:     map[*ruleset.Chain]map[netip.Prefix]bool{},
		serviceLB:      map[backend]bool{},
		jumps:          map[jumpTo]int{},
	}
	for _, t := range rules.Tables {
		x.tables[t] = x.read(t)
	}
	x.findServiceLB(rules.Tables)
	x.findDockerNetworks(rules.Tables)
	return x
}

func (x *Index) read(t *ruleset.Table) landmarks {
	seen := landmarks{}
	for _, c := range t.Chains {
		if l := landmark(c.Name); l != "" {
			seen[l], x.node[l] = true, true
		}
		switch {
		case builtIn(c.Name):
			x.readBuiltIn(t, c)
		case dockerWrites(c.Name):
			x.readDocker(c)
		}
	}
	return seen
}

func (x *Index) readBuiltIn(t *ruleset.Table, c *ruleset.Chain) {
	for i := range c.Rules {
		r := &c.Rules[i]
		chain, ok := jump(r)
		if !ok {
			if azureWireServer(r) {
				x.node[wireServer] = true
			}
			continue
		}
		x.jumps[jumpTo{t, chain}]++
		if chain == "DOCKER" && named(r.Out) {
			x.bridges[r.Out.Name] = true
		}
	}
	if t.Name == "nat" {
		x.flannelOld[c] = flannelNetworks(c)
		x.libvirtOld[c] = libvirtNetworks(c)
	}
}

// Of returns the owner of a rule of a chain of a table; for a chain's policy
// rule is nil.
func (x *Index) Of(t *ruleset.Table, c *ruleset.Chain, rule *ruleset.Rule) Owner {
	if _, known := x.tables[t]; !known {
		return Of(t, c, rule)
	}
	if t.Native != nil && !t.Native.IPTables {
		return native(t, c, rule)
	}
	if rule == nil {
		return x.policy(t, c)
	}
	if rule.Native != nil {
		return x.behindNFT(t, c, rule)
	}
	p := place{Index: x, table: t, chain: c, rule: rule}
	var o Owner
	if builtIn(c.Name) {
		o = p.inBuiltIn()
	} else {
		o = p.inOwnChain()
	}
	if o.Name == Unknown && len(o.Change) == 0 {
		o.Change = p.deletion()
	}
	return o
}

// place is a rule where it stands.
type place struct {
	*Index
	table *ruleset.Table
	chain *ruleset.Chain
	rule  *ruleset.Rule
}

// inOwnChain: the chain's name says whose it is, and the component says whether
// it writes such a rule into it.
func (p place) inOwnChain() Owner {
	for i := range components {
		if k := &components[i]; k.owns != nil && k.owns(p.chain.Name) {
			return k.describe(p)
		}
	}
	if k := byComment(p.rule.Comment); k != nil {
		return k.describe(p)
	}
	return Owner{Name: Unknown}
}

// inBuiltIn: everybody writes into these chains. A jump belongs to whom the
// chain belongs that it leads to.
func (p place) inBuiltIn() Owner {
	if k := byComment(p.rule.Comment); k != nil {
		return k.describe(p)
	}
	if chain, ok := jump(p.rule); ok {
		for i := range components {
			if k := &components[i]; k.owns != nil && k.owns(chain) && !subroutine(chain) {
				return k.describe(p)
			}
		}
		return Owner{Name: Unknown}
	}
	for i := range components {
		if k := &components[i]; k.writes != nil && k.writes(p) {
			return k.describe(p)
		}
	}
	return Owner{Name: Unknown, Version: p.lookAlike()}
}

// subroutine chains are called by their component's other chains only. A jump
// from a built-in chain was written by hand.
func subroutine(chain string) bool {
	switch chain {
	case "KUBE-MARK-MASQ", "KUBE-MARK-DROP", "CNI-HOSTPORT-SETMARK", "NETAVARK-HOSTPORT-SETMARK":
		return true
	}
	return false
}

func byComment(text string) *component {
	if text == "" {
		return nil
	}
	for i := range components {
		if k := &components[i]; k.says != nil && k.says(text) {
			return k
		}
	}
	return nil
}

// policy of a built-in chain. The kernel's own is ACCEPT.
func (x *Index) policy(t *ruleset.Table, c *ruleset.Chain) Owner {
	switch {
	case c.Policy != "DROP" || t.Name != "filter":
		return Owner{Name: Unknown}
	case x.node["ufw-before-input"] || x.node["ufw6-before-input"]:
		return ufwPolicy(c.Name)
	case x.tables[t]["DOCKER"] && c.Name == "FORWARD":
		return Owner{
			Name: Docker, Version: "docker sets the policy where it turns IP forwarding on itself",
			Setting: "ip-forward-no-drop",
			Change:  []string{`/etc/docker/daemon.json: {"ip-forward-no-drop": true}`, "sysctl net.ipv4.ip_forward=1 before docker starts"},
			Trap:    "the policy stays until it is set back: iptables -P FORWARD ACCEPT",
		}
	}
	return Owner{Name: Unknown}
}

// unknown says that a person or a script wrote the rule, and what it looks like.
func unknown(looks string) Owner { return Owner{Name: Unknown, Version: looks} }

// alien is a rule in a component's chain that the component doesn't write.
func alien(component, chain string) Owner {
	return unknown("added by hand to chain " + chain + " of " + component)
}
