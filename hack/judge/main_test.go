package main

import (
	"strings"
	"testing"
)

func TestTable(t *testing.T) {
	var out strings.Builder
	table := read(strings.NewReader(`=== RUN   TestDumps
    random_test.go:120: progress: 10 of 20 rulesets, 1000 packets: 1000 right (3 of them one of several), 0 unknown, 0 wrong
    tally_test.go:90: unknown 1 times: state: what -m recent has seen
    tally_test.go:90: conditional 2 times: the sending process: its user
    tally_test.go:97: judged: {"source":"docker-nft","rulesets":1,"packets":1000,"right":990,"depends":3,"conditional":2,"unknown":9,"wrong":1,"reasons":{"state: what -m recent has seen":9},"conditions":{"the sending process: its user":2}}
    tally_test.go:97: judged: {"source":"random nftables","rulesets":2,"packets":500,"right":500,"depends":0,"unknown":0,"wrong":0}
    dumps_test.go:50: a failure
--- PASS: TestDumps (2.00s)
PASS
ok  	github.com/unmasq/unmasq/test/judge	3.2s
`), &out)
	table.print(&out)
	want := `  10 of 20 rulesets, 1000 packets: 1000 right (3 of them one of several), 0 unknown, 0 wrong
    dumps_test.go:50: a failure
  rulesets  packets  right  of several  conditional  unknown  wrong  source
         1     1000    990           3            2        9      1  docker-nft
         2      500    500           0            0        0      0  random nftables
         3     1500   1490           3            2        9      1  all

honestly unknown, for how many packets each reason was given
  9  docker-nft: state: what -m recent has seen

right under a condition that the answer names, for how many packets each
  2  the sending process: its user
`
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
