package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/lab"
)

// labName wants one scenario's name, and says which there are.
func labName(cmd *cobra.Command, args []string) error {
	if len(args) == 1 {
		return nil
	}
	var names []string
	for _, s := range lab.Scenarios() {
		names = append(names, s.Name)
	}
	return inputError{fmt.Errorf("name one scenario: %s (see `%s --help`)", strings.Join(names, ", "), cmd.CommandPath())}
}

// labArgs makes cobra's complaints about arguments input errors.
func labArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return inputError{fmt.Errorf("%w (see `%s --help`)", err, cmd.CommandPath())}
		}
		return nil
	}
}

// labOptions are the flags of all lab commands.
type labOptions struct {
	dir     string
	variant string
	output  string
	binary  string
	all     bool
	verbose bool
}

const labHelp = `Builds hosts, pods, bridges, routers and outside peers as network namespaces,
lets the real programs write docker's, flannel's, kube-router's, the CNI
bridge's and kube-proxy's NAT rules there, and makes real TCP, UDP and ICMP
calls, IPv4 and IPv6: without unmasq, with it, and after the other component
has restarted.
It needs root; the host's own network is not touched.`

// newLab makes `unmasq lab`.
func newLab() *cobra.Command {
	opts := &labOptions{}
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "Whole scenarios in network namespaces, with real connections",
		Long:  labHelp,
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },

		SuggestionsMinimumDistance: 2,
	}
	cmd.PersistentFlags().StringVar(&opts.dir, "state-dir", lab.DefaultDir, "directory for the record of what stands")
	cmd.AddCommand(newLabList(opts), newLabRun(opts), newLabUp(opts), newLabDown(opts), newLabProbe(opts), newLabServe())
	return cmd
}

func labOutputFlag(cmd *cobra.Command, opts *labOptions) {
	cmd.Flags().StringVarP(&opts.output, "output", "o", "", "output format: json")
}

func labVariantFlag(cmd *cobra.Command, opts *labOptions, values string) {
	cmd.Flags().StringVar(&opts.variant, "variant", string(foreign.NFT), "iptables that writes the foreign rules: "+values)
}

func labBinaryFlag(cmd *cobra.Command, opts *labOptions) {
	cmd.Flags().StringVar(&opts.binary, "binary", "/proc/self/exe", "the unmasq program to run")
}

func (o *labOptions) json() (bool, error) {
	switch o.output {
	case "", "text":
		return false, nil
	case "json":
		return true, nil
	}
	return false, inputError{fmt.Errorf("output %q: want json", o.output)}
}

// variants that --variant asks for, of those that a form can have.
func (o *labOptions) variants(form *lab.Form) ([]foreign.Variant, error) {
	possible := form.Variants()
	switch v := foreign.Variant(o.variant); {
	case o.variant == "both" || slices.Contains(foreign.Variants[:], v) && len(possible) == 1:
		return possible, nil
	case slices.Contains(possible, v):
		return []foreign.Variant{v}, nil
	}
	return nil, inputError{fmt.Errorf("variant %q: want legacy, nft or both", o.variant)}
}

func labNeedsRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("the lab makes network namespaces: run it as root")
	}
	return nil
}

// labColour says whether out is a terminal whose user wants colour.
func labColour(out io.Writer) bool {
	file, ok := out.(*os.File)
	return ok && os.Getenv("NO_COLOR") == "" && term.IsTerminal(int(file.Fd()))
}

func newLabList(opts *labOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "The scenarios, one line each",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return listLabs(cmd.OutOrStdout(), opts)
		},
	}
	labOutputFlag(cmd, opts)
	return cmd
}

