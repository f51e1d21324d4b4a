package agent

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/api/v1alpha1"
	"github.com/unmasq/unmasq/internal/cluster"
	"github.com/unmasq/unmasq/internal/policy"
)

// documents are the policies of files and of the API together, with what was good
// before. A wrong document of the API is replaced by its last good one, alone; a
// wrong file by all files as they were good last, since a file has no name that
// outlives its path. All others are in force as they are. Which policies of the API were good outlives the agent, see remember;
// files that are wrong at its start are waited for, as they are without a cluster,
// and nothing is changed until then.
type documents struct {
	reader    policy.Reader
	goodFiles []policy.Source
	anyFiles  bool                      // goodFiles were good
	goodAPI   map[string]cluster.Policy // by the name of the source

	// what was asked last, and the answer
	files    []policy.Source
	filesErr error
	api      []cluster.Policy
	opts     policy.Options
	answer   *answer
}

// answer is what documents add up to.
type answer struct {
	// loaded is nil where files were never good.
	loaded *policy.Loaded
	// api are the policies of the API in force, by the name of the document.
	api     map[string]cluster.Policy
	refused []refusal
	// needServices: a document that selects this node asks for Services, or one that
	// is in force.
	needServices bool
}

// refusal is a document that isn't in force.
type refusal struct {
	origin v1alpha1.Origin
	name   string
	// generation that is refused, and the one in force instead; 0: none.
	generation, inForce int64
	err                 error
}

// remember what was good before the agent started, if it is told for the first time
// and nothing was loaded yet.
func (d *documents) remember(good []cluster.Policy) {
	if d.goodAPI != nil {
		return
	}
	d.goodAPI = make(map[string]cluster.Policy, len(good))
	for _, p := range good {
		d.goodAPI[p.Source.Name] = p
	}
}

// load is cheap where nothing changed.
func (d *documents) load(files []policy.Source, filesErr error, api []cluster.Policy, opts policy.Options) *answer {
	if d.answer != nil && d.same(files, filesErr, api, opts) {
		return d.answer
	}
	d.files, d.filesErr, d.api, d.opts = files, filesErr, api, opts
	d.answer = d.loadNew()
	return d.answer
}

func (d *documents) same(files []policy.Source, filesErr error, api []cluster.Policy, opts policy.Options) bool {
	return sameSources(files, d.files) && errorText(filesErr) == errorText(d.filesErr) &&
		slices.EqualFunc(api, d.api, func(x, y cluster.Policy) bool {
			return x.Name == y.Name && x.UID == y.UID && x.Generation == y.Generation && bytes.Equal(x.Source.Content, y.Source.Content)
		}) && sameOptions(opts, d.opts)
}

// try is an attempt to load all.
type try struct {
	files []policy.Source
	// oldFiles: files are those of before.
	oldFiles bool
	api      []cluster.Policy
	// old are the names of API sources that are those of before.
	old     map[string]bool
	refused map[string]*refusal
}

func (d *documents) loadNew() *answer {
	t := try{files: d.files, api: slices.Clone(d.api), old: map[string]bool{}, refused: map[string]*refusal{}}
	if d.filesErr != nil {
		t.refuseFile("", d.filesErr)
		t.files, t.oldFiles = d.goodFiles, true
	}
	need := false
	for {
		sources := slices.Clone(t.files)
		for _, p := range t.api {
			sources = append(sources, p.Source)
		}
		loaded, err := d.reader.Load(sources, d.opts)
		need = need || d.reader.NeedServices(d.opts.NodeLabels)
		if err == nil {
			out := d.loadedAll(&t, loaded)
			out.needServices = need
			return out
		}
		wrong := byFile(err)
		// Files first: what is said of the API's may be their fault.
		if !d.withoutFiles(&t, wrong) {
			d.withoutPolicies(&t, wrong)
		}
	}
}

// byFile are the errors of each source.
func byFile(err error) map[string]policy.Errors {
	var all policy.Errors
	if !errors.As(err, &all) {
		all = policy.Errors{{Message: err.Error()}}
	}
	out := map[string]policy.Errors{}
	for _, e := range all {
		out[e.File] = append(out[e.File], e)
	}
	return out
}

// withoutFiles takes the files of before where any is wrong, or none where those
// are wrong too.
func (d *documents) withoutFiles(t *try, wrong map[string]policy.Errors) bool {
	found := false
	for _, f := range t.files {
		if errs := wrong[f.Name]; errs != nil {
			t.refuseFile(f.Name, errs)
			found = true
		}
	}
	if !found {
		return false
	}
	if t.oldFiles {
		t.files = nil
	} else {
		t.files, t.oldFiles = d.goodFiles, true
	}
	return true
}

// withoutPolicies takes those of before for the wrong ones, or none. There is a
// wrong one.
func (d *documents) withoutPolicies(t *try, wrong map[string]policy.Errors) {
	kept := t.api[:0:0]
	for _, p := range t.api {
		name := p.Source.Name
		errs := wrong[name]
		if errs == nil {
			kept = append(kept, p)
			continue
		}
		if t.refused[name] == nil {
			t.refused[name] = &refusal{origin: v1alpha1.OriginAPI, name: p.Name, generation: p.Generation, err: errs}
		}
		good, known := d.goodAPI[name]
		// Of another UID, it is of a policy that is deleted.
		if known && good.UID == p.UID && !t.old[name] && !bytes.Equal(good.Source.Content, p.Source.Content) {
			t.old[name] = true
			kept = append(kept, good)
		}
	}
	if len(kept) == len(t.api) && !slices.ContainsFunc(kept, func(p cluster.Policy) bool { return wrong[p.Source.Name] != nil }) {
		kept = nil // nobody is to blame: it can't be, and must not go on for ever
	}
	t.api = kept
}

func (t *try) refuseFile(name string, err error) {
	if t.refused[name] == nil {
		t.refused[name] = &refusal{origin: v1alpha1.OriginFile, name: name, err: err}
	}
}

// loadedAll remembers what is good.
func (d *documents) loadedAll(t *try, loaded *policy.Loaded) *answer {
	out := &answer{loaded: loaded, api: make(map[string]cluster.Policy, len(t.api))}
	if t.oldFiles && !d.anyFiles {
		out.loaded = nil
	} else {
		d.goodFiles, d.anyFiles = t.files, true
	}
	d.goodAPI = make(map[string]cluster.Policy, len(t.api))
	for _, p := range t.api {
		d.goodAPI[p.Source.Name], out.api[p.Name] = p, p
		if r := t.refused[p.Source.Name]; r != nil {
			r.inForce = p.Generation
		}
	}
	for _, r := range t.refused {
		out.refused = append(out.refused, *r)
	}
	slices.SortFunc(out.refused, func(a, b refusal) int {
		return strings.Compare(string(a.origin)+a.name, string(b.origin)+b.name)
	})
	return out
}

func sameSources(a, b []policy.Source) bool {
	return slices.EqualFunc(a, b, func(x, y policy.Source) bool { return x.Name == y.Name && bytes.Equal(x.Content, y.Content) })
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func sameOptions(a, b policy.Options) bool {
	return a.PodsKnown == b.PodsKnown && a.NoNodes == b.NoNodes && a.ServicesKnown == b.ServicesKnown && a.NoServices == b.NoServices &&
		a.ServiceCIDRsKnown == b.ServiceCIDRsKnown && a.NoServiceCIDRs == b.NoServiceCIDRs && (a.NodeLabels == nil) == (b.NodeLabels == nil) && maps.Equal(a.NodeLabels, b.NodeLabels)
}
