package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/unmasq/unmasq/internal/cni"
	"github.com/unmasq/unmasq/internal/facts"
	"github.com/unmasq/unmasq/internal/kernel/link"
	"github.com/unmasq/unmasq/internal/matrix"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/plan"
	"github.com/unmasq/unmasq/internal/policy"
	"github.com/unmasq/unmasq/internal/render"
	"github.com/unmasq/unmasq/internal/route"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// predict the situation; with -f as it would be with the documents in force, and what
// they change.
func (o *matrixOptions) predict(cmd *cobra.Command, s matrix.Situation) (matrix.Matrix, error) {
	if len(o.documents.files) == 0 {
		return matrix.Predict(s), nil
	}
	loaded, err := o.documents.load(cmd, cmd.InOrStdin())
	if err != nil {
		return matrix.Matrix{}, err
	}
	s.Places = append(s.Places, keptNetworks(&loaded.Policy, s.Places)...)
	before := matrix.Predict(s)
	nodes := make([]matrix.Node, len(s.Nodes))
	for i, n := range s.Nodes {
		found, warnings := o.factsOf(n.Host)
		for _, w := range warnings {
			fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", w)
		}
		table, err := tableOf(loaded, found)
		if err != nil {
			return matrix.Matrix{}, err
		}
		nodes[i] = n.With(table)
	}
	s.Nodes = nodes
	after := matrix.Predict(s)
	after.Policies = o.documents.files
	if after.Since(&before) == 0 {
		after.Notes = append(after.Notes, "the policy changes no cell")
	}
	return after, nil
}

// factsOf a node as its state shows them; of this host CNI's configuration is read too.
func (o *matrixOptions) factsOf(h *snapshot.Host) (found facts.Discovered, warnings []string) {
	host := linksOf(&h.Network)
	found = facts.Discovered{
		NodeAddresses: host.NodeAddresses(), Broadcasts: host.Broadcasts(), TunnelPorts: host.TunnelPorts(), LocalPodCIDRs: host.PodSubnets(),
	}
	if len(o.snapshots) == 0 {
		configured, said := cni.Read(o.documents.cniDir)
		found.LocalPodCIDRs, warnings = append(found.LocalPodCIDRs, configured...), said
	}
	return found, warnings
}

// linksOf a snapshot as the kernel would list them.
func linksOf(n *route.Network) link.Host {
	var host link.Host
	indexes := map[string]int{}
	for i := range n.Links {
		indexes[n.Links[i].Name] = n.Links[i].Index
	}
	for i := range n.Links {
		l := &n.Links[i]
		kind := l.Kind
		if kind == "" {
			kind = "device"
		}
		out := link.Link{Index: l.Index, Name: l.Name, Kind: kind, Up: l.Up, Loopback: l.Name == "lo", Master: indexes[l.Master], TunnelPort: l.Port}
		for _, a := range n.Addresses {
			if a.Interface != l.Name {
				continue
			}
			subnet := a.Prefix.Masked()
			if a.Peer.IsValid() {
				subnet = a.Peer.Masked()
			}
			out.Addresses = append(out.Addresses, link.Address{Addr: a.Prefix.Addr(), Subnet: subnet, Broadcast: a.Broadcast})
		}
		host.Links = append(host.Links, out)
	}
	for i := range n.Routes {
		if n.Routes[i].Destination.Bits() == 0 {
			for _, hop := range n.Routes[i].Nexthops {
				host.DefaultRoutes = append(host.DefaultRoutes, indexes[hop.Interface])
			}
		}
	}
	return host
}

// tableOf documents on a node that shows such facts.
func tableOf(loaded *policy.Loaded, found facts.Discovered) (*nftables.Table, error) {
	known, _, _ := facts.Merge(loaded.Stated, nil, found)
	var text strings.Builder
	if err := render.Table(&text, plan.Compile(&loaded.Policy, &known, plan.Options{})); err != nil {
		return nil, err
	}
	read, problems := nftables.ReadText(text.String(), 1)
	if len(problems) > 0 || len(read.Tables) != 1 {
		return nil, errors.New("the policy's own table can't be read: please report it with the policy")
	}
	read.Tables[0].File = "the policy"
	return read.Tables[0], nil
}

// mostKept networks of a policy are asked about by themselves.
const mostKept = 4

// keptNetworks are those that rules with Keep name, unless they are places already.
func keptNetworks(p *policy.Policy, places []matrix.Place) []matrix.Place {
	known := map[string]bool{}
	for i := range places {
		known[places[i].Name] = true
	}
	var all []matrix.Place
	for i := range p.Rules {
		if p.Rules[i].Action != policy.Keep {
			continue
		}
		for _, cidr := range p.Rules[i].To.CIDRs {
			place, err := matrix.ParseNetwork(cidr.String())
			if err != nil || known[place.Name] || cidr == packet.Of(cidr.Addr()).Everywhere() || len(all) == mostKept {
				continue
			}
			known[place.Name] = true
			all = append(all, place)
		}
	}
	return all
}
