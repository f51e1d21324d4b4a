package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/snapshot"
)

// unmasq runs a command line as main does.
func unmasq(args ...string) (status int, stdout, stderr string) {
	var out, log bytes.Buffer
	status = Main("v0-test", args, strings.NewReader(""), &out, &log)
	return status, out.String(), log.String()
}

func TestSnapshot(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"node", "node.tar.gz", "node.tgz"} {
		path := filepath.Join(dir, name)
		status, out, log := unmasq("snapshot", "-o", path)
		if status != statusOK || log != "" {
			t.Fatalf("%s: status %d, %s", name, status, log)
		}
		for _, want := range []string{snapshot.FileLinks + " ", snapshot.FileSysctl + " ", " bytes\n", "\nnext: unmasq explain --snapshot " + path + " SRC DST\n"} {
			if !strings.Contains(out, want) {
				t.Errorf("%s: no %q in\n%s", name, want, out)
			}
		}
		host, err := snapshot.Read([]string{path}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if host.Meta == nil || host.Meta.Unmasq != "v0-test" || !host.Network.KnownLinks {
			t.Errorf("%s: read back as %+v", name, host)
		}
	}
}

func TestSnapshotToStdout(t *testing.T) {
	status, out, log := unmasq("snapshot", "-o", "-", "--redact")
	if status != statusOK || !strings.Contains(log, snapshot.FileLinks) || strings.Contains(log, "next:") {
		t.Fatalf("status %d, %s", status, log)
	}
	host, err := snapshot.Read([]string{"-"}, strings.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if !host.Meta.Redacted || host.Meta.Host == name {
		t.Errorf("not redacted: %+v", host.Meta)
	}
}

func TestSnapshotRefuses(t *testing.T) {
	dir := t.TempDir()
	kept := filepath.Join(dir, "thesis.tex")
	if err := os.WriteFile(kept, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"snapshot"}, "no output given: name a directory or an archive with -o"},
		{[]string{"snapshot", "-o", dir}, "isn't a snapshot (it holds thesis.tex)"},
		{[]string{"snapshot", "-o", kept}, kept},
		{[]string{"snapshot", "node"}, `unexpected argument "node"`},
	} {
		status, out, log := unmasq(c.args...)
		if status != statusUsage || out != "" || !strings.Contains(log, c.want) || strings.Count(log, "\n") != 1 {
			t.Errorf("%v: status %d, %s%s; want %d, %q", c.args, status, out, log, statusUsage, c.want)
		}
	}
	if text, err := os.ReadFile(kept); err != nil || string(text) != "x" {
		t.Errorf("%s: %q, %v", kept, text, err)
	}
}
