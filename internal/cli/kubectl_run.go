package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/unmasq/unmasq/internal/kernel/capture"
	"github.com/unmasq/unmasq/internal/kubectl"
)

// readThere runs a command that reads the node by programs of the agent's image, and
// says what to do where that has none.
func readThere(ctx context.Context, client *kubectl.Client, a kubectl.Agent, command []string, s kubectl.Streams) error {
	out, said := &listener{to: s.Stdout}, &listener{to: s.Stderr}
	there := s
	there.Stdout, there.Stderr = out, said
	err := client.Run(ctx, a, command, there)
	if out.heard || said.heard {
		fmt.Fprintf(s.Stderr, "note: image %s of the agent on node %s has no programs to read rules with: install unmasq's -tools image there\n", a.Image, a.Node)
	}
	return err
}

// askEach asks all agents, some at once. It fails only where the context ended.
func askEach(ctx context.Context, agents []kubectl.Agent, ask func(i int, a kubectl.Agent)) error {
	const atOnce = 16
	var wait sync.WaitGroup
	places := make(chan struct{}, atOnce)
	for i, a := range agents {
		wait.Go(func() {
			places <- struct{}{}
			ask(i, a)
			<-places
		})
	}
	wait.Wait()
	return ctx.Err()
}

// listener hears, in what is written, that programs are missing.
type listener struct {
	to    io.Writer
	last  []byte // end of what was written before
	heard bool
}

func (l *listener) Write(b []byte) (int, error) {
	word := []byte(capture.NoNFT)
	l.last = append(l.last, b...)
	l.heard = l.heard || bytes.Contains(l.last, word)
	l.last = append(l.last[:0], l.last[max(0, len(l.last)-len(word)):]...)
	return l.to.Write(b)
}
