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
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/probe"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// kubectlMatrix is `kubectl unmasq matrix`.
type kubectlMatrix struct {
	*kubectlOptions
	nodes                  []string
	probe, cleanUp         bool
	image, outside, output string
	timeout                time.Duration
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

// measured makes a stage, measures on it, and removes it.
func (o *kubectlMatrix) measured(ctx context.Context, client *kubectl.Client, agents []kubectl.Agent, s matrix.Situation, errOut io.Writer) (m matrix.Matrix, err error) {
	progress := func(text string) { fmt.Fprintln(errOut, text) }
	if err := removeLeftovers(ctx, client, false, errOut); err != nil {
		return m, err
	}
	config := kubectl.StageConfig{Image: o.image, Port: probe.RandomPort(), By: thisRun(), Life: int64(stageLife / time.Second)}
	for _, a := range agents {
		config.Nodes = append(config.Nodes, a.Node)
	}
	if config.Image == "" {
		config.Image = agents[0].Image
	}
	stage, err := client.MakeStage(ctx, config, o.timeout, progress)
	if err != nil {
		return m, err
	}
	defer func() {
		progress("removing namespace " + stage.Namespace)
		err = errors.Join(err, stage.Remove(context.WithoutCancel(ctx), removePatience))
	}()
	if err := settle(ctx, stage, progress); err != nil {
		return m, err
	}
	if s.Nodes, err = snapshots(ctx, client, agents, errOut); err != nil {
		return m, err
	}
	s.Places, s.Services, s.Port = append(s.Places, stagePlaces(stage)...), stageServices(stage), stage.Port
	m = matrix.Predict(s)
	x := probe.Measure{Spaces: stageSpaces(stage, s.Nodes)}
	return m, x.Fill(ctx, &m)
}

func newKubectlMatrix(opts *kubectlOptions) *cobra.Command {
	o := &kubectlMatrix{kubectlOptions: opts}
	cmd := &cobra.Command{
		Use:   "matrix",
		Short: "Who is seen as whom, between pods, nodes, services and the world outside",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.nodes, "nodes", nil, "`NAMES` of the nodes, the first of which is here; left out, the first two that have an agent")
	f.BoolVar(&o.probe, "probe", false, "measure it too, with real connections of pods and services that are made for it and removed")
	f.BoolVar(&o.cleanUp, "clean-up", false, "remove what earlier runs with --probe have left, and do nothing else")
	f.StringVar(&o.image, "image", "", "`IMAGE` of the pods that --probe makes; left out, the agent's")
	f.StringVarP(&o.output, "output", "o", "", "`FORMAT`: json")
	f.DurationVar(&o.timeout, "timeout", 2*time.Minute, "how long pods may take to run")
	return cmd
}

func (o *kubectlMatrix) run(cmd *cobra.Command) error {
	ctx, stop, client, err := o.client(cmd)
	defer stop()
	if err != nil {
		return err
	}
	if o.cleanUp {
		return removeLeftovers(ctx, client, true, cmd.ErrOrStderr())
	}
	agents, err := o.chooseNodes(ctx, client)
	if err != nil {
		return err
	}
	s := matrix.Situation{Protocol: packet.TCP}
	var m matrix.Matrix
	if o.probe {
		m, err = o.measured(ctx, client, agents, s, cmd.ErrOrStderr())
	} else if s.Nodes, err = snapshots(ctx, client, agents, cmd.ErrOrStderr()); err == nil {
		m = matrix.Predict(s)
	}
	if err != nil {
		return err
	}
	return writeJSON(cmd.OutOrStdout(), m)
}
