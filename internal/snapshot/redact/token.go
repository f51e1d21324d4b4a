package redact

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// dotted finds IPv4 addresses inside words, and dashed those in cloud host
// names: ip-10-0-1-5.
var (
	dotted = regexp.MustCompile(`\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}`)
	dashed = regexp.MustCompile(`\bip-(\d{1,3})-(\d{1,3})-(\d{1,3})-(\d{1,3})\b`)
)

// inWord says which bytes addresses are made of, and words that hold them.
func inWord(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '.' || c == ':'
}

// tokens replaces the addresses of a line.
func (r *Redactor) tokens(line string) string {
	if !strings.ContainsAny(line, ".:") && !strings.Contains(line, "ip-") {
		return line
	}
	var b strings.Builder
	b.Grow(len(line) + 16)
	for i := 0; i < len(line); {
		if !inWord(line[i]) {
			b.WriteByte(line[i])
			i++
			continue
		}
		end := i
		for end < len(line) && inWord(line[end]) {
			end++
		}
		i = r.word(&b, line, i, end)
	}
	out := b.String()
	if strings.Contains(out, "ip-") {
		out = dashed.ReplaceAllStringFunc(out, func(s string) string {
			a, err := netip.ParseAddr(strings.ReplaceAll(s[len("ip-"):], "-", "."))
			if err != nil {
				return s
			}
			return "ip-" + strings.ReplaceAll(r.Address(a).String(), ".", "-")
		})
	}
	return out
}

// word replaces what an address is of line[start:end], a length behind it taken
// into account, and returns where to go on.
func (r *Redactor) word(b *strings.Builder, line string, start, end int) int {
	word := line[start:end]
	if len(word) < 2 || !strings.ContainsAny(word, ".:") {
		b.WriteString(word)
		return end
	}
	trimmed := strings.TrimRight(word, ".:")
	if strings.HasSuffix(word, "::") {
		trimmed = word
	}
	tail := word[len(trimmed):]
	if len(trimmed) == 17 && strings.Count(trimmed, ":") == 5 {
		b.WriteString(r.mac(trimmed, "%02x") + tail)
		return end
	}
	if a, err := netip.ParseAddr(trimmed); err == nil {
		if tail == "" {
			text, next := r.withLength(a, line, end)
			b.WriteString(text)
			return next
		}
		b.WriteString(r.Address(a).String() + tail)
		return end
	}
	if a, err := netip.ParseAddrPort(trimmed); err == nil && a.Addr().Is4() {
		b.WriteString(r.Address(a.Addr()).String() + trimmed[strings.LastIndexByte(trimmed, ':'):] + tail)
		return end
	}
	b.WriteString(r.inner(trimmed) + tail)
	return end
}

// bridgeID is a bridge's: 8000.2:42:4f:b7:f6:dd.
var bridgeID = regexp.MustCompile(`^([0-9a-f]{4}\.)([0-9a-f]{1,2}(?::[0-9a-f]{1,2}){5})$`)

// inner replaces IPv4 addresses in the middle of a word.
func (r *Redactor) inner(word string) string {
	if m := bridgeID.FindStringSubmatch(word); m != nil {
		return m[1] + r.mac(m[2], "%x")
	}
	spots := dotted.FindAllStringIndex(word, -1)
	if spots == nil {
		return word
	}
	digit := func(i int) bool {
		return i >= 0 && i < len(word) && (word[i] >= '0' && word[i] <= '9' || word[i] == '.')
	}
	var b strings.Builder
	at := 0
	for _, s := range spots {
		a, err := netip.ParseAddr(word[s[0]:s[1]])
		if err != nil || digit(s[0]-1) || digit(s[1]) {
			continue
		}
		b.WriteString(word[at:s[0]] + r.Address(a).String())
		at = s[1]
	}
	return b.String() + word[at:]
}

// lengths are how JSON states the length of a prefix behind its address.
var lengths = regexp.MustCompile(`^",\s*"(?:len|srclen|dstlen)":\s*(\d+)`)

// withLength maps an address whose length follows: /24, /255.255.255.0, or a
// field of its own in JSON.
func (r *Redactor) withLength(a netip.Addr, line string, end int) (text string, next int) {
	if m := lengths.FindStringSubmatch(line[end:min(len(line), end+80)]); m != nil {
		if n, err := strconv.Atoi(m[1]); err == nil && n <= a.BitLen() {
			return r.Prefix(netip.PrefixFrom(a, n)).Addr().String(), end
		}
	}
	if text, next, ok := r.wholeBlock(a, line, end); ok {
		return text, next
	}
	if end >= len(line) || line[end] != '/' {
		return r.Address(a).String(), end
	}
	stop := end + 1
	for stop < len(line) && inWord(line[stop]) {
		stop++
	}
	length := strings.TrimRight(line[end+1:stop], ".:")
	next = end + 1 + len(length)
	if n, err := strconv.Atoi(length); err == nil && n >= 0 && n <= a.BitLen() {
		return r.Prefix(netip.PrefixFrom(a, n)).Addr().String() + line[end:next], next
	}
	if m, err := netip.ParseAddr(length); err == nil && m.BitLen() == a.BitLen() {
		if n := commonBits(m, allOnes(m)); trailing(m, n) {
			return r.Prefix(netip.PrefixFrom(a, n)).Addr().String() + line[end:next], next
		}
		return r.Address(a).String() + line[end:next], next
	}
	return r.Address(a).String(), end
}

// wholeBlock maps a range that is all of a prefix, such as 10.0.0.0-10.0.255.255,
// as that prefix.
func (r *Redactor) wholeBlock(first netip.Addr, line string, end int) (text string, next int, ok bool) {
	for _, between := range [...]string{"-", `", "`, `","`} {
		if !strings.HasPrefix(line[end:], between) {
			continue
		}
		start := end + len(between)
		stop := start
		for stop < len(line) && inWord(line[stop]) {
			stop++
		}
		last, err := netip.ParseAddr(line[start:stop])
		if err != nil || last.BitLen() != first.BitLen() || !first.Less(last) {
			return "", 0, false
		}
		const back = 60
		if between != "-" && !strings.Contains(line[max(0, end-back):end], `"range"`) {
			return "", 0, false
		}
		p, whole := block(first, last)
		if !whole {
			return "", 0, false
		}
		mapped := r.Prefix(p)
		return mapped.Addr().String() + between + lastOf(mapped).String(), stop, true
	}
	return "", 0, false
}

func allOnes(a netip.Addr) netip.Addr { return lastOf(netip.PrefixFrom(a, 0)) }

// trailing says whether a mask has no ones behind the first n.
func trailing(m netip.Addr, n int) bool {
	p, err := m.Prefix(n)
	return err == nil && p.Addr() == m
}