func listLabs(out io.Writer, opts *labOptions) error {
	asJSON, err := opts.json()
	if err != nil {
		return err
	}
	type entry struct {
		Name    string   `json:"name"`
		Forms   []string `json:"forms,omitempty"`
		Summary string   `json:"summary"`
	}
	var entries []entry
	for _, s := range lab.Scenarios() {
		entries = append(entries, entry{s.Name, s.FormNames(), s.Summary})
	}
	if asJSON {
		return writeLabJSON(out, entries)
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, e := range entries {
		fmt.Fprintf(table, "%s\t%s\n", e.Name, e.Summary)
	}
	return table.Flush()
}

func writeLabJSON(out io.Writer, value any) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

func newLabRun(opts *labOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run [NAME[/FORM]…]",
		Short: "Build scenarios, measure who is seen as whom before and after, take them down",
		Long: "Builds each scenario, measures who is seen as whom without unmasq, starts the real agent on its hosts,\n" +
			"measures again, also after the other component has restarted, and takes everything down.\n" +
			"Without a name: all scenarios. Exit status 1 where a peer saw another address than expected.",
		Example: "  unmasq lab run docker\n  unmasq lab run flannel/nftables\n  unmasq lab run --all --variant both",
		RunE: func(cmd *cobra.Command, names []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return runLabs(ctx, names, opts, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	labOutputFlag(cmd, opts)
	labVariantFlag(cmd, opts, "legacy, nft or both")
	labBinaryFlag(cmd, opts)
	cmd.Flags().BoolVarP(&opts.verbose, "verbose", "v", false, "print the commands that write the foreign rules")
	cmd.Flags().BoolVar(&opts.all, "all", false, "run all scenarios, which is the default")
	return cmd
}

// labRun is one scenario in one form, written by one variant of iptables.
type labRun struct {
	scenario *lab.Scenario
	form     *lab.Form
	variant  foreign.Variant
}

func planLabs(names []string, opts *labOptions) ([]labRun, error) {
	if opts.all && len(names) > 0 {
		return nil, inputError{errors.New("either names or --all")}
	}
	if len(names) == 0 {
		for _, s := range lab.Scenarios() {
			names = append(names, s.Name)
		}
	}
	var runs []labRun
	for _, name := range names {
		s, forms, err := lab.Find(name)
		if err != nil {
			return nil, inputError{err}
		}
		for i := range forms {
			variants, err := opts.variants(&forms[i])
			if err != nil {
				return nil, err
			}
			for _, v := range variants {
				runs = append(runs, labRun{s, &forms[i], v})
			}
		}
	}
	return runs, nil
}

func runLabs(ctx context.Context, names []string, opts *labOptions, out, errOut io.Writer) error {
	asJSON, err := opts.json()
	if err != nil {
		return err
	}
	runs, err := planLabs(names, opts)
	if err != nil {
		return err
	}
	if err := labNeedsRoot(); err != nil {
		return err
	}
	view := &labView{out: out, colour: labColour(out)}
	if asJSON {
		view.out = errOut
		view.quiet = true
	}
	results := []lab.JSON{}
	for _, r := range runs {
		results = append(results, view.run(ctx, r, opts))
		if ctx.Err() != nil {
			return errors.New("interrupted; everything is taken down")
		}
	}
	if asJSON {
		if err := writeLabJSON(out, results); err != nil {
			return err
		}
	} else {
		view.summary(results)
	}
	if view.failed > 0 {
		return fmt.Errorf("%d of %d runs did not go as expected", view.failed, len(runs))
	}
	return nil
}

// labView shows runs to a person.
type labView struct {
	out    io.Writer
	colour bool
	// quiet: phases only.
	quiet        bool
	failed       int
	calls, wrong int
	took         time.Duration
}

func (v *labView) run(ctx context.Context, r labRun, opts *labOptions) lab.JSON {
	title := labTitle(r.scenario.Name, r.form.Name, r.form.VariantName(r.variant))
	fmt.Fprintf(v.out, "=== %s\n", title)
	if !v.quiet {
		fmt.Fprintf(v.out, "%s\n\n", r.scenario.Story)
	}
	runner := lab.Runner{Binary: opts.binary, Dir: opts.dir,
		Phase:    func(text string) { fmt.Fprintf(v.out, "... %s\n", text) },
		Policy:   v.policy,
		Measured: v.stage,
	}
	if opts.verbose {
		runner.Command = func(space, command string) { fmt.Fprintf(v.out, "%s# %s\n", space, command) }
	}
	result, err := runner.Run(ctx, r.scenario, r.form, r.variant)
	if result == nil {
		result = &lab.Result{Scenario: r.scenario.Name, Form: r.form.Name, Variant: r.form.VariantName(r.variant)}
	}
	calls, wrong := result.Counts()
	v.calls, v.wrong, v.took = v.calls+calls, v.wrong+wrong, v.took+result.Took
	answer := result.JSON()
	if err != nil {
		answer.OK, answer.Error = false, err.Error()
		fmt.Fprintf(v.out, "error: %v\n\n", err)
	}
	if !answer.OK {
		v.failed++
	}
	if calls == 0 {
		return answer
	}
	fmt.Fprintf(v.out, "%s: %d calls, %d not as expected, %.1f s\n\n", title, calls, wrong, result.Took.Seconds())
	return answer
}

func (v *labView) policy(name, text string) {
	if !v.quiet {
		fmt.Fprintf(v.out, "--- %s\n%s---\n\n", name, text)
	}
}

func (v *labView) stage(stage *lab.StageResult) {
	if v.quiet {
		return
	}
	fmt.Fprintf(v.out, "\n%s\n", strings.ToUpper(stage.Title[:1])+stage.Title[1:])
	if err := lab.WriteTable(v.out, stage, v.colour); err != nil {
		fmt.Fprintln(v.out, err)
	}
	fmt.Fprintln(v.out)
}

// summary is a line for each run, and one for all.
func (v *labView) summary(results []lab.JSON) {
	if len(results) < 2 {
		return
	}
	for _, r := range results {
		mark := "✓"
		if !r.OK {
			mark = "✗"
		}
		fmt.Fprintf(v.out, "%s %s\n", mark, labTitle(r.Scenario, r.Form, foreign.Variant(r.Variant)))
	}
	fmt.Fprintf(v.out, "%d runs, %d calls, %d not as expected, %.1f s\n", len(results), v.calls, v.wrong, v.took.Seconds())
}

// labTitle is a run's name, such as "flannel/old (iptables-nft)".
func labTitle(scenario, form string, v foreign.Variant) string {
	return (&lab.Result{Scenario: scenario, Form: form, Variant: v}).Title()
}

func newLabUp(opts *labOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "up NAME[/FORM]",
		Short:   "Build a scenario and leave it standing, to play with",
		Args:    labName,
		Example: "  unmasq lab up docker\n  unmasq lab probe docker\n  unmasq lab down docker",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return labUp(ctx, args[0], opts, cmd.OutOrStdout())
		},
	}
	labVariantFlag(cmd, opts, "legacy or nft")
	labBinaryFlag(cmd, opts)
	return cmd
}

func labUp(ctx context.Context, name string, opts *labOptions, out io.Writer) error {
	s, forms, err := lab.Find(name)
	if err != nil {
		return inputError{err}
	}
	if len(forms) > 1 {
		names := s.FormNames()
		last := len(names) - 1
		return inputError{fmt.Errorf("%s has the forms %s and %s: name one, such as %s/%s",
			s.Name, strings.Join(names[:last], ", "), names[last], s.Name, names[0])}
	}
	if opts.variant == "both" {
		return inputError{errors.New("up builds one form: --variant legacy or nft")}
	}
	variants, err := opts.variants(&forms[0])
	if err != nil {
		return err
	}
	if err := labNeedsRoot(); err != nil {
		return err
	}
	runner := lab.Runner{Binary: opts.binary, Dir: opts.dir}
	st, err := runner.Up(ctx, s, &forms[0], variants[0])
	if err != nil {
		return err
	}
	return st.Describe(out, os.Args[0])
}

func newLabDown(opts *labOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "down [NAME]",
		Short: "Remove what the lab has made, of one scenario or of all",
		Args:  labArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := strings.Join(args, "")
			if name != "" {
				s, _, err := lab.Find(name)
				if err != nil {
					return inputError{err}
				}
				name = s.Name
			}
			return labDown(name, opts, cmd.OutOrStdout())
		},
	}
}

