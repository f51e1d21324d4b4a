package policy

import (
	"bytes"
	"net/netip"
)

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
	// ServicesKnown and ServiceCIDRsKnown: they are known, though no document states
	// them. NoServices and NoServiceCIDRs are why rules that need them are refused
	// where they aren't; "": because no document states them.
	ServicesKnown, ServiceCIDRsKnown bool
	NoServices, NoServiceCIDRs       string
	// NoNodes is why to.nodes is refused where no document states spec.facts.nodes;
	// "": it isn't.
	NoNodes string
}

// Loaded is what the documents of all sources say together.
type Loaded struct {
	// Policy holds the rules of every document that selects this node, merged by
	// spec.order, then by name, numbered from 1.
	Policy Policy
	Stated Stated
	// Documents that select this node, in order of evaluation.
	Documents []Document
}

// Document is one that is loaded.
type Document struct {
	Name  string
	Order int32
	// Rules that it has.
	Rules int
}

// Stated are the facts that documents state. What none states is not Set.
type Stated struct {
	PodCIDRs, LocalPodCIDRs, ServiceCIDRs StatedValue[[]netip.Prefix]
	NodeAddresses, Nodes                  StatedValue[[]netip.Addr]
	ServiceMark, HostPortMark             StatedValue[Mark]
	Pods                                  StatedValue[[]Pod]
	Services                              StatedValue[[]Service]
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
	return new(Reader).Load(sources, opts)
}

// Reader loads again and again, and reads only the sources that are others than
// the last time. It is for one goroutine.
type Reader struct {
	read map[string]*checkedSource // by name, with its content
}

// checkedSource is what a source says alone. It doesn't change.
type checkedSource struct {
	source Source
	docs   []checked
	loose  Errors
}

// checked is a document with its rules and facts.
type checked struct {
	document *document
	rules    []Rule
	facts    Stated
}

// Load is as the function of that name.
func (r *Reader) Load(sources []Source, opts Options) (*Loaded, error) {
	l := &loader{opts: opts, names: map[string]*document{}, sources: map[string]int{}}
	now := make(map[string]*checkedSource, len(sources))
	for i, s := range sources {
		l.sources[s.Name] = i
		c := r.read[s.Name]
		if c == nil || c.source.NoLines != s.NoLines || !bytes.Equal(c.source.Content, s.Content) {
			c = check(s)
		}
		now[s.Name] = c
		for j := range c.docs {
			l.add(&c.docs[j])
		}
		l.loose = append(l.loose, c.loose...)
	}
	r.read = now
	l.checkTogether()
	if errs := l.errors(); len(errs) > 0 {
		return nil, errs
	}
	return l.merged(), nil
}

func check(s Source) *checkedSource {
	docs, errs := parse(s)
	c := &checkedSource{source: s, loose: errs}
	for _, d := range docs {
		c.docs = append(c.docs, checked{d, d.check(), d.facts()})
	}
	return c
}

// NeedServices says whether Services must be asked for, for the documents of the last
// Load: whether one that is right by itself, and selects a node with these labels,
// has a rule that needs them, and none states them.
func (r *Reader) NeedServices(nodeLabels map[string]string) bool {
	need := false
	for _, s := range r.read {
		for i := range s.docs {
			c := &s.docs[i]
			if len(c.document.errs) > 0 || !c.document.selects(nodeLabels) {
				continue
			}
			if c.facts.Services.Set {
				return false
			}
			need = need || (&Policy{Rules: c.rules}).NeedsServices()
		}
	}
	return need
}
