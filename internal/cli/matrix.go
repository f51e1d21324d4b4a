package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/unmasq/unmasq/internal/kernel/capture"
	"github.com/unmasq/unmasq/internal/matrix"
	"github.com/unmasq/unmasq/internal/packet"
)

const matrixHelp = `Says who is seen as whom: a table of sources (a pod here, a pod there, this node, another
node, a client outside) and of what they connect to (pods, nodes, services by their
ClusterIP, NodePorts and external addresses, hosts outside), for IPv4 and IPv6. In each
cell is what the server sees: the client itself, another address and by whose rule; or
that no answer comes. Of this host (as root), or of snapshots of one node or several.

Places and services are found in the node's own state; what isn't known isn't guessed,
and a note says so. Exit status 1: --expect or --probe found a difference, there was nothing
to ask about, or not all of this host could be read; 2: a flag or a file is wrong.`

type matrixOptions struct {
	snapshots []string
	places    string
	networks  []string
	outside   []string
	services  []string
	all       bool
	port      uint16
	protocol  string
	expect    string
	output    string
	documents documents
	probe     probeOptions
}

func newMatrix() *cobra.Command {
	o := &matrixOptions{}
	cmd := &cobra.Command{
		Use:   "matrix",
		Short: "Who is seen as whom, between pods, nodes, services and the world outside",
		Long:  matrixHelp,
		Example: `  sudo unmasq matrix
  unmasq matrix --snapshot a=node-a.tar.gz --snapshot b=node-b.tar.gz -o html > matrix.html
  unmasq matrix --snapshot node-a.tar.gz --network 192.168.200.0/24 -f policy.yaml
  unmasq matrix -o json > expected.json; unmasq matrix --expect expected.json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	cmd.Flags().StringArrayVar(&o.snapshots, "snapshot", nil, "a snapshot or dump, `PATH`, or - for standard input; repeatable: of one node, or NAME=PATH of several, the first of which is here")
	o.flags(cmd)
	o.probe.flags(cmd)
	o.documents.flags(cmd, "filename", "config")
	return cmd
}

// flags of what is asked and shown, wherever nodes' state comes from.
func (o *matrixOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.places, "places", "", "`FILE` of places: clients outside and where they come in, networks, pods, nodes")
	f.StringArrayVar(&o.networks, "network", nil, "ask about a host of this network too (`CIDR`); repeatable")
	f.StringArrayVar(&o.outside, "outside", nil, "`ADDRESS` of the client outside; repeatable: one of each family")
	f.StringArrayVar(&o.services, "service", nil, "ask about this service, `NAMESPACE/NAME[:PORT]` or an address, in place of one of each kind; repeatable")
	f.BoolVar(&o.all, "all-services", false, "ask about all services")
	f.Uint16Var(&o.port, "port", 0, "`PORT` to ask pods, nodes and hosts outside at, where no service tells it; left out, 8080 or the next that no service has")
	f.StringVar(&o.protocol, "protocol", "tcp", "`PROTOCOL` of all connections: tcp or udp")
	f.StringVar(&o.expect, "expect", "", "compare with what `FILE` expects: YAML, or an earlier -o json")
	f.StringVarP(&o.output, "output", "o", "", "`FORMAT`: json, svg, html, or text (default)")
	completeFlag(cmd, "protocol", "tcp", "udp")
	completeFlag(cmd, "output", "text", "json", "svg", "html")
}

func (o *matrixOptions) run(cmd *cobra.Command) error {
	if err := checkMatrixOutput(o.output, o.expect); err != nil {
		return err
	}
	expected, err := readExpected(o.expect)
	if err != nil {
		return err
	}
	if o.probe.on || len(o.probe.namespaces) > 0 {
		return o.probed(cmd, expected)
	}
	s, err := o.situation(cmd)
	if err != nil {
		return err
	}
	m, err := o.predict(cmd, s)
	if err != nil {
		return err
	}
	if err := showMatrix(cmd.OutOrStdout(), &m, expected, o.output); err != nil {
		return err
	}
	return o.unanswered(&s, &m)
}

// unanswered says that a table is no answer: it is empty, or stands on half of the rules
// of a host that is here. Of a dump, what it lacks is said in the table.
func (o *matrixOptions) unanswered(s *matrix.Situation, m *matrix.Matrix) error {
	if len(m.Cells) == 0 {
		return partlyUnknown{errors.New("nothing to ask about was found, see the notes: give a snapshot, or the output of ip -j addr, ip -j link and ip -j route beside the rules")}
	}
	if len(o.snapshots) > 0 {
		return nil
	}
	if err := halfRead(s.Nodes[0].Host); err != nil {
		return partlyUnknown{err}
	}
	return nil
}

func checkMatrixOutput(output, expect string) error {
	switch {
	case expect != "" && (output == "svg" || output == "html"):
		return inputError{fmt.Errorf("-o %s isn't for --expect; expected json or text", output)}
	case output == "", output == "text", output == "json", output == "svg", output == "html":
		return nil
	}
	return inputError{fmt.Errorf("-o %q; expected json, svg, html or text", output)}
}

// readExpected file; nil where none is named.
func readExpected(file string) (*matrix.Expected, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, inputError{fmt.Errorf("--expect: %w", err)}
	}
	expected, err := matrix.ReadExpected(file, string(text))
	if err != nil {
		return nil, inputError{err}
	}
	return &expected, nil
}

// situation that the flags tell of.
func (o *matrixOptions) situation(cmd *cobra.Command) (s matrix.Situation, err error) {
	if s, err = o.asked(); err != nil {
		return s, inputError{err}
	}
	if s.Nodes, err = o.nodes(cmd); err != nil {
		return s, err
	}
	if err := s.Check(); err != nil {
		return s, inputError{err}
	}
	return s, nil
}

// asked is all of the situation but the nodes.
func (o *matrixOptions) asked() (s matrix.Situation, err error) {
	s = matrix.Situation{Services: o.services, AllServices: o.all, Port: o.port}
	switch o.protocol {
	case "tcp":
		s.Protocol = packet.TCP
	case "udp":
		s.Protocol = packet.UDP
	default:
		return s, fmt.Errorf("--protocol %q; expected tcp or udp", o.protocol)
	}
	switch {
	case o.all && len(o.services) > 0:
		return s, errors.New("--all-services and --service; expected one of them")
	}
	if o.places != "" {
		text, err := os.ReadFile(o.places)
		if err != nil {
			return s, fmt.Errorf("--places: %w", err)
		}
		if s.Places, err = matrix.ReadPlaces(o.places, string(text)); err != nil {
			return s, err
		}
	}
	if s.Places, err = o.statedOutside(s.Places); err != nil {
		return s, err
	}
	for _, text := range o.networks {
		p, err := matrix.ParseNetwork(text)
		if err != nil {
			return s, fmt.Errorf("--network %w", err)
		}
		s.Places = append(s.Places, p)
	}
	return s, nil
}

// statedOutside adds the client outside.
func (o *matrixOptions) statedOutside(places []matrix.Place) ([]matrix.Place, error) {
	if len(o.outside) == 0 {
		return places, nil
	}
	p := matrix.Place{Kind: matrix.Outside, Name: "outside"}
	for _, text := range o.outside {
		a, err := matrix.ParseAddress(text)
		if err != nil {
			return nil, fmt.Errorf("--outside %w", err)
		}
		if p.Address(packet.Of(a)).IsValid() {
			return nil, fmt.Errorf("--outside %s is a second %s address; expected one of each family (--places FILE has more clients)", a, packet.Of(a))
		}
		p.Addresses = append(p.Addresses, a)
	}
	return append(places, p), nil
}

// nodes of the snapshots, or this host.
func (o *matrixOptions) nodes(cmd *cobra.Command) ([]matrix.Node, error) {
	if len(o.snapshots) == 0 {
		ctx := cmd.Context()
		if ctx == nil {
			ctx = context.Background()
		}
		host, err := capture.Live(ctx, capture.Options{})
		return []matrix.Node{{Host: host}}, err
	}
	read, err := (&explainOptions{snapshots: o.snapshots}).nodes(cmd.Context(), cmd.InOrStdin())
	var all []matrix.Node
	for _, n := range read {
		all = append(all, matrix.Node{Name: n.Name, Host: n.Host})
	}
	return all, err
}

// showMatrix prints a matrix, or how it compares with what is expected.
func showMatrix(out io.Writer, m *matrix.Matrix, expected *matrix.Expected, format string) (err error) {
	if expected != nil {
		return compareMatrix(out, m, expected, format)
	}
	switch format {
	case "json":
		return writeJSON(out, m)
	case "svg":
		_, err = io.WriteString(out, m.SVG())
	case "html":
		_, err = io.WriteString(out, m.HTML())
	default:
		_, err = io.WriteString(out, m.Text())
	}
	return err
}

func compareMatrix(out io.Writer, m *matrix.Matrix, expected *matrix.Expected, format string) error {
	c := m.Compare(*expected)
	var err error
	if format == "json" {
		err = writeJSON(out, &c)
	} else {
		_, err = io.WriteString(out, c.Text())
	}
	if err == nil && len(c.Differences) > 0 {
		err = foundErrors{errors.New("not as expected")}
	}
	return err
}
