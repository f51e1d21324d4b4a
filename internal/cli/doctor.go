package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	pages "github.com/unmasq/unmasq/docs/doctor"
	"github.com/unmasq/unmasq/internal/doctor"
	"github.com/unmasq/unmasq/internal/kernel/capture"
	"github.com/unmasq/unmasq/internal/kernel/nft"
	"github.com/unmasq/unmasq/internal/render"
)

const doctorHelp = `Looks this host over (as root), or snapshots and dumps of one node or several, for what
hides, loses or misleads packets: each finding has its evidence, what follows from
it, and the commands that mend it. It changes nothing.

What wasn't given is not guessed: checks that could not be made are named. Exit status
1: there are errors, or not all of this host could be looked at; 2: a flag or a file
is wrong.`

type doctorOptions struct {
	snapshots []string
	explain   string
	output    string
	saved     []string
	taken     string
	documents documents
	// connections of this host are taken too.
	connections bool
}

// savedRules are the files that distributions load nftables' rules from.
var savedRules = []string{"/etc/nftables.conf", "/etc/sysconfig/nftables.conf"}

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
			return opts.run(cmd)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&opts.snapshots, "snapshot", nil, "a snapshot or dump, `PATH`, or - for standard input; repeatable: of one node, or NAME=PATH of several")
	f.StringVar(&opts.explain, "explain", "", "tell about a finding's `CODE`, and do nothing else")
	f.BoolVar(&opts.connections, "connections", false, "take this host's tracked connections too, for kept-unanswered, ports-taken, replies-lost and single-entry: they may be many")
	f.StringArrayVar(&opts.saved, "saved-rules", savedRules, "`FILE` that this host loads rules from at boot, looked at with what it includes; repeatable")
	f.StringVar(&opts.taken, "takeover-record", defaultTakeover, "`FILE` that remembers what was taken over on this host")
	opts.documents.flags(cmd, "filename", "config")
	f.StringVarP(&opts.output, "output", "o", "", "`FORMAT`: json, or text (default)")
	return cmd
}

// foundErrors: the report was printed.
type foundErrors struct{ error }

func (foundErrors) Said() bool { return true }

func (o *doctorOptions) run(cmd *cobra.Command) error {
	if o.output != "" && o.output != "text" && o.output != "json" {
		return inputError{fmt.Errorf("-o %q: expected json or text", o.output)}
	}
	if o.explain != "" {
		return explainCode(o.explain, cmd.OutOrStdout())
	}
	if len(o.snapshots) > 0 && len(o.documents.files) > 0 {
		return inputError{errors.New("-f is compared with what is in force on this host; expected no --snapshot")}
	}
	want, err := o.want(cmd)
	if err != nil {
		return err
	}
	nodes, err := o.nodes(cmd)
	if err != nil {
		return err
	}
	if len(o.snapshots) == 0 {
		nodes[0].Saved, nodes[0].Want = readSaved(o.saved), want
		if nodes[0].Taken, err = o.takenOver(); err != nil {
			return err
		}
	}
	report := doctor.Examine(nodes...)
	err = printReport(&report, o.output, cmd.OutOrStdout())
	if err == nil && len(o.snapshots) == 0 && len(report.NotLookedAt) > 0 {
		err = partlyUnknown{errors.New("not everything could be looked at")} // of a host that is here that is something wrong
	}
	return err
}

// nodes of the snapshots, or this host.
func (o *doctorOptions) nodes(cmd *cobra.Command) ([]doctor.Node, error) {
	if len(o.snapshots) == 0 {
		ctx := cmd.Context()
		if ctx == nil {
			ctx = context.Background()
		}
		host, err := capture.Live(ctx, capture.Options{Connections: o.connections})
		return []doctor.Node{{Host: host}}, err
	}
	read, err := (&explainOptions{snapshots: o.snapshots}).nodes(cmd.Context(), cmd.InOrStdin())
	nodes := make([]doctor.Node, len(read))
	for i, n := range read {
		nodes[i] = doctor.Node{Name: n.Name, Host: n.Host}
	}
	return nodes, err
}

// want is the table that the documents compile to, nil where none are named.
func (o *doctorOptions) want(cmd *cobra.Command) (*doctor.Wanted, error) {
	if len(o.documents.files) == 0 {
		return nil, nil
	}
	want, err := o.documents.want(cmd, nft.Probe)
	if err != nil {
		return nil, err
	}
	var text strings.Builder
	if err := render.Table(&text, want.Table); err != nil {
		return nil, err
	}
	return &doctor.Wanted{Text: text.String(), Files: o.documents.files}, nil
}

// takenOver is what was taken over on this host, nil where nothing was.
func (o *doctorOptions) takenOver() (*doctor.Taken, error) {
	record, err := readRecord(o.taken)
	if err != nil || len(record.Parts) == 0 {
		return nil, err
	}
	return &doctor.Taken{Record: record, Flag: recordFlag(o.taken)}, nil
}

// include of an nft file, which may name several by a pattern.
var include = regexp.MustCompile(`(?m)^[ \t]*include[ \t]+"([^"]+)"`)

// readSaved reads files and what they include; those that aren't there, or may not be
// read, are left out.
func readSaved(files []string) map[string]string {
	const most = 100
	read := map[string]string{}
	for len(files) > 0 && len(read) < most {
		name := files[0]
		files = files[1:]
		text, err := os.ReadFile(name)
		if _, twice := read[name]; twice || err != nil {
			continue
		}
		read[name] = string(text)
		for _, m := range include.FindAllStringSubmatch(read[name], -1) {
			pattern := m[1]
			if !filepath.IsAbs(pattern) {
				pattern = filepath.Join(filepath.Dir(name), pattern)
			}
			included, _ := filepath.Glob(pattern)
			files = append(files, included...)
		}
	}
	return read
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
