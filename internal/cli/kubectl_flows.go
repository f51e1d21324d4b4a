package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"github.com/unmasq/unmasq/internal/kubectl"
)

const kubectlFlowsHelp = `Lists the connections that a node tracks: who sent the first packet, as whom the peer
sees it, where it was sent and where it ends up, and which rule does that.

POD, NAMESPACE/POD or POD of the namespace in use, asks about its connections, on its
node; with --node, ADDRESS may be an address, a network, or the name of a pod or a
service. Names of pods, services and nodes stand beside addresses, as far as you may
list them; --source and the like take them, too.

Connections between two pods of one node that no rule translates are seen by the node
only where it routes them, or where its bridges pass packets to iptables. Exit status
as of unmasq flows.`

func newKubectlFlows(opts *kubectlOptions) *cobra.Command {
	there := newFlows()
	cmd := &cobra.Command{
		Use:   "flows POD… | --node NAME [ADDRESS…]",
		Short: there.Short,
		Long:  kubectlFlowsHelp,
		Example: `  kubectl unmasq flows default/client
  kubectl unmasq flows --node n1 --translated --watch
  kubectl unmasq flows --node n1 --destination default/web --summary`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return opts.flows(cmd, args, handOn(cmd, there))
		},
	}
	borrow(cmd, there, "snapshot", "names", "attached")
	return cmd
}

func (o *kubectlOptions) flows(cmd *cobra.Command, args, flags []string) error {
	if len(args) == 0 && o.node == "" {
		return inputError{errors.New("which node? Name it with --node, or a pod of it")}
	}
	ctx, stop, client, err := o.client(cmd)
	defer stop()
	if err != nil {
		return err
	}
	node, names, addresses, err := o.flowEnds(ctx, client, args)
	if err != nil {
		return err
	}
	agent, err := client.AgentOn(ctx, node)
	if err != nil {
		return err
	}
	all, notes, err := client.NamesFor(ctx, node)
	if err != nil {
		return err
	}
	for _, n := range notes {
		fmt.Fprintf(cmd.ErrOrStderr(), "note: %s\n", n)
	}
	command := append([]string{"flows"}, flags...)
	watch, _ := cmd.Flags().GetBool("watch")
	var stdin io.Reader = strings.NewReader(namesFile(append(names, all...), agent))
	if watch {
		// What runs in the pod isn't ended with this program: it ends with its input.
		held, hold := io.Pipe()
		defer context.AfterFunc(ctx, func() { hold.Close() })()
		stdin = io.MultiReader(stdin, strings.NewReader("\n"), held)
		command = append(command, "--attached")
	} else {
		command = append(command, "--names=/dev/stdin")
	}
	command = append(append(command, "--"), addresses...)
	err = readThere(ctx, client, agent, command, kubectl.Streams{Stdin: stdin, Stdout: cmd.OutOrStdout(), Stderr: cmd.ErrOrStderr()})
	if watch && ctx.Err() != nil {
		return nil // somebody has seen enough
	}
	return err
}

// flowEnds are the addresses asked about, and the node that is asked. A pod's names
// come first, since another may have had its address.
func (o *kubectlOptions) flowEnds(ctx context.Context, client *kubectl.Client, args []string) (node string, names []kubectl.Name, addresses []string, err error) {
	node = o.node
	for _, text := range args {
		if isAddressOrNetwork(text) {
			addresses = append(addresses, text)
			continue
		}
		p, err := client.Pod(ctx, text)
		if err != nil && o.node == "" {
			return "", nil, nil, err
		}
		if err != nil { // a service's name, which is read there
			if !strings.Contains(text, "/") {
				text = client.Namespace + "/" + text
			}
			addresses = append(addresses, text)
			continue
		}
		if node == "" {
			node = p.Node
		}
		if o.node == "" && p.Node != node {
			return "", nil, nil, inputError{fmt.Errorf("pod %s is on node %s, not on %s; expected pods of one node, or --node", p.Name, p.Node, node)}
		}
		for _, a := range p.Addresses {
			addresses = append(addresses, a.String())
			if !p.HostNetwork {
				names = append(names, kubectl.Name{Address: a, Name: p.Name})
			}
		}
	}
	if node == "" {
		return "", nil, nil, inputError{fmt.Errorf("which node? %s is an address: name the node with --node", args[0])}
	}
	return node, names, addresses, nil
}

func isAddressOrNetwork(text string) bool {
	_, err := netip.ParseAddr(text)
	_, errPrefix := netip.ParsePrefix(text)
	return err == nil || errPrefix == nil
}
