package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/unmasq/unmasq/internal/kubectl"
	"github.com/unmasq/unmasq/internal/matrix"
	"github.com/unmasq/unmasq/internal/snapshot"
)

const kubectlMatrixHelp = `Says who is seen as whom, as unmasq matrix does, by snapshots that the agents of two nodes
take: pods, nodes, services in all their forms.

With --probe it is measured too: in a namespace of its own, short-lived pods on both
nodes (and in the nodes' networks) answer and call each other, directly and by services
whose backends they are, ClusterIPs and NodePorts. All of it is removed at the end, on
Ctrl-C and on failure too; what a killed run has left goes with the next run, or with
--clean-up. --from-here makes this machine the client outside.

Exit status 1: something measured isn't what was predicted, or --expect found a
difference.`

// kubectlMatrix is `kubectl unmasq matrix`.
type kubectlMatrix struct {
	*kubectlOptions
	matrixOptions
	nodes          []string
	probe, cleanUp bool
	fromHere       bool
	entersAt       string
	image          string
	timeout        time.Duration
}

func newKubectlMatrix(opts *kubectlOptions) *cobra.Command {
	o := &kubectlMatrix{kubectlOptions: opts}
	cmd := &cobra.Command{
		Use:   "matrix",
		Short: "Who is seen as whom, between pods, nodes, services and the world outside",
		Long:  kubectlMatrixHelp,
		Example: `  kubectl unmasq matrix
  kubectl unmasq matrix --probe --nodes n1,n2 -o html > matrix.html
  kubectl unmasq matrix --probe --expect expected.json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	o.matrixOptions.flags(cmd)
	f := cmd.Flags()
	f.StringSliceVar(&o.nodes, "nodes", nil, "`NAMES` of the nodes, the first of which is here; left out, the first two that have an agent")
	f.BoolVar(&o.probe, "probe", false, "measure it too, with real connections of pods and services that are made for it and removed")
	f.BoolVar(&o.fromHere, "from-here", false, "with --probe, this machine is the client outside, and is called as one")
	f.StringVar(&o.entersAt, "enters-at", "", "`NODE` that this machine's packets to ClusterIPs come in at; left out, it calls nodes alone")
	f.BoolVar(&o.cleanUp, "clean-up", false, "remove what earlier runs with --probe have left, and do nothing else")
	f.StringVar(&o.image, "image", "", "`IMAGE` of the pods that --probe makes; left out, the agent's")
	f.DurationVar(&o.timeout, "timeout", 2*time.Minute, "how long pods may take to run")
	return cmd
}

// check what flags say together.
func (o *kubectlMatrix) check(s *matrix.Situation) error {
	switch {
	case !o.probe && (o.fromHere || o.entersAt != "" || o.image != ""):
		return errors.New("--from-here, --enters-at and --image are for --probe")
	case o.entersAt != "" && !o.fromHere:
		return errors.New("--enters-at is for --from-here")
	case o.probe && (len(s.Services) > 0 || s.AllServices):
		return errors.New("--probe asks about services of its own; expected no --service and no --all-services")
	}
	return nil
}

func (o *kubectlMatrix) run(cmd *cobra.Command) error {
	if err := checkMatrixOutput(o.output, o.expect); err != nil {
		return err
	}
	expected, err := readExpected(o.expect)
	if err != nil {
		return err
	}
	s, err := o.asked()
	if err == nil {
		err = o.check(&s)
	}
	if err != nil {
		return inputError{err}
	}
	ctx, stop, client, err := o.client(cmd)
	defer stop()
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, stop) // who presses Ctrl-C again doesn't want to wait for the end
	if o.cleanUp {
		return removeLeftovers(ctx, client, true, cmd.ErrOrStderr())
	}
	agents, err := o.chooseNodes(ctx, client)
	if err != nil {
		return err
	}
	if o.probe {
		return o.probed(ctx, cmd, client, agents, s, expected)
	}
	if s.Nodes, err = snapshots(ctx, client, agents, cmd.ErrOrStderr()); err != nil {
		return err
	}
	if err := s.Check(); err != nil {
		return inputError{err}
	}
	m := matrix.Predict(s)
	return showMatrix(cmd.OutOrStdout(), &m, expected, o.output)
}

// chooseNodes takes those that were named, or the first two that have an agent.
func (o *kubectlMatrix) chooseNodes(ctx context.Context, client *kubectl.Client) ([]kubectl.Agent, error) {
	agents, err := client.Agents(ctx)
	if err != nil {
		return nil, err
	}
	if len(o.nodes) == 0 {
		agents = slices.DeleteFunc(agents, func(a kubectl.Agent) bool { return a.Problem != "" })
		if len(agents) == 0 {
			return nil, fmt.Errorf("no node has an agent that runs: see `kubectl -n %s get pods`", o.where.Namespace)
		}
		return agents[:min(len(agents), 2)], nil
	}
	var chosen []kubectl.Agent
	for _, name := range o.nodes {
		i := slices.IndexFunc(agents, func(a kubectl.Agent) bool { return a.Node == name })
		switch {
		case i < 0:
			return nil, inputError{fmt.Errorf("--nodes: node %s has no agent", name)}
		case agents[i].Problem != "":
			return nil, fmt.Errorf("the agent on node %s can't be asked: %s", name, agents[i].Problem)
		}
		chosen = append(chosen, agents[i])
	}
	return chosen, nil
}

// snapshots of the nodes, by their agents.
func snapshots(ctx context.Context, client *kubectl.Client, agents []kubectl.Agent, errOut io.Writer) ([]matrix.Node, error) {
	nodes, errs := make([]matrix.Node, len(agents)), make([]error, len(agents))
	said := make([]bytes.Buffer, len(agents))
	err := askEach(ctx, agents, func(i int, a kubectl.Agent) {
		nodes[i].Name = a.Node
		nodes[i].Host, errs[i] = snapshotOf(ctx, client, a, &said[i])
	})
	for i := range said {
		fmt.Fprint(errOut, notes(said[i].String()))
	}
	return nodes, errors.Join(append(errs, err)...)
}

// notes are what a person is to know of what a snapshot says on the way.
func notes(said string) string {
	var b strings.Builder
	for line := range strings.Lines(said) {
		if strings.HasPrefix(line, "note: ") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func snapshotOf(ctx context.Context, client *kubectl.Client, a kubectl.Agent, said io.Writer) (*snapshot.Host, error) {
	var archive bytes.Buffer
	err := readThere(ctx, client, a, []string{"snapshot", "--output=-"}, kubectl.Streams{Stdout: &archive, Stderr: said})
	if err != nil {
		return nil, fmt.Errorf("snapshot of node %s: %w", a.Node, err)
	}
	files, err := filesOf(archive.Bytes())
	if err != nil {
		return nil, fmt.Errorf("the archive of node %s didn't arrive whole: %w; try again", a.Node, err)
	}
	return snapshot.FromFiles(files)
}
