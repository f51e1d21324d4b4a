package masqagent

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/unmasq/unmasq/internal/policy"
)

// Keys of a file.
const (
	keyList          = "nonMasqueradeCIDRs"
	keyLimit         = "cidrLimit"
	keyLinkLocal     = "masqLinkLocal"
	keyLinkLocalIPv6 = "masqLinkLocalIPv6"
	keyResync        = "resyncInterval"
)

// keysOf are those that a dialect reads.
func keysOf(d Dialect) []string {
	if d == Kubernetes {
		return []string{keyList, keyLimit, keyLinkLocal, keyLinkLocalIPv6, keyResync}
	}
	return []string{keyList, keyLinkLocal, keyLinkLocalIPv6}
}

// content is what one file states.
type content struct {
	name string
	// nothing: it has not a byte.
	nothing bool
	// listed: it has the key of the list, maybe without a value.
	listed                   bool
	list                     []Destination
	linkLocal, linkLocalIPv6 bool
	resync                   *metav1.Duration
}

// field is a key with its value.
type field struct {
	// known is the key's right name; "": it is none.
	known string
	key   *yaml.Node
	value *yaml.Node
}

func (p *parser) file(f File) content {
	out := content{name: f.Name, nothing: len(f.Data) == 0}
	root := p.root(f)
	if root == nil {
		return out
	}
	if root.Kind != yaml.MappingNode {
		p.fail(policy.FieldError{File: f.Name, Line: root.Line, Message: fmt.Sprintf("expected a mapping with %s, found %s", orList(keysOf(p.settings.Dialect)), policy.Found(root))})
		return out
	}
	fields := p.fields(f.Name, root)
	limit, limitAt := int64(mostCIDRs), 0
	for _, x := range fields {
		switch x.known {
		case keyLimit:
			p.integer(f.Name, x, &limit)
			limitAt = x.value.Line
		case keyLinkLocal:
			p.boolean(f.Name, x, &out.linkLocal)
		case keyLinkLocalIPv6:
			p.boolean(f.Name, x, &out.linkLocalIPv6)
		case keyResync:
			out.resync = p.duration(f.Name, x)
		}
	}
	for _, x := range fields {
		if x.known == keyList {
			out.listed = true
			out.list = p.list(f.Name, x, limit)
		}
	}
	// The agent counts its own list too, where a file of its kind states none.
	if own := len(defaultCIDRs(&p.settings)); !out.listed && p.settings.Dialect == Kubernetes && limit < int64(own) {
		p.fail(policy.FieldError{File: f.Name, Line: limitAt, Path: keyLimit, Value: strconv.FormatInt(limit, 10), Message: fmt.Sprintf("is less than the %d CIDRs that hold without %s", own, keyList)})
	}
	return out
}

// fields are the keys that count, in no order of importance: names in any case of
// letters are one key, and of several the last one counts, as for encoding/json.
func (p *parser) fields(file string, root *yaml.Node) []field {
	var out []field
	for i := 0; i+1 < len(root.Content); i += 2 {
		f := field{key: root.Content[i], value: root.Content[i+1]}
		if f.value.Kind == yaml.AliasNode {
			f.value = f.value.Alias
		}
		if f.key.Kind != yaml.ScalarNode || f.key.ShortTag() == "!!merge" || null(f.key) {
			p.fail(policy.FieldError{File: file, Line: f.key.Line, Message: "expected a key's name; merge keys, aliases, lists and mappings as keys aren't supported"})
			continue
		}
		if f.known = p.known(file, f.key); f.known == "" {
			continue
		}
		if j := slices.IndexFunc(out, func(x field) bool { return x.known == f.known }); j >= 0 {
			p.warn(file, f.key.Line, "%s is stated in line %d too; the last one counts", f.known, out[j].key.Line)
			out = slices.Delete(out, j, j+1)
		}
		out = append(out, f)
	}
	return out
}

// known returns the right name of a key, and warns of one that isn't read.
func (p *parser) known(file string, key *yaml.Node) string {
	mine := keysOf(p.settings.Dialect)
	for _, k := range mine {
		if strings.EqualFold(k, key.Value) {
			return k
		}
	}
	for _, k := range keysOf(Kubernetes) {
		if strings.EqualFold(k, key.Value) {
			p.warn(file, key.Line, "%s is not read in the dialect %s", k, p.settings.Dialect)
			return ""
		}
	}
	p.warn(file, key.Line, "unknown key %s is ignored; known are %s", policy.Shown(key), orList(mine))
	return ""
}

// wrong shows the value, but those that hold others; nil: there is none to show.
func (p *parser) wrong(file string, line int, path string, value *yaml.Node, message string) {
	e := policy.FieldError{File: file, Line: line, Path: path, Message: message}
	if value != nil && value.Kind == yaml.ScalarNode {
		e.Value = policy.Shown(value)
	}
	p.fail(e)
}

