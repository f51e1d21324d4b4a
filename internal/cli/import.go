package cli

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/unmasq/unmasq/internal/importer"
	"github.com/unmasq/unmasq/internal/policyfile"
)

const importHelp = `Reads what another component is told about source NAT, in its own files, and prints the
same as SourcePolicy documents, with comments that say where each line came from. What
can't be carried over is said on standard error. It changes nothing, and needs no privilege
but for --from-node (root).

What Kubernetes knows comes as kubectl get -o yaml or -o json prints it: single objects,
lists, several documents in a file. Without KIND the files are looked at. Kinds:

%s
Exit status 1: this node's rules couldn't be read; 2: a file or a flag is wrong.`

type importOptions struct {
	importer.Options
	output string
	// Networks as given.
	podCIDRs, localPodCIDRs, serviceCIDRs, vpcCIDRs []string
	// fromNode and snapshots: a node's rules are read, not files of settings.
	fromNode  bool
	snapshots []string
}

func newImport() *cobra.Command {
	opts := &importOptions{}
	cmd := &cobra.Command{
		Use:   "import [KIND] FILE… | --from-node | --snapshot PATH",
		Short: "Turn other components' settings into policy documents",
		Long:  fmt.Sprintf(importHelp, kindsTable()),
		Example: `  kubectl -n kube-system get ds kube-router -o yaml | unmasq import kube-router -
  unmasq import docker /etc/docker/daemon.json > policy.yaml
  sudo unmasq import --from-node > policy.yaml`,
		RunE: func(cmd *cobra.Command, args []string) error { return opts.run(cmd, args) },
	}
	cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		var names []string
		for _, k := range importer.Kinds() {
			names = append(names, k.Name+"\t"+k.Reads)
		}
		if len(args) > 0 {
			names = nil // files
		}
		return names, cobra.ShellCompDirectiveDefault
	}
	f := cmd.Flags()
	f.StringVarP(&opts.output, "output", "o", "", "`FORMAT`: json, or yaml (default)")
	f.StringVar(&opts.Name, "name", "", "`NAME` of the policy; default: the kind's")
	f.BoolVar(&opts.fromNode, "from-node", false, "read the NAT rules of this node (as root): a document for each component that wrote some")
	f.StringArrayVar(&opts.snapshots, "snapshot", nil, "the same of a snapshot or dump, `PATH`, or - for standard input; repeatable: of one node")
	f.BoolVar(&opts.Cluster, "cluster", false, "for the Kubernetes API, which knows the facts itself: leave spec.facts out")
	f.StringSliceVar(&opts.podCIDRs, "pod-cidrs", nil, "`CIDR`s of all pods in the cluster, where the files don't say")
	f.StringSliceVar(&opts.localPodCIDRs, "local-pod-cidrs", nil, "`CIDR`s of one node's pods, for a policy of that node")
	f.StringSliceVar(&opts.serviceCIDRs, "service-cidrs", nil, "`CIDR`s of ClusterIPs, where the files don't say")
	f.StringSliceVar(&opts.vpcCIDRs, "vpc-cidrs", nil, "`CIDR`s of the VPC, for aws-vpc-cni, which asks AWS for them")
	f.StringVar(&opts.MasqueradeAll, "masquerade-all", "", "how kube-proxy's and kube-router's setting of that name is carried over: `WAY` where-needed (default; of kube-proxy the other too, commented out) or exact")
	completeFlag(cmd, "output", "json", "yaml")
	completeFlag(cmd, "masquerade-all", importer.MasqueradeWhereNeeded, importer.MasqueradeExact)
	return cmd
}

// kindsTable is a line for each kind.
func kindsTable() string {
	var b strings.Builder
	for _, k := range importer.Kinds() {
		fmt.Fprintf(&b, "  %-19s %s\n", k.Name, k.Reads)
	}
	return b.String()
}

