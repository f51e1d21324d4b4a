package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/unmasq/unmasq/internal/kernel/capture"
	"github.com/unmasq/unmasq/internal/kernel/programs"
	"github.com/unmasq/unmasq/internal/kube"
	"github.com/unmasq/unmasq/internal/owner"
	"github.com/unmasq/unmasq/internal/plan"
	"github.com/unmasq/unmasq/internal/snapshot"
	"github.com/unmasq/unmasq/internal/takeover"
)

// defaultTakeover is kept over reboots: doctor tells what was written again.
const defaultTakeover = "/var/lib/unmasq/takeover.json"

const takeoverHelp = `A policy of unmasq outranks the rules of other components as they stand: nothing
needs to be deleted. Where you want them gone all the same, this deletes exactly the
rules by which a component hides this host's networks, in both variants of iptables,
both families and nftables, and remembers them, so that --handback puts them back where
they stood. Ports that the component publishes, hairpin traffic, marks and filters stay.

Without --owner it lists whose rules there are, and what was taken over before.
It asks iptables-restore and nft, and needs root.`

type takeoverOptions struct {
	owners                  []string
	dryRun, handback, force bool
	record, output          string
}

func newTakeover() *cobra.Command {
	opts := &takeoverOptions{}
	cmd := &cobra.Command{
		Use:   "takeover",
		Short: "Delete the rules by which another component hides pods, and put them back",
		Long:  takeoverHelp,
		Example: `  sudo unmasq takeover
  sudo unmasq takeover --owner flannel --dry-run
  sudo unmasq takeover --owner flannel
  sudo unmasq takeover --owner flannel --handback`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return opts.run(cmd.Context(), cmd.OutOrStdout()) },
	}
	f := cmd.Flags()
	f.StringArrayVar(&opts.owners, "owner", nil, "whose rules, `NAME`: "+strings.Join(takeover.Owners(), ", ")+"; repeatable")
	f.BoolVar(&opts.dryRun, "dry-run", false, "print what would be run, and do nothing")
	f.BoolVar(&opts.handback, "handback", false, "put back what was taken over")
	f.BoolVar(&opts.force, "force", false, "take over although no policy of unmasq is in force")
	f.StringVar(&opts.record, "record", defaultTakeover, "`FILE` that remembers what was taken over")
	f.StringVarP(&opts.output, "output", "o", "", "of the list, `FORMAT`: json, or text (default)")
	return cmd
}

func (o *takeoverOptions) run(ctx context.Context, out io.Writer) error {
	for _, name := range o.owners {
		if err := takeover.CheckOwner(name); err != nil {
			return inputError{fmt.Errorf("--owner: %w", err)}
		}
	}
	switch {
	case o.record == "":
		return inputError{errors.New("--record: expected the name of a file")}
	case o.output != "" && o.output != "text" && o.output != "json":
		return inputError{fmt.Errorf("-o %q: expected json or text", o.output)}
	case len(o.owners) == 0 && (o.dryRun || o.handback || o.force):
		return inputError{errors.New("--dry-run, --handback and --force need --owner NAME (see `unmasq takeover` for whose rules there are)")}
	case len(o.owners) == 0:
		return o.list(ctx, out)
	}
	return o.each(ctx, out)
}

// each owner once; one that can't be helped doesn't keep the next from it.
func (o *takeoverOptions) each(ctx context.Context, out io.Writer) error {
	unlock, err := o.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	var failed error
	for i, name := range o.owners {
		if slices.Contains(o.owners[:i], name) {
			continue
		}
		step := o.take
		if o.handback {
			step = o.giveBack
		}
		failed = errors.Join(failed, step(ctx, name, out))
	}
	return failed
}

// lock the record against another that takes or hands back at this moment. Where there
// is none yet, only one that takes makes its folder.
func (o *takeoverOptions) lock(ctx context.Context) (unlock func(), err error) {
	if o.dryRun {
		return func() {}, nil
	}
	folder := filepath.Dir(o.record)
	if !o.handback {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return nil, fmt.Errorf("nothing was taken over, as it can't be remembered: %w", err)
		}
	}
	unlock, err = programs.Lock(ctx, folder)
	if errors.Is(err, fs.ErrNotExist) {
		return func() {}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("wait for another unmasq that takes over or hands back: %w", err)
	}
	return unlock, nil
}

