package agent

import (
	"fmt"
	"log/slog"
	"testing"

	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/kernel/nft"
	"github.com/unmasq/unmasq/internal/plan"
	"github.com/unmasq/unmasq/internal/policy"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// While the kernel refuses what is wanted, the socket that owns what stands stays
// open; it is another one only from one attempt to the next.
func TestSocketOutlivesFailures(t *testing.T) {
	must(t, netnstest.Test(t, "socket").Do(func() error {
		log := slog.New(slog.DiscardHandler)
		other, err := nft.Open(log)
		if err != nil {
			return err
		}
		defer other.Close()
		other.UseOwnership(true) // so that the agent is refused
		if err := other.Start(plan.Compile(&policy.Policy{}, &policy.Facts{}, plan.Options{})); err != nil {
			return err
		}
		a, err := New(Options{Log: log})
		if err != nil {
			return err
		}
		defer a.closeTable()
		a.loaded = &policy.Loaded{}
		ports := map[uint32]bool{}
		for i := range reopenAfter + 1 {
			a.enforce()
			if a.failures != i+1 || a.table == nil {
				return fmt.Errorf("after attempt %d: %d failures, socket %v", i+1, a.failures, a.table)
			}
			ports[a.table.Port()] = true
		}
		if len(ports) != 2 {
			return fmt.Errorf("%d attempts used sockets %v, want two", reopenAfter+1, ports)
		}
		return nil
	}))
}