func (o *importOptions) run(cmd *cobra.Command, args []string) error {
	if err := o.check(); err != nil {
		return err
	}
	if o.fromNode || len(o.snapshots) > 0 {
		return o.runNode(cmd, args)
	}
	kind, files, err := importInput(cmd, args)
	if err != nil {
		return inputError{err}
	}
	if kind.Name == "" {
		if kind, err = importer.Recognise(files); err != nil {
			return inputError{err}
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "these are settings of %s\n", kind.Name)
	}
	result, err := importer.Run(kind, files, o.Options)
	if err != nil {
		return inputError{err}
	}
	return o.print(cmd, result, kind.Name)
}

func (o *importOptions) print(cmd *cobra.Command, result *importer.Result, kind string) error {
	for _, w := range result.Warnings {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", w)
	}
	if o.output == "json" {
		return result.WriteJSON(cmd.OutOrStdout(), kind)
	}
	return result.WriteYAML(cmd.OutOrStdout())
}

func (o *importOptions) check() error {
	if o.output != "" && o.output != "yaml" && o.output != "json" {
		return inputError{fmt.Errorf("-o %q: expected json or yaml", o.output)}
	}
	if o.Name != "" && len(validation.IsDNS1123Subdomain(o.Name)) > 0 {
		return inputError{fmt.Errorf("--name %q is not a DNS name; expected lower case letters, digits, '-' and '.'", o.Name)}
	}
	switch o.MasqueradeAll {
	case "", importer.MasqueradeExact, importer.MasqueradeWhereNeeded:
	default:
		return inputError{fmt.Errorf("--masquerade-all %q: expected %s or %s", o.MasqueradeAll, importer.MasqueradeWhereNeeded, importer.MasqueradeExact)}
	}
	for _, list := range []struct {
		flag  string
		texts []string
		to    *[]netip.Prefix
	}{
		{"pod-cidrs", o.podCIDRs, &o.PodCIDRs}, {"local-pod-cidrs", o.localPodCIDRs, &o.LocalPodCIDRs},
		{"service-cidrs", o.serviceCIDRs, &o.ServiceCIDRs}, {"vpc-cidrs", o.vpcCIDRs, &o.VPCCIDRs},
	} {
		var err error
		if *list.to, err = cidrs(list.flag, list.texts); err != nil {
			return err
		}
	}
	return nil
}

// importInput are the kind, where the first argument is one, and the files.
func importInput(cmd *cobra.Command, args []string) (kind importer.Kind, files []importer.File, err error) {
	if len(args) > 0 {
		var known bool
		if kind, known = importer.Named(args[0]); known {
			args = args[1:]
		} else if _, err := os.Stat(args[0]); err != nil && args[0] != policyfile.Stdin {
			return kind, nil, fmt.Errorf("%q is neither a kind nor a file%s", args[0], nearestKind(args[0]))
		}
	}
	if len(args) == 0 {
		return kind, nil, fmt.Errorf("no file given: name files with settings, or - for standard input (see `unmasq import --help`)")
	}
	for _, path := range args {
		f, err := settingsFile(path, cmd.InOrStdin())
		if err != nil {
			return kind, nil, err
		}
		files = append(files, f)
	}
	return kind, files, nil
}

// mostSettings bounds a file, in bytes: a cluster's DaemonSets are far smaller.
const mostSettings = 16 << 20

func settingsFile(path string, stdin io.Reader) (f importer.File, err error) {
	in := stdin
	if f.Name = "stdin"; path != policyfile.Stdin {
		file, err := os.Open(path)
		if err != nil {
			return f, err
		}
		defer file.Close()
		f.Name, in = path, file
	}
	if f.Data, err = io.ReadAll(io.LimitReader(in, mostSettings+1)); err != nil {
		return f, err
	}
	if len(f.Data) > mostSettings {
		return f, fmt.Errorf("%s: larger than %d MiB; expected settings of one component", f.Name, mostSettings>>20)
	}
	return f, nil
}

// nearestKind suggests a kind as unknown commands are answered.
func nearestKind(word string) string {
	root, kinds := &cobra.Command{Use: "unmasq"}, &cobra.Command{Use: "import", SuggestionsMinimumDistance: 2}
	root.AddCommand(kinds)
	for _, k := range importer.Kinds() {
		kinds.AddCommand(&cobra.Command{Use: k.Name, Run: func(*cobra.Command, []string) {}})
	}
	return suggestion(kinds, word)
}
