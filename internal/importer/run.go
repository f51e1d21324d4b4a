package importer

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/api/v1alpha1"
	"github.com/unmasq/unmasq/internal/policy"
)

// Run imports files of a kind and reads the result back.
func Run(kind Kind, files []File, opts Options) (*Result, error) {
	result, err := kind.Import(files, opts)
	if err != nil {
		return nil, err
	}
	if opts.Cluster {
		result.withoutFacts()
	} else {
		result.needPodCIDRs(files)
	}
	for _, d := range result.Documents {
		d.About = append([]string{fmt.Sprintf("Imported from %s's settings in %s.", kind.Name, fileNames(files))}, d.About...)
	}
	if err := result.check(); err != nil {
		return nil, err
	}
	return result, nil
}

// needPodCIDRs warns where rules are about pods and nothing says who all of those are:
// a host knows its own alone.
func (r *Result) needPodCIDRs(files []File) {
	pods := func(rule v1alpha1.Rule) bool {
		return rule.From != nil && rule.From.Pods != nil || rule.To != nil && rule.To.Pods != nil
	}
	for _, d := range r.Documents {
		if len(d.Facts.PodCIDRs) > 0 {
			return // stated once, for all
		}
	}
	for _, d := range r.Documents {
		if slices.ContainsFunc(d.Rules, pods) {
			r.Warn(Place{File: fileNames(files), Setting: "pods"}, "no file says the cluster's pod networks, so that a host knows its own pods alone: state --pod-cidrs, or import for a cluster with --cluster")
			return
		}
	}
}

// withoutFacts takes off what a cluster knows itself, and documents that had nothing else.
func (r *Result) withoutFacts() {
	for _, d := range r.Documents {
		for _, mark := range []struct{ field, value string }{{"serviceMark", d.Facts.ServiceMark}, {"hostPortMark", d.Facts.HostPortMark}} {
			if mark.value != "" && !d.Off {
				r.Warn(Place{Setting: "facts." + mark.field, File: d.Name}, "the API has no facts: give the agents a file with spec.facts.%s: %q by --config", mark.field, mark.value)
			}
		}
		d.Facts = Facts{}
		for path := range d.notes {
			if strings.HasPrefix(path, "facts") {
				delete(d.notes, path)
			}
		}
	}
	r.Documents = slices.DeleteFunc(r.Documents, func(d *Document) bool { return len(d.Rules) == 0 })
}

// check reads every document back. Documents that are another way are read alone.
func (r *Result) check() error {
	var sources []policy.Source
	opts := policy.Options{PodsKnown: true, ServicesKnown: true, ServiceCIDRsKnown: true, NodeLabels: map[string]string{}}
	for i, d := range r.Documents {
		var text bytes.Buffer
		if err := d.write(&text); err != nil {
			return err
		}
		source := policy.Source{Name: fmt.Sprintf("document %d", i+1), Content: text.Bytes()}
		if !d.Off {
			sources = append(sources, source)
		} else if _, err := policy.Load([]policy.Source{source}, opts); err != nil {
			return fmt.Errorf("the import is no valid policy, please report this: %w", err)
		}
	}
	if _, err := policy.Load(sources, opts); len(sources) > 0 && err != nil {
		return fmt.Errorf("the import is no valid policy, please report this: %w", err)
	}
	return nil
}

// fileNames as long as they are few.
func fileNames(files []File) string {
	const most = 5
	var names []string
	for _, f := range files {
		names = append(names, f.Name)
	}
	if len(names) > most {
		names = append(names[:most-1], fmt.Sprintf("%d more", len(files)-most+1))
	}
	return strings.Join(names, ", ")
}

// Recognise says which kind the files are of.
func Recognise(files []File) (Kind, error) {
	var found []Kind
	for _, k := range Kinds() {
		if slices.ContainsFunc(files, k.Knows) {
			found = append(found, k)
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	what := fileNames(files)
	if len(found) == 0 {
		return Kind{}, fmt.Errorf("%s: nothing here is known as one component's settings; say whose they are: unmasq import KIND FILE…, with KIND %s", what, orList(Kinds()))
	}
	return Kind{}, fmt.Errorf("%s: could be the settings of %s; say whose: unmasq import KIND FILE…", what, orList(found))
}

// orList is "a, b or c".
func orList(kinds []Kind) string {
	var b strings.Builder
	for i, k := range kinds {
		switch {
		case i > 0 && i == len(kinds)-1:
			b.WriteString(" or ")
		case i > 0:
			b.WriteString(", ")
		}
		b.WriteString(k.Name)
	}
	return b.String()
}
