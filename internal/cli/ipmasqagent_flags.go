package cli

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/unmasq/unmasq/internal/cni"
	"github.com/unmasq/unmasq/internal/masqagent"
)

// optional is a switch that may be given a word too: --version, --version=raw.
type optional struct{ on bool }

func (o *optional) String() string   { return strconv.FormatBool(o.on) }
func (o *optional) IsBoolFlag() bool { return true }
func (o *optional) Set(text string) error {
	on, err := strconv.ParseBool(text)
	if o.on = on || text == "raw"; err != nil && !o.on {
		return errors.New("expected true, false or raw")
	}
	return nil
}

// noEffect are flags of the agents that change nothing here, for each why. All that
// klog and glog have are among them but -v.
var noEffect = []struct{ name, kind, why string }{
	{"resync-interval", "int", "seconds; changes are seen at once"},
	{"logtostderr", "bool", stderrOnly}, {"alsologtostderr", "bool", stderrOnly}, {"alsologtostderrthreshold", "", stderrOnly}, {"stderrthreshold", "", stderrOnly},
	{"log_dir", "", stderrOnly}, {"log_file", "", stderrOnly}, {"log_file_max_size", "uint", stderrOnly},
	{"legacy_stderr_threshold_behavior", "bool", stderrOnly},
	{"log-flush-frequency", "", "logs are written at once"},
	{"log_backtrace_at", "", "there are no traces"}, {"vmodule", "", "see -v"},
	{"add_dir_header", "bool", "see --log-format"}, {"skip_headers", "bool", "see --log-format"},
	{"skip_log_headers", "bool", "see --log-format"}, {"one_output", "bool", "see --log-format"},
}

const stderrOnly = "logs go to standard error"

// flagSet is of the package that the agents use themselves: one dash is as good as
// two, and what isn't a flag ends them.
func (o *masqAgentOptions) flagSet() *flag.FlagSet {
	f := flag.NewFlagSet(masqAgentWord, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Usage = func() {}
	f.StringVar(&o.settings.Chain, "masq-chain", masqagent.DefaultChain, "`NAME` of the agent's chain, which the policy has in small letters")
	f.StringVar(&o.toPorts, "to-ports", "", "`PORTS` to masquerade to, such as 1024-29999: for tcp, udp and sctp; of several ranges the widest")
	f.BoolVar(&o.settings.RandomFully, "random-fully", true, "choose source ports at random; default: true, but false in the dialects azure and cilium")
	f.BoolVar(&o.settings.AllReserved, "nomasq-all-reserved-ranges", false, "eleven reserved ranges, not three, where no file has a list")
	f.BoolVar(&o.settings.EnableIPv6, "enable-ipv6", false, "do the same to IPv6; else nothing is done to it")
	f.Var(&o.version, "version", "print the version and exit")
	f.IntVar(&o.verbosity, "v", 0, "`LEVEL` of the log; from 4 on it has more")

	f.StringVar(&o.dialect, "dialect", "", "kubernetes, azure or cilium: `WHOSE` reading of files counts; default: told by flags and files, and said in the log")
	f.StringVar(&o.dir, "config-dir", "/etc/config", "`DIRECTORY` of ip-masq-agent, or of ip-masq* in the dialect azure")
	f.BoolVar(&o.outbound, "outbound-only", true, "leave connections to this node's pods as they are; false: masquerade them as all others")
	f.BoolVar(&o.exitOnBad, "exit-on-bad-config", false, "exit 1 at a wrong file; else the last good one stays in force")
	f.Func("policy", "`PATH` of SourcePolicy documents besides, or a directory of them; those with an order below 100 come first; repeatable", func(path string) error {
		o.policies = append(o.policies, path)
		return nil
	})
	f.StringVar(&o.podCIDRs, "pod-cidrs", "", "`CIDRS` of pods; default: discovered on this node")
	f.StringVar(&o.cniDir, "cni-dir", cni.DefaultDir, "`DIRECTORY` of CNI configuration, where pod subnets are found")
	f.StringVar(&o.metricsAddress, "metrics-address", DefaultAddress, "`ADDRESS:PORT` of /metrics, /healthz and /readyz; \"\" serves nothing")
	f.StringVar(&o.healthAddress, "health-address", "", "`ADDRESS:PORT` of /healthz and /readyz, which --metrics-address serves no longer then")
	f.BoolVar(&o.clearOnExit, "clear-on-exit", false, "remove the rules on exit")
	f.StringVar(&o.ownership, "table-ownership", "auto", "auto: own the table where the kernel can (Linux 6.9); off: watch and restore it instead")
	f.StringVar(&o.logFormat, "log-format", "text", "text or json")
	o.handOver.flags(f)
	for _, x := range noEffect {
		accept(f, x.name, x.kind, x.why)
		if dashed := strings.ReplaceAll(x.name, "_", "-"); dashed != x.name {
			accept(f, dashed, x.kind, x.why) // agents before 2.0 took both
		}
	}
	return f
}

// accept a flag, and values of its kind alone.
func accept(f *flag.FlagSet, name, kind, why string) {
	usage := "no effect: " + why
	switch kind {
	case "bool":
		f.Bool(name, false, usage)
	case "int":
		f.Int(name, 0, usage)
	case "uint":
		f.Uint64(name, 0, usage)
	default:
		f.String(name, "", usage)
	}
}

func (o *masqAgentOptions) parse(f *flag.FlagSet, args []string) error {
	if err := f.Parse(args); err != nil {
		return plainFlagError(err)
	}
	f.Visit(func(x *flag.Flag) {
		o.given = append(o.given, x.Name)
		if strings.HasPrefix(x.Usage, "no effect") {
			o.noted = append(o.noted, "--"+x.Name)
		}
	})
	o.after = f.Args()
	if o.dialect != "" && !slices.Contains(masqagent.Dialects[:], masqagent.Dialect(o.dialect)) {
		return fmt.Errorf("--dialect %q: expected kubernetes, azure or cilium", o.dialect)
	}
	return nil
}

// plainFlagError has two dashes, as the help has.
func plainFlagError(err error) error {
	if name, unknown := strings.CutPrefix(err.Error(), "flag provided but not defined: -"); unknown {
		return fmt.Errorf("unknown flag: --%s", name)
	}
	return err
}

func (o *masqAgentOptions) level() slog.Level {
	if o.verbosity >= 4 {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// printMasqAgentHelp prints flags as all other commands do; those without effect in a line.
func printMasqAgentHelp(cmd *cobra.Command) {
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "%s\n\nUsage:\n  %s\n\nExamples:\n%s\n\nFlags:\n", cmd.Long, cmd.UseLine(), cmd.Example)
	t := tabwriter.NewWriter(out, 0, 8, 3, ' ', 0)
	var none []string
	(&masqAgentOptions{}).flagSet().VisitAll(func(x *flag.Flag) {
		value, usage := flag.UnquoteUsage(x)
		switch {
		case strings.HasPrefix(usage, "no effect"):
			none = append(none, "--"+x.Name)
			return
		case x.DefValue != "" && x.DefValue != "false" && x.DefValue != "0" && !strings.Contains(usage, "default:"):
			usage += " (default " + x.DefValue + ")"
		}
		fmt.Fprintf(t, "  --%s %s\t%s\n", x.Name, strings.TrimPrefix(value, "value"), usage)
	})
	t.Flush()
	fmt.Fprintf(out, "\nAccepted, without effect:\n  %s\n", strings.Join(none, " "))
}
