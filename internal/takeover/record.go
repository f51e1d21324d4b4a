package takeover

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// Record is what was taken from a node and may be handed back.
type Record struct {
	// Version of the form, 1.
	Version int    `json:"version"`
	Parts   []Part `json:"parts"`
}

// Read a record. An empty text is an empty record; what isn't a record, or has more
// than this version knows, is an error: it would be lost at the next writing.
func Read(text []byte) (Record, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return Record{Version: 1}, nil
	}
	var r Record
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return Record{}, err
	}
	if r.Version != 1 {
		return Record{}, fmt.Errorf("version %d: expected 1", r.Version)
	}
	if _, err := d.Token(); err != io.EOF {
		return Record{}, errors.New("more follows the record")
	}
	for i := range r.Parts {
		if err := r.Parts[i].check(); err != nil {
			return Record{}, fmt.Errorf("parts[%d]: %w", i, err)
		}
	}
	return r, nil
}

// check that a part holds what Find finds: its texts become the input of programs.
func (p *Part) check() error {
	if err := CheckOwner(p.Owner); err != nil {
		return err
	}
	iptables := p.Variant == ruleset.Legacy.String() || p.Variant == ruleset.NFT.String()
	switch {
	case !iptables && !p.native():
		return fmt.Errorf("variant %q: expected iptables-legacy, iptables-nft or nftables", p.Variant)
	case p.Family != "ip" && p.Family != "ip6" && (iptables || p.Family != "inet"):
		return fmt.Errorf("family %q: expected ip or ip6", p.Family)
	case iptables && p.Table != "nat":
		return fmt.Errorf("table %q: expected nat", p.Table)
	case !isWord(p.Table):
		return fmt.Errorf("table %q: expected a name", p.Table)
	}
	for _, r := range p.Rules {
		if err := checkRule(r.Chain, r.Text, iptables); err != nil {
			return err
		}
	}
	for _, c := range p.Chains {
		for _, text := range append([]string{"-A " + c.Name + " "}, c.Rules...) {
			if err := checkRule(c.Name, text, true); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkRule(chain, text string, iptables bool) error {
	switch {
	case !isWord(chain):
		return fmt.Errorf("chain %q: expected a name", chain)
	case strings.ContainsAny(text, "\r\n"), iptables && !strings.HasPrefix(text, "-A "+chain+" "):
		return fmt.Errorf("rule %q: expected one line, a rule of chain %s", text, chain)
	}
	return nil
}

// isWord: the name of a table or chain.
func isWord(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || strings.ContainsRune(`;{}"#`, r) })
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
// component that wrote its rules again may have written others. What it has of other
// rules' places goes on to the parts.
func (r *Record) With(parts []Part) Record {
	parts = slices.Clone(parts)
	for i := range parts {
		parts[i].Around = r.woven(&parts[i])
	}
	all := r.Less(parts)
	all.Parts = append(all.Parts, parts...)
	return all
}

// Less parts: what they hold isn't in the record then.
func (r *Record) Less(parts []Part) Record {
	all := Record{Version: 1}
	for _, old := range r.Parts {
		for i := range parts {
			if p := &parts[i]; p.Owner == old.Owner && p.sameTable(old) {
				old = old.less(p)
			}
		}
		if old.Count() > 0 || len(old.Chains) > 0 {
			all.Parts = append(all.Parts, old)
		}
	}
	return all
}

// woven are the chains around a part's rules, with the rules that were taken before and
// lack now.
func (r *Record) woven(p *Part) []Chain {
	var all []Chain
	for _, c := range p.Around {
		now, there := []line{}, map[string]int{}
		for _, text := range c.Rules {
			now = append(now, line{text: plain(text)})
			there[c.Name+" "+plain(text)]++
		}
		for _, old := range r.Parts {
			if !p.sameTable(old) {
				continue
			}
			for _, m := range lacking(old.Rules, there) {
				if m.Chain == c.Name {
					now = slices.Insert(now, place(now, old.around(c.Name), m.Text), line{text: plain(m.Text)})
				}
			}
		}
		woven := Chain{Name: c.Name}
		for _, l := range now {
			woven.Rules = append(woven.Rules, l.text)
		}
		all = append(all, woven)
	}
	return all
}

// less what another part holds too.
func (p Part) less(newer *Part) Part {
	p.Rules = slices.DeleteFunc(slices.Clone(p.Rules), func(r Rule) bool {
		return slices.ContainsFunc(newer.Rules, func(o Rule) bool { return o.Chain == r.Chain && plain(o.Text) == plain(r.Text) })
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
