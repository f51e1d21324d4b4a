package cli

import (
	"fmt"

	"github.com/spf13/cobra"

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
			want, err := docs.want(cmd, anyKernel)
			if err != nil {
				return err
			}
			return render.Table(cmd.OutOrStdout(), want.Table)
		},
	}
	docs.flags(cmd, "filename", "config")
	return cmd
}

const validateHelp = `Checks policy documents and prints every error with its place. It needs no
privilege. Exit status 2: a document is wrong.`

func newValidate() *cobra.Command {
	docs := &documents{}
	cmd := &cobra.Command{
		Use:     "validate -f PATH…",
		Short:   "Check policy documents",
		Long:    validateHelp,
		Example: "  unmasq validate -f policy.yaml\n  unmasq validate -f /etc/unmasq",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			want, err := docs.want(cmd, anyKernel)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "valid: %d rules\n", len(want.Policy.Rules))
			return nil
		},
	}
	docs.flags(cmd, "filename", "config")
	return cmd
}
