// Package exporter says a policy in another component's own settings, as far as those
// can: the way back from unmasq, or from one component to another.
//
//	kind, _ := exporter.Named("ip-masq-agent")
//	result := kind.Export(loaded, exporter.Options{})
//	_, err = os.Stdout.Write(result.Text)
//	for _, l := range result.Losses { … }   // what the component can't be told
//
// The components know destinations whose clients keep their addresses, and translate
// the rest. So for all pods together each destination is kept or translated; where a
// rule is about less than that (some pods, ports, interfaces) what it keeps is kept for
// all, and what it translates is not translated. What a component translates beyond the
// policy all the same is a loss that says so. The package is pure.
package exporter

import (
	"net/netip"
	"strings"

	"github.com/unmasq/unmasq/internal/policy"
)

// Options are what the policy leaves open.
type Options struct {
	// PodCIDRs of the cluster, where no document states them.
	PodCIDRs []netip.Prefix
}

// Kind is one component whose settings can be written.
type Kind struct {
	// Name on the command line; Writes says what comes out.
	Name, Writes string
	Export       func(*policy.Loaded, Options) *Result
}

// Kinds in the order of the documentation.
func Kinds() []Kind {
	return []Kind{
		{"ip-masq-agent", "ConfigMap ip-masq-agent, with the flags of its DaemonSet in comments", ipMasqAgent},
		{"cilium", "Helm values with its ip-masq-agent", cilium},
		{"calico", "disabled IPPools for destinations that pods keep their addresses to, FelixConfiguration", calico},
		{"aws-vpc-cni", "the environment of DaemonSet aws-node", awsVPCCNI},
	}
}

// Named finds a kind.
func Named(name string) (Kind, bool) {
	for _, k := range Kinds() {
		if k.Name == name {
			return k, true
		}
	}
	return Kind{}, false
}

// Result is what a component would be told.
type Result struct {
	// Text is YAML.
	Text []byte
	// Losses are what it can't be told, in the order of rules.
	Losses []Loss
}

// Loss is something of the policy that the text doesn't say.
type Loss struct {
	// Rule is its ID; "": it is about all of the policy.
	Rule string
	Why  string
	// Wider: the component translates what the policy doesn't.
	Wider bool
}

func (l Loss) String() string {
	var b strings.Builder
	if l.Rule != "" {
		b.WriteString("rule " + l.Rule + ": ")
	}
	if l.Wider {
		b.WriteString("WIDER: ")
	}
	b.WriteString(l.Why)
	return b.String()
}
