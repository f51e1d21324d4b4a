// Package importer reads what other components are told about source NAT, in their
// own files, and says the same as SourcePolicy documents: one kind of file a kind.
//
//	kind, _ := importer.Named("flannel")
//	result, err := importer.Run(kind, []importer.File{{Name: "kube-flannel.yaml", Data: text}}, importer.Options{})
//	err = result.WriteYAML(os.Stdout) // with comments that say where each line came from
//
// What a document can't say is a warning, never silence. What makes no sense to the
// component itself is an error, and then there is no document. Every result is read
// back by internal/policy before it is given away. The package is pure: it reads no
// files and asks no cluster.
package importer

import (
	"fmt"
	"net/netip"

	"github.com/unmasq/unmasq/api/v1alpha1"
)

// File is a text with settings in it.
type File struct {
	// Name that errors, comments and warnings use, e.g. a path, or "stdin".
	Name string
	Data []byte
}

// Options are what the files may leave open. A kind uses those that concern it.
type Options struct {
	// Name of the document; "": the kind's.
	Name string
	// Cluster: the documents are for the Kubernetes API, which knows the facts
	// itself and has no place for them.
	Cluster bool
	// Networks that files of the kind don't name, or not all of them.
	PodCIDRs, LocalPodCIDRs, ServiceCIDRs, VPCCIDRs []netip.Prefix
	// MasqueradeAll is how kube-proxy's and kube-router's setting of that name is
	// carried over: MasqueradeWhereNeeded, MasqueradeExact, or "" for both, the second
	// one commented out.
	MasqueradeAll string
}

// Values of Options.MasqueradeAll.
const (
	MasqueradeWhereNeeded = "where-needed"
	MasqueradeExact       = "exact"
)

// Kind is one sort of settings that can be imported.
type Kind struct {
	// Name on the command line; Reads says in a few words what its files are.
	Name, Reads string
	// Knows says whether a file looks like one of its own. It never panics.
	Knows func(File) bool
	// Import reads all files together. An error comes without a result; it is a
	// *policy.FieldError where it has a place.
	Import func([]File, Options) (*Result, error)
}

// Kinds in the order of the documentation.
func Kinds() []Kind {
	return []Kind{
		kubeRouter(), flannel(), docker(), kubeProxy(), awsVPCCNI(), kindnet(), ipMasqAgent(), azureIPMasqAgent(),
		cilium(), calico(), kubeOVN(), gke(), natRules(),
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

// Place is where a setting stands.
type Place struct {
	File string
	// Line counts from 1; 0: the setting stands nowhere, its default holds.
	Line int
	// Setting as its users know it: a flag, a field's path, a variable.
	Setting string
}

// String is "ds.yaml:31: --enable-pod-egress", for a default
// "--enable-pod-egress isn't stated".
func (p Place) String() string {
	switch {
	case p.Line == 0 && p.File == "":
		return p.Setting + " isn't stated"
	case p.Line == 0:
		return p.File + ": " + p.Setting
	case p.Setting == "":
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Setting)
}

// Result is what files say.
type Result struct {
	Documents []*Document
	// Warnings are what couldn't be carried over.
	Warnings []Warning
}

// Warn notes that a setting couldn't be carried over, and why.
func (r *Result) Warn(at Place, why string, args ...any) {
	r.Warnings = append(r.Warnings, Warning{at, fmt.Sprintf(why, args...)})
}

// Warning is one setting that couldn't be carried over, or not as it is.
type Warning struct {
	Place
	Why string
}

func (w Warning) String() string { return w.Place.String() + ": " + w.Why }

// Document is one SourcePolicy with comments.
type Document struct {
	Name string
	// Order of the document; 0: the default.
	Order int32
	// About is printed above the document, a line each.
	About []string
	// Off: it is another way, printed with every line commented out.
	Off          bool
	NodeSelector *v1alpha1.LabelSelector
	Facts        Facts
	Rules        []v1alpha1.Rule

	// notes by the path of a field below spec: rules[0].to.cidrs[1].
	notes map[string][]string
}

// Facts that documents in files may state; see docs/policy.md.
type Facts struct {
	PodCIDRs      []v1alpha1.CIDR `json:"podCIDRs,omitempty"`
	LocalPodCIDRs []v1alpha1.CIDR `json:"localPodCIDRs,omitempty"`
	NodeAddresses []string        `json:"nodeAddresses,omitempty"`
	Nodes         []string        `json:"nodes,omitempty"`
	ServiceCIDRs  []v1alpha1.CIDR `json:"serviceCIDRs,omitempty"`
	ServiceMark   string          `json:"serviceMark,omitempty"`
	HostPortMark  string          `json:"hostPortMark,omitempty"`
}
