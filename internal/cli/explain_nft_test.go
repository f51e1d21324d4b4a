package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"
)

const nftText = `table ip t { # handle 1
	chain c { # handle 1
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 10.0.0.0/8 masquerade # handle 2
	}
}
`

const nftJSON = `{"nftables": [{"metainfo": {"version": "1.0.6", "release_name": "x", "json_schema_version": 1}},
{"table": {"family": "ip", "name": "t", "handle": 1}},
{"chain": {"family": "ip", "table": "t", "name": "c", "handle": 1, "type": "nat", "hook": "postrouting", "prio": 100, "policy": "accept"}},
{"rule": {"family": "ip", "table": "t", "chain": "c", "handle": 2, "expr": [{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": {"prefix": {"addr": "10.0.0.0", "len": 8}}}}, {"masquerade": null}]}}]}
`

const nftCommands = `add table ip t
add chain ip t c { type nat hook postrouting priority 100; }
add rule ip t c ip saddr 10.0.0.0/8 masquerade
`

// TestExplainPastedRuleset: what terminals, mails and editors do to nft's output
// is undone, or said with file and line; an edit in commands is followed.
func TestExplainPastedRuleset(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	const masqueraded, kept = "masqueraded", "itself (kept"
	replace := strings.NewReplacer
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"text":              {nftText, []string{masqueraded}},
		"CRLF":              {strings.ReplaceAll(nftText, "\n", "\r\n"), []string{masqueraded}},
		"byte order mark":   {"\ufeff" + nftText, []string{masqueraded}},
		"UTF-16":            {utf16Of(nftText), []string{masqueraded}},
		"latin-1":           {strings.Replace(nftText, "masquerade", "masquerade comment \"B\xfcro\"", 1), []string{masqueraded}},
		"colours":           {replace("chain", "\x1b[1;31mchain\x1b[0m", "masquerade", "\x1b[32mmasquerade\x1b[m").Replace(nftText), []string{masqueraded}},
		"a shell session":   {"root@node:~# nft -a list ruleset\n" + nftText + "root@node:~# exit\n", []string{masqueraded}},
		"a warning of nft":  {"# Warning: table ip nat is managed by iptables-nft, do not touch!\n" + strings.Replace(nftText, "table ip t", "table ip nat", 1), []string{masqueraded, "give iptables-save too"}},
		"cut":               {nftText[:100], []string{kept, "file:2: the text ends before its closing brace", "taken as empty: all other tables"}},
		"a NUL":             {nftText + "\x00", []string{"unmasq: file: not text; known are"}},
		"a missing chain":   {strings.Replace(nftText, "masquerade", "jump nope", 1), []string{"chain nope"}},
		"a loop":            {strings.Replace(nftText, "masquerade", "jump c", 1), []string{"chain c calls itself"}},
		"a bad priority":    {strings.Replace(nftText, "srcnat", "soon", 1), []string{`file:3: the priority "soon" isn't known in family ip`}},
		"octal":             {strings.Replace(nftText, "srcnat", "0144", 1), []string{masqueraded}},
		"a reversed range":  {strings.Replace(nftText, "10.0.0.0/8", "10.0.0.9-10.0.0.1", 1), []string{masqueraded, kept, "10.0.0.9-10.0.0.1"}},
		"JSON":              {nftJSON, []string{masqueraded}},
		"JSON of a session": {"$ nft -j list ruleset\n" + nftJSON, []string{masqueraded}},
		"JSON cut":          {nftJSON[:300], []string{"unmasq: file:4: the JSON ends in the middle: the file was cut off"}},
		"JSON with a comma": {strings.Replace(nftJSON, "}},", "}},,", 1), []string{"unmasq: file:1: not valid JSON: invalid character ','"}},
		"JSON of another":   {strings.Replace(nftJSON, `"postrouting"`, `["postrouting"]`, 1), []string{kept, "file:3: a hook that isn't known; expected prerouting"}},
		"JSON with a key":   {strings.Replace(nftJSON, `"op": "=="`, `"op": "==", "colour": 1`, 1), []string{masqueraded, "a statement that isn't known"}},
		"commands":          {nftCommands, []string{masqueraded}},
		"shell commands":    {"sudo nft " + strings.ReplaceAll(strings.TrimSpace(nftCommands), "\n", "\nsudo nft ") + "\n", []string{masqueraded}},
		"a variable":        {"define lan = 10.0.0.0/8\n" + strings.Replace(nftCommands, "10.0.0.0/8", "$lan", 1), []string{masqueraded}},
		"a flush":           {nftCommands + "flush chain ip t c\n", []string{kept}},
		"a flush of all":    {nftCommands + "flush ruleset\n", []string{kept}},
		"a deletion":        {nftCommands + "delete chain ip t c\n", []string{kept}},
		"a bad deletion":    {nftCommands + "delete rule ip t c handle 7\n", []string{masqueraded, "file:4: there is no rule of that handle"}},
		"an include":        {"include \"/etc/other.nft\"\n" + nftCommands, []string{masqueraded, "file:1: other files aren't read", "taken as empty: all other tables"}},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(filepath.Join(dir, "file"), []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			var out, errs bytes.Buffer
			Main("test", []string{"explain", "--snapshot", "file", "--in-interface", "eth1", "--out-interface", "eth0", "10.0.0.5", "192.0.2.9:80"}, strings.NewReader(""), &out, &errs)
			for _, want := range c.want {
				if !strings.Contains(out.String()+errs.String(), want) {
					t.Errorf("it doesn't say %q:\n%s%s", want, out.String(), errs.String())
				}
			}
			if len(c.want) == 1 && c.want[0] != kept && strings.Contains(out.String(), kept) {
				t.Errorf("it says %q too:\n%s", kept, out.String())
			}
		})
	}
}

// utf16Of is what a file of PowerShell's > looks like.
func utf16Of(text string) string {
	out := []byte("\xff\xfe")
	for _, unit := range utf16.Encode([]rune(text)) {
		out = append(out, byte(unit), byte(unit>>8))
	}
	return string(out)
}