func labDown(name string, opts *labOptions, out io.Writer) error {
	if err := labNeedsRoot(); err != nil {
		return err
	}
	runner := lab.Runner{Dir: opts.dir}
	removed, err := runner.Down(name)
	for _, r := range removed {
		fmt.Fprintf(out, "%s is down\n", r.Scenario)
		for _, p := range r.Left {
			fmt.Fprintf(out, "  still running, not the lab's: %s\n", p)
		}
	}
	if err == nil && len(removed) == 0 {
		fmt.Fprintln(out, "nothing is up")
	}
	return err
}

func newLabProbe(opts *labOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "probe NAME",
		Short: "Who is seen as whom in a lab that is up",
		Args:  labName,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return labProbe(ctx, args[0], opts, cmd.OutOrStdout())
		},
	}
	labOutputFlag(cmd, opts)
	return cmd
}

func labProbe(ctx context.Context, name string, opts *labOptions, out io.Writer) error {
	asJSON, err := opts.json()
	if err != nil {
		return err
	}
	s, _, err := lab.Find(name)
	if err != nil {
		return inputError{err}
	}
	if err := labNeedsRoot(); err != nil {
		return err
	}
	runner := lab.Runner{Dir: opts.dir}
	stage, err := runner.Probe(ctx, s.Name)
	if err != nil {
		return err
	}
	if asJSON {
		return writeLabJSON(out, stage.JSON())
	}
	return lab.WriteTable(out, stage, labColour(out))
}

// newLabServe is the process that answers calls in a lab that is up.
func newLabServe() *cobra.Command {
	return &cobra.Command{
		Use:    "serve NAME",
		Hidden: true,
		Args:   labName,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, _, err := lab.Find(args[0])
			if err != nil {
				return inputError{err}
			}
			return lab.Serve(cmd.Context(), s, cmd.OutOrStdout())
		},
	}
}
