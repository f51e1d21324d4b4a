package judge_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/unmasq/unmasq/internal/cli"
	"github.com/unmasq/unmasq/internal/explain"
	"github.com/unmasq/unmasq/internal/packet"
)

// replaysVariable is how many questions `explain --replay` is asked of each dump:
// hack/judge asks more than the test command, since for each a node is built.
const (
	replaysVariable = "UNMASQ_REPLAYS"
	defaultReplays  = 1
)

// TestReplays asks `unmasq explain --replay` of the dumps' own files: snapshot,
// answer, node and comparison are those that an operator gets.
func TestReplays(t *testing.T) {
	files, err := filepath.Glob("testdata/dumps/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no dumps: %v", err)
	}
	count := int(number(t, replaysVariable, defaultReplays))
	var sum tallies
	of := sum.of("explain --replay of the dumps")
	for i, path := range files {
		sum.progress(t, uint64(i), uint64(len(files)))
		archive, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		dir := extract(t, archive)
		for k, f := range packet.Families {
			some := (count + (i+k)%2) / 2 // one question is of IPv4 for one dump, of IPv6 for the next
			for j, flow := range spread(readDump(t, archive, f).derive(), some, i) {
				replayOne(t, of, strings.TrimSuffix(filepath.Base(path), ".txt"), replayArguments(dir, flow, j+i))
			}
		}
		of.Rulesets++
	}
	sum.report(t)
	t.Logf("checked: %d questions of explain --replay, %d dumps of real programs: %s", of.Packets, of.Rulesets, of)
}

// spread takes so many packets out of all, from the first to the last; turn says
// where it begins, so that one of each dump isn't of the same kind everywhere.
func spread(all []packet.Flow, count, turn int) (some []packet.Flow) {
	for i := range min(count, len(all)) {
		step := len(all) / count
		some = append(some, all[i*len(all)/count+turn*7919%max(step, 1)])
	}
	return some
}

// replayArguments ask about a packet in one of several ways: all that it has, or
// without the interface, the ports, the protocol.
func replayArguments(dir string, f packet.Flow, way int) []string {
	args := []string{"explain", "--replay", "-o", "json", "--snapshot", dir}
	if f.Local {
		args = append(args, "--local")
	} else if way%2 == 0 {
		args = append(args, "--in-interface", f.InInterface)
	}
	destination := f.Destination.String()
	if f.HasPorts() {
		destination = netip.AddrPortFrom(f.Destination, f.DestinationPort).String()
	}
	if way%5 == 3 {
		return append(args, f.Source.String(), f.Destination.String())
	}
	if f.HasPorts() && way%3 == 1 {
		args = append(args, "--source-port", strconv.Itoa(firstPort+way))
	}
	return append(args, f.Source.String(), fmt.Sprintf("%s/%s", destination, explain.ProtocolName(f.Protocol)))
}

// replayOne asks one question and counts what comes of it.
func replayOne(t *testing.T, sum *tally, dump string, args []string) {
	t.Helper()
	var out, log bytes.Buffer
	cli.Main("test", args, strings.NewReader(""), &out, &log)
	var answer explain.Answer
	err := json.Unmarshal(out.Bytes(), &answer)
	sum.Packets++
	asked := strings.Join(args[6:], " ")
	switch r := answer.Replay; {
	case err != nil || r == nil:
		sum.Wrong++
		t.Errorf("%s: unmasq explain --replay --snapshot DIR %s: %v\n%s%s", dump, asked, err, out.String(), log.String())
	case r.Disagrees():
		sum.Wrong++
		t.Errorf("%s: unmasq explain --replay --snapshot DIR %s\n%s%s", dump, asked, out.String(), log.String())
	case r.Agrees == nil:
		sum.Unknown++
		sum.because(fmt.Sprintf("%s: %s: %s %s", dump, asked, r.Why, strings.Join(r.LeftOut, "; ")))
	default:
		sum.Right++
		if len(answer.Outcomes) > 1 {
			sum.Depends++
		}
		if slices.ContainsFunc(answer.Outcomes, func(o explain.Outcome) bool { return len(o.DependsOn) > 0 }) {
			sum.Conditional++
		}
	}
}
