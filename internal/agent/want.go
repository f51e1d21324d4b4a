// Package agent enforces policies and keeps enforcing them: it follows the
// documents, a Kubernetes cluster, the host's interfaces and the kernel's nftables
// events, and brings the table to what they add up to.
//
//	a, err := agent.New(agent.Options{Config: []string{"/etc/unmasq"}, …})
//	err = a.Run(ctx)   // until the context ends
//
// What a policy means is internal/policy's, what it compiles to internal/plan's.
package agent

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/discover"
	"github.com/unmasq/unmasq/internal/facts"
	"github.com/unmasq/unmasq/internal/kernel/nft"
	"github.com/unmasq/unmasq/internal/plan"
	"github.com/unmasq/unmasq/internal/policy"
)

// Want is what shall stand on this host, and why.
type Want struct {
	Table    *plan.Table
	Policy   *policy.Policy
	Facts    *policy.Facts
	Lines    []facts.Fact
	Warnings []string
	// Outside names pods' addresses that lie outside of the stated pod CIDRs.
	Outside []string
}

// Compile joins documents with what the host shows of itself, in the caller's
// network namespace, and compiles them.
func Compile(loaded *policy.Loaded, cniDir string, features nft.Features) (*Want, error) {
	w, err := join(loaded, nil, cniDir, nil)
	if err != nil {
		return nil, err
	}
	w.compile(features, nil)
	return w, nil
}

// join does all but compile, with what a cluster says; nil: there is none. Networks
// that the host shows are pods' where the last argument says so; nil: all are.
func join(loaded *policy.Loaded, c *facts.Cluster, cniDir string, pods func(facts.Found[netip.Prefix]) bool) (*Want, error) {
	found, warnings, err := discover.Discover(cniDir)
	if err != nil {
		return nil, fmt.Errorf("discover this host's facts: %w", err)
	}
	if pods != nil {
		found.LocalPodCIDRs = slices.DeleteFunc(found.LocalPodCIDRs, func(f facts.Found[netip.Prefix]) bool { return !pods(f) })
	}
	known, lines, outside := facts.Merge(loaded.Stated, c, found)
	w := &Want{Policy: &loaded.Policy, Facts: &known, Lines: lines, Outside: outside}
	w.Warnings = append(policy.Warnings(&loaded.Policy, &known, said(loaded.Stated, c)), warnings...)
	for i := range w.Warnings {
		if c != nil { // where there are no documents with facts, there are flags
			w.Warnings[i] = strings.ReplaceAll(w.Warnings[i], "state spec.facts.podCIDRs", "state --pod-cidrs")
		}
	}
	for _, o := range outside {
		w.Warnings = append(w.Warnings, o+", which no pod CIDR has; it is taken for a pod's: correct --pod-cidrs")
	}
	return w, nil
}

// compile makes the table, which says of itself what is known by now.
func (w *Want) compile(features nft.Features, tags map[string]int) {
	w.Table = plan.Compile(w.Policy, w.Facts, plan.Options{NoIPsec: !features.IPsec, About: w.about(), Tags: tags})
}

// said is what is known of other hosts too, whoever said it.
func said(s policy.Stated, c *facts.Cluster) policy.Stated {
	if c != nil {
		s.PodCIDRs.Set = s.PodCIDRs.Set || len(c.PodCIDRs) > 0
		s.Nodes.Set = true // or to.nodes would have been refused
	}
	return s
}

// factPrefix and warningPrefix begin the comments that status reads back.
const (
	FactPrefix    = "fact "
	WarningPrefix = "warning: "
)

// about is what the table says of itself to whoever lists it.
func (w *Want) about() []string {
	var out []string
	for _, f := range w.Lines {
		out = append(out, fmt.Sprintf("%s%s = %s; %s", FactPrefix, f.Name, summary(f.Values), f.Origin))
	}
	for _, s := range w.Warnings {
		out = append(out, WarningPrefix+s)
	}
	return out
}

// summary lists values as long as they are few.
func summary(values []string) string {
	const most = 3
	switch {
	case len(values) == 0:
		return "none"
	case len(values) <= most:
		return strings.Join(values, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(values[:most-1], ", "), len(values)-most+1)
}
