package cli

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/unmasq/unmasq/internal/exporter"
	"github.com/unmasq/unmasq/internal/policy"
	"github.com/unmasq/unmasq/internal/policyfile"
)

const exportHelp = `Prints a policy as another component's own settings, as far as those can say it: the way
back. What is lost is said on standard error. A rule that can't be said in full never makes
the component translate more; where the component does so all the same, being what it is,
that is said too. Kinds:

%s
Exit status 1: the component would translate what the policy doesn't; with --strict, anything
is lost. 2: a document is wrong.`

type exportOptions struct {
	files      []string
	nodeLabels map[string]string
	podCIDRs   []string
	strict     bool
}

func newExport() *cobra.Command {
	opts := &exportOptions{}
	var kinds strings.Builder
	for _, k := range exporter.Kinds() {
		fmt.Fprintf(&kinds, "  %-14s %s\n", k.Name, k.Writes)
	}
	cmd := &cobra.Command{
		Use:   "export KIND -f PATH…",
		Short: "Say a policy in another component's settings",
		Long:  fmt.Sprintf(exportHelp, kinds.String()),
		Example: `  unmasq export ip-masq-agent -f policy.yaml > configmap.yaml
  unmasq export cilium -f policies/ --strict > values.yaml
  unmasq import flannel kube-flannel-cfg.yaml | unmasq export calico -f -`,
		RunE: func(cmd *cobra.Command, args []string) error { return opts.run(cmd, args) },
	}
	cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) (names []string, _ cobra.ShellCompDirective) {
		if len(args) == 0 {
			for _, k := range exporter.Kinds() {
				names = append(names, k.Name+"\t"+k.Writes)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
	f := cmd.Flags()
	f.StringArrayVarP(&opts.files, "filename", "f", nil, "`PATH` of a document or a directory of them, or - for standard input; repeatable")
	f.StringToStringVar(&opts.nodeLabels, "node-labels", nil, "labels of the nodes in question, for documents with a nodeSelector (`key=value`,…)")
	f.StringSliceVar(&opts.podCIDRs, "pod-cidrs", nil, "`CIDR`s of all pods in the cluster, where no document states them")
	f.BoolVar(&opts.strict, "strict", false, "exit status 1 where anything is lost")
	return cmd
}

// widened is an export by which the component would translate more than the policy, or,
// with --strict, one by which something is lost.
type widened struct{ error }

func (widened) ExitStatus() int { return statusWrong }

func (o *exportOptions) run(cmd *cobra.Command, args []string) error {
	kind, err := exportKind(args)
	if err != nil {
		return err
	}
	loaded, pods, err := o.load(cmd)
	if err != nil {
		return err
	}
	result := kind.Export(loaded, exporter.Options{PodCIDRs: pods})
	for _, l := range result.Losses {
		fmt.Fprintf(cmd.ErrOrStderr(), "lost: %s\n", l)
	}
	if _, err := cmd.OutOrStdout().Write(result.Text); err != nil {
		return err
	}
	switch wider := slices.ContainsFunc(result.Losses, func(l exporter.Loss) bool { return l.Wider }); {
	case wider:
		return widened{fmt.Errorf("%s would translate what the policy doesn't: see above", kind.Name)}
	case o.strict && len(result.Losses) > 0:
		return widened{fmt.Errorf("%s can't be told all of the policy: see above", kind.Name)}
	}
	return nil
}

func exportKind(args []string) (exporter.Kind, error) {
	var names []string
	for _, k := range exporter.Kinds() {
		names = append(names, k.Name)
	}
	expected := "expected one of " + strings.Join(names, ", ")
	switch {
	case len(args) == 0:
		return exporter.Kind{}, inputError{fmt.Errorf("no kind given: %s (see `unmasq export --help`)", expected)}
	case len(args) > 1:
		return exporter.Kind{}, inputError{fmt.Errorf("unexpected argument %q: one kind is written at a time (policies are named with -f)", args[1])}
	}
	kind, ok := exporter.Named(args[0])
	if !ok {
		return kind, inputError{fmt.Errorf("%q can't be written: %s", args[0], expected)}
	}
	return kind, nil
}

// load the documents; what a cluster would say is taken for known.
func (o *exportOptions) load(cmd *cobra.Command) (*policy.Loaded, []netip.Prefix, error) {
	pods, err := cidrs("pod-cidrs", o.podCIDRs)
	if err != nil {
		return nil, nil, err
	}
	if len(o.files) == 0 {
		return nil, nil, inputError{fmt.Errorf("no policy given: name a file or directory with -f, or -f - for standard input")}
	}
	sources, err := policyfile.Read(o.files, cmd.InOrStdin())
	if err != nil {
		return nil, nil, inputError{err}
	}
	opts := policy.Options{PodsKnown: true, ServicesKnown: true, ServiceCIDRsKnown: true}
	if cmd.Flags().Changed("node-labels") {
		opts.NodeLabels = o.nodeLabels
	}
	loaded, err := policy.Load(sources, opts)
	if err != nil {
		return nil, nil, inputError{err}
	}
	return loaded, pods, nil
}
