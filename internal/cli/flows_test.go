package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unmasq/unmasq/internal/flows"
)

func runFlows(stdin string, args ...string) (status int, out, log string) {
	var stdout, stderr bytes.Buffer
	status = Main("v0-test", append([]string{"flows"}, args...), strings.NewReader(stdin), &stdout, &stderr)
	return status, stdout.String(), stderr.String()
}

func TestFlowsRefuses(t *testing.T) {
	for args, want := range map[string]string{
		"-o yaml":                              `-o "yaml"; expected json, wide or text`,
		"--watch --summary":                    "--summary counts what is there",
		"--watch --snapshot x":                 "nothing begins or ends in a snapshot",
		"--limit -1":                           "--limit -1; expected a number from 0",
		"--no-rules --kind snat":               "--kind, --rule and --owner ask the rules",
		"--kept --translated":                  "leave nothing",
		"--kind translated":                    `--kind "translated"; expected kept, pinned, masqueraded, snat, unknown`,
		"--protocol x":                         `--protocol: protocol "x"`,
		"--port 0":                             `--port "0"; expected a number from 1 to 65535`,
		"--source-port http":                   `--source-port "http"`,
		"--family 4":                           `--family "4"; expected ipv4 or ipv6`,
		"--source 10.0.0.1/8":                  `--source "10.0.0.1/8": it has bits behind its length; expected 10.0.0.0/8`,
		"web":                                  `address "web": "web" is not an address; names need --names FILE`,
		"--names /nowhere":                     "--names: open /nowhere",
		"--snapshot /nowhere":                  "/nowhere",
		"--snapshot ../../docs/example/node-b": "node-b has no connections: `unmasq snapshot --connections` takes them",
	} {
		status, out, log := runFlows("", strings.Fields(args)...)
		if status != statusUsage || out != "" || !strings.Contains(log, want) || strings.Count(log, "\n") != 1 {
			t.Errorf("%s: exit status %d, %s%s; want %s", args, status, out, log, want)
		}
	}
}

// A dump alone is listed; who did it can't be told, and that is said.
func TestFlowsOfADump(t *testing.T) {
	const dump = `conntrack -L
tcp      6 431978 ESTABLISHED src=10.244.1.7 dst=192.168.200.253 sport=41234 dport=443 packets=7 bytes=900 src=192.168.200.253 dst=192.0.2.11 sport=443 dport=62113 packets=5 bytes=4000 [ASSURED] mark=2 use=1 id=77
udp      17 29 src=10.244.1.7 dst=10.244.2.9 sport=5 dport=53 [UNREPLIED] src=10.244.2.9 dst=10.244.1.7 sport=53 dport=5 mark=0 use=1
conntrack v1.4.7 (conntrack-tools): 2 flow entries have been shown.
`
	status, out, log := runFlows(dump, "--snapshot", "-")
	const want = `PROTO  SOURCE            SEEN AS           DESTINATION          BACKEND  STATE        BY
tcp    10.244.1.7:41234  192.0.2.11:62113  192.168.200.253:443  -        ESTABLISHED  translated; not all rules could be read
udp    10.244.1.7:5      itself            10.244.2.9:53        -        UNREPLIED    kept
`
	if diff := cmp.Diff(want, out); diff != "" || status != statusOK || log != "note: which rule did it can't be told of all: not all rules were given\n" {
		t.Errorf("exit status %d, %s\n-want +got\n%s", status, log, diff)
	}
	status, out, _ = runFlows(dump, "--snapshot", "-", "-o", "json", "--translated")
	var l listed
	if err := json.Unmarshal([]byte(out), &l); err != nil || status != statusOK || len(l.Flows) != 1 || len(l.Notes) != 1 {
		t.Fatalf("exit status %d, %v\n%s", status, err, out)
	}
	f := l.Flows[0]
	if f.ID != 77 || f.Mark != 2 || *f.Packets != [2]uint64{7, 5} || *f.Bytes != [2]uint64{900, 4000} || f.SourceKind != "unknown" || f.ByRules != flows.Unknown {
		t.Errorf("%s", out)
	}
	status, out, _ = runFlows(dump, "--snapshot", "-", "-o", "json", "192.0.2.99")
	if err := json.Unmarshal([]byte(out), &l); err != nil || status != statusOK || len(l.Flows) != 0 || !strings.Contains(out, `"flows":[]`) {
		t.Errorf("exit status %d, %v\n%s", status, err, out)
	}
}

func TestFlowsSummaryJSON(t *testing.T) {
	status, out, log := runFlows("", "--snapshot", exampleNode, "--summary", "-o", "json", "--limit", "1", "--names", "../../docs/example/names")
	var s struct {
		Version, More int
		Summary       []flows.Group
		Notes         []string
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil || status != statusOK || s.Version != 1 || len(s.Summary) != 1 || s.Summary[0].Count != 2 || s.Summary[0].Source != "default/client" || s.More != 4 || s.Notes == nil {
		t.Errorf("exit status %d, %v, %s\n%s", status, err, log, out)
	}
}
