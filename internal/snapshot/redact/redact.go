// Package redact replaces what tells where a snapshot comes from, so that it can
// be shown to others and still gives the same answers: addresses, MAC
// addresses, the node's name, and the names of services and endpoints.
//
// Addresses are mapped one to one by a keyed permutation that keeps prefixes:
// two addresses share as many leading bits after it as before, so that every
// address is in the same prefixes, and every route, rule and set matches as it
// did. What an address means by itself stays: loopback, link-local, private,
// multicast, documentation. The last octet stays too, and with it most ranges
// and broadcast addresses; a range over more than that keeps its addresses in order.
//
// Not replaced are names of interfaces, chains and sets, and what rules say in
// hexadecimal (-m u32, -m bpf).
package redact

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"github.com/unmasq/unmasq/internal/snapshot"
)

// Key makes two snapshots' replacements differ. Draw it at random.
type Key [32]byte

// Redactor maps names and addresses, the same ones to the same ones.
type Redactor struct {
	addresses cipher.Block
	names     cipher.Block
	// frozen prefixes keep their bits below: ranges lie in them.
	frozen map[netip.Prefix]bool
	known  map[netip.Addr]netip.Addr
	host   string
}

// Files returns the files of a snapshot with all of it replaced.
func Files(files map[string][]byte, key Key) (map[string][]byte, error) {
	r, err := New(key)
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	if text, ok := files[snapshot.FileMeta]; ok {
		meta, err := r.meta(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", snapshot.FileMeta, err)
		}
		out[snapshot.FileMeta] = meta
	}
	for name, text := range files {
		if name != snapshot.FileMeta {
			r.Freeze(string(text))
		}
	}
	for name, text := range files {
		if name != snapshot.FileMeta {
			out[name] = []byte(r.Text(string(text)))
		}
	}
	return out, nil
}

// New makes a redactor.
func New(key Key) (*Redactor, error) {
	a, err := aes.NewCipher(key[:16])
	if err != nil {
		return nil, err
	}
	n, err := aes.NewCipher(key[16:])
	if err != nil {
		return nil, err
	}
	return &Redactor{addresses: a, names: n, known: map[netip.Addr]netip.Addr{}, frozen: map[netip.Prefix]bool{}}, nil
}

// meta replaces what meta.json says of the host.
func (r *Redactor) meta(text []byte) ([]byte, error) {
	var m snapshot.Meta
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, err
	}
	r.host = m.Host
	m.Redacted = true
	if m.Host != "" {
		m.Host = r.name("node", m.Host)
	}
	for file, why := range m.Missing {
		m.Missing[file] = r.Text(why)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(m)
	return b.Bytes(), err
}

// rangeText is A-B, as iptables and ipset write it, and rangeJSON nft -j.
var (
	rangeText = regexp.MustCompile(`([0-9a-fA-F:.]{2,39})-([0-9a-fA-F:.]{2,39})`)
	rangeJSON = regexp.MustCompile(`"range":\s*\[\s*"([0-9a-fA-F:.]+)",\s*"([0-9a-fA-F:.]+)"`)
)

// Freeze looks for ranges, whose addresses must keep their order. All texts are
// looked at before any is mapped.
func (r *Redactor) Freeze(text string) {
	for _, form := range [...]*regexp.Regexp{rangeText, rangeJSON} {
		for _, m := range form.FindAllStringSubmatch(text, -1) {
			first, err1 := netip.ParseAddr(m[1])
			last, err2 := netip.ParseAddr(m[2])
			if err1 != nil || err2 != nil || first.BitLen() != last.BitLen() || last.Less(first) {
				continue
			}
			p, whole := block(first, last)
			if p.Bits() < keptFrom(first) && !whole {
				r.frozen[p] = true
			}
		}
	}
}

// block is the smallest prefix around a range, and whether the range is all of it.
func block(first, last netip.Addr) (p netip.Prefix, whole bool) {
	p, _ = first.Prefix(commonBits(first, last))
	return p, p.Addr() == first && lastOf(p) == last
}

// Text replaces all in a text.
func (r *Redactor) Text(text string) string {
	var b strings.Builder
	b.Grow(len(text))
	for line := range strings.Lines(text) {
		b.WriteString(r.line(line))
	}
	return b.String()
}

