package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/unmasq/unmasq/internal/kubectl"
)

// clusterReport is what status --all prints. Fields are only ever added.
type clusterReport struct {
	Version int `json:"version"`
	// Nodes in the order of their names.
	Nodes []nodeStatus `json:"nodes"`
	// Unknown says why nodes without an agent aren't listed; "" where they are.
	Unknown string `json:"unknown,omitempty"`
}

type nodeStatus struct {
	Node string `json:"node"`
	Pod  string `json:"pod,omitempty"`
	// Status as the node says it; absent where Problem says why it couldn't be asked.
	Status  *report `json:"status,omitempty"`
	Problem string  `json:"problem,omitempty"`
}

func newKubectlStatus(opts *kubectlOptions) *cobra.Command {
	there := newStatus()
	all := false
	cmd := &cobra.Command{
		Use:   "status [POD] | --node NAME | --all",
		Short: there.Short,
		Long: "Shows what stands in the kernel of a node, that of a pod or of --node; with --all a line\nfor each node, those without an agent too." +
			"\nExit status 1: on one of them nothing is in force, the agent isn't ready, or it can't be asked.",
		Example: "  kubectl unmasq status default/web-0\n  kubectl unmasq status --all",
		RunE: func(cmd *cobra.Command, args []string) error {
			return opts.status(cmd, args, all, handOn(cmd, there))
		},
	}
	borrow(cmd, there, "metrics-address")
	cmd.Flags().BoolVar(&all, "all", false, "all nodes, a line each")
	return cmd
}

func (o *kubectlOptions) status(cmd *cobra.Command, args []string, all bool, flags []string) error {
	if err := o.oneNodeOrAll(args, all); err != nil {
		return err
	}
	output, err := cmd.Flags().GetString("output")
	if err != nil {
		return err
	}
	if output != "" && output != "text" && output != "json" {
		return inputError{fmt.Errorf("-o %q: expected json or text", output)}
	}
	ctx, stop, client, err := o.client(cmd)
	defer stop()
	if err != nil {
		return err
	}
	if all {
		return statusOfAll(ctx, client, output, cmd.OutOrStdout())
	}
	agent, err := o.agent(ctx, client, args)
	if err != nil {
		return err
	}
	command := append(statusCommand(agent), flags...)
	return client.Run(ctx, agent, command, kubectl.Streams{Stdout: cmd.OutOrStdout(), Stderr: cmd.ErrOrStderr()})
}

func statusCommand(a kubectl.Agent) []string {
	command := []string{"status"}
	if a.HealthAddress != "" {
		command = append(command, "--metrics-address="+a.HealthAddress)
	}
	return command
}

func statusOfAll(ctx context.Context, client *kubectl.Client, output string, out io.Writer) error {
	agents, err := client.Agents(ctx)
	if err != nil {
		return err
	}
	r := clusterReport{Version: 1, Nodes: make([]nodeStatus, len(agents))}
	err = askEach(ctx, agents, func(i int, a kubectl.Agent) { r.Nodes[i] = statusOf(ctx, client, a) })
	if err != nil {
		return err
	}
	r.addMissing(ctx, client)
	if output == "json" {
		err = writeJSON(out, r)
	} else {
		err = r.print(out)
	}
	if err != nil {
		return err
	}
	return r.finding()
}

// statusOf one node, which may be slow to answer.
func statusOf(ctx context.Context, client *kubectl.Client, a kubectl.Agent) nodeStatus {
	n := nodeStatus{Node: a.Node, Pod: a.Namespace + "/" + a.Pod, Problem: a.Problem}
	if a.Problem != "" {
		return n
	}
	const patience = 30 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var out, said bytes.Buffer
	err := client.Run(ctx, a, append(statusCommand(a), "--output=json"), kubectl.Streams{Stdout: &out, Stderr: &said})
	status := &report{}
	if json.Unmarshal(out.Bytes(), status) == nil {
		n.Status = status // with exit status 1, too, where something is wrong
		return n
	}
	n.Problem = strings.TrimPrefix(strings.TrimSpace(said.String()), "unmasq: ")
	if n.Problem == "" && err != nil {
		n.Problem = err.Error()
	}
	return n
}

// addMissing nodes: those without an agent.
func (r *clusterReport) addMissing(ctx context.Context, client *kubectl.Client) {
	names, err := client.NodeNames(ctx)
	if err != nil {
		r.Unknown = "whether there are nodes without an agent isn't known: " + err.Error()
		return
	}
	for _, name := range names {
		if !slices.ContainsFunc(r.Nodes, func(n nodeStatus) bool { return n.Node == name }) {
			r.Nodes = append(r.Nodes, nodeStatus{Node: name, Problem: "no agent"})
		}
	}
	slices.SortFunc(r.Nodes, func(a, b nodeStatus) int { return strings.Compare(a.Node, b.Node) })
}

func (r *clusterReport) print(out io.Writer) error {
	t := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tTABLE\tAGENT\tRULES\tHITS\tWARNINGS\tPROBLEM")
	for _, n := range r.Nodes {
		if n.Status == nil {
			fmt.Fprintf(t, "%s\t-\t-\t-\t-\t-\t%s\n", n.Node, n.Problem)
			continue
		}
		hits := uint64(0)
		for _, rule := range n.Status.Rules {
			hits += rule.Hits
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d\t%d\t%s\n", n.Node, n.Status.Table, n.Status.Agent, len(n.Status.Rules), hits, len(n.Status.Warnings), n.Status.Problem)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if r.Unknown != "" {
		_, err := fmt.Fprintf(out, "\nnote: %s\n", r.Unknown)
		return err
	}
	return nil
}

func (r *clusterReport) finding() error {
	if len(r.Nodes) == 0 {
		return errors.New("there is no node, and no agent")
	}
	wrong := 0
	for _, n := range r.Nodes {
		if n.Status == nil || n.Status.Table == "none" || n.Status.Agent == "not ready" {
			wrong++
		}
	}
	if wrong > 0 {
		return notInForce{fmt.Errorf("%d of %d nodes: nothing is in force, the agent isn't ready, or it can't be asked", wrong, len(r.Nodes))}
	}
	return nil
}
