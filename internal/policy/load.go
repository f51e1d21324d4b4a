package policy

import "net/netip"

// Source is a text with documents in it.
type Source struct {
	// Name that errors use, e.g. a file's path, or "stdin".
	Name    string
	Content []byte
	// NoLines: it is no text that a person wrote; errors name no line of it.
	NoLines bool
}

// Options of Load.
type Options struct {
	// NodeLabels of this node, for nodeSelector; nil: not stated.
	NodeLabels map[string]string
	// PodsKnown: this node's pods are known, though no document states them.
	PodsKnown bool
}

// Loaded is what the documents of all sources say together.
type Loaded struct {
	// Policy holds the rules of every document that selects this node, merged by
	// spec.order, then by name, numbered from 1.
	Policy Policy
	Stated Stated
}

// Stated are the facts that documents state. What none states is not Set.
type Stated struct {
	PodCIDRs, LocalPodCIDRs, ServiceCIDRs StatedValue[[]netip.Prefix]
	NodeAddresses, Nodes                  StatedValue[[]netip.Addr]
	ServiceMark, HostPortMark             StatedValue[Mark]
	Pods                                  StatedValue[[]Pod]
}

// StatedValue is a fact that a document states.
type StatedValue[T any] struct {
	Value T
	Set   bool
	// Origin is "file:line".
	Origin string
}

// Load reads the documents of all sources, checks them, and merges those that
// select this node. The order of sources and documents doesn't matter to what
// is loaded. An error is of type Errors and has everything that is wrong;
// nothing is loaded then.
func Load(sources []Source, opts Options) (*Loaded, error) {
	l := &loader{opts: opts, names: map[string]*document{}, sources: map[string]int{}}
	for i, s := range sources {
		l.sources[s.Name] = i
		docs, errs := parse(s)
		for _, d := range docs {
			l.add(d)
		}
		l.loose = append(l.loose, errs...)
	}
	l.checkTogether()
	if errs := l.errors(); len(errs) > 0 {
		return nil, errs
	}
	return &Loaded{Policy: l.merged(), Stated: l.stated}, nil
}
