package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/unmasq/unmasq/internal/explain"
	"github.com/unmasq/unmasq/internal/kernel/capture"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/replay"
	"github.com/unmasq/unmasq/internal/sim"
	"github.com/unmasq/unmasq/internal/snapshot"
)

const explainHelp = `Says what happens to the first packet of a connection: what the peer sees, which
rule decides, whose rule it is, and how to change it. Of this host (as root), or
of a snapshot or any dump: iptables-save, iptables -S or -L, nft, ipset, ip and others.

SRC is an address, or an interface of the node, which then sends the packet itself.
DST is ADDRESS[:PORT][/PROTOCOL]; IPv6 with a port is [ADDRESS]:PORT. The protocol
is tcp where a port is given, else any. One of the two may be a network, such as
10.0.0.0/8: then the answer is for each of its addresses.

What a dump lacks isn't guessed: the answer says what it depends on. Exit status 1:
part of the answer is unknown, or --replay disagrees; 2: the question, a flag or a
file is wrong.`

type explainOptions struct {
	snapshots   []string
	in, out     string
	sourcePort  string
	mark        string
	via         string
	names, rule string
	output      string
	at          string
	local       bool
	verbose     bool
	replay      bool
}

// known is a node with what a replay loads again, where one is asked for.
type known struct {
	explain.Node
	sources []snapshot.Source
}

