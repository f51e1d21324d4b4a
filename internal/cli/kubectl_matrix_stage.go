package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/unmasq/unmasq/internal/kubectl"
	"github.com/unmasq/unmasq/internal/matrix"
	"github.com/unmasq/unmasq/internal/probe"
)

// probed makes a stage, predicts, measures on it, and removes it.
func (o *kubectlMatrix) probed(ctx context.Context, cmd *cobra.Command, client *kubectl.Client, agents []kubectl.Agent, s matrix.Situation, expected *matrix.Expected) error {
	errOut := cmd.ErrOrStderr()
	if err := removeLeftovers(ctx, client, false, errOut); err != nil {
		return err
	}
	config := kubectl.StageConfig{Image: o.image, Port: probe.RandomPort(), By: thisRun(), Life: int64(stageLife / time.Second)}
	if cmd.Flags().Changed("port") {
		config.Port = o.port
	}
	for _, a := range agents[:min(len(agents), 2)] {
		config.Nodes = append(config.Nodes, a.Node)
	}
	if config.Image == "" {
		config.Image = agents[0].Image
	}
	m, err := o.onStage(ctx, cmd, client, agents, config, s)
	if err != nil {
		return err
	}
	return showMeasured(cmd.OutOrStdout(), m, expected, o.output)
}

// onStage is all that happens while the stage is there.
func (o *kubectlMatrix) onStage(ctx context.Context, cmd *cobra.Command, client *kubectl.Client, agents []kubectl.Agent, config kubectl.StageConfig, s matrix.Situation) (m *matrix.Matrix, err error) {
	errOut := cmd.ErrOrStderr()
	progress := func(text string) { fmt.Fprintln(errOut, text) }
	stage, err := client.MakeStage(ctx, config, o.timeout, progress)
	if err != nil {
		return nil, err
	}
	defer func() {
		progress("removing namespace " + stage.Namespace)
		err = errors.Join(err, stage.Remove(context.WithoutCancel(ctx)))
	}()
	if err := settle(ctx, stage, progress); err != nil {
		return nil, err
	}
	if s.Nodes, err = snapshots(ctx, client, agents, errOut); err != nil {
		return nil, err
	}
	s.Port, s.Places = stage.Port, append(s.Places, stagePlaces(stage)...)
	for _, service := range stage.Services {
		s.Services = append(s.Services, stage.Namespace+"/"+service.Name)
	}
	spaces := stageSpaces(stage, s.Nodes)
	if o.fromHere {
		here, place, end, err := o.here(ctx, s.Nodes, stage)
		if err != nil {
			return nil, err
		}
		defer end()
		spaces, s.Places = append(spaces, here), append(s.Places, place)
	}
	predicted := matrix.Predict(s)
	tidy(&predicted, stage)
	return &predicted, fill(ctx, probe.Measure{Spaces: spaces}, &predicted, errOut)
}

// stagePlaces are the ends of the matrix that a stage has: nodes by their names, and of
// each node's two pods one that calls and one that is called.
func stagePlaces(s *kubectl.Stage) (places []matrix.Place) {
	for _, p := range s.Pods {
		place := matrix.Place{Kind: matrix.Pod, Name: p.As(), Node: p.Node, Addresses: p.Addresses}
		switch {
		case p.Host:
			place.Kind = matrix.Host
		case p.Backend:
			place.Only = matrix.Destination
		default:
			place.Only = matrix.Source
		}
		places = append(places, place)
	}
	return places
}

// stageSpaces are where calls come from. A node has, beside the addresses that the API
// knows, all of its links'.
func stageSpaces(s *kubectl.Stage, nodes []matrix.Node) (spaces probe.Spaces) {
	for _, p := range s.Pods {
		space := probe.Space{Name: p.As(), Addresses: slices.Clone(p.Addresses), Peer: s.Port, Call: s.Call(p)}
		i := slices.IndexFunc(nodes, func(n matrix.Node) bool { return n.Name == p.Node })
		if p.Host && i >= 0 {
			for _, a := range nodes[i].Host.Network.Addresses {
				space.Addresses = append(space.Addresses, a.Prefix.Addr())
			}
		}
		spaces = append(spaces, space)
	}
	return spaces
}

