package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/unmasq/unmasq/internal/kubectl"
)

// kubectlWord is the first argument that makes unmasq kubectl's plugin.
const kubectlWord = "kubectl"

// Args of the program, from its whole command line: under the name kubectl-unmasq,
// as which kubectl starts plugins, it is one; under ip-masq-agent's it is that.
func Args(line []string) []string {
	switch strings.TrimSuffix(filepath.Base(line[0]), ".exe") {
	case "kubectl-unmasq":
		return append([]string{kubectlWord}, line[1:]...)
	case masqAgentWord, masqAgentV2:
		return append([]string{masqAgentWord}, line[1:]...)
	}
	return line[1:]
}

const kubectlHelp = `Runs unmasq inside the agent of the right node (pods/exec), with your own rights in
the cluster: RBAC decides, and no port is opened.

  kubectl unmasq explain default/client default/web:80
  kubectl unmasq status --all
  kubectl unmasq snapshot --node n1 -o n1.tar.gz
  kubectl unmasq uninstall

The node is that of the pod that is named, or --node. Exit status and output are
those of the command there; what couldn't be asked is status 1.`

// kubectlOptions are the flags of all commands.
type kubectlOptions struct {
	access kubectl.Access
	where  kubectl.Where
	node   string
	// connect is kubectl.Connect; tests have their own cluster.
	connect func(kubectl.Access, kubectl.Where) (*kubectl.Client, error)
}

func newKubectl(version string) *cobra.Command {
	return kubectlBy(version, kubectl.Connect)
}

func kubectlBy(version string, connect func(kubectl.Access, kubectl.Where) (*kubectl.Client, error)) *cobra.Command {
	root := newRoot(version)
	root.ResetCommands()
	root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl unmasq"}
	root.Short, root.Long = "Ask the agents of a cluster", kubectlHelp
	opts := &kubectlOptions{connect: connect}
	opts.flags(root.PersistentFlags())
	root.AddCommand(newKubectlExplain(opts), newKubectlStatus(opts), newKubectlSnapshot(opts), newKubectlDoctor(opts), newKubectlFlows(opts), newKubectlMatrix(opts), newKubectlUninstall(opts))
	return root
}

// flags as kubectl has them, and where agents are.
func (o *kubectlOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.node, "node", "", "`NAME` of the node whose agent is asked; left out, that of the pod that is named")
	f.StringVar(&o.where.Namespace, "agent-namespace", kubectl.AgentNamespace, "`NAMESPACE` of the agents")
	f.StringVar(&o.where.Selector, "agent-selector", kubectl.AgentSelector, "`LABELS` of the agents' pods")
	a := &o.access
	f.StringVar(&a.Kubeconfig, "kubeconfig", "", "`FILE` that says where clusters are; default: $KUBECONFIG, or ~/.kube/config")
	f.StringVar(&a.Context, "context", "", "`NAME` of the kubeconfig's context")
	f.StringVar(&a.Cluster, "cluster", "", "`NAME` of the kubeconfig's cluster")
	f.StringVar(&a.User, "user", "", "`NAME` of the kubeconfig's user")
	f.StringVarP(&a.Namespace, "namespace", "n", "", "`NAMESPACE` of names without one")
	f.StringVarP(&a.Server, "server", "s", "", "`URL` of the API server")
	f.StringVar(&a.TLSServerName, "tls-server-name", "", "`NAME` in the API server's certificate")
	f.StringVar(&a.CertificateAuthority, "certificate-authority", "", "`FILE` with who signs the API server's certificate")
	f.BoolVar(&a.Insecure, "insecure-skip-tls-verify", false, "don't check the API server's certificate")
	f.StringVar(&a.Token, "token", "", "bearer `TOKEN` to show to the API server")
	f.StringVar(&a.ClientCertificate, "client-certificate", "", "`FILE` to show to the API server")
	f.StringVar(&a.ClientKey, "client-key", "", "`FILE` with its key")
	f.StringVar(&a.As, "as", "", "`USER` to act as")
	f.StringVar(&a.AsUID, "as-uid", "", "`UID` to act as")
	f.StringArrayVar(&a.AsGroups, "as-group", nil, "`GROUP` to act as; repeatable")
	f.StringVar(&a.RequestTimeout, "request-timeout", "", "how long one question to the API server may take, such as `10s`")
}

// client for a command that may be interrupted.
func (o *kubectlOptions) client(cmd *cobra.Command) (context.Context, func(), *kubectl.Client, error) {
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	client, err := o.connect(o.access, o.where)
	return ctx, stop, client, err
}

// oneNode checks that --node or a pod says which.
func (o *kubectlOptions) oneNode(args []string, more string) error {
	switch {
	case len(args) > 1:
		return inputError{fmt.Errorf("expected one pod; found %q", args)}
	case len(args) == 0 && o.node == "":
		return inputError{fmt.Errorf("which node? Name it with --node, or a pod of it%s", more)}
	case len(args) == 1 && o.node != "":
		return inputError{fmt.Errorf("--node %s and pod %s; expected one of the two", o.node, args[0])}
	}
	return nil
}

// oneNodeOrAll checks that either one node is named, or all are asked.
func (o *kubectlOptions) oneNodeOrAll(args []string, all bool) error {
	switch {
	case !all:
		return o.oneNode(args, ", or ask --all")
	case len(args) > 0 || o.node != "":
		return inputError{errors.New("--all asks all nodes; expected no pod and no --node")}
	}
	return nil
}

// agent of the node that is named, or that has the pod.
func (o *kubectlOptions) agent(ctx context.Context, client *kubectl.Client, args []string) (kubectl.Agent, error) {
	node := o.node
	if len(args) == 1 {
		var err error
		if node, err = client.PodNode(ctx, args[0]); err != nil {
			return kubectl.Agent{}, err
		}
	}
	return client.AgentOn(ctx, node)
}

// borrow the flags of the command that runs in the agent, but for some.
func borrow(cmd, from *cobra.Command, but ...string) {
	from.Flags().VisitAll(func(f *pflag.Flag) {
		if !slices.Contains(but, f.Name) {
			cmd.Flags().AddFlag(f)
		}
	})
}

// handOn the flags that were borrowed and given.
func handOn(cmd, from *cobra.Command, but ...string) (args []string) {
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if from.Flags().Lookup(f.Name) != f || slices.Contains(but, f.Name) {
			return
		}
		values := []string{f.Value.String()}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		}
		for _, value := range values {
			args = append(args, "--"+f.Name+"="+value)
		}
	})
	return args
}
