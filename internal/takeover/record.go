package takeover

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/unmasq/unmasq/internal/snapshot"
)

// Record is what was taken from a node and may be handed back.
type Record struct {
	// Version of the form, 1.
	Version int    `json:"version"`
	Parts   []Part `json:"parts"`
}

// Read a record. An empty text is an empty record.
func Read(text []byte) (Record, error) {
	r := Record{Version: 1}
	if len(bytes.TrimSpace(text)) == 0 {
		return r, nil
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return Record{}, err
	}
	if r.Version != 1 {
		return Record{}, fmt.Errorf("version %d: expected 1", r.Version)
	}
	return r, nil
}

// Write the record; it ends with a newline.
func (r Record) Write() ([]byte, error) {
	r.Version = 1
	text, err := json.MarshalIndent(r, "", "  ")
	return append(text, '\n'), err
}

// Of are the parts of one owner.
func (r *Record) Of(name string) []Part {
	var parts []Part
	for _, p := range r.Parts {
		if p.Owner == name {
			parts = append(parts, p)
		}
	}
	return parts
}

// Without is the record without one owner's parts.
func (r *Record) Without(name string) Record {
	return Record{Version: 1, Parts: slices.DeleteFunc(slices.Clone(r.Parts), func(p Part) bool { return p.Owner == name })}
}

// With adds parts. What the record has of the same table and chain is newer now: a
// component that wrote its rules again may have written others.
func (r *Record) With(parts []Part) Record {
	all := Record{Version: 1}
	for _, old := range r.Parts {
		for i := range parts {
			if p := &parts[i]; p.Owner == old.Owner && p.Variant == old.Variant && p.Family == old.Family && p.Table == old.Table {
				old = old.less(p)
			}
		}
		if old.Count() > 0 || len(old.Chains) > 0 {
			all.Parts = append(all.Parts, old)
		}
	}
	all.Parts = append(all.Parts, parts...)
	return all
}

// less what another part holds too.
func (p Part) less(newer *Part) Part {
	p.Rules = slices.DeleteFunc(slices.Clone(p.Rules), func(r Rule) bool {
		return slices.ContainsFunc(newer.Rules, func(o Rule) bool { return o.Chain == r.Chain && o.Text == r.Text })
	})
	p.Chains = slices.DeleteFunc(slices.Clone(p.Chains), func(c Chain) bool {
		return slices.ContainsFunc(newer.Chains, func(o Chain) bool { return o.Name == c.Name })
	})
	return p
}

// Again are rules of a part that stand on a node although they were taken: whose they
// are wrote them again.
func (p *Part) Again(h *snapshot.Host) []string {
	t := p.tableIn(h)
	var all []string
	missing := p.missing(t)
	for _, r := range p.Rules {
		if i := slices.IndexFunc(missing, func(m Rule) bool { return m.Chain == r.Chain && m.Text == r.Text }); i >= 0 {
			missing = slices.Delete(missing, i, i+1)
			continue
		}
		all = append(all, r.Text)
	}
	return all
}
