package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/explain"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

const exampleNode = "../../docs/example/node-a"

func runReplay(args ...string) (status int, out, log string) {
	var stdout, stderr bytes.Buffer
	status = Main("v0-test", append([]string{"explain", "--replay"}, args...), strings.NewReader(""), &stdout, &stderr)
	return status, stdout.String(), stderr.String()
}

func TestExplainReplay(t *testing.T) {
	status, out, log := runReplay("--snapshot", exampleNode, "10.244.1.7", "10.244.2.9:80")
	want := `
replayed in this kernel
  agrees
  60 ×  tcp  10.244.1.7:40000-40059 → 10.244.2.9:80, out by flannel.1  as predicted
  left out: what tunnel flannel.1 makes of the packet: a veth stands in for it
`
	if status != statusOK || !strings.HasSuffix(out, want) {
		t.Errorf("exit status %d, %s\n%s", status, log, out)
	}
	status, out, log = runReplay("--snapshot", exampleNode, "-o", "json", "10.244.1.7", "8.8.8.8:53/udp")
	var answer explain.Answer
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		t.Fatalf("%v\n%s%s", err, out, log)
	}
	r := answer.Replay
	if status != statusOK || r == nil || r.Agrees == nil || !*r.Agrees || len(r.Seen) != 1 || r.Seen[0].Times != 60 || r.Seen[0].Source.String() != "192.0.2.11" || r.Seen[0].Tracked == nil || !*r.Seen[0].Tracked {
		t.Errorf("exit status %d: %+v", status, r)
	}
	// What can't be replayed is still answered.
	status, out, log = runReplay("--snapshot", exampleNode, "--mark", "0x4000", "10.244.1.7", "8.8.8.8:53/udp")
	if status != statusOK || !strings.Contains(out, "can't be replayed: no packet can be sent with a mark") {
		t.Errorf("exit status %d, %s\n%s", status, log, out)
	}
}

// A disagreement is printed with the answer, and the exit status tells.
func TestDisagreementIsShown(t *testing.T) {
	no := false
	a := explain.Answer{Replay: &explain.Replay{Agrees: &no, Why: "1 of 1 packets had a fate that wasn't predicted; why isn't known", Seen: []explain.Fate{{Times: 1, Protocol: "udp", Verdict: "dropped"}}}}
	var out bytes.Buffer
	a.Text(&out, explain.TextOptions{})
	if text := out.String(); !strings.Contains(text, "DISAGREES: 1 of 1") || !strings.Contains(text, "1 ×  udp  dropped  not predicted") {
		t.Error(text)
	}
	if !a.Replay.Disagrees() {
		t.Error("doesn't disagree")
	}
}

func TestReplayRefuses(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--snapshot", "a=" + exampleNode, "--snapshot", "b=../../docs/example/node-b", "10.244.1.7", "10.244.2.9:80"}, "expected one snapshot"},
		{[]string{"--snapshot", exampleNode, "10.244.1.7", "10.0.0.0/8:80"}, "no network"},
		{[]string{"--snapshot", exampleNode, "-o", "svg", "10.244.1.7", "10.244.2.9:80"}, "isn't drawn"},
	} {
		status, out, log := runReplay(c.args...)
		if status != statusUsage || out != "" || !strings.Contains(log, c.want) {
			t.Errorf("%s: exit status %d, %s%s", fmt.Sprint(c.args), status, out, log)
		}
	}
}
