package lab

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/kernel/netns"
)

func TestParseStart(t *testing.T) {
	const after = " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21"
	for _, name := range []string{"(unmasq)", "(a b)", "(a) (b)"} {
		if got, err := parseStart("12 " + name + after); err != nil || got != "4711" {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
	for _, wrong := range []string{"", "12 (x) S 1", "12 x S"} {
		if got, err := parseStart(wrong); err == nil {
			t.Errorf("%q: got %q", wrong, got)
		}
	}
}

func TestProcess(t *testing.T) {
	cmd := exec.Command("sleep", "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := processOf(cmd.Process.Pid)
	if err != nil || !p.alive() {
		t.Fatalf("alive %v, %v", p.alive(), err)
	}
	if later := (process{p.ID, p.Start + "0"}); later.alive() || later.stop() != nil || !p.alive() {
		t.Error("a process with the same id and another start is taken for it")
	}
	go cmd.Wait() //nolint:errcheck // killed
	if err := p.stop(); err != nil || p.alive() {
		t.Errorf("stopped: %v, alive %v", err, p.alive())
	}
	if err := p.stop(); err != nil {
		t.Errorf("stop again: %v", err)
	}
}

// tiny is a scenario of one namespace that belongs to this test process.
func tiny(t *testing.T) Scenario {
	return Scenario{Name: testName(t), Spaces: []Space{{Name: "pod1", Role: Pod}}, Forms: []Form{{}}}
}

// testName is a scenario name that no lab beside this test has.
func testName(t *testing.T) string {
	_, name, _ := strings.Cut(filepath.Base(t.TempDir()), "_")
	return "test" + name + filepath.Base(filepath.Dir(t.TempDir()))
}

func TestClaim(t *testing.T) {
	s, dir := tiny(t), filepath.Join(t.TempDir(), "state")
	rec, err := claim(dir, &s, &s.Forms[0], foreign.NFT)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := claim(dir, &s, &s.Forms[0], foreign.NFT); err == nil || !strings.Contains(err.Error(), "is being run by process") {
		t.Errorf("claimed twice: %v", err)
	}
	rec.Up = true
	if err := rec.save(os.O_TRUNC); err != nil {
		t.Fatal(err)
	}
	if _, err := claim(dir, &s, &s.Forms[0], foreign.NFT); err == nil || !strings.Contains(err.Error(), "is up: take it down first, unmasq lab down "+s.Name) {
		t.Errorf("claimed what is up: %v", err)
	}
	if err := rec.drop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the directory stays: %v", err)
	}
}

// What a killed process left is removed by the next run, and by down.
func TestLeftovers(t *testing.T) {
	for _, how := range []string{"claim", "down"} {
		t.Run(how, func(t *testing.T) {
			s, dir := tiny(t), filepath.Join(t.TempDir(), "state")
			rec, err := claim(dir, &s, &s.Forms[0], foreign.NFT)
			if err != nil {
				t.Fatal(err)
			}
			w, err := build(&s, &s.Forms[0], foreign.NFT)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { w.Close() }) //nolint:errcheck // gone if the test went well
			rec.Process.Start += "0"        // a process that is dead
			if err := rec.save(os.O_TRUNC); err != nil {
				t.Fatal(err)
			}
			if how == "claim" {
				again, err := claim(dir, &s, &s.Forms[0], foreign.NFT)
				if err != nil {
					t.Fatal(err)
				}
				defer again.drop() //nolint:errcheck // in a temporary directory
			} else if done, err := (&Runner{Dir: dir}).Down(s.Name); err != nil || len(done) != 1 || done[0].Scenario != s.Name {
				t.Fatalf("down: %v, %v", done, err)
			}
			if left, err := netns.List(s.Namespace("")); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}

func TestDownOfNothing(t *testing.T) {
	for _, name := range []string{"", "docker"} {
		if done, err := (&Runner{Dir: filepath.Join(t.TempDir(), "none")}).Down(name); err != nil || len(done) > 0 {
			t.Errorf("down %q: %v, %v", name, done, err)
		}
	}
}

// A namespace that somebody else made under our name is not touched.
func TestForeignNamespace(t *testing.T) {
	s, dir := tiny(t), filepath.Join(t.TempDir(), "state")
	theirs, err := netns.New(s.Namespace("pod1"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := theirs.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := claim(dir, &s, &s.Forms[0], foreign.NFT); err == nil || !strings.Contains(err.Error(), "isn't the lab's") {
		t.Errorf("claimed: %v", err)
	}
	if _, err := os.Stat(theirs.Path()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("a record was left: %v", err)
	}
}
