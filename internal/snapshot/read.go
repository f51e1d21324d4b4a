package snapshot

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/conntrack"
	"github.com/unmasq/unmasq/internal/ipset"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
)

// Formats that are recognised, for people.
const Formats = "iptables-save, iptables -S, iptables -L, ipset save, ipset list, ip -j or plain (addr, link, route, rule, neigh), " +
	"bridge link, bridge fdb, nft list ruleset (JSON or text), sysctl -a, conntrack -L, conntrack -S, ipvsadm -Sn"

// Read reads snapshots and bare dumps that together describe one node. A path is
// a directory, a .tar.gz or a file; "-" is stdin. An error names the file, the
// line where there is one, and what was expected.
func Read(paths []string, stdin io.Reader) (*Host, error) {
	return read(paths, stdin, usual, nil)
}

func read(paths []string, stdin io.Reader, l limits, sources *[]Source) (*Host, error) {
	if len(paths) == 0 {
		return nil, errors.New("nothing to read: expected a snapshot or a dump")
	}
	load := &loader{limits: l}
	for _, p := range paths {
		if err := load.load(p, stdin); err != nil {
			return nil, err
		}
	}
	return build(load.files, load.notes, l, sources)
}

// FromFiles reads the files of a snapshot by their names, as package
// kernel/capture returns them.
func FromFiles(files map[string][]byte) (*Host, error) { return fromFiles(files, nil) }

func fromFiles(files map[string][]byte, sources *[]Source) (*Host, error) {
	var list []file
	for _, name := range slices.Sorted(maps.Keys(files)) {
		list = append(list, file{name: name, content: files[name], member: true, meta: true})
	}
	return build(list, nil, usual, sources)
}

// builder puts a host together.
type builder struct {
	host   *Host
	limits limits
	// sources are kept where it isn't nil.
	sources *[]Source
	// recognised counts what was understood of all files.
	recognised int
	tables     tables
	network    network
	native     native
	conflicts  []error
	// programs are files of programs at interfaces.
	programs []file
	// noted counts the notes of each file.
	noted map[string]int
}

