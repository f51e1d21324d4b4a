package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/unmasq/unmasq/internal/kubectl"
)

const uninstallHelp = `Deletes the agents' daemon set, whose agents remove their rules when they end, and
clears each node where that isn't known to have happened: by a pod that runs
"unmasq clear" there and is gone afterwards. Then it deletes the nodes' reports, and
says what remains. Policies stay until their definition is deleted.

With --node it clears one node that has no agent, and deletes nothing else.
Exit status 1: a node could not be cleared.`

// uninstallReport is what uninstall prints. Fields are only ever added.
type uninstallReport struct {
	Version int `json:"version"`
	// DryRun: nothing was done; results are what would be tried.
	DryRun     bool           `json:"dryRun,omitempty"`
	DaemonSets []string       `json:"daemonSets"`
	Nodes      []clearedState `json:"nodes"`
	Reports    []string       `json:"reports"`
	// Remains are commands that remove what is left.
	Remains []string `json:"remains"`
	Problem string   `json:"problem,omitempty"`
}

// clearedState is what became of a node.
type clearedState struct {
	Node string `json:"node"`
	// Result is cleared, nothing there, could not; with --dry-run: has an agent, has none.
	Result string `json:"result"`
	// By agent or pod.
	By      string `json:"by,omitempty"`
	Problem string `json:"problem,omitempty"`
}

const couldNot = "could not"

type uninstallOptions struct {
	*kubectlOptions
	all, yes, dryRun bool
	image, output    string
	timeout          time.Duration
}

func newKubectlUninstall(opts *kubectlOptions) *cobra.Command {
	o := &uninstallOptions{kubectlOptions: opts}
	cmd := &cobra.Command{
		Use:     "uninstall [--node NAME | --all]",
		Short:   "Stop all agents and clear the nodes",
		Long:    uninstallHelp,
		Example: "  kubectl unmasq uninstall --dry-run\n  kubectl unmasq uninstall --yes\n  kubectl unmasq uninstall --node n1 --image REGISTRY/unmasq:0.1.0",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.all, "all", false, "clear every node; default: those that have or had an agent")
	f.BoolVarP(&o.yes, "yes", "y", false, "don't ask whether to")
	f.BoolVar(&o.dryRun, "dry-run", false, "say what would be done, and do nothing")
	f.StringVar(&o.image, "image", "", "`IMAGE` of unmasq to clear nodes with; default: the agents'")
	f.DurationVar(&o.timeout, "timeout", time.Minute, "how long to wait for an agent to end, and for a node to be cleared")
	f.StringVarP(&o.output, "output", "o", "", "json, or text (default)")
	return cmd
}

func (o *uninstallOptions) run(cmd *cobra.Command) error {
	if o.output != "" && o.output != "text" && o.output != "json" {
		return inputError{fmt.Errorf("-o %q: expected json or text", o.output)}
	}
	if o.node != "" && o.all {
		return inputError{errors.New("--node clears one node and --all clears all; expected one of the two")}
	}
	ctx, stop, client, err := o.client(cmd)
	defer stop()
	if err != nil {
		return err
	}
	there, err := o.what(ctx, client)
	if err != nil {
		return err
	}
	r := &uninstallReport{Version: 1, DryRun: o.dryRun, DaemonSets: append([]string{}, there.DaemonSets...), Reports: append([]string{}, there.Reports...), Remains: o.remains(there)}
	if o.dryRun {
		r.foresee(there)
		return r.print(o.output, cmd.OutOrStdout())
	}
	if err := o.confirm(cmd, there); err != nil {
		return err
	}
	if err := o.do(ctx, client, there, r, cmd.ErrOrStderr()); err != nil {
		return err
	}
	if err := r.print(o.output, cmd.OutOrStdout()); err != nil {
		return err
	}
	return r.finding()
}

// what is to go: all there is, or one node's table.
func (o *uninstallOptions) what(ctx context.Context, client *kubectl.Client) (*kubectl.Installed, error) {
	there, err := client.Installed(ctx, o.all || o.node != "")
	if err != nil {
		return nil, err
	}
	if o.node != "" {
		switch {
		case !slices.Contains(there.Nodes, o.node):
			return nil, inputError{fmt.Errorf("the cluster has no node %s for agents", o.node)}
		case slices.Contains(there.Agents, o.node):
			return nil, inputError{fmt.Errorf("node %s has an agent, which keeps its table: `kubectl annotate node %s unmasq.io/pause=true` empties it; "+
				"where the daemon set's nodeSelector leaves the node out, the agent clears it and goes", o.node, o.node)}
		}
		there.DaemonSets, there.Agents, there.Nodes = nil, nil, []string{o.node}
		there.Reports = slices.DeleteFunc(there.Reports, func(name string) bool { return name != o.node })
	}
	if o.image != "" {
		there.Clearing.Image = o.image
	}
	if there.Clearing.Image == "" && len(there.Nodes) > 0 {
		return nil, inputError{errors.New("there is no daemon set whose image could clear nodes: name one with --image, such as that which the agents had")}
	}
	return there, nil
}

// remains of what installed the agents.
func (o *uninstallOptions) remains(there *kubectl.Installed) []string {
	if o.node != "" {
		return []string{}
	}
	first := "kubectl delete --ignore-not-found -k deploy/base"
	if there.Release != "" {
		first = fmt.Sprintf("helm uninstall %s --namespace %s", there.Release, o.where.Namespace)
	}
	return []string{first, "kubectl delete crd sourcepolicies.unmasq.io nodereports.unmasq.io"}
}

