// Package masqagent reads what ip-masq-agent is configured with and says it as
// SourcePolicy rules: the files of kubernetes-sigs/ip-masq-agent, of
// Azure/ip-masq-agent-v2, and those that Cilium reads in their stead.
//
//	config, warnings, err := masqagent.Parse([]masqagent.File{{Name: "ip-masq-agent", Data: text}}, settings)
//	document := config.Document()
//	source, err := document.Source("/etc/config")
//
// The three read one file in three ways: see [Dialect]. The package is pure: it
// opens no files and has no defaults but those of the agents themselves.
package masqagent

import (
	"fmt"
	"net/netip"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/unmasq/unmasq/api/v1alpha1"
	"github.com/unmasq/unmasq/internal/policy"
)

// Dialect is whose reading of the files counts.
type Dialect string

const (
	// Kubernetes is kubernetes-sigs/ip-masq-agent: one file; a key that it doesn't
	// state keeps its default.
	Kubernetes Dialect = "kubernetes"
	// Azure is Azure/ip-masq-agent-v2: all files together; the first one that is
	// there does away with the defaults.
	Azure Dialect = "azure"
	// Cilium is Cilium's ip-masq-agent: one file; CIDRs are masked, and only pods'
	// packets are masqueraded.
	Cilium Dialect = "cilium"
)

// Dialects are all of them.
var Dialects = [...]Dialect{Kubernetes, Azure, Cilium}

// File is a text with settings in it.
type File struct {
	// Name that errors, notes and warnings use, e.g. a path.
	Name string
	Data []byte
}

// Settings are what the agent's flags say, and what they don't.
type Settings struct {
	Dialect Dialect
	// Chain is --masq-chain; "": IP-MASQ-AGENT. The policy has its name.
	Chain string
	// EnableIPv6 is --enable-ipv6; without it nothing is done to IPv6.
	EnableIPv6 bool
	// AllReserved is --nomasq-all-reserved-ranges: eleven ranges, not three, where no
	// file has a list.
	AllReserved bool
	// RandomFully is --random-fully, see [RandomFullyByDefault].
	RandomFully bool
	// Ports is --to-ports as a policy has it, see [ParsePorts]; the zero value: any.
	Ports policy.PortRange
	// Inbound: packets from outside to pods of this node are masqueraded as all others
	// are. That is how ip-masq-agent does it; it hides clients from pods.
	Inbound bool
	// PodCIDRs of the cluster where they are stated; nil: discovered on the node.
	PodCIDRs []netip.Prefix
}

// DefaultChain is the name that ip-masq-agent gives its chain.
const DefaultChain = "IP-MASQ-AGENT"

// RandomFullyByDefault says whether an agent randomises source ports unasked.
// Kubernetes' does since 2.10, Azure's can't, Cilium's has a flag for it.
func RandomFullyByDefault(d Dialect) bool { return d == Kubernetes }

// Config is what files and settings say together.
type Config struct {
	Settings
	// Destinations that packets keep their source address to, in the order of the
	// files, each once.
	Destinations []Destination
	// Default says why the destinations are the agent's own; "": files state them.
	Default string
	// MasqLinkLocal and MasqLinkLocalIPv6: link-local destinations are masqueraded too.
	MasqLinkLocal, MasqLinkLocalIPv6 bool
	// ResyncInterval is checked, and of no use: changes are watched.
	ResyncInterval metav1.Duration
}

// Destination is a CIDR of the list.
type Destination struct {
	netip.Prefix
	// File and Line that state it; "" and 0: it is one of the agent's own.
	File string
	Line int
}

// Warning is something of a file that has no effect, or not the one it seems to have.
type Warning struct {
	File string
	// Line counts from 1; 0: it is about the whole file.
	Line int
	Text string
}

// String is, for example, `ip-masq-agent:3: unknown key "foo" is ignored`.
func (w Warning) String() string {
	if w.Line == 0 {
		return w.File + ": " + w.Text
	}
	return fmt.Sprintf("%s:%d: %s", w.File, w.Line, w.Text)
}

// Document is the policy that a configuration means.
type Document struct {
	Name string
	// PodCIDRs for spec.facts; nil: none is stated.
	PodCIDRs []netip.Prefix
	Rules    []v1alpha1.Rule
	// Notes say where each part comes from, in the order of the rules.
	Notes []Note
}

// Note is about a field below spec, such as rules[0] or rules[1].to.cidrs[2].
type Note struct{ Path, Text string }
