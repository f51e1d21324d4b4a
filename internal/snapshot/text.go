package snapshot

import (
	"bytes"
	"strings"
	"unicode/utf16"
)

// plain turns a file into lines that end with LF: dumps come by way of Windows
// terminals (CR LF, UTF-16 by PowerShell's >), web forms (CR alone), and
// programs that were told to print colours.
func plain(content []byte) string {
	if bytes.HasPrefix(content, []byte("\xff\xfe")) || bytes.HasPrefix(content, []byte("\xfe\xff")) {
		content = fromUTF16(content)
	}
	content = bytes.TrimPrefix(content, []byte("\xef\xbb\xbf"))
	text := string(content)
	if strings.IndexByte(text, '\r') >= 0 {
		text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")
	}
	if strings.Contains(text, "\x1b[") {
		text = withoutColours(text)
	}
	if text != "" && text[0] == '>' || strings.Contains(text, "\n>") {
		text = withoutQuotes(text)
	}
	return text
}

// withoutQuotes takes out the marks of a mail or Markdown quotation, which no
// line of a dump begins with: "> *nat", ">> *nat".
func withoutQuotes(text string) string {
	var b strings.Builder
	b.Grow(len(text))
	for line := range strings.Lines(text) {
		if line[0] == '>' {
			line = strings.TrimLeft(line, "> ")
		}
		b.WriteString(line)
	}
	return b.String()
}

func fromUTF16(content []byte) []byte {
	low, high := 0, 1
	if content[0] == 0xfe {
		low, high = 1, 0
	}
	units := make([]uint16, 0, len(content)/2)
	for i := 2; i+1 < len(content); i += 2 {
		units = append(units, uint16(content[i+low])|uint16(content[i+high])<<8)
	}
	return []byte(string(utf16.Decode(units)))
}

// withoutColours takes out ANSI sequences: ESC [ 3 2 m.
func withoutColours(text string) string {
	var b strings.Builder
	b.Grow(len(text))
	for {
		before, after, found := strings.Cut(text, "\x1b[")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		after = strings.TrimLeft(after, "0123456789;?")
		if after != "" && after[0] != '\n' {
			after = after[1:]
		}
		text = after
	}
}
