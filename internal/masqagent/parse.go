package masqagent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"unicode"

	"go.yaml.in/yaml/v3"

	"github.com/unmasq/unmasq/internal/policy"
)

// Limits of what is read: a ConfigMap holds no more than a mebibyte.
const (
	MostBytes = 1 << 20
	MostFiles = 64
	// mostCIDRs is how many an agent accepts where no cidrLimit is stated.
	mostCIDRs = 64
)

// Parse reads the files, which are all that the dialect reads, in the order of
// their names; none: there is none. An error is of type policy.Errors and has
// everything that is wrong; nothing else is returned then.
func Parse(files []File, s Settings) (Config, []Warning, error) {
	p := &parser{settings: s}
	if len(files) > MostFiles {
		return Config{}, nil, policy.Errors{{File: files[0].Name, Message: fmt.Sprintf("%d files; expected at most %d", len(files), MostFiles)}}
	}
	var read []content
	for _, f := range files {
		read = append(read, p.file(f))
	}
	if len(p.errs) > 0 {
		return Config{}, nil, p.errs
	}
	c := Config{Settings: s, ResyncInterval: defaultResync}
	c.merge(read)
	p.ineffective(&c)
	return c, p.warnings, nil
}

// merge adds up the files: lists are united, switches are on where any has them on.
func (c *Config) merge(files []content) {
	stated, seen := false, map[netip.Prefix]bool{}
	for _, f := range files {
		c.MasqLinkLocal = c.MasqLinkLocal || f.linkLocal
		c.MasqLinkLocalIPv6 = c.MasqLinkLocalIPv6 || f.linkLocalIPv6
		if f.resync != nil {
			c.ResyncInterval = *f.resync
		}
		stated = stated || c.states(f)
		for _, d := range f.list {
			if !seen[d.Prefix] {
				seen[d.Prefix] = true
				c.Destinations = append(c.Destinations, d)
			}
		}
	}
	if stated {
		return
	}
	c.Default = "no file"
	if len(files) > 0 {
		c.Default = files[0].name + " has no nonMasqueradeCIDRs"
	}
	for _, prefix := range defaultCIDRs(&c.Settings) {
		c.Destinations = append(c.Destinations, Destination{Prefix: prefix})
	}
}

// states says whether a file does away with the default list, though it may have none.
func (c *Config) states(f content) bool {
	switch c.Dialect {
	case Azure:
		return true // even where it is empty
	case Cilium:
		return !f.nothing
	}
	return f.listed
}

// parser collects what there is to say about files.
type parser struct {
	settings Settings
	errs     policy.Errors
	warnings []Warning
}

func (p *parser) fail(e policy.FieldError) { p.errs = append(p.errs, e) }

func (p *parser) warn(file string, line int, format string, args ...any) {
	p.warnings = append(p.warnings, Warning{file, line, fmt.Sprintf(format, args...)})
}

// ineffective tells of destinations that are in the list to no avail.
func (p *parser) ineffective(c *Config) {
	if c.EnableIPv6 || c.Dialect != Cilium {
		return // the others refuse them
	}
	for _, d := range c.Destinations {
		if d.Addr().Is6() {
			p.warn(d.File, d.Line, "%s has no effect without --enable-ipv6", d.Prefix)
		}
	}
}

// root reads the text to its first document, nil where there is none but comments.
func (p *parser) root(f File) *yaml.Node {
	if len(f.Data) > MostBytes {
		p.fail(policy.FieldError{File: f.Name, Message: fmt.Sprintf("more than %d bytes; expected at most as many as a ConfigMap holds", MostBytes)})
		return nil
	}
	// What starts with a brace is JSON to the agents, and not YAML's own form of it.
	if bytes.HasPrefix(bytes.TrimLeftFunc(f.Data, unicode.IsSpace), []byte("{")) {
		if e := notJSON(f); e != nil {
			p.fail(*e)
			return nil
		}
	}
	roots, bad := policy.YAML(policy.Source{Name: f.Name, Content: f.Data})
	if bad != nil {
		p.fail(*bad)
		return nil
	}
	if len(roots) == 0 {
		return nil
	}
	if len(roots) > 1 {
		p.warn(f.Name, roots[1].Line, "only the first document of a file is read")
	}
	return roots[0]
}

func notJSON(f File) *policy.FieldError {
	var any json.RawMessage
	err := json.Unmarshal(f.Data, &any)
	if err == nil {
		return nil
	}
	line := 0
	if at := (*json.SyntaxError)(nil); errors.As(err, &at) {
		line = 1 + bytes.Count(f.Data[:min(int(at.Offset), len(f.Data))], []byte("\n"))
	}
	return &policy.FieldError{File: f.Name, Line: line, Message: "not valid JSON: " + err.Error()}
}
