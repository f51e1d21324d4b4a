package snapshot

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const aRule = "-A POSTROUTING -s 10.0.0.0/8 -j MASQUERADE\n"

func gzipped(text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	fmt.Fprint(z, text)
	z.Close()
	return b.String()
}

// tarred makes an archive of names and contents in turn.
func tarred(pairs ...string) string {
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	for i := 0; i+1 < len(pairs); i += 2 {
		_ = t.WriteHeader(&tar.Header{Name: pairs[i], Mode: 0o600, Size: int64(len(pairs[i+1])), Typeflag: tar.TypeReg})
		fmt.Fprint(t, pairs[i+1])
	}
	t.Close()
	return b.String()
}

func meta(host string) string {
	return fmt.Sprintf(`{"version":1,"host":%q,"kernel":"6.1","programs":{}}`, host)
}

// TestErrors: what can't be read is one error that names the file and what was expected.
func TestErrors(t *testing.T) {
	tight := limits{total: 4000, file: 3000, line: 200, entries: 3, depth: 2}
	long := strings.Repeat(aRule, 100)
	for _, c := range []struct {
		name string
		// files by name; a name that ends in / is an empty directory.
		files map[string]string
		// give what is read, all of the directory if empty.
		give []string
		want []string
	}{
		{"nothing there", nil, []string{"none.txt"}, []string{"none.txt: no such file"}},
		{"empty file", map[string]string{"a": " \n"}, []string{"a"}, []string{"a: the file is empty"}},
		{"empty directory", map[string]string{"d/": ""}, []string{"d"}, []string{"d: holds no files", "unmasq snapshot"}},
		{"prose", map[string]string{"a": "Hello,\nit doesn't work.\n"}, []string{"a"}, []string{`a: nothing in it is recognised (it begins "Hello,")`, "iptables-save", "ipset list"}},
		{"comments alone", map[string]string{"a": "# iptables -S\n# nothing\n"}, []string{"a"}, []string{"a: nothing in it is recognised"}},
		{"directory of prose", map[string]string{"d/a": "Hello", "d/b": "there"}, []string{"d"}, []string{"d/a: nothing in the 2 files is recognised"}},
		{"binary", map[string]string{"a": "\x7fELF\x00\x00\x01"}, []string{"a"}, []string{"a: not text", "iptables-save"}},
		{"cut gzip", map[string]string{"a.gz": gzipped(long)[:60]}, []string{"a.gz"}, []string{"a.gz: the gzip file is cut off"}},
		{"gzip of nothing", map[string]string{"a.gz": gzipped("")}, []string{"a.gz"}, []string{"a.gz: the file is empty"}},
		{"cut tar", map[string]string{"a.tgz": gzipped(tarred("x/iptables-save.txt", aRule)[:530])}, []string{"a.tgz"}, []string{"a.tgz:x/iptables-save.txt: the archive is cut off"}},
		{"xz", map[string]string{"a.xz": "\xfd7zXZ\x00\x00"}, []string{"a.xz"}, []string{"a.xz: packed by xz: unpack it first"}},
		{"cut JSON", map[string]string{"a": "[{\"ifname\":\"lo\",\n\"flags\":[\n"}, []string{"a"}, []string{"a:2: the JSON ends in the middle"}},
		{"broken JSON", map[string]string{"a": "[{\"ifname\":\"lo\"},\n{\"x\":}]\n"}, []string{"a"}, []string{"a:2: not valid JSON"}},
		{"strange JSON", map[string]string{"a": `{"apiVersion":"v1","kind":"List"}`}, []string{"a"}, []string{"a: JSON of no known kind (with apiVersion, kind)"}},
		{"file too large", map[string]string{"a": strings.Repeat("x", 3001)}, []string{"a"}, []string{"a: larger than 3000 bytes"}},
		{"unpacks too large", map[string]string{"a.gz": gzipped(strings.Repeat("x", 100000))}, []string{"a.gz"}, []string{"a.gz: larger than 3000 bytes"}},
		{"all too large", map[string]string{"a": long[:2900], "b": long[:2900]}, []string{"a", "b"}, []string{"b: with it, more than 4000 bytes is to be read in all"}},
		{"line too long", map[string]string{"a": aRule + strings.Repeat("x", 300)}, []string{"a"}, []string{"a:2: a line longer than 200 bytes"}},
		{"too many files", map[string]string{"d/a": aRule, "d/b": aRule, "d/c": aRule, "d/d": aRule}, []string{"d"}, []string{"d: more than 3 files"}},
		{"too many entries", map[string]string{"a.tar": tarred("a", "", "b", "", "c", "", "d", "")[:2560]}, []string{"a.tar"}, []string{"a.tar: more than 3 entries"}},
		{"too deep", map[string]string{"d/1/2/3/a": aRule}, []string{"d"}, []string{"more than 2 directories deep"}},
		{"two snapshots", map[string]string{"d/a/iptables-save.txt": aRule, "d/b/iptables-save.txt": aRule}, []string{"d"}, []string{"d: holds more than one snapshot"}},
		{"two hosts", map[string]string{"a/meta.json": meta("a"), "b/meta.json": meta("b")}, []string{"a", "b"}, []string{"b/meta.json: the snapshot of another node (b) than the first (a)", "NAME=PATH"}},
		{"later layout", map[string]string{"a/meta.json": `{"version":2,"kernel":"","programs":{}}`}, []string{"a"}, []string{"a/meta.json: version 2 of the layout", "reads version 1"}},
		{"contradictory routes", map[string]string{"a": "default via 192.0.2.1 dev eth0\n", "b": "default via 192.0.2.2 dev eth0\n"}, []string{"a", "b"}, []string{"a:1 and ", "b:1: contradictory: route 0.0.0.0/0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			var paths []string
			for _, g := range c.give {
				paths = append(paths, filepath.Join(dir, g))
			}
			writeAll(t, dir, c.files)
			host, err := read(paths, nil, tight, nil)
			if err == nil {
				t.Fatalf("no error; read %+v", host)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\nwant %q", err, want)
				}
			}
			if strings.Count(err.Error(), "\n") > 0 {
				t.Errorf("more than one line: %v", err)
			}
		})
	}
}