// wholeHost is this host with all its rules; half of them is an error.
func wholeHost(ctx context.Context) (*snapshot.Host, error) {
	host, err := capture.Live(ctx, capture.Options{})
	if err != nil {
		return nil, err
	}
	if file, why := host.Meta.UnreadRules(); file != "" {
		return nil, fmt.Errorf("not all rules could be read: %s: %s", file, why)
	}
	return host, unlisted(host)
}

// unlisted are tables of iptables that nft lists, where no iptables program was there to
// read them.
func unlisted(host *snapshot.Host) error {
	for _, t := range host.Rules.Tables {
		if t.Native == nil || !t.Native.IPTables || t.Name != "nat" {
			continue
		}
		file, program := snapshot.FileIPTables, "iptables-nft-save"
		if t.Native.Family == "ip6" {
			file, program = snapshot.FileIP6Tables, "ip6tables-nft-save"
		}
		if host.Meta.Missing[file] != "" {
			return fmt.Errorf("not all rules could be read: nft has table %s nat, which is iptables', and %s isn't installed", t.Native.Family, program)
		}
	}
	return nil
}

// halfRead is an error where rules of a host couldn't be read, but for want of nft alone:
// that there are other tables than iptables' is then possible, and said elsewhere.
func halfRead(host *snapshot.Host) error {
	file, why := host.Meta.UnreadRules()
	if file == "" || strings.HasPrefix(why, capture.NoNFT) {
		return nil
	}
	return fmt.Errorf("not all rules could be read: %s: %s", file, why)
}

// attempts to take rules that their component may be writing at that moment.
const attempts = 3

// take the rules of an owner. The record is written first: what a crash leaves half
// done is put back whole.
func (o *takeoverOptions) take(ctx context.Context, name string, out io.Writer) error {
	record, err := readRecord(o.record)
	if err != nil {
		return err
	}
	var failed error
	var before owner.Owner
	for attempt := range attempts + 1 {
		host, err := wholeHost(ctx)
		if err != nil {
			return err
		}
		parts := takeover.Find(host, name)
		switch {
		case len(parts) == 0 && attempt == 0:
			fmt.Fprintf(out, "no rule of %s hides a network here\n", name)
			return nil
		case len(parts) == 0:
			o.tellTaken(out, name, record.Of(name), before)
			return nil
		case attempt == attempts && failed != nil:
			failed = errors.Join(failed, writeRecord(o.record, record.Less(parts))) // they weren't taken
			return fmt.Errorf("%s's rules stay, outranked; they couldn't be deleted: %w", name, failed)
		case attempt == attempts:
			return fmt.Errorf("%s writes its rules again while they are taken over: change its setting, or stop it, first", name)
		case o.dryRun:
			return printScripts(out, takeover.Remove(parts))
		case !o.force && !inForce(host):
			return fmt.Errorf("no policy of unmasq is in force here, so that %s's networks would leave with their own addresses: start `unmasq agent` first, or add --force", name)
		}
		if attempt == 0 {
			before = takeover.Advice(host, name)
		}
		record = record.With(parts)
		if err := writeRecord(o.record, record); err != nil {
			return fmt.Errorf("nothing was taken over, as it can't be remembered: %w", err)
		}
		failed = runScripts(ctx, takeover.Remove(parts))
	}
	return nil
}

// tellTaken says what was taken, and what its component will do.
func (o *takeoverOptions) tellTaken(out io.Writer, name string, parts []takeover.Part, advice owner.Owner) {
	rules := 0
	for i := range parts {
		rules += parts[i].Count()
	}
	fmt.Fprintf(out, "%s of %s taken over; to put back: unmasq takeover --owner %s --handback%s\n", count(rules, "rule"), name, name, recordFlag(o.record))
	if len(advice.Change) > 0 {
		fmt.Fprintf(out, "%s may write them again; what changes that:\n", name)
	}
	for _, c := range advice.Change {
		fmt.Fprintf(out, "  %s\n", c)
	}
}

// recordFlag is what a command line needs to find a record that isn't in its place.
func recordFlag(file string) string {
	if file == defaultTakeover {
		return ""
	}
	return " --record '" + strings.ReplaceAll(file, "'", `'\''`) + "'"
}

