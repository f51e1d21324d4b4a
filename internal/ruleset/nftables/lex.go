package nftables

import (
	"net/netip"
	"strings"
)

// tokenKind is a kind of token of nft's language.
type tokenKind uint8

const (
	// tokEnd is the end of the text.
	tokEnd tokenKind = iota
	tokNewline
	// tokWord is a name, number or address without quotes.
	tokWord
	// tokString is what stood in quotes, without them.
	tokString
	// tokPunct is anything else: a bracket, comma, operator.
	tokPunct
	// tokXT is "# xt_NAME", as nft without libxtables prints an extension; and
	// other comments in tables of iptables-nft.
	tokXT
)

// token of the text; text[start:end] is as written.
type token struct {
	kind       tokenKind
	text       string
	start, end int
	line       int
}

// lexer gives the text's tokens one by one. Its value is a position that can be
// gone back to.
type lexer struct {
	text string
	// pos and line are after tok, the token being looked at.
	pos, line int
	tok       token
	// last is the end of the token before tok.
	last int
	// handle is the number of the "# handle" comment that came before tok; 0 without.
	handle uint64
	// compat: in a table of iptables-nft, whose comments are nft's way to show
	// what it can't.
	compat bool
	// warned are the tables named by nft's warnings.
	warned map[string]bool
}

// next makes the following token the current one.
func (x *lexer) next() {
	x.last = x.tok.end
	x.skip()
	x.tok = token{start: x.pos, end: x.pos, line: x.line}
	if x.pos >= len(x.text) {
		return
	}
	switch c := x.text[x.pos]; {
	case c == '\n':
		x.take(tokNewline, 1)
		x.line++
	case c == '"':
		x.quoted()
	case c == '#':
		x.extension()
	case isWordStart(c) || c == ':' && strings.HasPrefix(x.text[x.pos:], "::"):
		x.word()
	default:
		x.punct()
	}
	x.pos = x.tok.end
}

func (x *lexer) take(kind tokenKind, length int) {
	x.tok.kind, x.tok.end = kind, x.pos+length
	x.tok.text = x.text[x.pos : x.pos+length]
}

// skip goes over blanks, continued lines and comments, which it takes note of.
func (x *lexer) skip() {
	for x.pos < len(x.text) {
		switch c := x.text[x.pos]; c {
		case ' ', '\t', '\f', '\v', '\'':
			x.pos++
		case '\\':
			x.pos++
			x.continued()
		case '#':
			if !x.comment() {
				return
			}
		default:
			return
		}
	}
}

// continued goes over the end of a line after a backslash.
func (x *lexer) continued() {
	rest := strings.TrimLeft(x.text[x.pos:min(len(x.text), x.pos+64)], " \t")
	if strings.HasPrefix(rest, "\n") {
		x.pos += strings.IndexByte(x.text[x.pos:], '\n') + 1
		x.line++
	}
}

// comment goes over a comment, up to the line's end. It returns false for one
// that stands for a statement.
func (x *lexer) comment() bool {
	text := strings.TrimLeft(x.text[x.pos+1:], " ")
	if strings.HasPrefix(text, "xt_") {
		return false
	}
	number, isHandle := strings.CutPrefix(text, "handle ")
	if isHandle {
		x.handle = leadingNumber(number)
	} else if x.compat && x.last > 0 && x.tok.kind != tokNewline && !strings.HasPrefix(text, "count ") {
		return false
	}
	text = upToNewline(text)
	if table, isWarning := strings.CutPrefix(text, "Warning: table "); isWarning {
		x.warning(table)
	}
	x.pos += len(upToNewline(x.text[x.pos:]))
	return true
}