func writeAll(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "/") {
			if err := os.Mkdir(p, 0o700); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestContainers(t *testing.T) {
	save := "*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n" + aRule + "COMMIT\n"
	utf16 := "\xff\xfe"
	for _, c := range save {
		utf16 += string([]byte{byte(c), 0})
	}
	for name, content := range map[string]string{
		"plain.txt": save, "crlf.txt": strings.ReplaceAll(save, "\n", "\r\n"), "mac.txt": strings.ReplaceAll(save, "\n", "\r"),
		"bom.txt": "\xef\xbb\xbf" + save, "utf16.txt": utf16, "colours.txt": "\x1b[1;32m" + strings.ReplaceAll(save, "\n", "\x1b[0m\n\x1b[1;32m"),
		"gzip": gzipped(save), "a.tar": tarred("../evil", save, "/abs", save, "n/iptables-save.txt", save),
		"quoted.txt":   "> " + strings.ReplaceAll(save, "\n", "\n> "),
		"indented.txt": "    " + strings.ReplaceAll(save, "\n", "\n    "),
	} {
		t.Run(name, func(t *testing.T) {
			p := filepath.Join(t.TempDir(), name)
			if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			host, err := Read([]string{p}, nil)
			if err != nil {
				t.Fatal(err)
			}
			tables := host.Rules.Tables
			if len(tables) != 1 || tables[0].Excerpt || len(tables[0].Chain("POSTROUTING").Rules) != 1 || tables[0].Chain("POSTROUTING").Rules[0].Line != 6 {
				t.Errorf("read %+v", tables)
			}
			if want := map[bool]int{true: 2}[name == "a.tar"]; len(host.Notes) != want {
				t.Errorf("notes: %v, want %d", host.Notes, want)
			}
		})
	}
	host, err := Read([]string{"-"}, strings.NewReader(save))
	if err != nil || len(host.Rules.Tables) != 1 || host.Rules.Tables[0].File != "stdin" {
		t.Errorf("stdin: %+v, %v", host, err)
	}
}

// TestOddFiles: what isn't a regular file in a directory is no reason to hang or to stop.
func TestOddFiles(t *testing.T) {
	dir := t.TempDir()
	writeAll(t, dir, map[string]string{"rules": aRule, "inner.tgz": gzipped(tarred("x", "y"))})
	if err := os.Symlink("/nowhere", filepath.Join(dir, "dangling")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/zero", filepath.Join(dir, "endless")); err != nil {
		t.Fatal(err)
	}
	host, err := Read([]string{dir}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(host.Notes) != 3 || len(host.Rules.Tables) != 1 {
		t.Errorf("notes %v, tables %v", host.Notes, host.Rules.Tables)
	}
}

// TestHostile: a large file of nonsense ends soon, and what is kept of it is small.
func TestHostile(t *testing.T) {
	const many = 2 << 20
	for name, unit := range map[string]string{
		"blank": "\n", "prose": "lorem ipsum\n", "alternating": "net.a = 1\n-N x\n", "notes": "lorem\n\n", "brackets": "[\n", "objects": "{}\n",
		"open JSON": "[{\"a\":", "tables": "table ip x {\n", "commands": "# iptables -S\n", "prompts": "a@b:~# x\n", "chains": "*nat\n:A - [0:0]\n",
		"links": "1: a: <UP> mtu 1\n", "headings": "# ip route\n\nx\n", "one line": "x", "rules": "-A A -j B\n", "sets": "create a hash:ip\n", "routes": "default via 1.1.1.1 dev a\n\nx\n",
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Repeat(unit, many/len(unit))
			host, err := build([]file{{name: "a", content: []byte(text)}}, nil, usual, nil)
			if err != nil {
				if len(err.Error()) > 1000 {
					t.Errorf("an error of %d bytes", len(err.Error()))
				}
			} else if len(host.Notes) > 3*maxNotes {
				t.Errorf("%d notes", len(host.Notes))
			}
		})
	}
}