// here is this machine as the client outside. Its addresses are those that it reaches
// the first node from.
func (o *kubectlMatrix) here(ctx context.Context, nodes []matrix.Node, stage *kubectl.Stage) (here probe.Space, place matrix.Place, end func(), err error) {
	place = matrix.Place{Kind: matrix.Outside, Name: "this machine", Node: o.entersAt}
	if o.entersAt != "" && !slices.ContainsFunc(nodes, func(n matrix.Node) bool { return n.Name == o.entersAt }) {
		return here, place, nil, inputError{fmt.Errorf("--enters-at %s: expected one of the nodes that are measured", o.entersAt)}
	}
	known := map[netip.Addr]bool{}
	for _, p := range stage.Pods {
		for _, a := range p.Addresses {
			known[a] = p.Host
			if source := sourceTo(a); p.Host && p.Node == nodes[0].Name && source.IsValid() {
				place.Addresses = append(place.Addresses, source)
			}
		}
	}
	if len(place.Addresses) == 0 {
		return here, place, nil, fmt.Errorf("--from-here: this machine has no way to node %s", nodes[0].Name)
	}
	local := probe.Local{Name: place.Name}
	if o.entersAt == "" {
		local.Elsewhere = func(a netip.Addr) bool { return !known[a] }
	}
	spaces, end, err := probe.OpenLocal(ctx, []probe.Local{local}, stage.Port)
	if err != nil {
		return here, place, nil, fmt.Errorf("--from-here: %w", err)
	}
	return spaces[0], place, end, nil
}

// sourceTo is the address that this machine would send from; nothing is sent.
func sourceTo(a netip.Addr) netip.Addr {
	conn, err := net.Dial("udp", netip.AddrPortFrom(a, probe.Port).String())
	if err != nil {
		return netip.Addr{}
	}
	defer conn.Close() //nolint:errcheck // nothing was sent
	local, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return local.Addr().Unmap()
}

// tidy keeps of each kind of service those columns that tell something, under names
// that are the same each time.
func tidy(m *matrix.Matrix, stage *kubectl.Stage) {
	names := map[string]string{} // by those that they had
	for i := range m.Columns {
		c := &m.Columns[i]
		if c.Service == "" {
			names[c.Name] = c.Name
			continue
		}
		_, service, _ := strings.Cut(c.Service, "/")
		service, _, _ = strings.Cut(service, ":")
		if name := stageColumn(c.Role, service, stage, m.Nodes[0]); name != "" {
			names[c.Name] = name
		}
	}
	m.Columns = slices.DeleteFunc(m.Columns, func(c matrix.Column) bool { return names[c.Name] == "" })
	m.Cells = slices.DeleteFunc(m.Cells, func(c matrix.Cell) bool { return names[c.Column] == "" })
	for i := range m.Columns {
		m.Columns[i].Name = names[m.Columns[i].Name]
	}
	for i := range m.Cells {
		m.Cells[i].Column = names[m.Cells[i].Column]
	}
}

// stageColumn is the name of a service's column; empty where another tells the same.
func stageColumn(role matrix.Role, service string, stage *kubectl.Stage, here string) string {
	i := slices.IndexFunc(stage.Services, func(s kubectl.StageService) bool { return s.Name == service })
	if i < 0 {
		return ""
	}
	s := &stage.Services[i]
	switch role {
	case matrix.NodePortCluster, matrix.NodePortLocal:
		if len(s.Backends) != 1 {
			return ""
		}
		for _, p := range stage.Pods {
			if p.Name == s.Backends[0] && p.Node == here {
				return string(role) + "-here"
			}
		}
		return string(role) + "-there"
	}
	if s.Local && role != matrix.Hairpin {
		return "" // as that of the same pod with the other policy
	}
	return string(role)
}