func upToNewline(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// warning reads the rest of
//
//	# Warning: table ip nat is managed by iptables-nft, do not touch!
func (x *lexer) warning(text string) {
	name, by, _ := strings.Cut(text, " is managed by ")
	if strings.HasPrefix(by, "iptables") && len(name) < 200 {
		if x.warned == nil {
			x.warned = map[string]bool{}
		}
		x.warned[strings.TrimSpace(name)] = true
	}
}

// extension takes "# xt_NAME" as a token; any other comment up to the line's end.
func (x *lexer) extension() {
	rest := x.text[x.pos:]
	name := strings.TrimLeft(rest[1:], " ")
	if strings.HasPrefix(name, "xt_") {
		start := len(rest) - len(name)
		x.take(tokXT, start+wordLength(name))
		x.tok.text = x.tok.text[start+len("xt_"):]
		return
	}
	x.take(tokXT, len(upToNewline(rest)))
}

// quoted takes a string. It has no escapes; a quote that a letter or digit
// follows doesn't end it. One that isn't closed ends with the line, or is cut.
func (x *lexer) quoted() {
	rest := x.text[x.pos+1:]
	for at := 0; at < len(rest) && rest[at] != '\n'; at++ {
		if rest[at] == '"' && (at+1 >= len(rest) || !isAlnum(rest[at+1])) {
			x.take(tokString, at+2)
			x.tok.text = rest[:at]
			return
		}
	}
	x.take(tokPunct, 1+len(upToNewline(rest)))
}

// word takes an address, a number, or a name.
func (x *lexer) word() {
	rest := x.text[x.pos:]
	if n := addressLength(rest); n > 0 {
		x.take(tokWord, n)
		return
	}
	n := 0
	if isDigit(rest[0]) {
		for n < len(rest) && isAlnum(rest[n]) {
			n++
		}
	} else {
		n = wordLength(rest)
		if strings.HasPrefix(rest[n:], "*") {
			n++
		}
	}
	if n == 0 || rest[:n] == "." {
		x.take(tokPunct, 1)
		return
	}
	x.take(tokWord, n)
}

func wordLength(s string) int {
	n := 0
	for n < len(s) && (isAlnum(s[n]) || strings.IndexByte("/-_.", s[n]) >= 0) {
		n++
	}
	return n
}

func (x *lexer) punct() {
	n := 1
	if x.pos+1 < len(x.text) {
		switch x.text[x.pos : x.pos+2] {
		case "==", "!=", "<=", ">=", "<<", ">>":
			n = 2
		}
	}
	x.take(tokPunct, n)
}

// longestAddress is the length of the longest way to write an address.
const longestAddress = len("0000:0000:0000:0000:0000:ffff:255.255.255.255")

// addressLength is the length of the IPv4, IPv6 or Ethernet address, or the
// class, that s begins with; 0 without.
func addressLength(s string) int {
	n, colons, dots, plain := 0, 0, 0, true
	for ; n < len(s) && n <= longestAddress+1; n++ {
		switch c := s[n]; {
		case c == ':':
			colons++
		case c == '.':
			if colons == 0 {
				dots++
			}
		case !isHex(c):
			return matchAddress(s, n, colons, dots, plain)
		case !isDigit(c) && colons == 0:
			plain = false
		}
	}
	return matchAddress(s, n, colons, dots, plain)
}

func matchAddress(s string, n, colons, dots int, plain bool) int {
	if dots == 3 && plain {
		end := strings.IndexByte(s[:n], ':')
		if end < 0 {
			end = n
		}
		if validAddress(s, end) {
			return end
		}
		return 0
	}
	if colons == 1 && dots == 0 && isClass(s[:n], s[n:]) {
		return n
	}
	if colons < 2 || n > longestAddress {
		return 0
	}
	if validAddress(s, n) {
		return n
	}
	if s[n-1] == ':' && validAddress(s, n-1) {
		return n - 1
	}
	return 0
}

// isClass says whether s is a class of traffic control, 1:20, as nft tells it
// from a map's key and value: by what follows.
func isClass(s, rest string) bool {
	major, minor, _ := strings.Cut(s, ":")
	if len(major) < 1 || len(major) > 4 || len(minor) < 1 || len(minor) > 4 {
		return false
	}
	return rest == "" || strings.IndexByte(" \t\n:-},;", rest[0]) >= 0
}

func validAddress(s string, n int) bool {
	if n < len(s) && isAlnum(s[n]) {
		return false
	}
	if _, err := netip.ParseAddr(s[:n]); err == nil {
		return true
	}
	return isEthernet(s[:n])
}

// isEthernet says whether s is six bytes in hex with colons between.
func isEthernet(s string) bool {
	parts := 0
	for part := range strings.SplitSeq(s, ":") {
		parts++
		if len(part) == 0 || len(part) > 2 || strings.Contains(part, ".") {
			return false
		}
	}
	return parts == 6
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isHex(c byte) bool { return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'f' }

func isAlnum(c byte) bool {
	return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'z' || c == '_' || c >= 0x80
}

func isWordStart(c byte) bool { return isAlnum(c) || c == '.' }

// leadingNumber is the decimal number that s begins with; 0 without.
func leadingNumber(s string) uint64 {
	var n uint64
	for i := 0; i < len(s) && i < 19 && isDigit(s[i]); i++ {
		n = n*10 + uint64(s[i]-'0')
	}
	return n
}

// isStop ends a name of a table, chain or set, which may have nearly any
// character in it.
func isStop(c byte) bool { return strings.IndexByte(" \t\n\f\v{};,\"'\\#", c) >= 0 }
