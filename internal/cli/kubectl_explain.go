package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/unmasq/unmasq/internal/kubectl"
)

const kubectlExplainHelp = `Says what happens to the first packet of a connection, asked on the node of SRC: what
the peer sees, which rule decides, whose rule it is, and how to change it.

SRC is a pod, NAMESPACE/POD, or POD of the namespace in use. With --node it may be an
address, a network, or an interface of that node, as for unmasq explain.

DST is a service or a pod, NAMESPACE/NAME[:PORT][/PROTOCOL], where PORT is a number or
a name; NAME.NAMESPACE.svc[:PORT] of a service alone; or an address or a network.

Names are turned into addresses before, with your rights: what has no address, or
several, is refused with what there is. The same names stand beside addresses in the
answer. Exit status as of unmasq explain.`

func newKubectlExplain(opts *kubectlOptions) *cobra.Command {
	there := newExplain()
	own := []string{"snapshot", "names", "replay"}
	var family string
	cmd := &cobra.Command{
		Use:   "explain SRC DST[:PORT][/PROTOCOL]",
		Short: there.Short,
		Long:  kubectlExplainHelp,
		Example: `  kubectl unmasq explain default/client default/web:80
  kubectl unmasq explain -n default client web:http -o json
  kubectl unmasq explain --node n1 192.0.2.7 203.0.113.9:443`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return opts.explain(cmd, args, family, handOn(cmd, there))
		},
	}
	borrow(cmd, there, own...)
	cmd.Flags().StringVar(&family, "family", "", "ipv4 or ipv6, where names have both; left out, the destination's first")
	return cmd
}

func (o *kubectlOptions) explain(cmd *cobra.Command, args []string, family string, flags []string) error {
	if len(args) != 2 && !(len(args) == 1 && cmd.Flags().Changed("rule")) {
		return inputError{fmt.Errorf("expected a source and a destination, such as default/client default/web:80; found %q", args)}
	}
	if family != "" && family != "ipv4" && family != "ipv6" {
		return inputError{fmt.Errorf("--family %q; expected ipv4 or ipv6", family)}
	}
	ctx, stop, client, err := o.client(cmd)
	defer stop()
	if err != nil {
		return err
	}
	q := kubectl.Question{Source: args[0], Node: o.node, Family: family}
	if len(args) == 2 {
		q.Destination = args[1]
	}
	asked, err := client.Resolve(ctx, q)
	if err != nil {
		return err
	}
	agent, err := client.AgentOn(ctx, asked.Node)
	if err != nil {
		return err
	}
	for _, n := range asked.Notes {
		fmt.Fprintf(cmd.ErrOrStderr(), "note: %s\n", n)
	}
	command := append([]string{"explain"}, flags...)
	command = append(command, "--names=/dev/stdin", "--", asked.Source)
	if asked.Destination != "" {
		command = append(command, asked.Destination)
	}
	names := strings.NewReader(namesFile(asked.Names, agent))
	return readThere(ctx, client, agent, command, kubectl.Streams{Stdin: names, Stdout: cmd.OutOrStdout(), Stderr: cmd.ErrOrStderr()})
}

// namesFile as --names reads it; the node's own addresses come last, since pods of
// its network have them, too.
func namesFile(names []kubectl.Name, agent kubectl.Agent) string {
	var b strings.Builder
	for _, n := range names {
		fmt.Fprintf(&b, "%s %s\n", n.Address, n.Name)
	}
	for _, a := range agent.NodeAddresses {
		fmt.Fprintf(&b, "%s %s\n", a, agent.Node)
	}
	return b.String()
}
