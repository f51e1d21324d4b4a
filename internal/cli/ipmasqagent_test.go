package cli

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unmasq/unmasq/internal/masqagent"
)

// settled is what flags come to with the files of these names.
func settled(t *testing.T, args []string, files ...string) (string, error) {
	t.Helper()
	o := &masqAgentOptions{}
	if err := o.parse(o.flagSet(), args); err != nil {
		return "", err
	}
	s := o.source("unmasq", slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err := o.settle(s); err != nil {
		return "", err
	}
	settings, why, err := s.settingsOf(files)
	if err != nil {
		return "", err
	}
	out := fmt.Sprintf("%s %s (%s)", settings.Dialect, settings.Chain, why)
	for _, x := range []struct {
		on   bool
		name string
	}{{settings.RandomFully, "random"}, {settings.EnableIPv6, "ipv6"}, {settings.AllReserved, "reserved"}, {settings.Inbound, "inbound"}} {
		if x.on {
			out += " " + x.name
		}
	}
	if settings.Ports.Last != 0 {
		out += fmt.Sprintf(" ports=%d-%d", settings.Ports.First, settings.Ports.Last)
	}
	if len(settings.PodCIDRs) > 0 {
		out += fmt.Sprint(" pods=", settings.PodCIDRs)
	}
	for _, w := range s.flagWarnings {
		out += " (" + w + ")"
	}
	if len(o.noted) > 0 {
		out += " without effect: " + strings.Join(o.noted, " ")
	}
	return out, nil
}

// TestIPMasqAgentFlags: one dash or two, values behind = or a blank, as Go's package
// flag has them, which the agents use.
func TestIPMasqAgentFlags(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"", "kubernetes IP-MASQ-AGENT (by default) random"},
		{"--v=2", "kubernetes IP-MASQ-AGENT (by default) random"},
		{"-v 2 --enable-ipv6", "kubernetes IP-MASQ-AGENT (by default) random ipv6"},
		{"-enable-ipv6 -nomasq-all-reserved-ranges=true -masq-chain MINE", "kubernetes MINE (by default) random ipv6 reserved"},
		{"--enable-ipv6=false --nomasq-all-reserved-ranges --masq-chain=MINE", "kubernetes MINE (by default) random reserved"},
		{"--enable-ipv6=1 --outbound-only=F", "kubernetes IP-MASQ-AGENT (by default) random ipv6 inbound"},
		{"--to-ports 1024-29999", "kubernetes IP-MASQ-AGENT (only Kubernetes' ip-masq-agent has --to-ports) random ports=1024-29999"},
		{"--to-ports=1024-29999,32768-65535", "kubernetes IP-MASQ-AGENT (only Kubernetes' ip-masq-agent has --to-ports) random ports=32768-65535" +
			" (--to-ports 1024-29999,32768-65535: one range is used, the widest: 32768-65535)"},
		{"--to-ports=1024-29999,30000-40000", "kubernetes IP-MASQ-AGENT (only Kubernetes' ip-masq-agent has --to-ports) random ports=1024-40000"},
		{"--to-ports=", "kubernetes IP-MASQ-AGENT (only Kubernetes' ip-masq-agent has --to-ports) random"},
		{"--resync-interval 30", "azure IP-MASQ-AGENT (only ip-masq-agent-v2 has --resync-interval) without effect: --resync-interval"},
		{"--dialect cilium", "cilium IP-MASQ-AGENT (--dialect)"},
		{"--dialect azure --to-ports 5-6", "azure IP-MASQ-AGENT (--dialect) ports=5-6"},
		{"--dialect kubernetes --resync-interval=5", "kubernetes IP-MASQ-AGENT (--dialect) random without effect: --resync-interval"},
		{"--pod-cidrs=10.244.0.0/16,fd00::/48", "kubernetes IP-MASQ-AGENT (by default) random pods=[10.244.0.0/16 fd00::/48]"},
		{"-logtostderr -stderrthreshold=INFO --alsologtostderr=false --vmodule=a=2 -log_dir /x --log-file=y --log_file_max_size 5 -log_backtrace_at a.go:1 --add_dir_header --skip_headers --skip_log_headers --one_output --log-flush-frequency=5s --legacy_stderr_threshold_behavior=false --alsologtostderrthreshold 2",
			"kubernetes IP-MASQ-AGENT (by default) random without effect: --add_dir_header --alsologtostderr --alsologtostderrthreshold --legacy_stderr_threshold_behavior --log-file --log-flush-frequency" +
				" --log_backtrace_at --log_dir --log_file_max_size --logtostderr --one_output --skip_headers --skip_log_headers --stderrthreshold --vmodule"},
		// As for the agents, what is no flag ends them: the switch is on.
		{"--random-fully false --foo", "kubernetes IP-MASQ-AGENT (only Kubernetes' ip-masq-agent has --random-fully) random" +
			` (arguments from "false" on are not read: they are no flags (a switch is turned off by --NAME=false))`},
		{"-enable-ipv6 -- -foo", `kubernetes IP-MASQ-AGENT (by default) random ipv6 (arguments from "-foo" on are not read: they are no flags (a switch is turned off by --NAME=false))`},
	} {
		t.Run(tt.args, func(t *testing.T) {
			got, err := settled(t, strings.Fields(tt.args))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestRandomFully is the flag in each form, in each dialect.
func TestRandomFully(t *testing.T) {
	for _, d := range masqagent.Dialects {
		for flag, want := range map[string]bool{"": d == masqagent.Kubernetes, "--random-fully": true, "-random-fully=true": true, "--random-fully=false": false} {
			got, err := settled(t, strings.Fields("--dialect "+string(d)+" "+flag))
			if err != nil || strings.HasSuffix(got, " random") != want {
				t.Errorf("%s %q: %q, %v; want at random: %v", d, flag, got, err, want)
			}
		}
	}
}

// TestFilesTellTheDialect where flags don't.
func TestFilesTellTheDialect(t *testing.T) {
	for _, tt := range []struct{ args, files, want string }{
		{"", "ip-masq-agent", "kubernetes IP-MASQ-AGENT (by default) random"},
		{"", "ip-masq-agent ip-masq-agent-reconciled", "azure IP-MASQ-AGENT (only ip-masq-agent-v2 reads ip-masq-agent-reconciled)"},
		{"--random-fully", "ip-masq-agent ip-masq-agent-reconciled", "kubernetes IP-MASQ-AGENT (only Kubernetes' ip-masq-agent has --random-fully) random"},
		{"--dialect kubernetes", "ip-masq-agent-reconciled", "kubernetes IP-MASQ-AGENT (--dialect) random"},
	} {
		got, err := settled(t, strings.Fields(tt.args), strings.Fields(tt.files)...)
		if err != nil || got != tt.want {
			t.Errorf("%q with %s: %q, %v; want %q", tt.args, tt.files, got, err, tt.want)
		}
	}
}

// TestIPMasqAgentRefuses: one line, exit status 2, before anything is written.
func TestIPMasqAgentRefuses(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"--foo", "unmasq: unknown flag: --foo (see `unmasq ip-masq-agent --help`)"},
		{"-enable-ipv7=true", "unmasq: unknown flag: --enable-ipv7"},
		{"--enable-ipv6=maybe", `unmasq: invalid boolean value "maybe" for -enable-ipv6`},
		{"-v=two", `unmasq: invalid value "two" for flag -v`},
		{"--masq-chain", "unmasq: flag needs an argument: -masq-chain"},
		{"--masq-chain=", `unmasq: --masq-chain "": expected a name, such as IP-MASQ-AGENT`},
		{"--resync-interval=60s", `unmasq: invalid value "60s" for flag -resync-interval`},
		{"--to-ports 0-10", `unmasq: --to-ports: "0-10" is not a range of ports; expected PORT or FIRST-LAST within 1 to 65535, such as 1024-29999`},
		{"--to-ports 44-42", `unmasq: --to-ports: "44-42" is reversed`},
		{"--dialect gke", `unmasq: --dialect "gke": expected kubernetes, azure or cilium`},
		{"--resync-interval 5 --to-ports 5", "unmasq: --resync-interval is Azure's ip-masq-agent-v2's, --to-ports is Kubernetes' ip-masq-agent's; say --dialect azure or --dialect kubernetes"},
		{"--pod-cidrs 10.0.0.1/8", "unmasq: --pod-cidrs 10.0.0.1/8 has host bits set; the network is 10.0.0.0/8"},
		{"--policy -", "unmasq: --policy -: an agent reads its documents again and again: name a file or a directory"},
		{"--metrics-address 9809", `unmasq: --metrics-address "9809": expected ADDRESS:PORT`},
		{"--table-ownership on", `unmasq: --table-ownership "on": expected auto or off`},
		{"--log-format xml", `unmasq: --log-format "xml": expected text or json`},
	} {
		t.Run(tt.args, func(t *testing.T) {
			var out bytes.Buffer
			status := Main("v", append([]string{"ip-masq-agent"}, strings.Fields(tt.args)...), nil, &out, &out)
			if status != statusUsage || !strings.HasPrefix(out.String(), tt.want) || strings.Count(out.String(), "\n") != 1 {
				t.Errorf("exit %d: %s; want %d, %s", status, out.String(), statusUsage, tt.want)
			}
		})
	}
}

// TestIPMasqAgentPrints: its help names each flag, its version is told from others'.
func TestIPMasqAgentPrints(t *testing.T) {
	for _, args := range []string{"--version", "-version", "--version=raw", "--version=true --foo"} {
		var out, errs bytes.Buffer
		status := Main("1.2", Args(append([]string{"/ip-masq-agent"}, strings.Fields(args)...)), nil, &out, &errs)
		if known := args != "--version=true --foo"; known != (status == statusOK && out.String() == "ip-masq-agent by unmasq 1.2\n") {
			t.Errorf("%s: exit %d, %q %s", args, status, out.String(), errs.String())
		}
	}
	for _, args := range []string{"ip-masq-agent --help", "ip-masq-agent -h", "help ip-masq-agent"} {
		var out bytes.Buffer
		if status := Main("1.2", strings.Fields(args), nil, &out, &out); status != statusOK {
			t.Errorf("%s: exit %d", args, status)
		}
		for _, want := range []string{"  --to-ports PORTS", "  --random-fully ", "(default IP-MASQ-AGENT)", "Accepted, without effect:\n  --add-dir-header", "--vmodule"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s doesn't say %s:\n%s", args, want, out.String())
			}
		}
	}
}
