package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	pages "github.com/unmasq/unmasq/docs/doctor"
	"github.com/unmasq/unmasq/internal/doctor"
)

const doctorHelp = `Looks this host over (as root), or snapshots and dumps of one node or several, for what
hides, loses or misleads packets: each finding has its evidence, what follows from
it, and the commands that mend it. It changes nothing.

What wasn't given is not guessed: checks that could not be made are named. Exit status
1: there are errors; 2: a flag or a file is wrong.`

type doctorOptions struct {
	snapshots []string
	explain   string
	output    string
}

func newDoctor() *cobra.Command {
	opts := &doctorOptions{}
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find conflicts and risks, with the commands that mend them",
		Long:  doctorHelp,
		Example: `  sudo unmasq doctor
  unmasq doctor --snapshot node-a.tar.gz -o json
  unmasq doctor --explain forwarding-off`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return opts.run(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&opts.snapshots, "snapshot", nil, "a snapshot or dump, `PATH`, or - for standard input; repeatable: of one node, or NAME=PATH of several")
	f.StringVar(&opts.explain, "explain", "", "tell about a finding's `CODE`, and do nothing else")
	f.StringVarP(&opts.output, "output", "o", "", "`FORMAT`: json, or text (default)")
	return cmd
}

// foundErrors: the report was printed.
type foundErrors struct{ error }

func (foundErrors) Said() bool { return true }

func (o *doctorOptions) run(ctx context.Context, stdin io.Reader, out io.Writer) error {
	if o.output != "" && o.output != "text" && o.output != "json" {
		return inputError{fmt.Errorf("-o %q: expected json or text", o.output)}
	}
	if o.explain != "" {
		return explainCode(o.explain, out)
	}
	nodes, err := (&explainOptions{snapshots: o.snapshots}).nodes(ctx, stdin)
	if err != nil {
		return err
	}
	examined := make([]doctor.Node, len(nodes))
	for i, n := range nodes {
		examined[i] = doctor.Node{Name: n.Name, Host: n.Host}
	}
	report := doctor.Examine(examined...)
	return printReport(&report, o.output, out)
}

func printReport(r *doctor.Report, output string, out io.Writer) error {
	var err error
	if output == "json" {
		err = writeJSON(out, r)
	} else {
		err = r.Text(out)
	}
	if err == nil && r.Errors() {
		return foundErrors{errors.New("there are errors")}
	}
	return err
}

func explainCode(code string, out io.Writer) error {
	page, known := pages.Of(code)
	if !known {
		return inputError{fmt.Errorf("--explain %q: there is no such code; expected one of %s", code, strings.Join(doctor.Codes(), ", "))}
	}
	_, err := io.WriteString(out, page)
	return err
}
