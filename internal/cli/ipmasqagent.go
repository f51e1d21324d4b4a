package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/unmasq/unmasq/internal/agent"
	"github.com/unmasq/unmasq/internal/masqagent"
	"github.com/unmasq/unmasq/internal/policyfile"
)

// Names of the program under which it is ip-masq-agent. Azure's image has the second.
const (
	masqAgentWord = "ip-masq-agent"
	masqAgentV2   = "ip-masq-agent-v2"
)

const masqAgentHelp = `Takes the place of ip-masq-agent: the same flags, with one dash or two, and the
same files, those of Kubernetes' agent, of Azure's ip-masq-agent-v2, or as Cilium
reads them. What it writes is no iptables chain but unmasq's own table, which it
keeps in force as ` + "`unmasq agent`" + ` does.

What is different on purpose: pods keep their addresses to the list whoever else
masquerades; clients of pods keep theirs; a wrong file changes nothing and ends
nothing; changes are seen at once. See docs/ip-masq-agent.md.`

// masqAgentOptions are what its flags say.
type masqAgentOptions struct {
	agentOptions
	handOver  handOver
	settings  masqagent.Settings
	dialect   string
	dir       string
	toPorts   string
	outbound  bool
	exitOnBad bool
	podCIDRs  string
	policies  []string
	version   optional
	verbosity int

	given []string // names of flags
	noted []string // those that change nothing
	after []string // arguments that aren't read, nor were they
}

func newIPMasqAgent() *cobra.Command {
	cmd := &cobra.Command{
		Use:                masqAgentWord + " [flags]",
		Short:              "Take ip-masq-agent's place, with its flags and files",
		Long:               masqAgentHelp,
		Example:            "  unmasq ip-masq-agent\n  unmasq ip-masq-agent -v=2 --to-ports=1024-29999 --enable-ipv6\n  unmasq ip-masq-agent --dialect azure --resync-interval=60",
		DisableFlagParsing: true, // pflag wants two dashes
		RunE: func(cmd *cobra.Command, args []string) error {
			o := &masqAgentOptions{}
			return o.run(cmd, args)
		},
	}
	cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) { printMasqAgentHelp(cmd) })
	return cmd
}

func (o *masqAgentOptions) run(cmd *cobra.Command, args []string) error {
	switch err := o.parse(o.flagSet(), args); {
	case errors.Is(err, flag.ErrHelp):
		return cmd.Help()
	case err != nil:
		return inputError{fmt.Errorf("%w (see `%s --help`)", err, cmd.CommandPath())}
	case o.version.on:
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "ip-masq-agent by unmasq %s\n", cmd.Root().Version)
		return err
	}
	if err := o.handOver.check(); err != nil {
		return inputError{err}
	}
	if o.handOver.once() {
		return o.handOver.runOnce(cmd)
	}
	log, err := o.logger(cmd, o.level())
	if err != nil {
		return err
	}
	source := o.source(filepath.Base(os.Args[0]), log)
	if err := o.settle(source); err != nil {
		return inputError{err}
	}
	opts, err := o.service(cmd, log)
	if err != nil {
		return err
	}
	opts.Config, opts.Read, opts.Pods, opts.Tell = append([]string{o.dir}, o.policies...), source.read, source.pods, source.tell
	o.handOver.whenInForce(&opts, log)
	return o.enforce(opts, source)
}

func (o *masqAgentOptions) source(program string, log *slog.Logger) *masqSource {
	return &masqSource{dir: o.dir, policies: o.policies, settings: o.settings, log: log, chosen: masqagent.Dialect(o.dialect),
		random: slices.Contains(o.given, "random-fully"), evidence: masqagent.Evidence{Program: program, Flags: o.given}}
}

// enforce ends with the first wrong file, where that is asked for.
func (o *masqAgentOptions) enforce(opts agent.Options, source *masqSource) error {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	if o.exitOnBad {
		source.bad = func(err error) { cancel(fmt.Errorf("--exit-on-bad-config: %w", err)) }
	}
	if err := enforce(ctx, opts); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// settle checks what flags mean together, and says what they don't.
func (o *masqAgentOptions) settle(s *masqSource) error {
	if _, _, err := s.settingsOf(nil); err != nil {
		return err
	}
	widest, rest, err := masqagent.ParsePorts(o.toPorts)
	if err != nil {
		return fmt.Errorf("--to-ports: %w", err)
	}
	s.settings.Ports, s.settings.Inbound = widest, !o.outbound
	if len(rest) > 0 {
		s.flagWarnings = append(s.flagWarnings, fmt.Sprintf("--to-ports %s: one range is used, the widest: %d-%d", o.toPorts, widest.First, widest.Last))
	}
	if o.podCIDRs != "" {
		if s.settings.PodCIDRs, err = cidrs("pod-cidrs", strings.Split(o.podCIDRs, ",")); err != nil {
			return err
		}
	}
	if slices.Contains(o.policies, policyfile.Stdin) {
		return errors.New("--policy -: an agent reads its documents again and again: name a file or a directory")
	}
	if o.settings.Chain == "" {
		return errors.New(`--masq-chain "": expected a name, such as ` + masqagent.DefaultChain)
	}
	if len(o.noted) > 0 {
		s.log.Info("flags that change nothing here", "flags", strings.Join(o.noted, " "))
	}
	if len(o.after) > 0 {
		s.flagWarnings = append(s.flagWarnings, fmt.Sprintf("arguments from %q on are not read: they are no flags (a switch is turned off by --NAME=false)", o.after[0]))
	}
	return nil
}
