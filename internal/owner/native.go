package owner

import (
	"fmt"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

// nativeComponent is how the native tables of one owner are recognised: a
// component has tables of its own, so that their names tell.
type nativeComponent struct {
	owns func(family, table string) bool
	// owner of all of it; describe adds what the chain and the rule tell. The rule
	// is nil for a chain's policy.
	owner    Owner
	describe func(*Owner, nativePlace)
}

// nativePlace is a rule of a native table where it stands.
type nativePlace struct {
	table *ruleset.Table
	chain string
	// rule is nil for the chain's policy.
	rule *nftables.Rule
	// asks is what the rule asks for and does, without values, see [shape].
	asks string
}

// native is the owner of a rule of a native table, or of a chain's policy.
func native(t *ruleset.Table, c *ruleset.Chain, rule *ruleset.Rule) Owner {
	n := nativePlace{table: t, chain: c.Name}
	if rule != nil {
		n.rule, n.asks = rule.Native, shape(rule.Native)
	}
	for i := range nativeComponents {
		k := &nativeComponents[i]
		if !k.owns(t.Native.Family, t.Name) {
			continue
		}
		o := k.owner
		o.Change = slices.Clone(o.Change)
		if k.describe != nil {
			k.describe(&o, n)
		}
		if o.Name == Unknown {
			o.Change = n.deletion()
		}
		return o
	}
	return Owner{Name: Unknown, Change: n.deletion()}
}

// deletion is the command that takes a rule away that nobody is known to write.
func (n nativePlace) deletion() []string {
	if n.rule == nil {
		return nil
	}
	handle := "HANDLE"
	if n.rule.Handle > 0 {
		handle = fmt.Sprint(n.rule.Handle)
	}
	place := n.table.Native.Family + " " + n.table.Name + " " + n.chain
	change := fmt.Sprintf("nft delete rule %s handle %s   # until what wrote it runs again", place, handle)
	if n.rule.Handle == 0 {
		change += "; nft -a list chain " + place + " shows the handle"
	}
	return []string{change, "find what writes it: nft monitor, and grep -rE 'nft' /etc/systemd /etc/nftables* /etc/network /etc/cron*"}
}

// alien is a rule in a component's table that the component doesn't write.
func (o *Owner) alien(n nativePlace) {
	*o = unknown("added by hand to chain " + n.chain + " of " + o.Name)
}

// translates says whether the rule translates sources.
func (n nativePlace) translates() bool {
	return n.rule != nil && slices.ContainsFunc(n.rule.Statements, func(s nftables.Statement) bool {
		nat, ok := s.(nftables.NAT)
		return ok && (nat.Kind == nftables.Masquerade || nat.Kind == nftables.SNAT)
	})
}

// stops says whether the rule itself drops or rejects.
func (n nativePlace) stops() bool {
	return n.rule != nil && (strings.HasSuffix(n.asks, "drop") || strings.HasSuffix(n.asks, "reject"))
}

// is one of the shapes.
func (n nativePlace) is(shapes ...string) bool { return slices.Contains(shapes, n.asks) }

func (n nativePlace) comment() string {
	if n.rule == nil {
		return ""
	}
	return n.rule.Comment
}

// shape is what a rule asks for and does, without values, of both families alike.
//
//	ip saddr 10.244.0.0/16 ip daddr != 224.0.0.0/4 counter masquerade fully-random: "ip saddr, ip daddr !=, masquerade"
func shape(rule *nftables.Rule) string {
	var all []string
	for _, s := range rule.Statements {
		text := ""
		switch s := s.(type) {
		case nftables.Match:
			text = nftables.ExprText(s.Left)
			if s.Op != "==" && s.Op != "in" {
				text += " " + s.Op
			}
		case nftables.VerdictMap:
			text = nftables.ExprText(s.Key) + " vmap"
		case nftables.Verdict:
			text = strings.TrimSpace(s.Kind.String() + " " + s.Chain)
		case nftables.Assign:
			text = nftables.ExprText(s.Key) + " set"
		case nftables.NAT:
			text = s.Kind.String()
		case nftables.Reject:
			text = "reject"
		case nftables.Inert:
			continue
		default:
			text = nftables.StatementText(s)
		}
		all = append(all, strings.ReplaceAll(text, "ip6 ", "ip "))
	}
	return strings.Join(all, ", ")
}

// matchOf is the value that a rule compares a field with, as nft prints it; not
// says that it is compared by !=.
func matchOf(rule *nftables.Rule, protocol, field string) (value string, not bool) {
	for _, s := range rule.Statements {
		m, ok := s.(nftables.Match)
		if !ok {
			continue
		}
		switch e := m.Left.(type) {
		case nftables.Payload:
			if strings.TrimSuffix(e.Protocol, "6") == protocol && e.Field == field {
				return nftables.ExprText(m.Right), m.Op == "!="
			}
		case nftables.Meta:
			if protocol == "meta" && e.Key == field {
				return strings.Trim(nftables.ExprText(m.Right), `"`), m.Op == "!="
			}
		}
	}
	return "", false
}

// tableNamed recognises a table of that name in families such as "ip ip6".
func tableNamed(families string, names ...string) func(family, table string) bool {
	return func(family, table string) bool {
		return slices.Contains(strings.Fields(families), family) && slices.Contains(names, table)
	}
}

var nativeComponents = [...]nativeComponent{
	{tableNamed("ip ip6", "kube-proxy"), Owner{Name: KubeProxy, Version: "nftables mode"}, (*Owner).kubeProxyNative},
	{tableNamed("ip ip6", "docker-bridges"), Owner{Name: Docker, Version: `≥ 29, "firewall-backend": "nftables"`}, (*Owner).dockerNative},
	{flannelTable, Owner{Name: Flannel, Version: "EnableNFTables"}, (*Owner).flannelNative},
	{tableNamed("inet", "cni_plugins_masquerade"), Owner{Name: CNIBridge, Version: "plugin bridge or ptp, ipMasqBackend nftables"}, (*Owner).cniNative},
	{tableNamed("ip ip6", "cni_hostport"), Owner{Name: CNIPortmap, Version: "backend nftables"}, (*Owner).portmapNative},
	{tableNamed("inet", "kindnet-ipmasq", "kindnet"), Owner{Name: Kindnet}, (*Owner).kindnetNative},
	{tableNamed("inet", "unmasq", "unmasq-handover"), Owner{Name: Unmasq}, (*Owner).unmasqNative},
	{tableNamed("ip ip6", "calico"), Owner{Name: Calico, Version: "nftables mode"}, (*Owner).calicoNative},
	{tableNamed("ip ip6", "io.systemd.nat"), Owner{Name: SystemdNetworkd, Version: "≥ 248"}, (*Owner).systemdNative},
	{tableNamed("ip ip6 inet", "firewalld"), Owner{Name: Firewalld, Version: "nftables backend"}, (*Owner).firewalldNative},
	{tableNamed("inet", "lxd"), Owner{Name: LXD}, (*Owner).lxdNative},
	{tableNamed("inet", "incus"), Owner{Name: LXD, Version: "Incus"}, (*Owner).lxdNative},
	{tableNamed("ip ip6", "libvirt_network"), Owner{Name: Libvirt, Version: "≥ 10.4"}, (*Owner).libvirtNative},
	{tableNamed("inet", "netavark"), Owner{Name: Podman, Version: "netavark"}, (*Owner).podmanNative},
	{tableNamed("inet", "ovn-kubernetes"), Owner{Name: OVNKubernetes}, (*Owner).ovnKubernetesNative},
	{tableNamed("ip ip6 inet", "antrea"), Owner{Name: Antrea}, nil},
	{tableNamed("ip", "aws-cni"), Owner{Name: AWSVPCCNI}, (*Owner).awsNative},
	{tableNamed("ip ip6 inet", "netbird"), Owner{Name: Netbird}, (*Owner).netbirdNative},
	{func(family, table string) bool { return family == "inet" && strings.HasPrefix(table, "istio-") }, Owner{Name: Istio}, nil},
}