func build(files []file, notes []Note, l limits, sources *[]Source) (*Host, error) {
	b := &builder{host: &Host{IPTables: map[packet.Family]bool{}, Notes: notes}, limits: l, sources: sources, noted: map[string]int{}}
	b.tables = tables{
		from: map[*ruleset.Table]*origin{}, saved: map[packet.Family]bool{}, broken: map[packet.Family]bool{}, legacy: map[packet.Family]bool{},
	}
	// meta.json says what the other files lack.
	slices.SortStableFunc(files, func(a, c file) int { return boolInt(c.base() == FileMeta) - boolInt(a.base() == FileMeta) })
	for i := range files {
		if err := b.file(&files[i]); err != nil {
			return nil, err
		}
		files[i].content = nil
	}
	if b.recognised == 0 {
		return nil, errors.New(nothing(files))
	}
	if err := b.finish(); err != nil {
		return nil, err
	}
	return b.host, nil
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func nothing(files []file) string {
	return fmt.Sprintf("%s: nothing in the %d files is recognised; known are %s", files[0].name, len(files), Formats)
}

// known are the files of a snapshot, with what their names say.
var known = map[string]struct {
	yes     bool
	family  packet.Family
	variant ruleset.Variant
	kind    format
	// other: its text isn't looked at for other formats.
	other bool
}{
	FileIPTables:        {yes: true, family: packet.IPv4Family, kind: formatSave},
	FileIPTablesLegacy:  {yes: true, family: packet.IPv4Family, variant: ruleset.Legacy, kind: formatSave},
	FileIP6Tables:       {yes: true, family: packet.IPv6Family, kind: formatSave},
	FileIP6TablesLegacy: {yes: true, family: packet.IPv6Family, variant: ruleset.Legacy, kind: formatSave},
	FileNFT:             {yes: true, kind: formatNFT},
	FileNFTChains:       {yes: true, kind: formatNFT},
	FileIPSet:           {yes: true, kind: formatIPSet},
	FileLinks:           {yes: true, kind: formatLinks},
	FileAddresses:       {yes: true, kind: formatLinks},
	FileRoutes:          {yes: true, family: packet.IPv4Family, kind: formatRoutes},
	FileRules:           {yes: true, family: packet.IPv4Family, kind: formatRules},
	FileRoutes6:         {yes: true, family: packet.IPv6Family, kind: formatRoutes},
	FileRules6:          {yes: true, family: packet.IPv6Family, kind: formatRules},
	FileNeighbors:       {yes: true, kind: formatNeighbors},
	FileBridgeLinks:     {yes: true, kind: formatBridgeLinks},
	FileBridgeFDB:       {yes: true, kind: formatFDB},
	FileXFRM:            {yes: true, other: true},
	FileIPVS:            {yes: true, kind: formatIPVS},
	FileWireGuard:       {yes: true, other: true},
	FileBPF:             {yes: true, other: true},
	FileSysctl:          {yes: true, kind: formatSysctl},
	FileConntrack:       {yes: true, kind: formatConntrack},
	FileConntrackStat:   {yes: true, kind: formatCounters},
	FileMeta:            {yes: true},
}

// file reads one file into the host.
func (b *builder) file(f *file) error {
	if bytes.IndexByte(f.content, 0) >= 0 && !bytes.HasPrefix(f.content, []byte("\xff\xfe")) && !bytes.HasPrefix(f.content, []byte("\xfe\xff")) {
		if f.member {
			b.note(f.name, 0, "", "not text: left out")
			return nil
		}
		return fmt.Errorf("%s: not text; known are %s", f.name, Formats)
	}
	if f.member && known[f.base()].other {
		b.recognised++
		b.other(f)
		return nil
	}
	if f.member && strings.Contains(f.name, "netns_exec_") { // as sosreport names them
		b.note(f.name, 0, "", "printed in another network namespace than the node's: left out")
		return nil
	}
	text := plain(f.content)
	if f.member && f.base() == FileMeta {
		b.recognised++
		return b.meta(f.name, text)
	}
	sections, notes, err := split(f, text, b.limits)
	if err != nil {
		return err
	}
	if len(sections) == 0 && f.member && known[f.base()].yes && len(notes) == 0 {
		b.recognised++ // nothing of the kind is there
		return b.empty(f)
	}
	if !slices.ContainsFunc(sections, func(s section) bool { return s.content }) {
		return b.unknown(f, text, notes)
	}
	b.host.Notes = append(b.host.Notes, notes...)
	return b.sections(f, text, sections)
}

// unknown is a file of which nothing was recognised.
func (b *builder) unknown(f *file, text string, notes []Note) error {
	const long = 80
	first, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	first = first[:min(len(first), long)]
	if !f.member || known[f.base()].yes {
		return fmt.Errorf("%s: nothing in it is recognised (it begins %q); known are %s", f.name, first, Formats)
	}
	why := "nothing in it is recognised"
	if len(notes) > 0 && strings.Contains(notes[0].Why, "failed") {
		why = notes[0].Why
	}
	b.note(f.name, 0, first, why)
	return nil
}

// empty is a file of a snapshot that holds nothing: there is nothing of the kind.
func (b *builder) empty(f *file) error {
	k := known[f.base()]
	switch k.kind {
	case formatSave:
		b.tables.whole(k.family, b.missing(f))
		if k.variant == ruleset.Legacy {
			b.tables.legacy[k.family] = true
		}
	case formatIPSet:
		b.sets(f.name, "", 1)
	case formatConntrack:
		b.host.ConnectionsGiven = true
	case formatIPVS:
		b.host.VirtualServersGiven = true
	case formatSysctl:
		b.sysctls(f, "", 1)
	}
	return nil
}

// missing says why a file that is there doesn't tell all, by meta.json.
func (b *builder) missing(f *file) string {
	if b.host.Meta == nil {
		return ""
	}
	return b.host.Meta.Missing[f.base()]
}

// sections reads each format of a file by its reader. What is printed by iptables,
// ipset and the like is given to them with other lines blanked, since lines of
// one table may be apart.
func (b *builder) sections(f *file, text string, sections []section) error {
	var problems problems
	own := func(want format) (string, int, bool) {
		return mask(text, sections, func(s *section) bool { return s.format == want && s.content })
	}
	if err := b.iptables(f, text, sections); err != nil {
		return err
	}
	if t, line, ok := own(formatIPSet); ok {
		b.sets(f.name, t, line)
		b.source(f, IPSetSource, t)
	}
	if t, line, ok := own(formatConntrack); ok {
		entries, p := conntrack.Read(t, line)
		b.host.Connections = append(b.host.Connections, entries...)
		b.host.ConnectionsGiven = true
		for _, x := range p {
			problems.add(x.Line, x.Text, x.Why)
		}
	}
	if t, line, ok := own(formatCounters); ok {
		b.counters(f.name, t, line)
	}
	if t, line, ok := own(formatSysctl); ok {
		b.sysctls(f, t, line)
	}
	if t, line, ok := own(formatIPVS); ok {
		b.virtualServers(f.name, t, line)
	}
	if t, line, ok := own(formatNFT); ok {
		b.native.readText(b, f.name, t, line)
		if !onlyChains(f.name) {
			b.source(f, NFTSource, t)
		}
	}
	b.problems(f.name, problems)
	for i := range sections {
		s := &sections[i]
		if s.command.namespace != "" && s.format != formatSave && s.format != formatList {
			b.note(f.name, s.line, "", "printed in another network namespace than the node's: left out")
			continue
		}
		if !s.content {
			continue
		}
		b.recognised++
		switch {
		case s.format == formatJSON:
			if err := b.json(f, text[s.start:s.end], s); err != nil {
				return err
			}
		case s.format.kind() != 0:
			output, line := s.output(text)
			if err := b.network.add(b, f, output, line, s, s.format.kind(), false); err != nil {
				return err
			}
		}
	}
	return nil
}

// mask keeps the sections that are wanted, each at its line: of all others only
// the ends of lines stay. ok is false where there are none.
func mask(text string, sections []section, want func(*section) bool) (masked string, line int, ok bool) {
	var b strings.Builder
	var only *section
	count, at := 0, 0
	for i := range sections {
		s := &sections[i]
		if !want(s) || s.command.namespace != "" && s.format != formatSave && s.format != formatList {
			continue
		}
		count++
		switch count {
		case 1:
			only = s
			continue
		case 2:
			b.WriteString(text[only.start:only.end])
			at = only.line + strings.Count(text[only.start:only.end], "\n")
		}
		if s.line > at {
			b.WriteString(strings.Repeat("\n", s.line-at))
		}
		b.WriteString(text[s.start:s.end])
		at = s.line + strings.Count(text[s.start:s.end], "\n")
	}
	switch count {
	case 0:
		return "", 0, false
	case 1:
		return text[only.start:only.end], only.line, true
	}
	return b.String(), only.line, true
}

// json reads one JSON value.
func (b *builder) json(f *file, text string, s *section) error {
	kind := jsonKindOf(text)
	if kind.empty || kind.kind == 0 && !kind.nft && !kind.meta {
		if k := known[f.base()]; f.member && k.yes && k.kind.kind() != 0 && kind.empty {
			kind.kind = k.kind.kind()
			if f.base() == FileLinks {
				kind.kind = linksKind
			}
		} else if kind.empty {
			kind.kind = s.command.ip.Kind
		}
	}
	switch {
	case kind.nft:
		b.native.readJSON(b, f.name, text, s.line)
		b.source(f, NFTJSONSource, text)
	case kind.meta:
		return b.meta(f.name, text)
	case kind.kind != 0:
		return b.network.add(b, f, text, s.line, s, kind.kind, true)
	case kind.empty:
		b.note(f.name, s.line, "[]", "an empty list, of what can't be told")
	default:
		b.recognised--
		keys := strings.Join(kind.keys[:min(len(kind.keys), 5)], ", ")
		if !f.member && b.recognised == 0 && strings.TrimSpace(text) != "" && s.start == 0 {
			return fmt.Errorf("%s: JSON of no known kind (with %s); known are ip -j (addr, link, route, rule, neigh), bridge -j and nft -j list ruleset", f.name, keys)
		}
		b.note(f.name, s.line, keys, "JSON of no known kind")
	}
	return nil
}

// meta reads meta.json.
func (b *builder) meta(name, text string) error {
	var m Meta
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	const current = 1
	if m.Version != current {
		return fmt.Errorf("%s: version %d of the layout; this unmasq reads version %d", name, m.Version, current)
	}
	if b.host.Meta != nil {
		if b.host.Meta.Host != m.Host {
			return fmt.Errorf("%s: the snapshot of another node (%s) than the first (%s); several nodes are given as NAME=PATH each", name, m.Host, b.host.Meta.Host)
		}
		return nil
	}
	b.host.Meta, b.host.Name = &m, m.Host
	return nil
}

// sets adds the ipsets of a file.
func (b *builder) sets(name, text string, line int) {
	sets, found := ipset.Read(text, line)
	if b.host.Sets == nil {
		b.host.Sets = ipset.Sets{}
	}
	for _, n := range b.host.Sets.Join(sets) {
		b.note(name, sets[n].Line, n, "the set was given before, differently: what they don't agree on isn't known")
	}
	var p problems
	for _, x := range found {
		p.add(x.Line, x.Text, x.Why)
	}
	b.problems(name, p)
}

// other takes note of what isn't simulated.
func (b *builder) other(f *file) {
	text := string(f.content)
	switch f.base() {
	case FileXFRM:
		if strings.Contains(text, "dir out") || strings.Contains(text, "dir fwd") {
			b.note(f.name, 0, "", "the node has IPsec policies, which aren't followed")
		}
		b.host.IPsecOut = append(b.host.IPsecOut, ipsecOut(text)...)
		b.host.NoIPsec = strings.TrimSpace(text) == "" && !b.partly(FileXFRM)
	case FileWireGuard:
		b.host.WireGuard = append(b.host.WireGuard, wireGuard(text)...)
	case FileBPF:
		b.programs = append(b.programs, *f)
	}
}

// partly: the snapshot says that not all of a file could be read.
func (b *builder) partly(name string) bool {
	return b.host.Meta != nil && b.host.Meta.Missing[name] != ""
}

// note notes something of a file; of one that is wrong all over, not everything.
func (b *builder) note(file string, line int, text, why string) {
	if b.noted[file]++; b.noted[file] > 2*maxNotes {
		return
	}
	b.host.Notes = append(b.host.Notes, Note{File: file, Line: line, Text: text, Why: why})
}

// problem of one of the readers.
type problem struct {
	line      int
	text, why string
}

type problems []problem

func (p *problems) add(line int, text, why string) { *p = append(*p, problem{line, text, why}) }

// problems become notes.
func (b *builder) problems(name string, all problems) {
	for _, p := range all {
		b.note(name, p.line, p.text, p.why)
	}
}

// finish joins what was read of all files.
func (b *builder) finish() error {
	b.tables.finish(b)
	b.network.finish(b)
	b.native.finish(b)
	b.finishPrograms()
	for _, name := range slices.Sorted(maps.Keys(b.noted)) {
		if more := b.noted[name] - 2*maxNotes; more > 0 {
			b.host.Notes = append(b.host.Notes, Note{File: name, Why: fmt.Sprintf("%d more lines are not understood", more)})
		}
	}
	slices.SortStableFunc(b.host.Notes, func(a, c Note) int {
		if a.File != c.File {
			return strings.Compare(a.File, c.File)
		}
		return a.Line - c.Line
	})
	return errors.Join(b.conflicts...)
}
