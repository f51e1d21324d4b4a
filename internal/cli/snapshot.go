package cli

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/unmasq/unmasq/internal/kernel/capture"
	"github.com/unmasq/unmasq/internal/snapshot"
	"github.com/unmasq/unmasq/internal/snapshot/redact"
)

const snapshotHelp = `Writes down all that decides where this host's packets go and as whom: iptables
rules of both variants and families, nftables, ipsets, links, addresses, routes,
routing rules, neighbours, bridge tables, IPVS, IPsec policies, programs at
interfaces, sysctls; tracked connections only where asked for. It changes nothing,
and takes no keys. Each file is what a well-known program printed; read them, and
send them.

PATH is a directory, an archive where it ends in .tar.gz or .tgz, or - for an
archive on standard output. Rules and sets need root (CAP_NET_ADMIN). What could
not be read is listed with the reason. Exit status 1: nothing could be read, or
written.`

type snapshotOptions struct {
	path        string
	connections bool
	redact      bool
}

func newSnapshot() *cobra.Command {
	opts := &snapshotOptions{}
	cmd := &cobra.Command{
		Use:   "snapshot -o PATH",
		Short: "Write down this host's rules, sets, routes and settings",
		Long:  snapshotHelp,
		Example: `  sudo unmasq snapshot -o node-a.tar.gz --redact
  sudo unmasq snapshot -o - | ssh desk 'cat > node-a.tar.gz'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return opts.run(cmd.Context(), cmd.Root().Version, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVarP(&opts.path, "output", "o", "", "`PATH` to write: a directory, an archive (.tar.gz, .tgz), or -")
	f.BoolVar(&opts.connections, "connections", false, "take the tracked connections too (conntrack -L): many, and who talks to whom")
	f.BoolVar(&opts.redact, "redact", false, "replace addresses and names by others, the same by the same, so that answers stay")
	return cmd
}

func (o *snapshotOptions) run(ctx context.Context, version string, out, log io.Writer) error {
	switch {
	case o.path == "":
		return inputError{errors.New("no output given: name a directory or an archive with -o, such as -o node-a.tar.gz")}
	case o.path != "-" && !snapshot.IsArchive(o.path):
		if err := snapshot.CheckDir(o.path); err != nil {
			return inputError{err}
		}
	case o.path == "-" && isTerminal(out):
		return inputError{errors.New("-o -: an archive isn't written to a terminal")}
	}
	if ctx == nil {
		ctx = context.Background()
	}
	files, err := capture.Take(ctx, capture.Options{Connections: o.connections, Version: version, Progress: progress(log)})
	if err != nil {
		return err
	}
	if o.redact {
		var key redact.Key
		if _, err := rand.Read(key[:]); err != nil {
			return err
		}
		if files, err = redact.Files(files, key); err != nil {
			return err
		}
	}
	switch {
	case o.path == "-":
		if err := snapshot.Archive(out, "snapshot", files); err != nil {
			return err
		}
		return o.report(log, files)
	case snapshot.IsArchive(o.path):
		err = snapshot.WriteTarGz(o.path, files)
	default:
		err = snapshot.WriteDir(o.path, files)
	}
	if err != nil {
		return err
	}
	return o.report(out, files)
}

// progress says what is being read, on a terminal, once it takes long.
func progress(log io.Writer) func(string) {
	if !isTerminal(log) {
		return nil
	}
	const patience = time.Second
	start := time.Now()
	return func(file string) {
		if time.Since(start) > patience {
			fmt.Fprintf(log, "reading %s\n", file)
		}
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// report lists the files and what is missing.
func (o *snapshotOptions) report(out io.Writer, files map[string][]byte) error {
	var meta snapshot.Meta
	if err := json.Unmarshal(files[snapshot.FileMeta], &meta); err != nil {
		return err
	}
	t := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(t, "%s\t%s\n", name, amount(files[name]))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	denied := false
	if len(meta.Missing) > 0 {
		fmt.Fprintln(out, "\nmissing")
	}
	for _, name := range slices.Sorted(maps.Keys(meta.Missing)) {
		why := meta.Missing[name]
		denied = denied || strings.Contains(why, "CAP_NET_ADMIN")
		if _, partly := files[name]; partly {
			why = "perhaps not whole: " + why
		}
		fmt.Fprintf(t, "%s\t%s\n", name, why)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if denied {
		fmt.Fprintln(out, "\nRules and sets can't be read without CAP_NET_ADMIN: run it as root (sudo) for them.")
	}
	if o.path != "-" {
		_, err := fmt.Fprintf(out, "\nnext: unmasq explain --snapshot %s SRC DST\n", o.path)
		return err
	}
	return nil
}

// amount is how much a file holds.
func amount(content []byte) string {
	lines := bytes.Count(content, []byte("\n"))
	if lines == 1 {
		return fmt.Sprintf("1 line, %d bytes", len(content))
	}
	return fmt.Sprintf("%d lines, %d bytes", lines, len(content))
}
