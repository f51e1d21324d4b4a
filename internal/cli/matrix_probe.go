package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/unmasq/unmasq/internal/probe"
)

// newProbe is what `matrix --probe` runs in other places: a peer, and who makes
// calls. Its words are no promise to anybody else.
func newProbe() *cobra.Command {
	cmd := &cobra.Command{Use: "probe", Hidden: true, Args: noArgs, Short: "Ends of the connections that matrix --probe makes",
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	o := probe.PeerOptions{Answers: true}
	serve := &cobra.Command{Use: "serve", Short: "Answer callers with the address that is seen", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return serveProbe(cmd, o) }}
	serve.Flags().Uint16Var(&o.Port, "port", probe.Port, "`PORT` of TCP and UDP")
	serve.Flags().StringVar(&o.Name, "name", "", "`NAME` to answer with")
	call := &cobra.Command{Use: "call", Short: "Make the calls that standard input has, as JSON", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := interruptible(cmd)
			defer stop()
			return probe.Obey(ctx, cmd.InOrStdin(), cmd.OutOrStdout())
		}}
	cmd.AddCommand(serve, call)
	return cmd
}

func serveProbe(cmd *cobra.Command, o probe.PeerOptions) error {
	ctx, stop := interruptible(cmd)
	defer stop()
	peer, err := probe.Open(ctx, o)
	if err != nil {
		return err
	}
	defer peer.Close()
	fmt.Fprintf(cmd.OutOrStdout(), "answering at port %d of TCP and UDP\n", peer.Port())
	<-ctx.Done()
	return nil
}

// interruptible is a command's context, which SIGINT and SIGTERM end.
func interruptible(cmd *cobra.Command) (context.Context, func()) {
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	return signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
}
