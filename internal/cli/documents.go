package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/unmasq/unmasq/internal/agent"
	"github.com/unmasq/unmasq/internal/cni"
	"github.com/unmasq/unmasq/internal/kernel/nft"
	"github.com/unmasq/unmasq/internal/policy"
	"github.com/unmasq/unmasq/internal/policyfile"
)

// documents are the flags of every command that reads policies.
type documents struct {
	files      []string
	nodeLabels map[string]string
	cniDir     string
}

// flags adds them. The flag for paths is called name; other is what sister
// commands call it, and hands that know those are not sent away.
func (d *documents) flags(cmd *cobra.Command, name, other string) {
	cmd.Flags().StringArrayVarP(&d.files, name, "f", nil, "`PATH` of a document or a directory of them, or - for standard input; repeatable")
	cmd.Flags().SetNormalizeFunc(func(_ *pflag.FlagSet, given string) pflag.NormalizedName {
		if given == other {
			given = name
		}
		return pflag.NormalizedName(given)
	})
	cmd.Flags().StringToStringVar(&d.nodeLabels, "node-labels", nil, "this node's labels, for documents with a nodeSelector (`key=value`,…)")
	cmd.Flags().StringVar(&d.cniDir, "cni-dir", cni.DefaultDir, "`DIRECTORY` of CNI configuration, where pod subnets are found")
}

// load reads and checks the documents.
func (d *documents) load(cmd *cobra.Command, stdin io.Reader) (*policy.Loaded, error) {
	if len(d.files) == 0 {
		return nil, inputError{fmt.Errorf("no policy given: name a file or directory with -f, or -f - for standard input")}
	}
	sources, err := policyfile.Read(d.files, stdin)
	if err != nil {
		return nil, inputError{err}
	}
	opts := policy.Options{}
	if cmd.Flags().Changed("node-labels") {
		opts.NodeLabels = d.nodeLabels
	}
	loaded, err := policy.Load(sources, opts)
	if err != nil {
		return nil, inputError{err}
	}
	return loaded, nil
}

// want joins the documents with this host's facts, and prints the warnings. The
// kernel's features are asked for only when the documents are good.
func (d *documents) want(cmd *cobra.Command, features func() (nft.Features, error)) (*agent.Want, error) {
	loaded, err := d.load(cmd, cmd.InOrStdin())
	if err != nil {
		return nil, err
	}
	f, err := features()
	if err != nil {
		return nil, err
	}
	want, err := agent.Compile(loaded, d.cniDir, f)
	if err != nil {
		return nil, err
	}
	for _, w := range want.Warnings {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", w)
	}
	return want, nil
}

// anyKernel is for commands that write nothing.
func anyKernel() (nft.Features, error) { return nft.Features{IPsec: true}, nil }