func FuzzRead(f *testing.F) {
	all, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(all) == 0 {
		f.Fatal(err)
	}
	for _, name := range all {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(gzipped(tarred("a/iptables-save.txt", aRule))))
	f.Fuzz(func(t *testing.T, content []byte) {
		small := limits{total: 1 << 20, file: 1 << 19, line: 1 << 14, entries: 20, depth: 2}
		l := &loader{limits: small}
		if err := l.stream("a", bytes.NewReader(content)); err != nil {
			return
		}
		host, err := build(l.files, l.notes, small, nil)
		if (host == nil) == (err == nil) {
			t.Errorf("host %v, error %v", host, err)
		}
		if host != nil {
			for _, n := range host.Notes {
				if n.Why == "" || n.Line > 1+bytes.Count(content, []byte("\n"))+bytes.Count(content, []byte("\r")) && len(l.files) == 1 && l.files[0].name == "a" && content[0] != 0x1f {
					t.Errorf("note %+v", n)
				}
			}
		}
	})
}

// TestTooManyRoutes: memory stays bounded, and it is said where.
func TestTooManyRoutes(t *testing.T) {
	text := strings.Repeat("10.0.0.0/8 dev a\n", mostLines+1)
	_, err := build([]file{{name: "a", content: []byte(text)}}, nil, usual, nil)
	if err == nil || !strings.Contains(err.Error(), "a:1: with it, more than 1572864 routes") {
		t.Error(err)
	}
}
