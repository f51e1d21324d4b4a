package lab

import (
	"context"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/foreign"
)

// The fabric is what loses the answers of remote backends: by TCP, because it never
// saw what they answer, by UDP, because they look like the site's own connections.
// What answers by the way that it was asked passes.
func TestFabricDropsAnswers(t *testing.T) {
	for _, c := range []struct {
		service, backend string
		drops            bool
	}{{"local", "web1", false}, {"remote", "web2", true}} {
		t.Run(c.service, func(t *testing.T) {
			s := office()
			s.Name = testName(t)
			call := Call{From: "client", To: c.backend, Service: c.service}
			s.Calls = []Call{call}
			ctx := context.Background()
			w, err := build(&s, &s.Forms[0], foreign.NFT)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := w.Close(); err != nil {
					t.Error(err)
				}
			}()
			if err := writePeers(ctx, w); err != nil {
				t.Fatal(err)
			}
			peers, err := w.openPeers(ctx, s.targets(), true)
			if err != nil {
				t.Fatal(err)
			}
			defer closePeers(peers)
			stage := s.Forms[0].Stages[0]
			if _, err := w.measure(ctx, newCaller(), peers, map[Call]Expect{call: stage.Expect[call]}); err != nil {
				t.Fatal(err)
			}
			rules, err := w.NS("fabric").Run("", "nft", "list", "table", "inet", "fabric")
			if err != nil {
				t.Fatal(err)
			}
			want := map[bool]int{true: 0, false: 2}[c.drops]
			if got := strings.Count(rules, "packets 0 "); got != want {
				t.Errorf("%d of 2 rules have dropped nothing, want %d:\n%s", got, want, rules)
			}
		})
	}
}
