package snapshot

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/iptables"
)

// origin of a table.
type origin struct {
	file string
	// listing: of iptables -L, which shows less than a save.
	listing bool
}

// tables gathers what the files say of iptables.
type tables struct {
	all  []*ruleset.Table
	from map[*ruleset.Table]*origin
	// saved families, and those of which a save is known not to be whole.
	saved, broken map[packet.Family]bool
	// legacy families: the legacy variant's dump was given.
	legacy map[packet.Family]bool
	// hidden are warnings that legacy tables exist beside the dump.
	hidden []hiddenTables
}

// hiddenTables is a warning of iptables-save that there are legacy tables too.
type hiddenTables struct {
	family packet.Family
	note   Note
}

// whole notes that all tables of a family were given; why not, where not.
func (t *tables) whole(f packet.Family, why string) {
	if why != "" {
		t.broken[f] = true
		return
	}
	t.saved[f] = true
}

// iptables reads the saves and listings of a file.
func (b *builder) iptables(f *file, text string, sections []section) error {
	k := known[f.base()]
	if !f.member {
		k.yes, k.variant, k.family = false, ruleset.VariantUnknown, 0
	}
	if k.kind != formatSave {
		k.variant, k.family = ruleset.VariantUnknown, familyOfName(f.base())
	}
	for _, want := range []format{formatSave, formatList} {
		t, line, ok := mask(text, sections, func(s *section) bool { return s.format == want })
		if !ok {
			continue
		}
		read := iptables.ReadSave
		if want == formatList {
			read = iptables.ReadList
		}
		found, p := read(t, iptables.Options{File: f.name, FirstLine: line, Family: k.family, Variant: k.variant})
		if line < 1 {
			uncounted(found, p)
		}
		b.tables.warnings(b, f, found, p, k.family)
		for _, table := range found {
			if err := contradicts(table); err != nil {
				return err
			}
			b.tables.add(b, table, &origin{f.name, want == formatList})
		}
		if want == formatSave {
			b.tables.wholeSave(b, f, k.yes && k.kind == formatSave, k.family, found, sections, t)
		}
	}
	return nil
}

// uncounted: the first line, a command that was put there, is none of the file's.
func uncounted(found []*ruleset.Table, problems []iptables.Problem) {
	for _, t := range found {
		for _, c := range t.Chains {
			for i := range c.Rules {
				c.Rules[i].Line--
			}
		}
	}
	for i := range problems {
		problems[i].Line--
	}
}

// familyOfName: files named for ip6tables alone are IPv6.
func familyOfName(name string) packet.Family {
	if strings.Count(name, "tables") == 1 && strings.Contains(name, "ip6tables") {
		return packet.IPv6Family
	}
	return 0
}

// warnings turns problems into notes, but for the warning that there are legacy
// tables: another file may have them.
func (t *tables) warnings(b *builder, f *file, found []*ruleset.Table, all []iptables.Problem, family packet.Family) {
	var p problems
	for _, x := range all {
		if strings.Contains(x.Text, "-legacy tables present") {
			v := packet.IPv4Family
			if strings.Contains(x.Text, "ip6tables-legacy") {
				v = packet.IPv6Family
			}
			t.hidden = append(t.hidden, hiddenTables{v, Note{File: f.name, Line: x.Line, Text: x.Text, Why: x.Why}})
			continue
		}
		why := x.Why
		if failure := programFailed(x.Text); failure != "" {
			why = failure
			t.failed(family, found)
		}
		p.add(x.Line, x.Text, why)
	}
	b.problems(f.name, p)
}

// failed: a save that holds an error isn't whole.
func (t *tables) failed(family packet.Family, found []*ruleset.Table) {
	for _, f := range packet.Families {
		if f == family || family == 0 && (len(found) == 0 || slices.ContainsFunc(found, func(x *ruleset.Table) bool { return x.Family == f })) {
			t.whole(f, "failed")
		}
	}
}

// wholeSave finds out whether all tables of a family were saved: the file's name
// or a command says so, or there are several, since -t shows one.
func (t *tables) wholeSave(b *builder, f *file, named bool, family packet.Family, found []*ruleset.Table, sections []section, text string) {
	any := func(want func(command) bool) bool {
		return slices.ContainsFunc(sections, func(s section) bool { return s.format == formatSave && want(s.command) })
	}
	if any(func(c command) bool { return c.part || c.namespace != "" }) {
		return
	}
	stated := named || any(func(c command) bool { return c.whole })
	for _, v := range packet.Families {
		saved := 0
		for _, table := range found {
			if table.Family == v && !table.Excerpt && strings.Contains(text, "*"+table.Name) {
				saved++
			}
		}
		if saved > 1 || saved == 1 && stated || named && v == family && len(found) == 0 {
			why := ""
			if named {
				why = b.missing(f)
			}
			if why != "" {
				b.note(f.name, 0, why, "not all could be saved")
			}
			t.whole(v, why)
		}
	}
}

