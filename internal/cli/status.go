package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sort"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/unmasq/unmasq/internal/agent"
	"github.com/unmasq/unmasq/internal/kernel/nft"
	"github.com/unmasq/unmasq/internal/plan"
)

// report is what status prints. Fields are only ever added.
type report struct {
	Version int `json:"version"`
	// Table is none, plain, owned, or orphan: an agent was killed and its rules
	// are still in force; or helper: it was killed while it made the table anew,
	// and the rules are in force in table inet unmasq-handover.
	Table    string       `json:"table"`
	Owner    *ownerReport `json:"owner,omitempty"`
	Agent    string       `json:"agent"` // ready, not ready, or none
	Problem  string       `json:"problem,omitempty"`
	Rules    []ruleReport `json:"rules"`
	Facts    []factReport `json:"facts"`
	Warnings []string     `json:"warnings"`
}

type ownerReport struct {
	PID  int    `json:"pid"`
	Name string `json:"name"`
}

type ruleReport struct {
	Number int    `json:"number"`
	Policy string `json:"policy"`
	Rule   string `json:"rule"`
	// From, to and action in words.
	Does string `json:"does"`
	// Hits are connections that the rule decided.
	Hits uint64 `json:"hits"`
}

type factReport struct {
	Name   string `json:"name"`
	Values string `json:"values"`
	Origin string `json:"origin"`
}

type statusOptions struct {
	output string
	agent  string
}

func newStatus() *cobra.Command {
	opts := &statusOptions{}
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what is in force: rules in order with their hits, facts, owner",
		Long:  "Shows what stands in the kernel: the merged rules of all documents in the order\nof evaluation, the connections that each decided, and what the policy's words\nmean on this host. Exit status 1: nothing is in force, or the agent isn't ready.",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return opts.run(cmd) },
	}
	cmd.Flags().StringVarP(&opts.output, "output", "o", "", "json, or text (default)")
	cmd.Flags().StringVar(&opts.agent, "metrics-address", DefaultAddress, "`ADDRESS:PORT` where an agent is asked whether it is ready; \"\" asks none")
	return cmd
}

// notInForce is status's finding that something is wrong; the report said it.
type notInForce struct{ error }

func (notInForce) ExitStatus() int { return statusWrong }

func (o *statusOptions) run(cmd *cobra.Command) error {
	if o.output != "" && o.output != "text" && o.output != "json" {
		return inputError{fmt.Errorf("-o %q: expected json or text", o.output)}
	}
	standing, err := nft.Read()
	if err != nil {
		if errors.Is(err, os.ErrPermission) {
			return fmt.Errorf("%w: reading nftables rules needs CAP_NET_ADMIN (root, or sudo)", err)
		}
		return err
	}
	r := reportOf(standing)
	r.askAgent(cmd.Context(), o.agent)
	if o.output == "json" {
		enc := json.NewEncoder(cmd.OutOrStdout())
		enc.SetIndent("", "  ")
		err = enc.Encode(r)
	} else {
		err = r.print(cmd.OutOrStdout())
	}
	if err != nil {
		return err
	}
	switch {
	case r.Table == "none":
		return notInForce{fmt.Errorf("nothing is in force; start `unmasq agent`, or `unmasq apply -f policy.yaml`")}
	case r.Agent == "not ready":
		return notInForce{fmt.Errorf("the agent is not ready: %s", r.Problem)}
	}
	return nil
}

func reportOf(s nft.Standing) *report {
	r := &report{Version: 1, Table: "none", Agent: "none", Rules: []ruleReport{}, Facts: []factReport{}, Warnings: []string{}}
	switch {
	case s.Owned():
		r.Table = "owned"
		r.Owner = &ownerReport{s.Process.PID, s.Process.Name}
	case s.Orphan():
		r.Table = "orphan"
	case s.Exists:
		r.Table = "plain"
	case s.Handover:
		r.Table = "helper"
	}
	if s.Exists && s.Handover {
		r.Warnings = append(r.Warnings, fmt.Sprintf("table inet %s stands too and decides first: an exchange is under way, or was cut short; starting the agent again removes it", plan.HandoverName))
	}
	does := map[int]string{}
	numbers := map[int]int{}  // by tag
	seen := map[string]bool{} // a rule's counter stands in a chain of each family
	var tags []int            // of r.Rules; 0: none
	for _, c := range joined(s.Comments) {
		number, tag, text, isRule := numbered(c.Text)
		switch {
		case c.Chain == plan.AboutChain && isRule:
			does[number], numbers[tag] = text, number
		case c.Chain == plan.AboutChain:
			r.about(c.Text)
		case c.Counter != "" && !seen[c.Counter]:
			seen[c.Counter] = true
			document, name, _ := strings.Cut(strings.TrimPrefix(c.Counter, "rule/"), "/")
			tags = append(tags, tag)
			r.Rules = append(r.Rules, ruleReport{Number: number, Policy: document, Rule: name, Hits: s.Counts[c.Counter].Packets})
		}
	}
	for i := range r.Rules {
		if tags[i] != 0 {
			r.Rules[i].Number = numbers[tags[i]]
		}
		r.Rules[i].Does = does[r.Rules[i].Number]
	}
	sort.SliceStable(r.Rules, func(i, j int) bool { return r.Rules[i].Number < r.Rules[j].Number })
	return r
}

