package cli

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/unmasq/unmasq/internal/kernel/nft"
	"github.com/unmasq/unmasq/internal/kube"
	"github.com/unmasq/unmasq/internal/kubectl"
	"github.com/unmasq/unmasq/internal/plan"
)

func newApply() *cobra.Command {
	docs := &documents{}
	cmd := &cobra.Command{
		Use:     "apply -f PATH…",
		Short:   "Install a policy once and leave it in place",
		Long:    "Installs a policy once, as a plain nftables table that nothing repairs.\nUse `unmasq agent` to keep it in force whatever else happens.",
		Example: "  unmasq apply -f policy.yaml",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return apply(cmd, docs) },
	}
	docs.flags(cmd, "filename", "config")
	return cmd
}

func apply(cmd *cobra.Command, docs *documents) error {
	want, err := docs.want(cmd, nft.Probe)
	if err != nil {
		return err
	}
	table, err := nft.Open(slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer table.Close()
	if err := table.Start(want.Table); err != nil {
		return withAdvice(err)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "policy in force: %d rules in table inet %s (`unmasq status` shows them, `unmasq clear` removes them)\n",
		len(want.Policy.Rules), plan.TableName)
	return nil
}

// withAdvice says how to get past an agent that owns the table.
func withAdvice(err error) error {
	var owned *nft.OwnedError
	if !errors.As(err, &owned) {
		return err
	}
	stop := "stop that agent first (systemctl stop unmasq, or kill its process)"
	if owned.Owner.PID != 0 {
		stop = fmt.Sprintf("stop that agent first (systemctl stop unmasq, or kill %d)", owned.Owner.PID)
	}
	return fmt.Errorf("%w: %s", err, stop)
}

func newClear() *cobra.Command {
	cache := ""
	cmd := &cobra.Command{
		Use:   "clear",
		Short: "Remove all of unmasq's rules",
		Long: "Removes unmasq's tables, also those that a killed agent left, and what an agent of a cluster\n" +
			"remembered for its next start, and nothing else. Connections keep the addresses that they have.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return clear(cmd, cache) },
	}
	cmd.Flags().StringVar(&cache, "cluster-cache", defaultCache, "`FILE` that agents of a cluster keep what they know in; \"\" leaves it")
	return cmd
}

func clear(cmd *cobra.Command, cache string) error {
	table, err := nft.Open(slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer table.Close()
	removed, err := table.Clear()
	if err != nil {
		return withAdvice(err)
	}
	if err := kube.Forget(cache); err != nil {
		return err
	}
	if !removed {
		tellKubelet(kubectl.SaidNothing)
		fmt.Fprintln(cmd.OutOrStdout(), "nothing to remove")
		return nil
	}
	tellKubelet(kubectl.SaidCleared)
	fmt.Fprintf(cmd.OutOrStdout(), "removed table inet %s\n", plan.TableName)
	return nil
}
