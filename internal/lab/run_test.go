package lab

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/kernel/netns"
)

// Every scenario's problem is real: without unmasq each call is seen as the
// scenario says, whoever writes the foreign rules, and again after their restart.
func TestBefore(t *testing.T) {
	for _, s := range Scenarios() {
		for i := range s.Forms {
			form := &s.Forms[i]
			for _, v := range form.Variants() {
				t.Run((&Result{Scenario: s.Name, Form: form.Name, Variant: v}).Title(), func(t *testing.T) {
					t.Parallel() // most of the time is the wait for answers that don't come
					s := s
					s.Name = testName(t)
					before(t, &s, form, v)
				})
			}
		}
	}
}

func before(t *testing.T, s *Scenario, form *Form, v foreign.Variant) {
	ctx := context.Background()
	w, err := build(s, form, v)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}()
	peers, err := w.openPeers(ctx, s.targets(), true)
	if err != nil {
		t.Fatal(err)
	}
	defer closePeers(peers)
	for _, step := range []Step{writePeers, restartPeers} {
		if err := step(ctx, w); err != nil {
			t.Fatal(err)
		}
		stage := StageResult{}
		if stage.Sightings, err = w.measure(ctx, newCaller(), peers, s.StagesOf(form)[0].Expect); err != nil {
			t.Fatal(err)
		}
		if !stage.OK() {
			var out strings.Builder
			WriteTable(&out, &stage, false) //nolint:errcheck // to a string
			t.Errorf("not as expected:\n%s", &out)
		}
	}
}

// quiet is a runner that tells nobody.
func quiet(t *testing.T, binary string) *Runner {
	return &Runner{Binary: binary, Dir: filepath.Join(t.TempDir(), "state")}
}

// script is a program that stands for an agent that goes wrong.
func script(t *testing.T, text string) string {
	file := filepath.Join(t.TempDir(), "unmasq")
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}

// Whatever goes wrong, nothing stays.
func TestRunCleansUp(t *testing.T) {
	for _, c := range []struct {
		name, agent string
		cancel      bool
		want        string
	}{
		{name: "agent ends", agent: "echo the policy is wrong; exit 1", want: "the policy is wrong"},
		{name: "no such program", agent: "", want: "no such file"},
		{name: "interrupted while the agent starts", agent: "trap 'exit 0' TERM; while :; do sleep 0.01; done", cancel: true, want: "context canceled"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := docker()
			s.Name = testName(t)
			binary := "/nonexistent/unmasq"
			if c.agent != "" {
				binary = script(t, c.agent)
			}
			runner := quiet(t, binary)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			if c.cancel {
				runner.Phase = func(text string) {
					if strings.HasPrefix(text, "starting") {
						cancel()
					}
				}
			}
			_, err := runner.Run(ctx, &s, &s.Forms[0], foreign.NFT)
			if err == nil || !strings.Contains(err.Error(), c.want) || c.cancel != errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if left, err := netns.List(s.Namespace("")); err != nil || len(left) > 0 {
				t.Errorf("namespaces left: %v, %v", left, err)
			}
			if _, err := os.Stat(runner.Dir); !os.IsNotExist(err) {
				t.Errorf("record left: %v", err)
			}
		})
	}
}