// joined puts comments together again that were too long for one.
func joined(comments []nft.Comment) []nft.Comment {
	var out []nft.Comment
	for _, c := range comments {
		rest, goesOn := strings.CutPrefix(c.Text, plan.Continued)
		if n := len(out); goesOn && n > 0 && out[n-1].Chain == c.Chain {
			out[n-1].Text += rest
			continue
		}
		out = append(out, c)
	}
	return out
}

// numbered reads "rule 3" and "rule 3: from pods to everywhere: Masquerade", or with
// tags "rule #17" and "rule 3 #17: from pods to everywhere: Masquerade".
func numbered(comment string) (number, tag int, text string, ok bool) {
	rest, ok := strings.CutPrefix(comment, plan.RulePrefix)
	if !ok {
		return 0, 0, "", false
	}
	digits, text, _ := strings.Cut(rest, ": ")
	digits, tagged, hasTag := strings.Cut(digits, plan.TagPrefix)
	var err, tagErr error
	if hasTag {
		tag, tagErr = strconv.Atoi(tagged)
	}
	if digits = strings.TrimSpace(digits); digits != "" || !hasTag {
		number, err = strconv.Atoi(digits)
	}
	return number, tag, text, err == nil && tagErr == nil
}

// about reads a comment like "fact podCIDRs = 10.0.0.0/8; stated in p.yaml:3".
func (r *report) about(text string) {
	if fact, ok := strings.CutPrefix(text, agent.FactPrefix); ok {
		name, rest, _ := strings.Cut(fact, " = ")
		values, origin, _ := strings.Cut(rest, "; ")
		r.Facts = append(r.Facts, factReport{name, values, origin})
		return
	}
	r.Warnings = append(r.Warnings, strings.TrimPrefix(text, agent.WarningPrefix))
}

// askAgent finds out whether an agent in this network namespace is ready.
func (r *report) askAgent(ctx context.Context, address string) {
	if address == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/readyz", nil)
	if err != nil {
		return
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if response.StatusCode == http.StatusOK {
		r.Agent = "ready"
		return
	}
	r.Agent, r.Problem = "not ready", strings.TrimSpace(string(body))
}

func (r *report) print(out io.Writer) error {
	fmt.Fprintf(out, "table   %s\nagent   %s\n", r.tableText(), r.Agent)
	if len(r.Rules) > 0 {
		fmt.Fprintln(out)
		t := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
		fmt.Fprintln(t, "#\tPOLICY\tRULE\tDOES\tHITS")
		for _, x := range r.Rules {
			fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%d\n", x.Number, x.Policy, x.Rule, x.Does, x.Hits)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	if len(r.Facts) > 0 {
		fmt.Fprintln(out)
		t := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
		fmt.Fprintln(t, "FACT\tVALUE\tFROM")
		for _, x := range r.Facts {
			fmt.Fprintf(t, "%s\t%s\t%s\n", x.Name, x.Values, x.Origin)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	for _, w := range r.Warnings {
		fmt.Fprintf(out, "\nwarning: %s\n", w)
	}
	return nil
}

func (r *report) tableText() string {
	switch r.Table {
	case "owned":
		if r.Owner.PID == 0 {
			return "owned by a process of another pid namespace; nobody else can change it"
		}
		return fmt.Sprintf("owned by process %d (%s); nobody else can change it", r.Owner.PID, r.Owner.Name)
	case "orphan":
		return "in force, left by an agent that was killed; start it again, or `unmasq clear`"
	case "plain":
		return "in force, owned by nobody"
	case "helper":
		return fmt.Sprintf("missing; in force is inet %s, left by an agent that was killed; start it again, or `unmasq clear`", plan.HandoverName)
	}
	return "none: nothing is in force"
}
