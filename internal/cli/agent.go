package cli

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/unmasq/unmasq/internal/agent"
	"github.com/unmasq/unmasq/internal/policyfile"
)

const agentHelp = `Enforces the policy and keeps enforcing it: follows the documents (also
replaced ones, and ConfigMap mounts), the host's interfaces, and other
processes' changes to its table. A wrong document changes nothing: the last
good policy stays in force. On exit the rules stay, unless --clear-on-exit, or
with --daemon-set if that is gone or going.

With --kube it follows a Kubernetes cluster too: SourcePolicies, this node's pods
and their labels, and what the words of policies mean there. Policies of files and
of the API are one list, in one order. While the API doesn't answer, what is known
stays in force and goes on being repaired; /readyz says so, and stays ready.

It needs CAP_NET_ADMIN in the host's network namespace, and nothing else.`

// DefaultAddress serves metrics and health, on loopback.
const DefaultAddress = "127.0.0.1:9809"

type agentOptions struct {
	documents
	kube           kubeOptions
	metricsAddress string
	healthAddress  string
	clearOnExit    bool
	ownership      string
	logFormat      string
}

func newAgent() *cobra.Command {
	opts := &agentOptions{}
	cmd := &cobra.Command{
		Use:     "agent --config PATH… | --kube",
		Short:   "Enforce a policy and keep enforcing it",
		Long:    agentHelp,
		Example: "  unmasq agent --config /etc/unmasq\n  unmasq agent --config policy.yaml --clear-on-exit\n  unmasq agent --kube --pod-cidrs 10.244.0.0/16 --node-cidrs 192.0.2.0/24",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return opts.run(cmd) },
	}
	opts.flags(cmd, "config", "filename")
	f := cmd.Flags()
	f.StringVar(&opts.metricsAddress, "metrics-address", DefaultAddress, "`ADDRESS:PORT` of /metrics, /healthz and /readyz; \"\" serves nothing")
	f.StringVar(&opts.healthAddress, "health-address", "", "`ADDRESS:PORT` of /healthz and /readyz, which --metrics-address serves no longer then")
	f.BoolVar(&opts.clearOnExit, "clear-on-exit", false, "remove the rules on exit")
	f.StringVar(&opts.ownership, "table-ownership", "auto", "auto: own the table where the kernel can (Linux 6.9); off: watch and restore it instead")
	f.StringVar(&opts.logFormat, "log-format", "text", "text or json")
	opts.kube.flags(cmd)
	return cmd
}

func (o *agentOptions) run(cmd *cobra.Command) error {
	log, err := o.logger(cmd, slog.LevelInfo)
	if err != nil {
		return err
	}
	if len(o.files) == 0 && !o.kube.on {
		return inputError{fmt.Errorf("no policy given: name files or directories with --config, or a cluster with --kube")}
	}
	if slices.Contains(o.files, policyfile.Stdin) {
		return inputError{fmt.Errorf("--config -: an agent reads its documents again and again, which standard input can't be: name a file or a directory")}
	}
	opts, err := o.service(cmd, log)
	if err != nil {
		return err
	}
	if cmd.Flags().Changed("node-labels") {
		opts.NodeLabels = o.nodeLabels
	}
	if err := o.kube.follow(cmd, log, &opts); err != nil {
		return err
	}
	return enforce(context.Background(), opts)
}

// service has the options that are the same whatever the documents are.
func (o *agentOptions) service(cmd *cobra.Command, log *slog.Logger) (agent.Options, error) {
	if err := o.checkAddresses(); err != nil {
		return agent.Options{}, err
	}
	if o.ownership != "auto" && o.ownership != "off" {
		return agent.Options{}, inputError{fmt.Errorf("--table-ownership %q: expected auto or off", o.ownership)}
	}
	return agent.Options{
		Config: o.files, CNIDir: o.cniDir,
		MetricsAddress: o.metricsAddress, HealthAddress: o.healthAddress, ClearOnExit: o.clearOnExit, NoOwnership: o.ownership == "off",
		Log: log, Version: cmd.Root().Version,
		Notify: func(state string) {
			if _, err := daemon.SdNotify(false, state); err != nil {
				log.Warn("could not notify the service manager", "error", err)
			}
		},
	}, nil
}

// enforce until the context ends, or a signal comes.
func enforce(ctx context.Context, opts agent.Options) error {
	a, err := agent.New(opts)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, os.Interrupt)
	defer stop()
	return a.Run(ctx)
}

func (o *agentOptions) checkAddresses() error {
	if _, _, err := net.SplitHostPort(o.metricsAddress); err != nil && o.metricsAddress != "" {
		return inputError{fmt.Errorf("--metrics-address %q: expected ADDRESS:PORT, or \"\" to serve nothing", o.metricsAddress)}
	}
	if _, _, err := net.SplitHostPort(o.healthAddress); err != nil && o.healthAddress != "" {
		return inputError{fmt.Errorf("--health-address %q: expected ADDRESS:PORT, or \"\" to serve health with metrics", o.healthAddress)}
	}
	return nil
}

func (o *agentOptions) logger(cmd *cobra.Command, level slog.Level) (*slog.Logger, error) {
	opts := &slog.HandlerOptions{Level: level}
	switch o.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), opts)), nil
	}
	return nil, inputError{fmt.Errorf("--log-format %q: expected text or json", o.logFormat)}
}
