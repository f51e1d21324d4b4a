package kube

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// TestProcess leads a program through its lives.
func TestProcess(t *testing.T) {
	ns, dir := netnstest.Test(t, "process"), t.TempDir()
	ready := filepath.Join(dir, "ready")
	p := newProcess(ns, dir, Program{Name: "sleeper", Path: "sh", Args: []string{"-c", `echo started; touch "$READY"; sleep 1000; echo over`},
		Env: []string{"READY=" + ready}, Ready: func(context.Context) error { _, err := os.Stat(ready); return err }})
	if p.Running() || p.Kill() != nil {
		t.Error("it runs before it was started")
	}
	for range 2 {
		for range 2 { // again: it runs already
			if err := p.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if !p.Running() {
			t.Error("it doesn't run after its start")
		}
		if command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.PID())); !strings.HasPrefix(string(command), "sh\x00-c\x00echo started") {
			t.Errorf("process %d is %q, %v", p.PID(), command, err)
		}
		if err := p.Kill(); err != nil || p.Running() {
			t.Errorf("killed: %v, running: %v", err, p.Running())
		}
		if err := os.Remove(ready); err != nil {
			t.Fatal(err)
		}
	}
	if log, err := p.Log(); err != nil || strings.Count(log, "started\n") != 2 || strings.Contains(log, "over") {
		t.Errorf("log: %q, %v, want two starts", log, err)
	}
	for _, m := range members(dir) {
		t.Errorf("left: %d %s", m.pid, m.command)
	}
}

// TestProcessNotReady: the error says which program it is, why, and what it said.
func TestProcessNotReady(t *testing.T) {
	ns, dir := netnstest.Test(t, "process"), t.TempDir()
	never := func(context.Context) error { return errors.New("no answer") }
	expect := func(ctx context.Context, name, script string, want ...string) {
		t.Helper()
		p := newProcess(ns, dir, Program{Name: name, Path: "sh", Args: []string{"-c", script}, Ready: never})
		defer p.Kill()
		err := p.Start(ctx)
		for _, w := range append(want, name+" isn't ready") {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("error: %v, want one with %q", err, w)
			}
		}
	}
	expect(t.Context(), "loser", "echo no luck today >&2; exit 3", "it has ended", "no luck today")
	expect(t.Context(), "missing", "exec /no/such/program", "/no/such/program")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	expect(ctx, "slow", "echo one moment; sleep 1000", "no answer")
}

// TestTerminate: the program ends in its own way; one that doesn't is named.
func TestTerminate(t *testing.T) {
	ns, dir := netnstest.Test(t, "process"), t.TempDir()
	begin := func(name, script string) *Process {
		ready := filepath.Join(dir, name+".ready")
		p := newProcess(ns, dir, Program{Name: name, Path: "sh", Args: []string{"-c", script + `; touch "$0"; while :; do sleep 0.01; done`, ready},
			Ready: func(context.Context) error { _, err := os.Stat(ready); return err }})
		if err := p.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		return p
	}
	polite := begin("polite", `trap 'echo farewell; exit 0' TERM`)
	if err := polite.Terminate(t.Context()); err != nil || polite.Running() {
		t.Errorf("terminated: %v, running: %v", err, polite.Running())
	}
	if log, err := polite.Log(); err != nil || log != "farewell\n" {
		t.Errorf("log: %q, %v, want its farewell", log, err)
	}
	if err := polite.Terminate(t.Context()); err != nil {
		t.Errorf("terminated again: %v", err)
	}
	stubborn := begin("stubborn", `trap '' TERM`)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := stubborn.Terminate(ctx); err == nil || !strings.Contains(err.Error(), "stubborn runs on") {
		t.Errorf("error: %v, want one that says that it runs on", err)
	}
	if err := stubborn.Kill(); err != nil || stubborn.Running() {
		t.Errorf("killed: %v, running: %v", err, stubborn.Running())
	}
}

// TestCertificates are of the authority, and for those that they name.
func TestCertificates(t *testing.T) {
	p, err := newPKI()
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(p.ca)
	server, err := p.server([]string{"kubernetes"}, netip.MustParseAddr("172.18.0.10"), netip.MustParseAddr("fd00:96::1"))
	if err != nil {
		t.Fatal(err)
	}
	client, err := p.client("system:node:n1", "system:nodes")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kubernetes", "172.18.0.10", "fd00:96::1"} {
		if _, err := parse(t, server).Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
			t.Errorf("server %s: %v", name, err)
		}
	}
	c := parse(t, client)
	if _, err := c.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Error(err)
	}
	if got := fmt.Sprint(c.Subject.CommonName, c.Subject.Organization); got != "system:node:n1[system:nodes]" {
		t.Errorf("client: %s", got)
	}
}

