package cli

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/unmasq/unmasq/internal/agent"
	"github.com/unmasq/unmasq/internal/owner"
)

// masqAgentOwners wrote what an ip-masq-agent may have found or left on a node.
var masqAgentOwners = []string{owner.IPMasqAgent, owner.GKE, owner.Kubenet}

// handOver is what to do about the rules of an agent that was there before.
type handOver struct {
	takeover string
	takeoverOptions
}

func (h *handOver) flags(f *flag.FlagSet) {
	h.owners = masqAgentOwners
	f.StringVar(&h.takeover, "takeover", "leave", "`WHAT` to do about rules of ip-masq-agent, GKE's IP-MASQ and kubenet: leave them, outranked, or remove them once the policy is in force")
	f.BoolVar(&h.dryRun, "dry-run", false, "with --takeover=remove or --handback: print what would be run, and exit")
	f.BoolVar(&h.handback, "handback", false, "put removed rules back, remove unmasq's own, and exit")
	f.StringVar(&h.record, "takeover-record", defaultTakeover, "`FILE` that remembers what was removed")
}

func (h *handOver) check() error {
	if h.takeover != "leave" && h.takeover != "remove" {
		return fmt.Errorf("--takeover %q: expected leave or remove", h.takeover)
	}
	if h.dryRun && h.takeover != "remove" && !h.handback {
		return fmt.Errorf("--dry-run: expected --takeover=remove or --handback with it")
	}
	return nil
}

// once says whether the command does something about those rules and ends.
func (h *handOver) once() bool { return h.dryRun || h.handback }

func (h *handOver) runOnce(cmd *cobra.Command) error {
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	if err := h.run(ctx, cmd.OutOrStdout()); err != nil || h.dryRun {
		return err
	}
	return clear(cmd, "")
}

// whenInForce removes the rules when the agent's policy is in force for the first time.
// What goes wrong is logged: the policy outranks them as they are.
func (h *handOver) whenInForce(opts *agent.Options, log *slog.Logger) {
	if h.takeover != "remove" {
		return
	}
	notify := opts.Notify
	var once sync.Once
	opts.Notify = func(state string) {
		notify(state)
		if strings.HasPrefix(state, "READY=1") {
			once.Do(func() { go h.remove(log) })
		}
	}
}

func (h *handOver) remove(log *slog.Logger) {
	unlock, err := h.lock(context.Background())
	if err != nil {
		log.Warn("rules of other components stay, outranked", "error", err)
		return
	}
	defer unlock()
	for _, name := range h.owners {
		var out bytes.Buffer
		err := h.take(context.Background(), name, &out)
		said, _ := io.ReadAll(&out)
		line, _, _ := strings.Cut(string(said), "\n")
		if err != nil {
			log.Warn("rules of another component stay, outranked", "owner", name, "error", err)
			continue
		}
		log.Info("takeover", "owner", name, "did", line)
	}
}
