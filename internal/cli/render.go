package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/unmasq/unmasq/internal/kernel/nft"
	"github.com/unmasq/unmasq/internal/render"
)

func newRender() *cobra.Command {
	docs := &documents{}
	cmd := &cobra.Command{
		Use:     "render -f PATH…",
		Short:   "Print the nft text that a policy compiles to on this host",
		Example: "  unmasq render -f policy.yaml | nft -c -f -",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			loaded, err := docs.load(cmd, cmd.InOrStdin())
			if err != nil {
				return err
			}
			want, err := docs.compile(loaded, nft.Features{IPsec: true})
			if err != nil {
				return err
			}
			warn(cmd, want.Warnings)
			return render.Table(cmd.OutOrStdout(), want.Table)
		},
	}
	docs.flags(cmd, "filename", "f")
	return cmd
}

func newValidate() *cobra.Command {
	docs := &documents{}
	cmd := &cobra.Command{
		Use:     "validate -f PATH…",
		Short:   "Check policy documents",
		Long:    "Checks policy documents and prints every error with its place. It needs no privilege.\nExit status 2: a document is wrong.",
		Example: "  unmasq validate -f policy.yaml\n  unmasq validate -f /etc/unmasq",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			loaded, err := docs.load(cmd, cmd.InOrStdin())
			if err != nil {
				return err
			}
			want, err := docs.compile(loaded, nft.Features{IPsec: true})
			if err != nil {
				return err
			}
			warn(cmd, want.Warnings)
			fmt.Fprintf(cmd.OutOrStdout(), "valid: %d rules\n", len(loaded.Policy.Rules))
			return nil
		},
	}
	docs.flags(cmd, "filename", "f")
	return cmd
}