// giveBack what was taken from an owner.
func (o *takeoverOptions) giveBack(ctx context.Context, name string, out io.Writer) error {
	record, err := readRecord(o.record)
	if err != nil {
		return err
	}
	parts := record.Of(name)
	if len(parts) == 0 {
		fmt.Fprintf(out, "nothing was taken over from %s (%s)\n", name, o.record)
		return nil
	}
	host, err := wholeHost(ctx)
	if err != nil {
		return err
	}
	scripts, failed := takeover.Restore(host, parts)
	if o.dryRun {
		if failed == nil && len(scripts) == 0 {
			fmt.Fprintf(out, "nothing to run: the rules of %s stand again already\n", name)
		}
		return errors.Join(failed, printScripts(out, scripts))
	}
	if failed = errors.Join(failed, runScripts(ctx, scripts)); failed != nil {
		return fmt.Errorf("not all rules of %s could be put back; they stay in %s, and --handback once more does the rest: %w", name, o.record, failed)
	}
	if err := writeRecord(o.record, record.Without(name)); err != nil {
		return fmt.Errorf("the rules of %s stand again, but %s still says that they were taken over: %w", name, o.record, err)
	}
	outranked := ""
	if inForce(host) {
		outranked = "; unmasq's policy outranks them until `unmasq clear`"
	}
	fmt.Fprintf(out, "the rules of %s stand again%s\n", name, outranked)
	return nil
}

// inForce: a table of unmasq is there.
func inForce(host *snapshot.Host) bool {
	for _, t := range host.Rules.Tables {
		if t.Native != nil && t.Native.Family == "inet" && t.Name == plan.TableName {
			return true
		}
	}
	return false
}

func printScripts(out io.Writer, scripts []takeover.Script) error {
	for _, s := range scripts {
		if _, err := io.WriteString(out, s.String()); err != nil {
			return err
		}
	}
	return nil
}

// runScripts runs all of them, whichever fails.
func runScripts(ctx context.Context, scripts []takeover.Script) error {
	var failed error
	for _, s := range scripts {
		failed = errors.Join(failed, programs.Run(ctx, s.Program, s.Args, s.Input))
	}
	return failed
}

func readRecord(file string) (takeover.Record, error) {
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return takeover.Record{}, err
	}
	record, err := takeover.Read(text)
	if err != nil {
		return takeover.Record{}, fmt.Errorf("%s isn't a record of what was taken over: %w; it is left as it is: move it away, or name another file", file, err)
	}
	return record, nil
}

func writeRecord(file string, record takeover.Record) error {
	text, err := record.Write()
	if err == nil {
		err = kube.Replace(file, text)
	}
	return err
}

// holding is a line of the list.
type holding struct {
	Owner string `json:"owner"`
	// Standing are rules that hide networks now, Taken those that were taken over,
	// Again those of them that stand again.
	Standing int `json:"standing"`
	Taken    int `json:"taken"`
	Again    int `json:"again"`
}

// list whose rules there are.
func (o *takeoverOptions) list(ctx context.Context, out io.Writer) error {
	record, err := readRecord(o.record)
	if err != nil {
		return err
	}
	host, err := wholeHost(ctx)
	if err != nil {
		return err
	}
	var all []holding
	for _, name := range takeover.Owners() {
		h := holding{Owner: name}
		for _, p := range takeover.Find(host, name) {
			h.Standing += p.Count()
		}
		for _, p := range record.Of(name) {
			h.Taken += p.Count()
			h.Again += len(p.Again(host))
		}
		if h.Standing+h.Taken > 0 {
			all = append(all, h)
		}
	}
	if o.output == "json" {
		return writeJSON(out, struct {
			Version int       `json:"version"`
			Owners  []holding `json:"owners"`
		}{1, append([]holding{}, all...)})
	}
	if len(all) == 0 {
		fmt.Fprintln(out, "no component's rules hide a network here, and none were taken over")
		return nil
	}
	t := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "OWNER\tRULES THAT HIDE NETWORKS\tTAKEN OVER\tOF THEM WRITTEN AGAIN")
	for _, h := range all {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\n", h.Owner, h.Standing, h.Taken, h.Again)
	}
	return t.Flush()
}
