package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/unmasq/unmasq/internal/doctor"
	"github.com/unmasq/unmasq/internal/kubectl"
)

func newKubectlDoctor(opts *kubectlOptions) *cobra.Command {
	there := newDoctor()
	all := false
	cmd := &cobra.Command{
		Use:   "doctor [POD] | --node NAME | --all",
		Short: there.Short,
		Long: "Looks a node over, that of a pod or of --node, or with --all each node that has an agent." +
			"\nExit status 1: there are errors, or a node can't be asked.",
		Example: "  kubectl unmasq doctor --node n1\n  kubectl unmasq doctor --all -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			return opts.doctor(cmd, args, all, handOn(cmd, there, "explain"))
		},
	}
	borrow(cmd, there, "snapshot", "saved-rules", "filename", "node-labels", "cni-dir")
	cmd.Flags().BoolVar(&all, "all", false, "all nodes")
	return cmd
}

func (o *kubectlOptions) doctor(cmd *cobra.Command, args []string, all bool, flags []string) error {
	output, err := cmd.Flags().GetString("output")
	if err != nil {
		return err
	}
	if output != "" && output != "text" && output != "json" {
		return inputError{errors.New("-o " + output + ": expected json or text")}
	}
	if code, err := cmd.Flags().GetString("explain"); err != nil || code != "" {
		return errors.Join(err, explainCode(code, cmd.OutOrStdout()))
	}
	if err := o.oneNodeOrAll(args, all); err != nil {
		return err
	}
	ctx, stop, client, err := o.client(cmd)
	defer stop()
	if err != nil {
		return err
	}
	if all {
		return doctorOfAll(ctx, client, output, flags, cmd)
	}
	agent, err := o.agent(ctx, client, args)
	if err != nil {
		return err
	}
	command := append([]string{"doctor"}, flags...)
	return readThere(ctx, client, agent, command, kubectl.Streams{Stdout: cmd.OutOrStdout(), Stderr: cmd.ErrOrStderr()})
}

// doctorOfAll joins the reports of all agents. Nodes that can't be asked are checks
// that could not be made, and make it fail.
func doctorOfAll(ctx context.Context, client *kubectl.Client, output string, flags []string, cmd *cobra.Command) error {
	agents, err := client.Agents(ctx)
	if err != nil {
		return err
	}
	reports := make([]doctor.Report, len(agents))
	problems := make([]string, len(agents))
	err = askEach(ctx, agents, func(i int, a kubectl.Agent) { reports[i], problems[i] = doctorOf(ctx, client, a, flags) })
	if err != nil {
		return err
	}
	report := doctor.Join(reports...)
	failed, err := withoutAgent(ctx, client, agents, &report)
	if err != nil {
		report.NotLookedAt = append(report.NotLookedAt, doctor.Unmade{Codes: doctor.Codes(), Why: "whether there are nodes without an agent isn't known: " + err.Error()})
	}
	for i, problem := range problems {
		if problem != "" {
			report.NotLookedAt = append(report.NotLookedAt, doctor.Unmade{Codes: doctor.Codes(), Why: problem, Node: agents[i].Node})
			failed = append(failed, agents[i].Node)
		}
	}
	if err := printReport(&report, output, cmd.OutOrStdout()); err != nil {
		return err
	}
	if len(failed) > 0 {
		return partlyUnknown{errors.New("not looked at: nodes " + strings.Join(failed, ", "))}
	}
	return nil
}

// withoutAgent adds the nodes that no agent is on.
func withoutAgent(ctx context.Context, client *kubectl.Client, agents []kubectl.Agent, r *doctor.Report) (missing []string, err error) {
	names, err := client.NodeNames(ctx)
	for _, name := range names {
		if !slices.ContainsFunc(agents, func(a kubectl.Agent) bool { return a.Node == name }) {
			r.NotLookedAt = append(r.NotLookedAt, doctor.Unmade{Codes: doctor.Codes(), Why: "it has no agent", Node: name})
			missing = append(missing, name)
		}
	}
	return missing, err
}

// doctorOf one node, which may be slow to answer.
func doctorOf(ctx context.Context, client *kubectl.Client, a kubectl.Agent, flags []string) (r doctor.Report, problem string) {
	if a.Problem != "" {
		return r, a.Problem
	}
	const patience = time.Minute
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var out, said bytes.Buffer
	err := client.Run(ctx, a, append(append([]string{"doctor"}, flags...), "--output=json"), kubectl.Streams{Stdout: &out, Stderr: &said})
	if json.Unmarshal(out.Bytes(), &r) == nil { // with exit status 1, too, where there are errors
		for i := range r.Findings {
			r.Findings[i].Node = a.Node
		}
		for i := range r.NotLookedAt {
			r.NotLookedAt[i].Node = a.Node
		}
		for i := range r.Entering {
			r.Entering[i].Node = a.Node
		}
		return r, ""
	}
	problem = strings.TrimPrefix(strings.TrimSpace(said.String()), "unmasq: ")
	if problem == "" && err != nil {
		problem = err.Error()
	}
	return r, problem
}
