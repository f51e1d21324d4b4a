package cli

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "write the answers into testdata")

// asked is what a section of testdata begins with that is a command line.
const asked = "$ unmasq "

// TestExplain: each file of testdata/explain holds the dumps of a node or two,
// and command lines with what they print, as a person would see it. Where a
// line names no snapshot, it is the directory node.
//
//	-- $ unmasq explain 10.244.1.7 192.168.200.253:443 --
//	192.168.200.253:443 sees …
func TestExplain(t *testing.T) { sessions(t, "testdata/explain") }

func sessions(t *testing.T, dir string) {
	files, err := filepath.Glob(dir + "/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	for _, file := range files {
		path, err := filepath.Abs(file)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { session(t, path) })
	}
}

func session(t *testing.T, file string) {
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(unpack(t, archive))
	commands := 0
	for i, f := range archive.Files {
		words, ok := strings.CutPrefix(f.Name, asked)
		if !ok {
			continue
		}
		commands++
		got := transcript(fields(words))
		if diff := cmp.Diff(string(f.Data), got); diff != "" && !*update {
			t.Errorf("%s\n-want +got\n%s", f.Name, diff)
		}
		archive.Files[i].Data = []byte(got)
	}
	if commands == 0 {
		t.Errorf("%s asks nothing", file)
	}
	if *update {
		if err := os.WriteFile(file, txtar.Format(archive), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// unpack writes the files of an archive that are no commands.
func unpack(t *testing.T, archive *txtar.Archive) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range archive.Files {
		if strings.HasPrefix(f.Name, asked) {
			continue
		}
		path := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f.Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// fields parts a command line; a word may be in single quotes.
func fields(line string) []string {
	var all []string
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			all = append(all, part)
			continue
		}
		all = append(all, strings.Fields(part)...)
	}
	return all
}

// transcript runs a command line and writes down what a terminal shows.
func transcript(args []string) string {
	if !slices.Contains(args, "--snapshot") {
		args = slices.Insert(args, 1, "--snapshot", "node")
	}
	var out, log bytes.Buffer
	status := Main("v0-test", args, strings.NewReader(""), &out, &log)
	text := out.String() + log.String()
	if status != statusOK {
		text += fmt.Sprintf("exit status %d\n", status)
	}
	return text
}