// service is namespace/name:port as kube-proxy writes it in comments.
var service = regexp.MustCompile(`(^|["\s(])([a-z0-9](?:[a-z0-9-]*[a-z0-9])?)/([a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)(:[a-z0-9-]*)?`)

// proxyChain is a chain or set element of kube-proxy's nftables mode:
// service-ULMVA6XW-ns/name/tcp/port, endpoint-…-ns/name/tcp/port__10.0.0.1/80.
var proxyChain = regexp.MustCompile(`-([A-Z2-7]{8})-([a-z0-9-]+)/([a-z0-9.-]+)/(tcp|udp|sctp)/`)

// proxyEndpoint is the address in the name of such a chain; colons are dots there.
var proxyEndpoint = regexp.MustCompile(`__([0-9a-f.]+)/`)

// comments are where names of services stand: --comment "…", /* … */, and
// "comment": "…".
var comments = regexp.MustCompile(`--comment ("(?:[^"\\]|\\.)*"|\S+)|/\*.*?\*/|comment"?:? "(?:[^"\\]|\\.)*"`)

// line replaces names, then addresses.
func (r *Redactor) line(line string) string {
	if strings.Contains(line, "/tcp/") || strings.Contains(line, "/udp/") || strings.Contains(line, "/sctp/") {
		line = proxyChain.ReplaceAllStringFunc(line, func(s string) string {
			m := proxyChain.FindStringSubmatch(s)
			return "-" + m[1] + "-" + r.name("ns", m[2]) + "/" + r.name("svc", m[3]) + "/" + m[4] + "/"
		})
		line = proxyEndpoint.ReplaceAllStringFunc(line, r.endpoint)
	}
	if strings.Contains(line, "comment") || strings.Contains(line, "/*") {
		line = comments.ReplaceAllStringFunc(line, r.comment)
	}
	if r.host != "" && strings.Contains(line, r.host) {
		line = replaceWord(line, r.host, r.name("node", r.host))
	}
	return r.tokens(line)
}

func (r *Redactor) comment(text string) string {
	return service.ReplaceAllStringFunc(text, func(s string) string {
		m := service.FindStringSubmatch(s)
		if _, err := netip.ParsePrefix(m[2] + "/" + m[3]); err == nil || isAddress(m[2]) {
			return s
		}
		return m[1] + r.name("ns", m[2]) + "/" + r.name("svc", m[3]) + m[4]
	})
}

func isAddress(word string) bool {
	_, err := netip.ParseAddr(word)
	return err == nil
}

// endpoint maps __fd00.10.244.1..11/.
func (r *Redactor) endpoint(s string) string {
	word := strings.TrimSuffix(strings.TrimPrefix(s, "__"), "/")
	a, err := netip.ParseAddr(word)
	if err == nil {
		return "__" + r.Address(a).String() + "/"
	}
	if a, err = netip.ParseAddr(strings.ReplaceAll(word, ".", ":")); err != nil {
		return s
	}
	return "__" + strings.ReplaceAll(r.Address(a).String(), ":", ".") + "/"
}

// wellKnown names say nothing of a cluster, and owners are recognised by them.
var wellKnown = map[string]bool{
	"default": true, "kube-system": true, "kubernetes": true, "kube-dns": true, "kubernetes.io": true, "localhost": true,
}

// name maps a name to kind-XXXXXX.
func (r *Redactor) name(kind, name string) string {
	if wellKnown[name] {
		return name
	}
	var sum [16]byte
	for i := range len(name) {
		sum[i%16] ^= name[i]
		if i%16 == 15 || i == len(name)-1 {
			r.names.Encrypt(sum[:], sum[:])
		}
	}
	return fmt.Sprintf("%s-%x", kind, sum[:3])
}

// replaceWord replaces a word where it stands by itself.
func replaceWord(line, word, with string) string {
	letter := func(c byte) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-'
	}
	var b strings.Builder
	for {
		i := strings.Index(line, word)
		if i < 0 {
			b.WriteString(line)
			return b.String()
		}
		end := i + len(word)
		b.WriteString(line[:i])
		if i > 0 && letter(line[i-1]) || end < len(line) && letter(line[end]) {
			b.WriteString(word)
		} else {
			b.WriteString(with)
		}
		line = line[end:]
	}
}