// foresee what would be done.
func (r *uninstallReport) foresee(there *kubectl.Installed) {
	r.Nodes = []clearedState{}
	for _, node := range there.Nodes {
		state := clearedState{Node: node, Result: "has no agent", By: "pod"}
		if slices.Contains(there.Agents, node) {
			state.Result, state.By = "has an agent", "agent"
		}
		r.Nodes = append(r.Nodes, state)
	}
}

// confirm asks, where nobody said yes.
func (o *uninstallOptions) confirm(cmd *cobra.Command, there *kubectl.Installed) error {
	if o.yes {
		return nil
	}
	sets := ""
	for _, name := range there.DaemonSets {
		sets += fmt.Sprintf("daemon set %s/%s and ", o.where.Namespace, name)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "This deletes %sunmasq's rules on %s. Go on? [y/N] ", sets, count(len(there.Nodes), "node"))
	answer, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	if err != nil && answer == "" {
		fmt.Fprintln(cmd.ErrOrStderr())
		return inputError{errors.New("nobody answered; say --yes")}
	}
	if answer = strings.ToLower(strings.TrimSpace(answer)); answer != "y" && answer != "yes" {
		return errors.New("nothing was done")
	}
	return nil
}

func count(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// do it, and say on the way what is being waited for.
func (o *uninstallOptions) do(ctx context.Context, client *kubectl.Client, there *kubectl.Installed, r *uninstallReport, progress io.Writer) error {
	var cleared []string
	if len(there.DaemonSets)+len(there.Agents) > 0 {
		fmt.Fprintf(progress, "stopping agents on %s\n", count(len(there.Agents), "node"))
		var err error
		if cleared, err = client.StopAgents(ctx, there.DaemonSets, o.timeout); err != nil {
			return err
		}
	}
	o.clearRest(ctx, client, there, cleared, r, progress)
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := client.DeleteReports(ctx, r.Reports); err != nil {
		r.Problem = err.Error()
	}
	if o.node == "" {
		again, err := client.Installed(ctx, false)
		if err == nil && len(again.DaemonSets) > 0 {
			r.Problem = fmt.Sprintf("daemon set %s/%s is there again: stop first what installs it, then uninstall again", o.where.Namespace, again.DaemonSets[0])
		}
	}
	return nil
}

// clearRest of the nodes, some at a time.
func (o *uninstallOptions) clearRest(ctx context.Context, client *kubectl.Client, there *kubectl.Installed, cleared []string, r *uninstallReport, progress io.Writer) {
	r.Nodes = make([]clearedState, len(there.Nodes))
	var wait sync.WaitGroup
	const atOnce = 32
	places := make(chan struct{}, atOnce)
	rest := 0
	for i, node := range there.Nodes {
		if slices.Contains(cleared, node) {
			r.Nodes[i] = clearedState{Node: node, Result: kubectl.SaidCleared, By: "agent"}
			continue
		}
		rest++
		wait.Go(func() {
			places <- struct{}{}
			r.Nodes[i] = o.clearNode(ctx, client, there, node)
			<-places
		})
	}
	if rest > 0 {
		fmt.Fprintf(progress, "clearing %s by pods\n", count(rest, "node"))
	}
	wait.Wait()
}

func (o *uninstallOptions) clearNode(ctx context.Context, client *kubectl.Client, there *kubectl.Installed, node string) clearedState {
	state := clearedState{Node: node, Result: kubectl.SaidCleared, By: "pod"}
	nothing, err := client.Clear(ctx, &there.Clearing, node, o.timeout)
	switch {
	case err != nil:
		state.Result, state.Problem = couldNot, strings.Join(strings.Fields(err.Error()), " ")
	case nothing:
		state.Result = "nothing there"
	}
	return state
}

func (r *uninstallReport) print(output string, out io.Writer) error {
	if output == "json" {
		return writeJSON(out, r)
	}
	t := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	for _, n := range r.Nodes {
		text := n.Result
		if n.Problem != "" {
			text += ": " + n.Problem
		} else if n.By == "agent" && !r.DryRun {
			text += " by its agent"
		}
		fmt.Fprintf(t, "%s\t%s\n", n.Node, text)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if r.DryRun {
		fmt.Fprintf(out, "\nwould delete %s, clear %s, delete %s; nothing was done\n",
			count(len(r.DaemonSets), "daemon set"), count(len(r.Nodes), "node"), count(len(r.Reports), "report"))
	}
	if len(r.Remains) > 0 {
		fmt.Fprintln(out, "\nThen remove what remains, the second with all policies:")
	}
	for _, command := range r.Remains {
		fmt.Fprintln(out, "  "+command)
	}
	return nil
}

func (r *uninstallReport) finding() error {
	failed := 0
	for _, n := range r.Nodes {
		if n.Result == couldNot {
			failed++
		}
	}
	switch {
	case r.Problem != "":
		return errors.New(r.Problem)
	case failed > 0:
		return fmt.Errorf("%d of %s could not be cleared: try again, or `unmasq clear` there", failed, count(len(r.Nodes), "node"))
	}
	return nil
}
