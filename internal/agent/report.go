package agent

import (
	"cmp"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/unmasq/unmasq/api/v1alpha1"
	"github.com/unmasq/unmasq/internal/cluster"
	"github.com/unmasq/unmasq/internal/conflict"
	"github.com/unmasq/unmasq/internal/kernel/nft"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/policy"
)

// told is what a report was made of.
type told struct {
	view          *cluster.View
	answer        *answer
	want          *Want
	paused        bool
	stale, failed string
	others        *found
}

// report tells the cluster what holds, as soon as anything was decided.
func (a *Agent) report() {
	c := &a.cluster
	if c.view == nil || c.answer == nil {
		return
	}
	failed := a.status.tableError()
	if c.want == nil && failed == nil && !a.idle() {
		return // a moment after the start
	}
	stale := a.opts.Cluster.Stale()
	var facts *policy.Facts
	if c.want != nil {
		facts = c.want.Facts
	}
	others := a.look(time.Now(), facts)
	told := told{c.view, c.answer, c.want, c.paused, stale, errorText(failed), others}
	if told == c.told {
		return
	}
	c.told = told
	s := v1alpha1.NodeReportStatus{AgentVersion: cut(a.opts.Version, 128), Kernel: a.kernel()}
	s.Conditions = []metav1.Condition{a.enforced(failed, &others.path), a.degraded(stale), conflicting(failed, others), a.earlyPodFacts()}
	if want := c.want; want != nil {
		s.Policies, s.Rules, s.Facts = a.policies(), rules(want), factsUsed(want)
		s.Totals.Rules = int32(len(want.Policy.Rules))
		if !c.paused {
			s.Totals.Policies = int32(len(a.loaded.Documents))
		}
	}
	s.Refusals, s.Totals.Refusals = refusals(c.answer.refused), int32(len(c.answer.refused))
	s.Conflicts, s.Totals.Conflicts = conflicts(failed, others)
	a.status.setBypass(&others.path)
	a.opts.Cluster.Report(s)
}

// condition is True or False, with a reason and what a person wants to know.
func condition(kind string, status bool, reason, message string) metav1.Condition {
	c := metav1.Condition{Type: kind, Status: metav1.ConditionFalse, Reason: reason, Message: cut(message, 4096)}
	if status {
		c.Status = metav1.ConditionTrue
	}
	return c
}

func (a *Agent) enforced(failed error, path *conflict.Path) metav1.Condition {
	c := v1alpha1.ConditionEnforced
	var owned *nft.OwnedError
	switch {
	case errors.As(failed, &owned):
		return condition(c, false, "TableOwned", failed.Error())
	case failed != nil:
		return condition(c, false, "WriteFailed", failed.Error())
	case a.cluster.paused:
		return condition(c, false, "Paused", "the node's annotation unmasq.io/pause empties the table")
	case a.idle():
		return condition(c, false, "FilesRefused", "files are wrong since the agent started; what stood in the kernel before stays as it is")
	case path.Past:
		return condition(c, false, conflict.Bypassed, path.Message)
	case path.Unclear:
		unclear := condition(c, false, "DataPathUnknown", "the policies stand in the kernel; whether pods' packets come to them isn't known. "+path.Message)
		unclear.Status = metav1.ConditionUnknown
		return unclear
	}
	return condition(c, true, "InForce", "the policies stand in the kernel")
}

// degraded names the gravest reason, and tells of all.
func (a *Agent) degraded(stale string) metav1.Condition {
	var reasons, messages []string
	add := func(reason, message string) {
		reasons, messages = append(reasons, reason), append(messages, message)
	}
	c := &a.cluster
	if n := len(c.answer.refused); n > 0 {
		add("PoliciesRefused", "policies are refused, see status.refusals")
	}
	if stale != "" {
		add("ClusterNotFollowed", stale)
	}
	if c.want != nil && len(c.want.Outside) > 0 {
		add("PodsOutsideCIDRs", several(c.want.Outside)+", which no pod CIDR has: they are taken for pods'; correct --pod-cidrs")
	}
	if c.want != nil {
		for _, w := range c.want.Warnings {
			if strings.Contains(w, "matches nothing in") || strings.Contains(w, "means this host's alone") {
				add("FactsMissing", w)
			}
		}
	}
	if len(reasons) == 0 {
		return condition(v1alpha1.ConditionDegraded, false, "AsWanted", "all policies are in force, with all facts that they need")
	}
	return condition(v1alpha1.ConditionDegraded, true, reasons[0], strings.Join(messages, "\n"))
}

// several names the first of many.
func several(all []string) string {
	const most = 3
	if len(all) <= most {
		return strings.Join(all, ", ")
	}
	return strings.Join(all[:most], ", ") + " and others"
}

// against is what works against policies, whoever owns the table first.
func against(failed error, others *found) []conflict.Finding {
	var owned *nft.OwnedError
	if !errors.As(failed, &owned) {
		return others.all()
	}
	return append([]conflict.Finding{{Reason: conflict.TableOwned, Owner: cmp.Or(owned.Owner.Name, "unknown"),
		Message: failed.Error() + ": let one agent enforce"}}, others.all()...)
}

// conflicting is Unknown where nothing is found but what can't be told of.
func conflicting(failed error, others *found) metav1.Condition {
	all := against(failed, others)
	if len(all) == 0 {
		return condition(v1alpha1.ConditionConflict, false, "NoneFound", "")
	}
	c := condition(v1alpha1.ConditionConflict, true, all[0].Reason, all[0].Message)
	if all[0].Maybe {
		c.Status = metav1.ConditionUnknown
	}
	return c
}

