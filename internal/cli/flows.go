package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	ct "github.com/unmasq/unmasq/internal/conntrack"
	"github.com/unmasq/unmasq/internal/explain"
	"github.com/unmasq/unmasq/internal/flows"
	"github.com/unmasq/unmasq/internal/kernel/capture"
	"github.com/unmasq/unmasq/internal/kernel/conntrack"
	"github.com/unmasq/unmasq/internal/snapshot"
)

const flowsHelp = `Lists the connections that this host tracks: who sent the first packet, as whom the
peer sees it, where it was sent and where it ends up, and who did that.

ADDRESS is an address or a network (or a name of --names) at any end of the
connection; of several, one is enough.

The kernel doesn't record which rule decided. BY is what the rules as they are now
make of such a connection; where they come to something else, it says so: the
connection is older than the rules, or what decided isn't one of them.

--watch lists what is there, and then each connection as it begins or ends, until
it is interrupted. Exit status 1: nothing could be read; 2: a flag or a file is wrong.`

type flowsOptions struct {
	filterFlags
	snapshots []string
	names     string
	output    string
	watch     bool
	summary   bool
	noRules   bool
	limit     int
	attached  bool
}

func newFlows() *cobra.Command {
	opts := &flowsOptions{}
	cmd := &cobra.Command{
		Use:   "flows [ADDRESS…]",
		Short: "List connections: who is seen as whom, and which rule does it",
		Long:  flowsHelp,
		Example: `  sudo unmasq flows 10.244.1.7
  sudo unmasq flows --translated --destination 192.168.200.0/24 --port 443
  sudo unmasq flows --watch --rule default/internet
  sudo unmasq flows --summary --limit 20
  unmasq flows --snapshot node-a.tar.gz -o json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return opts.run(cmd.Context(), args, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	opts.filterFlags.add(f)
	f.BoolVarP(&opts.watch, "watch", "w", false, "after those that are there, each connection as it begins or ends")
	f.BoolVar(&opts.summary, "summary", false, "count connections by who is seen as whom and where they go; addresses without a name by /24 or /64")
	f.IntVar(&opts.limit, "limit", 0, "stop after `N` connections, or show N lines of --summary; 0 is all")
	f.BoolVar(&opts.noRules, "no-rules", false, "list what the connection table has, and don't work out which rule did it")
	f.StringArrayVar(&opts.snapshots, "snapshot", nil, "a snapshot with connections, or dumps, `PATH`, or - for standard input; repeatable: of one node")
	f.StringVar(&opts.names, "names", "", "`FILE` of names, as /etc/hosts has them: for ADDRESS, and beside addresses")
	f.StringVarP(&opts.output, "output", "o", "", "`FORMAT`: json, wide, or text (default)")
	f.BoolVar(&opts.attached, "attached", false, "names of --names end at an empty line; end with standard input")
	_ = f.MarkHidden("attached") // for kubectl unmasq: what runs in a pod isn't ended with kubectl
	return cmd
}

func (o *flowsOptions) check() error {
	switch {
	case o.output != "" && o.output != "text" && o.output != "json" && o.output != "wide":
		return fmt.Errorf("-o %q; expected json, wide or text", o.output)
	case o.watch && o.summary:
		return errors.New("--summary counts what is there; expected it or --watch, not both")
	case o.watch && len(o.snapshots) > 0:
		return errors.New("nothing begins or ends in a snapshot; expected --snapshot or --watch, not both")
	case o.limit < 0:
		return fmt.Errorf("--limit %d; expected a number from 0", o.limit)
	case o.noRules && (len(o.kinds) > 0 || o.rule != "" || o.owner != ""):
		return errors.New("--kind, --rule and --owner ask the rules; expected them or --no-rules, not both")
	}
	return nil
}

func (o *flowsOptions) run(ctx context.Context, args []string, stdin io.Reader, out, log io.Writer) error {
	if err := o.check(); err != nil {
		return inputError{err}
	}
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	names, err := o.readNames(&stdin)
	if err != nil {
		return inputError{err}
	}
	filter, err := o.filter(args, names)
	if err != nil {
		return inputError{err}
	}
	if o.attached {
		var end func()
		ctx, end = context.WithCancel(ctx)
		go func() { defer end(); _, _ = io.Copy(io.Discard, stdin) }()
	}
	p := &flowPipe{filter: filter, names: names, out: o.printer(out), log: log, limit: o.limit}
	if o.summary {
		p.limit = 0
	}
	switch {
	case len(o.snapshots) > 0:
		err = o.ofSnapshot(stdin, p)
	case o.watch:
		err = o.watchLive(ctx, p)
	default:
		err = o.live(ctx, p)
	}
	if errors.Is(err, errEnough) {
		err = nil
	}
	if err != nil {
		return errors.Join(err, p.out.flush())
	}
	return p.out.end(p.notes)
}

// readNames reads --names; with --attached, standard input goes on behind an empty
// line.
func (o *flowsOptions) readNames(stdin *io.Reader) (explain.Names, error) {
	if !o.attached {
		of := explainOptions{names: o.names}
		return of.readNames()
	}
	text, rest, err := untilBlank(*stdin)
	*stdin = rest
	if err != nil {
		return explain.Names{}, err
	}
	return explain.ReadNames("standard input", text)
}

// ofSnapshot lists the connections of a snapshot.
func (o *flowsOptions) ofSnapshot(stdin io.Reader, p *flowPipe) error {
	host, err := snapshot.Read(o.snapshots, stdin)
	if err != nil {
		return inputError{err}
	}
	if !host.ConnectionsGiven {
		return inputError{fmt.Errorf("%s has no connections: `unmasq snapshot --connections` takes them, or name what `conntrack -L` printed with another --snapshot", strings.Join(o.snapshots, ", "))}
	}
	p.judge = o.judgeOf(host, p)
	for i := range host.Connections {
		if err := p.add(&host.Connections[i], "", time.Time{}); err != nil {
			return err
		}
	}
	return p.flush()
}

func (o *flowsOptions) judgeOf(host *snapshot.Host, p *flowPipe) *flows.Judge {
	if o.noRules {
		return flows.NoRules()
	}
	j := flows.NewJudge(host)
	if why := j.Missing(); why != "" {
		p.note("which rule did it can't be told of all: " + why)
	}
	return j
}

// live lists the connections of this host.
func (o *flowsOptions) live(ctx context.Context, p *flowPipe) error {
	r, err := conntrack.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	recorded := conntrack.Recorded()
	if p.judge, err = o.judgeNow(ctx, p); err != nil {
		return err
	}
	if err := o.dump(ctx, r, p, "", recorded.Count); err != nil {
		return err
	}
	p.recording(recorded, o.noRules)
	return nil
}

// judgeNow reads the rules of this host.
func (o *flowsOptions) judgeNow(ctx context.Context, p *flowPipe) (*flows.Judge, error) {
	if o.noRules {
		return flows.NoRules(), nil
	}
	host, err := capture.Live(ctx, capture.Options{Progress: progress(p.log)})
	if err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		p.note("which rule did it can't be told: " + err.Error())
		return flows.NoRules(), nil
	}
	return o.judgeOf(host, p), nil
}

// dump lists what the table has now.
func (o *flowsOptions) dump(ctx context.Context, r *conntrack.Reader, p *flowPipe, event string, expected int) error {
	var failed error
	read, tell := 0, reading(p.log, expected)
	stats, err := r.Dump(ctx, p.filter.Family, func(e *ct.Entry) bool {
		if read++; read%1000 == 0 {
			tell(read)
		}
		failed = p.add(e, event, time.Now())
		return failed == nil
	})
	if failed == nil {
		failed = p.flush()
	}
	if stats.Strange > 0 {
		p.note(fmt.Sprintf("%d entries weren't understood, and aren't listed", stats.Strange))
	}
	if failed != nil {
		return failed
	}
	return err
}

// reading says how far a reader is, on a terminal, once it takes long.
func reading(log io.Writer, expected int) func(read int) {
	if !isTerminal(log) {
		return func(int) {}
	}
	last := time.Now()
	return func(read int) {
		if time.Since(last) > time.Second {
			last = time.Now()
			fmt.Fprintf(log, "read %d of about %d connections\n", read, expected)
		}
	}
}