// contradicts finds an address of the other family in a table.
func contradicts(t *ruleset.Table) error {
	for _, c := range t.Chains {
		for i := range c.Rules {
			r := &c.Rules[i]
			for _, p := range [...]ruleset.Address{r.Source, r.Destination} {
				if p.Prefix.IsValid() && packet.Of(p.Prefix.Addr()) != t.Family {
					return fmt.Errorf("%s:%d: contradictory families: %s in a table of %s: %q", t.File, r.Line, p.Prefix, t.Family, r.Text)
				}
			}
		}
	}
	return nil
}

// add joins a table to those of other files.
func (t *tables) add(b *builder, table *ruleset.Table, o *origin) {
	b.recognised++
	t.from[table] = o
	if table.Variant == ruleset.Legacy {
		t.legacy[table.Family] = true
	}
	i := slices.IndexFunc(t.all, func(x *ruleset.Table) bool {
		return x.Family == table.Family && x.Name == table.Name &&
			(x.Variant == table.Variant || x.Variant == ruleset.VariantUnknown || table.Variant == ruleset.VariantUnknown)
	})
	if i < 0 {
		t.all = append(t.all, table)
		return
	}
	before := t.all[i]
	variant := max(before.Variant, table.Variant)
	if keep := t.better(b, before, table); keep == table {
		t.all[i] = table
	}
	t.all[i].Variant = variant
}

// better returns which of two accounts of one table counts.
func (t *tables) better(b *builder, first, second *ruleset.Table) *ruleset.Table {
	one, two := t.from[first], t.from[second]
	switch {
	case first.Excerpt && second.Excerpt:
		t.merge(b, first, second)
		return first
	case first.Excerpt:
		b.note(one.file, 0, "", fmt.Sprintf("an excerpt of table %s, which %s has whole: left out", first.Name, two.file))
		return second
	case second.Excerpt:
		b.note(two.file, 0, "", fmt.Sprintf("an excerpt of table %s, which %s has whole: left out", second.Name, one.file))
		return first
	case one.listing != two.listing:
		if one.listing {
			return second
		}
		return first
	}
	if where := differ(first, second); where != "" {
		b.conflicts = append(b.conflicts, fmt.Errorf("table %s of %s is given twice with different contents, in %s and %s (%s): give dumps of one node and one time",
			first.Name, first.Family, one.file, two.file, where))
	}
	return first
}

// merge adds the chains that only the second excerpt has.
func (t *tables) merge(b *builder, first, second *ruleset.Table) {
	for _, c := range second.Chains {
		mine := first.Chain(c.Name)
		switch {
		case mine == nil:
			first.Add(c)
		case len(mine.Rules) == 0:
			mine.Rules = c.Rules
			if mine.Policy == "" {
				mine.Policy = c.Policy
			}
		case len(c.Rules) > 0 && chainsDiffer(mine, c):
			b.note(second.File, c.Rules[0].Line, c.Name, fmt.Sprintf("chain %s of table %s is in %s too, differently: what is there counts", c.Name, first.Name, first.File))
		}
	}
}

// differ says in which chain two tables differ; counters don't count.
func differ(a, b *ruleset.Table) string {
	for _, c := range a.Chains {
		if other := b.Chain(c.Name); other == nil || chainsDiffer(c, other) {
			return "chain " + c.Name
		}
	}
	for _, c := range b.Chains {
		if a.Chain(c.Name) == nil {
			return "chain " + c.Name
		}
	}
	return ""
}

func chainsDiffer(a, b *ruleset.Chain) bool {
	return a.Policy != b.Policy || !slices.EqualFunc(a.Rules, b.Rules, func(x, y ruleset.Rule) bool { return x.Text == y.Text })
}

// finish hands the tables to the host.
func (t *tables) finish(b *builder) {
	t.notSaved(b.host.Meta)
	for _, f := range packet.Families {
		b.host.IPTables[f] = t.saved[f] && !t.broken[f]
	}
	for _, h := range t.hidden {
		if t.legacy[h.family] {
			continue
		}
		b.host.Notes = append(b.host.Notes, h.note)
		for _, name := range [...]string{"nat", "filter"} {
			t.unseen(h.family, ruleset.Legacy, name, h.note.File)
		}
	}
	b.host.Rules.Tables = t.all
}

// notSaved: a variant whose program failed may have tables.
func (t *tables) notSaved(m *Meta) {
	if m == nil {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(m.Missing)) {
		k, why := known[name], m.Missing[name]
		if k.kind == formatSave && why != "" && !strings.HasSuffix(why, NotInstalled) {
			t.whole(k.family, why)
			v := k.variant
			if v == ruleset.VariantUnknown {
				v = ruleset.NFT
			}
			for _, table := range [...]string{"nat", "filter"} {
				t.unseen(k.family, v, table, name).Unread = true
			}
		}
	}
}

// unseen adds a table that is known to be there, without its rules.
func (t *tables) unseen(f packet.Family, v ruleset.Variant, name, file string) *ruleset.Table {
	unseen := &ruleset.Table{Family: f, Variant: v, Name: name, Excerpt: true, File: file}
	if !slices.ContainsFunc(t.all, func(x *ruleset.Table) bool {
		return x.Family == f && x.Name == name && (x.Variant == v || x.Variant == ruleset.VariantUnknown && v != ruleset.Legacy)
	}) {
		t.all = append(t.all, unseen)
	}
	return unseen
}