func conflicts(failed error, others *found) (out []v1alpha1.ConflictFound, total int32) {
	all := against(failed, others)
	for _, f := range first(all) {
		out = append(out, v1alpha1.ConflictFound{Reason: f.Reason, Owner: cut(f.Owner, 64), Message: cut(f.Message, 1024)})
	}
	return out, int32(len(all))
}

func (a *Agent) earlyPodFacts() metav1.Condition {
	if why := a.cluster.view.NoResults; why != "" {
		return condition(v1alpha1.ConditionEarlyPodFacts, false, "NoResults", why+"; until the API tells a new pod's address no selector matches it")
	}
	return condition(v1alpha1.ConditionEarlyPodFacts, true, "ResultsFollowed", "a new pod's first packet is decided by its labels")
}

// policies in force, in their order.
func (a *Agent) policies() (out []v1alpha1.PolicyInForce) {
	if a.cluster.paused {
		return nil
	}
	for _, d := range first(a.loaded.Documents) {
		p := v1alpha1.PolicyInForce{Name: d.Name, Origin: v1alpha1.OriginFile, Order: d.Order, Rules: int32(d.Rules)}
		if from, known := a.cluster.answer.api[d.Name]; known {
			p.Origin, p.Generation = v1alpha1.OriginAPI, from.Generation
		}
		out = append(out, p)
	}
	return out
}

func rules(w *Want) (out []v1alpha1.RuleInForce) {
	all := first(w.Policy.Rules)
	for i := range all {
		r := &all[i]
		from, to := policy.Describe(r)
		in := v1alpha1.RuleInForce{Policy: r.Document, Name: r.Name, Action: string(r.Action), From: cut(from, 512), To: cut(to, 512), Note: cut(noteOf(w, r), 1024)}
		if !strings.Contains(in.Note, "is never reached") {
			in.Families = families(w.Facts, r)
		}
		out = append(out, in)
	}
	return out
}

// noteOf has the warnings that are of the rule alone.
func noteOf(w *Want, r *policy.Rule) string {
	var notes []string
	for _, text := range w.Warnings {
		if rest, ok := strings.CutPrefix(text, "rule "+r.ID()); ok && (strings.HasPrefix(rest, ":") || strings.HasPrefix(rest, " ")) {
			notes = append(notes, strings.TrimLeft(rest, ": "))
		}
	}
	return strings.Join(notes, "; ")
}

// families that a rule can match in, with the facts of this node.
func families(f *policy.Facts, r *policy.Rule) (out []v1alpha1.Family) {
	for _, family := range packet.Families {
		hasAddr := func(all []netip.Addr) bool {
			return slices.ContainsFunc(all, func(x netip.Addr) bool { return packet.Of(x) == family })
		}
		hasPrefix := func(all ...[]netip.Prefix) bool {
			return slices.ContainsFunc(slices.Concat(all...), func(x netip.Prefix) bool { return packet.Of(x.Addr()) == family })
		}
		from := r.From.Forwarded || r.From.PodCIDRs && hasPrefix(f.PodCIDRs) || r.From.Pods != nil && hasPrefix(f.PodCIDRs, f.LocalPodCIDRs) ||
			r.From.Node && hasAddr(f.NodeAddresses) || hasPrefix(r.From.CIDRs)
		to := r.To.Everywhere || r.To.PodCIDRs && hasPrefix(f.PodCIDRs) || r.To.Nodes && (hasAddr(f.Nodes) || hasPrefix(f.NodeCIDRs)) || hasPrefix(r.To.CIDRs) ||
			r.To.Services != nil && r.To.Services.Has(family, f)
		if from && to && (r.Action != policy.SNAT || hasAddr(r.Addresses)) {
			out = append(out, map[packet.Family]v1alpha1.Family{packet.IPv4Family: v1alpha1.IPv4, packet.IPv6Family: v1alpha1.IPv6}[family])
		}
	}
	return out
}

func refusals(all []refusal) (out []v1alpha1.Refusal) {
	for _, r := range first(all) {
		out = append(out, v1alpha1.Refusal{Origin: r.origin, Name: cut(cmp.Or(r.name, "--config"), 4096), Generation: r.generation, InForce: r.inForce, Message: cut(r.err.Error(), 1024)})
	}
	return out
}

// factsUsed leaves out what changes with every pod or, on all nodes, with every service.
func factsUsed(w *Want) (out []v1alpha1.FactUsed) {
	for _, f := range w.Lines {
		if f.Name == "pods" || f.Name == "services" {
			continue
		}
		values := f.Values[:min(len(f.Values), v1alpha1.MostReportedValues)]
		out = append(out, v1alpha1.FactUsed{Name: f.Name, Values: values, Total: int32(len(f.Values)), From: cut(f.Origin, 1024)})
	}
	return out
}

func (a *Agent) kernel() v1alpha1.Kernel {
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease") // "": not known
	yes := map[bool]string{true: "Yes", false: "No"}
	owner, without := yes[a.features.Ownership], ""
	if !a.features.Ownership {
		without = "others can change the table; it is restored"
	}
	return v1alpha1.Kernel{Release: cut(strings.TrimSpace(string(release)), 256), Features: []v1alpha1.KernelFeature{
		{Name: "TableOwner", State: owner, Message: without}, {Name: "TablePersist", State: owner},
		{Name: "IPsec", State: yes[a.features.IPsec]}}}
}

// first entries, as many as a report has.
func first[T any](all []T) []T { return all[:min(len(all), v1alpha1.MostReported)] }

// cut shortens a text to so many bytes.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most-3], "") + "…"
}