func newExplain() *cobra.Command {
	opts := &explainOptions{}
	cmd := &cobra.Command{
		Use:   "explain SRC DST[:PORT][/PROTOCOL]",
		Short: "Predict what a peer sees of a packet, and which rule decides",
		Long:  explainHelp,
		Example: `  sudo unmasq explain 10.244.1.7 192.168.200.253:443
  iptables -t nat -S | unmasq explain --snapshot - 10.244.1.7 192.168.200.253
  unmasq explain --snapshot a=node-a.tar.gz --snapshot b=node-b.tar.gz 10.244.1.7 10.244.2.9:80
  unmasq explain --snapshot node-a.tar.gz --rule FLANNEL-POSTRTG:5 10.244.1.7 10.0.0.0/8`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return opts.run(cmd.Context(), args, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&opts.snapshots, "snapshot", nil, "a snapshot or dump, `PATH`, or - for standard input; repeatable: of one node, or NAME=PATH of several")
	f.StringVar(&opts.in, "in-interface", "", "`INTERFACE` it comes in by; left out, the one that the route to SRC leaves by")
	f.StringVar(&opts.out, "out-interface", "", "`INTERFACE` it leaves by, where the routes aren't to be asked")
	f.StringVar(&opts.sourcePort, "source-port", "", "`PORT` it comes from")
	f.StringVar(&opts.mark, "mark", "", "firewall `MARK` it comes with, such as 0x4000")
	f.StringVar(&opts.via, "via", "", "`ADDRESS` of the next hop, where the routes aren't to be asked")
	f.StringVar(&opts.at, "at", "", "`NODE` of several that has the packet first; left out, the one that SRC belongs to")
	f.BoolVar(&opts.local, "local", false, "the node itself sends it")
	f.StringVar(&opts.names, "names", "", "`FILE` of names, as /etc/hosts has them: for SRC and DST, and beside addresses")
	f.StringVar(&opts.rule, "rule", "", "which addresses of the network meet this `RULE`: CHAIN:INDEX, TABLE CHAIN handle N of nftables, or its text")
	f.BoolVar(&opts.replay, "replay", false, "ask this kernel too: build the node in namespaces of its own, send the packet there, and compare (root)")
	f.BoolVarP(&opts.verbose, "verbose", "v", false, "show every rule that was looked at")
	f.StringVarP(&opts.output, "output", "o", "", "`FORMAT`: json, dot, svg, or text (default)")
	return cmd
}

// partlyUnknown is a finding: the answer was printed.
type partlyUnknown struct{ error }

func (o *explainOptions) run(ctx context.Context, args []string, stdin io.Reader, out io.Writer) error {
	if len(args) != 2 && !(len(args) == 1 && o.rule != "") {
		return inputError{fmt.Errorf("expected a source and a destination, such as 10.244.1.7 192.168.200.253:443; found %q", args)}
	}
	switch o.output {
	case "", "text", "json", "dot", "svg":
	default:
		return inputError{fmt.Errorf("-o %q; expected json, dot, svg or text", o.output)}
	}
	names, err := o.readNames()
	if err != nil {
		return inputError{err}
	}
	if o.replay {
		if err := replay.Allowed(); err != nil {
			return err
		}
	}
	all, err := o.nodes(ctx, stdin)
	if err != nil {
		return err
	}
	nodes := make([]explain.Node, len(all))
	for i := range all {
		nodes[i] = all[i].Node
	}
	q, err := o.question(nodes, names, args)
	if err != nil {
		return inputError{err}
	}
	if err := o.replayable(len(nodes), q); err != nil {
		return inputError{err}
	}
	if o.rule != "" || q.Sources.IsValid() || q.Destinations.IsValid() {
		return o.ranges(explain.New(nodes...), q, names, out)
	}
	answer := explain.New(nodes...).Explain(q.Question, sim.Options{Trace: o.verbose})
	if o.replay {
		if answer.Replay, err = o.judge(ctx, all[0], q, answer.Flow.Local); err != nil {
			return err
		}
	}
	if err := o.print(&answer, names, out); err != nil {
		return err
	}
	if answer.Replay.Disagrees() {
		return partlyUnknown{errors.New("this kernel did what wasn't predicted: please report it with the snapshot")}
	}
	if answer.Unknown() {
		return partlyUnknown{errors.New("part of the answer is unknown: see what it depends on")}
	}
	return nil
}

// replayable refuses what --replay isn't for.
func (o *explainOptions) replayable(nodes int, q explain.Asked) error {
	switch {
	case !o.replay:
	case nodes > 1:
		return errors.New("--replay builds one node; expected one snapshot")
	case o.rule != "" || q.Sources.IsValid() || q.Destinations.IsValid():
		return errors.New("--replay sends one packet; expected one source and one destination, no network and no --rule")
	case o.output == "dot" || o.output == "svg":
		return fmt.Errorf("--replay isn't drawn; expected -o json or text, found %s", o.output)
	}
	return nil
}

// judge replays the question, until somebody interrupts.
func (o *explainOptions) judge(ctx context.Context, n known, q explain.Asked, local bool) (*explain.Replay, error) {
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	asked := q.Question
	asked.Local = local
	return replay.Run(ctx, replay.Node{Host: n.Host, Sources: n.sources}, asked)
}

func (o *explainOptions) print(a *explain.Answer, names explain.Names, out io.Writer) error {
	switch o.output {
	case "json":
		return writeJSON(out, a)
	case "dot":
		_, err := io.WriteString(out, a.DOT())
		return err
	case "svg":
		_, err := io.WriteString(out, a.SVG())
		return err
	}
	a.Text(out, o.textOptions(names, out))
	return nil
}

func (o *explainOptions) textOptions(names explain.Names, out io.Writer) explain.TextOptions {
	return explain.TextOptions{Verbose: o.verbose, Names: names, Bold: isTerminal(out) && os.Getenv("NO_COLOR") == ""}
}

func writeJSON(out io.Writer, value any) error {
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

func (o *explainOptions) readNames() (explain.Names, error) {
	if o.names == "" {
		return explain.Names{}, nil
	}
	text, err := os.ReadFile(o.names)
	if err != nil {
		return explain.Names{}, fmt.Errorf("--names: %w", err)
	}
	return explain.ReadNames(o.names, string(text))
}

// nodes reads the snapshots: of one node, of several by name, or of this host.
func (o *explainOptions) nodes(ctx context.Context, stdin io.Reader) ([]known, error) {
	if len(o.snapshots) == 0 {
		if ctx == nil {
			ctx = context.Background()
		}
		n, err := o.live(ctx)
		return []known{n}, err
	}
	var order []string
	paths := map[string][]string{}
	for _, s := range o.snapshots {
		name, path, named := strings.Cut(s, "=")
		if _, err := os.Stat(s); !named || err == nil {
			name, path = "", s
		}
		if path == "" || named && name == "" && path != s {
			return nil, inputError{fmt.Errorf("--snapshot %q; expected PATH, or NAME=PATH", s)}
		}
		if _, known := paths[name]; !known {
			order = append(order, name)
		}
		paths[name] = append(paths[name], path)
	}
	if len(order) > 1 && len(paths[""]) > 0 {
		return nil, inputError{fmt.Errorf("--snapshot %s has no name; of several nodes, expected NAME=PATH for each", paths[""][0])}
	}
	var nodes []known
	for _, name := range order {
		n := known{Node: explain.Node{Name: name}}
		var err error
		if o.replay {
			n.Host, n.sources, err = snapshot.ReadSources(paths[name], stdin)
		} else {
			n.Host, err = snapshot.Read(paths[name], stdin)
		}
		if err != nil {
			return nil, inputError{err}
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

// live reads this host.
func (o *explainOptions) live(ctx context.Context) (n known, err error) {
	files, err := capture.Take(ctx, capture.Options{Connections: o.sourcePort != ""})
	switch {
	case err != nil:
	case o.replay:
		n.Host, n.sources, err = snapshot.SourcesFromFiles(files)
	default:
		n.Host, err = snapshot.FromFiles(files)
	}
	return n, err
}

// question reads the arguments and flags. Without a destination, --rule asks
// about all there are.
func (o *explainOptions) question(nodes []explain.Node, names explain.Names, args []string) (explain.Asked, error) {
	request := explain.Request{
		Source: args[0], InInterface: o.in, OutInterface: o.out, SourcePort: o.sourcePort, Mark: o.mark, Via: o.via,
		Local: o.local, Names: names,
	}
	hosts := make([]*snapshot.Host, len(nodes))
	for i, n := range nodes {
		hosts[i] = n.Host
	}
	if o.at != "" && !slices.ContainsFunc(nodes, func(n explain.Node) bool { return n.Name == o.at }) {
		return explain.Asked{}, fmt.Errorf("--at %q is none of the nodes that --snapshot NAME=PATH names", o.at)
	}
	request.At = o.at
	if len(args) == 2 {
		request.Destination = args[1]
		return request.Parse(hosts...)
	}
	request.Destination = packet.IPv4Family.Everywhere().String()
	q, err := request.Parse(hosts...)
	if err == nil {
		return q, nil
	}
	request.Destination = packet.IPv6Family.Everywhere().String()
	if q, err6 := request.Parse(hosts...); err6 == nil {
		return q, nil
	}
	return q, err
}

// ranges answers for every address of a network.
func (o *explainOptions) ranges(e *explain.Explainer, q explain.Asked, names explain.Names, out io.Writer) error {
	if o.output == "dot" || o.output == "svg" {
		return inputError{fmt.Errorf("-o %s draws one packet's way; expected one source and one destination, no network and no --rule", o.output)}
	}
	ranges, err := e.Ranges(q, o.rule)
	if err != nil {
		return inputError{err}
	}
	if o.output == "json" {
		err = writeJSON(out, ranges)
	} else {
		ranges.Text(out, o.textOptions(names, out))
	}
	if err == nil && ranges.Unknown() {
		err = partlyUnknown{errors.New("part of the answer is unknown: see what it depends on")}
	}
	return err
}
