package main

import "testing"

func TestOnlyLate(t *testing.T) {
	const progress = "fuzz: elapsed: 12s, execs: 92145 (20542/sec), new interesting: 10 (total: 3036)\n"
	for _, c := range []struct {
		name, said string
		want       bool
	}{
		{"the time was over", progress + "--- FAIL: FuzzRead (15.24s)\n    context deadline exceeded\nFAIL\nexit status 1\nFAIL\tgithub.com/unmasq/unmasq/internal/snapshot\t15.245s\n", true},
		{"found", progress + "--- FAIL: FuzzRead (3.01s)\n    --- FAIL: FuzzRead (0.00s)\n        read_test.go:7: lost a line\n    \n    Failing input written to testdata/fuzz/FuzzRead/1\n    To re-run:\n    go test -run=FuzzRead/1\nFAIL\nexit status 1\nFAIL\tx\t3.0s\n", false},
		{"a target's own deadline", "--- FAIL: FuzzRead (3.01s)\n    --- FAIL: FuzzRead (0.00s)\n        context deadline exceeded\n    \n    Failing input written to testdata/fuzz/FuzzRead/1\nFAIL\nexit status 1\nFAIL\tx\t3.0s\n", false},
		{"a worker hangs", "--- FAIL: FuzzRead (3.01s)\n    fuzzing process hung or terminated unexpectedly: exit status 2\nFAIL\nexit status 1\nFAIL\tx\t3.0s\n", false},
		{"doesn't build", "FAIL\tx [build failed]\nFAIL\n", false},
	} {
		if got := onlyLate(c.said); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestFind(t *testing.T) {
	all, err := find("../../internal")
	if err != nil || len(all) < 10 {
		t.Fatalf("%d targets: %v", len(all), err)
	}
	for _, want := range []string{"FuzzReadSave", "FuzzReadJSON"} {
		found := false
		for _, got := range all {
			found = found || got.name == want
		}
		if !found {
			t.Errorf("%s isn't among %v", want, all)
		}
	}
}