func null(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// integer leaves what null leaves: the default.
func (p *parser) integer(file string, f field, to *int64) {
	if null(f.value) {
		return
	}
	n, err := strconv.ParseInt(f.value.Value, 0, 64)
	if f.value.Kind != yaml.ScalarNode || f.value.ShortTag() != "!!int" || err != nil {
		p.wrong(file, f.value.Line, f.known, f.value, "is "+policy.Found(f.value)+"; expected a whole number")
		return
	}
	*to = n
}

// words are what YAML 1.1 takes for booleans, as the agents' readers do.
var words = map[string]bool{
	"true": true, "yes": true, "on": true, "y": true, "false": false, "no": false, "off": false, "n": false,
}

func (p *parser) boolean(file string, f field, to *bool) {
	if null(f.value) {
		return
	}
	v := f.value
	if v.Kind == yaml.ScalarNode && v.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle|yaml.TaggedStyle) == 0 {
		for word, value := range words {
			if v.Value == word || v.Value == strings.ToUpper(word) || v.Value == strings.ToUpper(word[:1])+word[1:] {
				*to = value
				return
			}
		}
	}
	p.wrong(file, v.Line, f.known, v, "is "+policy.Found(v)+"; expected true or false")
}

// duration is a string: not a number, and not nothing either.
func (p *parser) duration(file string, f field) *metav1.Duration {
	const want = `expected a string such as "60s"`
	if f.value.Kind != yaml.ScalarNode || f.value.ShortTag() != "!!str" {
		p.wrong(file, f.value.Line, f.known, f.value, "is "+policy.Found(f.value)+"; "+want)
		return nil
	}
	text, err := json.Marshal(f.value.Value)
	var d metav1.Duration
	if err == nil {
		err = d.UnmarshalJSON(text)
	}
	if err != nil {
		p.wrong(file, f.value.Line, f.known, f.value, "is not a duration; "+want)
		return nil
	}
	return &d
}

// list is empty where it has no value: then everything is masqueraded.
func (p *parser) list(file string, f field, limit int64) (out []Destination) {
	if null(f.value) {
		return nil
	}
	if f.value.Kind != yaml.SequenceNode {
		p.wrong(file, f.value.Line, f.known, f.value, "is "+policy.Found(f.value)+"; expected a list of CIDRs")
		return nil
	}
	entries := f.value.Content
	if p.settings.Dialect != Cilium && int64(len(entries)) > limit {
		p.wrong(file, f.value.Line, f.known, nil, fmt.Sprintf("has %d entries; expected at most %d", len(entries), limit)+hintLimit(p.settings.Dialect))
		return nil
	}
	for i, n := range entries {
		line := n.Line
		if n.Kind == yaml.AliasNode {
			n = n.Alias
		}
		path := fmt.Sprintf("%s[%d]", f.known, i)
		if prefix, ok := p.prefix(file, line, path, n); ok {
			out = append(out, Destination{prefix, file, line})
		}
	}
	return out
}

func hintLimit(d Dialect) string {
	if d == Kubernetes {
		return " (cidrLimit)"
	}
	return " in a file"
}

func (p *parser) prefix(file string, line int, path string, n *yaml.Node) (netip.Prefix, bool) {
	bad := func(format string, args ...any) (netip.Prefix, bool) {
		p.wrong(file, line, path, n, fmt.Sprintf(format, args...))
		return netip.Prefix{}, false
	}
	switch {
	case n.Kind != yaml.ScalarNode:
		return bad("expected a CIDR, found %s", policy.Found(n))
	case null(n):
		return bad("has no value; expected a CIDR, or no entry")
	case n.ShortTag() != "!!str":
		return bad("is %s; expected a CIDR such as 10.0.0.0/8", policy.Found(n))
	}
	prefix, err := netip.ParsePrefix(n.Value)
	switch {
	case err != nil && p.settings.EnableIPv6:
		return bad("is not a CIDR; expected one such as 10.0.0.0/8 or fd00::/8")
	case err != nil:
		return bad("is not a CIDR; expected one such as 10.0.0.0/8")
	case prefix.Addr().Is4In6():
		return bad("is IPv4 written as IPv6; expected it as IPv4")
	case prefix != prefix.Masked() && p.settings.Dialect != Cilium:
		return bad("has host bits set; the network is %s", prefix.Masked())
	case prefix.Addr().Is6() && !p.settings.EnableIPv6 && p.settings.Dialect != Cilium:
		return bad("is IPv6, which needs --enable-ipv6")
	case prefix != prefix.Masked():
		p.warn(file, line, "%s has host bits set; %s is meant", prefix, prefix.Masked())
	}
	return prefix.Masked(), true
}

func orList(all []string) string {
	last := len(all) - 1
	return strings.Join(all[:last], ", ") + " and " + all[last]
}
