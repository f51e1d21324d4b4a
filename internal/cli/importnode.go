package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/unmasq/unmasq/internal/importer"
	"github.com/unmasq/unmasq/internal/kernel/capture"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// runNode imports the rules of a node, this one or that of snapshots.
func (o *importOptions) runNode(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) > 0:
		return inputError{fmt.Errorf("%q: expected no KIND or FILE beside --from-node and --snapshot: the node's rules are read", args[0])}
	case o.fromNode && len(o.snapshots) > 0:
		return inputError{errors.New("--from-node and --snapshot are two nodes: give one of them")}
	}
	host, err := o.host(cmd)
	if err != nil {
		return err
	}
	result, err := importer.Node(host, o.Options)
	if err != nil {
		return inputError{err}
	}
	if len(result.Documents) == 0 {
		fmt.Fprintln(cmd.ErrOrStderr(), "nothing to import: no rule of this node translates sources, but for what kube-proxy or portmap may have marked, which stays theirs")
	}
	return o.print(cmd, result, "node")
}

func (o *importOptions) host(cmd *cobra.Command) (*snapshot.Host, error) {
	if len(o.snapshots) > 0 {
		host, err := snapshot.Read(o.snapshots, cmd.InOrStdin())
		if err != nil {
			return nil, inputError{err}
		}
		return host, nil
	}
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	host, err := capture.Live(ctx, capture.Options{})
	if err != nil {
		return nil, err
	}
	if err := halfRead(host); err != nil {
		return nil, err // of half of the rules the policy would be another
	}
	if _, why := host.Meta.UnreadRules(); why != "" {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", why)
	}
	return host, nil
}
