package snapshot

import "io"

// Source is the text of what a host's model can't be turned back into: IP sets
// and nftables tables. It is what a program loads them from.
type Source struct {
	// File that it is from, for people.
	File string
	Kind SourceKind
	Text string
}

// SourceKind says which program reads a source.
type SourceKind uint8

const (
	// IPSetSource is of ipset save, or of ipset list.
	IPSetSource SourceKind = iota
	// NFTSource is of nft list ruleset, or commands for nft -f; NFTJSONSource of nft -j.
	NFTSource
	NFTJSONSource
)

// ReadSources is [Read] that keeps the sources.
func ReadSources(paths []string, stdin io.Reader) (*Host, []Source, error) {
	var sources []Source
	host, err := read(paths, stdin, usual, &sources)
	return host, sources, err
}

// SourcesFromFiles is [FromFiles] that keeps the sources.
func SourcesFromFiles(files map[string][]byte) (*Host, []Source, error) {
	var sources []Source
	host, err := fromFiles(files, &sources)
	return host, sources, err
}

// source is kept where somebody asked for it.
func (b *builder) source(f *file, kind SourceKind, text string) {
	if b.sources != nil {
		*b.sources = append(*b.sources, Source{f.name, kind, text})
	}
}