func parse(t *testing.T, p pair) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(p.cert)
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestImage follows an archive from its index to the program.
func TestImage(t *testing.T) {
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("the program"), 0o600); err != nil {
		t.Fatal(err)
	}
	var archive, again bytes.Buffer
	image := Image{Name: "unmasq.test/x:1", Files: map[string]string{"/usr/bin/x": program, "/x": program}, Entrypoint: []string{"/x"}}
	if err := errors.Join(image.write(&archive), image.write(&again)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(archive.Bytes(), again.Bytes()) {
		t.Error("written twice, it differs")
	}
	files := untar(t, &archive)
	type descriptor struct {
		Digest      string
		Size        int
		Annotations map[string]string
	}
	blob := func(d descriptor) []byte {
		content := files["blobs/"+strings.Replace(d.Digest, ":", "/", 1)]
		if sum := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(content))); sum != d.Digest || len(content) != d.Size {
			t.Errorf("blob %s of %d bytes has %d with %s", d.Digest, d.Size, len(content), sum)
		}
		return []byte(content)
	}
	var index struct{ Manifests []descriptor }
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	decode(t, []byte(files["index.json"]), &index)
	if got := index.Manifests[0].Annotations["io.containerd.image.name"]; got != image.Name {
		t.Errorf("name: %q", got)
	}
	decode(t, blob(index.Manifests[0]), &manifest)
	if config := string(blob(manifest.Config)); !strings.Contains(config, manifest.Layers[0].Digest) || !strings.Contains(config, `"Entrypoint":["/x"]`) {
		t.Errorf("configuration: %s", config)
	}
	layer := untar(t, bytes.NewReader(blob(manifest.Layers[0])))
	if layer["usr/bin/x"] != "the program" || layer["x"] != "the program" {
		t.Errorf("layer: %q", layer)
	}
	image.Files["/y"] = "/no/such/file"
	if err := image.write(io.Discard); err == nil || !strings.Contains(err.Error(), "/no/such/file") || !strings.Contains(err.Error(), image.Name) {
		t.Errorf("of a file that isn't there: %v", err)
	}
}

func untar(t *testing.T, r io.Reader) map[string]string {
	t.Helper()
	files := map[string]string{}
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = string(content)
	}
}

func decode(t *testing.T, text []byte, to any) {
	t.Helper()
	if err := json.Unmarshal(text, to); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
}

func TestSynced(t *testing.T) {
	const metric = "kubeproxy_sync_proxy_rules_last_timestamp_seconds"
	for _, c := range []struct {
		name, metrics string
		want          bool
	}{
		{"both families", metric + `{ip_family="IPv4"} 1.76e+09` + "\n" + metric + `{ip_family="IPv6"} 1.76e+09` + "\n", true},
		{"one family", "# HELP " + metric + " x\n" + metric + `{ip_family="IPv4"} 1.76e+09` + "\n", false},
		{"one, and none yet", metric + `{ip_family="IPv4"} 1.76e+09` + "\n" + metric + `{ip_family="IPv6"} 0` + "\n", false},
		{"without families", metric + " 1.76e+09\n", true},
		{"never", metric + " 0\n", false},
		{"nothing", "", false},
	} {
		if err := synced(c.metrics); (err == nil) != c.want {
			t.Errorf("%s: %v, want synced: %v", c.name, err, c.want)
		}
	}
}

// TestSweep removes the directories of processes that are no more, and no others.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	mine, gone := filepath.Join(dir, fmt.Sprintf("%s%d-1", prefix, os.Getpid())), filepath.Join(dir, prefix+"4194305-1") // above any process's number
	for _, d := range []string{mine, gone} {
		if err := os.MkdirAll(filepath.Join(d, "n1"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := Sweep(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(mine); err != nil {
		t.Errorf("of this process: %v", err)
	}
	if _, err := os.Stat(gone); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of one that is gone: %v", err)
	}
	if left, err := Left(); err != nil || len(left) != 1 || left[0] != mine {
		t.Errorf("left: %v, %v, want %s", left, err, mine)
	}
}
