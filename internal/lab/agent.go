package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/unmasq/unmasq/internal/kernel/netns"
)

const (
	// readyURL answers 200 when the agent's policy is in force.
	readyURL = "http://127.0.0.1:9809/readyz"
	// readyWait bounds the wait for that.
	readyWait = 20 * time.Second
	// stopWait is how long an agent may take to end after SIGTERM.
	stopWait = 5 * time.Second
	// logTail is how many bytes of an agent's log are shown when it fails.
	logTail = 2000
)

// agent is a real agent process in a host's namespace.
type agent struct {
	host    string
	process process
	log     syncBuffer
	cancel  context.CancelFunc
	// ended is closed when the process has ended, with err set.
	ended chan struct{}
	err   error
}

// startAgent starts an agent and waits until its policy is in force.
func startAgent(ctx context.Context, ns *netns.NS, host, binary, config string) (*agent, error) {
	// Not ctx itself: the agent is ended by stop, in the order of the scenario's end.
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	a := &agent{host: host, cancel: cancel, ended: make(chan struct{})}
	cmd := ns.Command(life, binary, "agent", "--config", config)
	cmd.Stdout, cmd.Stderr = &a.log, &a.log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopWait
	// A group of its own: a terminal's Ctrl-C is the lab's to handle.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, fmt.Errorf("start the agent on %s: %w", host, err)
	}
	// Nobody waits for it yet: it can't be gone.
	a.process, _ = processOf(cmd.Process.Pid)
	go func() {
		a.err = cmd.Wait()
		close(a.ended)
	}()
	if err := a.awaitReady(ctx, ns); err != nil {
		return nil, errors.Join(fmt.Errorf("agent on %s: %w", host, err), a.stop())
	}
	return a, nil
}

// awaitReady waits until the agent's policy is in force, or the agent ends.
func (a *agent) awaitReady(ctx context.Context, ns *netns.NS) error {
	ctx, cancel := context.WithTimeout(ctx, readyWait)
	defer cancel()
	go func() {
		select {
		case <-a.ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	err := AwaitReady(ctx, ns)
	select {
	case <-a.ended:
		return fmt.Errorf("ended before it was ready: %w; it said:\n%s", errorOr(a.err, "status 0"), a.log.tail())
	default:
	}
	if err != nil {
		return fmt.Errorf("%w; it said:\n%s", err, a.log.tail())
	}
	return nil
}

// AwaitReady asks the agent in a namespace for /readyz until it says that its
// policy is in force, or ctx ends.
func AwaitReady(ctx context.Context, ns *netns.NS) error {
	client := http.Client{Timeout: time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (conn net.Conn, err error) {
			err = ns.Do(func() error {
				conn, err = new(net.Dialer).DialContext(ctx, network, address)
				return err
			})
			return conn, err
		},
	}}
	for {
		err := askReady(ctx, &client)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w (%w)", ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// askReady asks once; the error quotes an agent that isn't ready.
func askReady(ctx context.Context, client *http.Client) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, readyURL, nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close() //nolint:errcheck // read to its end
	body, err := io.ReadAll(io.LimitReader(answer.Body, 4096))
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", answer.Status, strings.TrimSpace(string(body)))
	}
	return nil
}

// stop sends SIGTERM and waits for the end. An agent that ends otherwise than
// with status 0 is an error.
func (a *agent) stop() error {
	select {
	case <-a.ended:
		return fmt.Errorf("agent on %s had ended: %w; it said:\n%s", a.host, errorOr(a.err, "status 0"), a.log.tail())
	default:
	}
	a.cancel()
	<-a.ended
	// A process that ends well after the signal leaves context.Canceled.
	if a.err != nil && !errors.Is(a.err, context.Canceled) {
		return fmt.Errorf("agent on %s: %w; it said:\n%s", a.host, a.err, a.log.tail())
	}
	return nil
}

func errorOr(err error, text string) error {
	if err == nil {
		return errors.New(text)
	}
	return err
}

// syncBuffer is written by a process and read by us.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) tail() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	text := b.buf.String()
	return strings.TrimSpace(text[max(0, len(text)-logTail):])
}
