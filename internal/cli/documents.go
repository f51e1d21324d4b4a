package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

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

func (d *documents) flags(cmd *cobra.Command, name, short string) {
	cmd.Flags().StringArrayVarP(&d.files, name, short, nil, "`PATH` of a document or a directory of them, or - for standard input; repeatable")
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

// compile joins the documents with this host's facts.
func (d *documents) compile(loaded *policy.Loaded, features nft.Features) (*agent.Want, error) {
	return agent.Compile(loaded, d.cniDir, features)
}

// warn prints warnings to standard error.
func warn(cmd *cobra.Command, warnings []string) {
	for _, w := range warnings {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", w)
	}
}
