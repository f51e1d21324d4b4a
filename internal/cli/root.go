// Package cli is the command line: one file a command, each with its options
// and a run function that prints what internal packages return. Text and JSON
// come from one value. The exit status is decided in Main.
package cli

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Exit statuses.
const (
	statusOK    = 0
	statusWrong = 1 // found something wrong, or could not do it
	statusUsage = 2 // bad usage or input
)

// inputError is an error in what the user gave: flags, files, documents.
type inputError struct{ error }

func (e inputError) Unwrap() error   { return e.error }
func (e inputError) ExitStatus() int { return statusUsage }

const rootHelp = `unmasq decides, connection by connection, which source address leaves this
host, and makes that decision hold whatever else writes NAT rules here.

  unmasq validate -f policy.yaml       check a policy
  unmasq agent --config policy.yaml    enforce it, and keep enforcing it
  unmasq agent --kube                  the same as a cluster's policies say
  unmasq status                        what is in force, with hits
  unmasq clear                         remove all of it

It also says, of any packet, what the peer will see and which rule decides:

  unmasq explain 10.244.1.7 192.168.200.253:443
  unmasq matrix                        who is seen as whom, of all kinds
  unmasq doctor                        conflicts and risks, and what mends them
  unmasq flows                         connections, and which rule did what to them
  unmasq snapshot -o node.tar.gz       to explain it elsewhere

And it takes over from others:

  unmasq ip-masq-agent                 with ip-masq-agent's flags and files
  unmasq import --from-node            what others do here, as a policy`

// Main runs one command line and returns the exit status.
func Main(version string, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot(version)
	if len(args) > 0 && args[0] == kubectlWord {
		root, args = newKubectl(version), args[1:]
	}
	return runCommand(root, args, stdin, stdout, stderr)
}

func runCommand(root *cobra.Command, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.Execute()
	if err == nil {
		return statusOK
	}
	// A command that ran elsewhere has said why by itself.
	var elsewhere interface{ Said() bool }
	if !errors.As(err, &elsewhere) || !elsewhere.Said() {
		fmt.Fprintf(stderr, "unmasq: %v\n", err)
	}
	var coded interface{ ExitStatus() int }
	if errors.As(err, &coded) {
		return coded.ExitStatus()
	}
	return statusWrong
}

func newRoot(version string) *cobra.Command {
	root := &cobra.Command{
		Use:           "unmasq",
		Short:         "Control and explain source NAT",
		Long:          rootHelp,
		Version:       version,
		Args:          noArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },

		SuggestionsMinimumDistance: 2,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		// Of `unmasq vaildate -f FILE` the word is wrong, not the flag.
		if words := cmd.Flags().Args(); cmd.HasSubCommands() && len(words) > 0 {
			return noArgs(cmd, words)
		}
		return inputError{fmt.Errorf("%w (see `%s --help`)", expectedValue(err), cmd.CommandPath())}
	})
	root.AddCommand(newAgent(), newIPMasqAgent(), newApply(), newClear(), newStatus(), newRender(), newValidate(), newExplain(), newDoctor(), newMatrix(), newSnapshot(), newTakeover(), newFlows(), newImport(), newExport(), newLab(), newProbe())
	return root
}

// completeFlag has the shell offer a flag's values.
func completeFlag(cmd *cobra.Command, flag string, values ...string) {
	err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	if err != nil {
		panic(err) // no such flag, or twice
	}
}

// expectedValue of a flag that was given one of a wrong kind, in place of what Go's parser
// of numbers says.
func expectedValue(err error) error {
	var invalid *pflag.InvalidValueError
	if !errors.As(err, &invalid) {
		return err
	}
	expected := map[string]string{
		"uint16": "a number from 0 to 65535", "int": "a number", "bool": "true or false", "duration": "a duration such as 30s or 2m",
	}[invalid.GetFlag().Value.Type()]
	if expected == "" {
		return err
	}
	return fmt.Errorf("--%s %q; expected %s", invalid.GetFlag().Name, invalid.GetValue(), expected)
}

// noArgs refuses words that are no flags; among them, commands that don't exist.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		return inputError{fmt.Errorf("unknown command %q%s", args[0], suggestion(cmd, args[0]))}
	}
	hint := fmt.Sprintf("see `%s --help`", cmd.CommandPath())
	if _, err := os.Stat(args[0]); err == nil && cmd.Flags().ShorthandLookup("f") != nil {
		hint = "did you mean -f " + args[0] + "?"
	}
	return inputError{fmt.Errorf("unexpected argument %q (%s)", args[0], hint)}
}

func suggestion(cmd *cobra.Command, word string) string {
	if near := cmd.SuggestionsFor(word); len(near) > 0 {
		return fmt.Sprintf("; did you mean %q?", near[0])
	}
	return fmt.Sprintf(" (see `%s --help`)", cmd.CommandPath())
}
