// Command pod is what the pods of tests run. It connects, in its first act, to
// each address that it's given, says in a line of JSON how that went, and then
// serves or waits until it's told to end, but for -once, or with -every connects again
// and again:
//
//	pod -name web-1 -serve :8080 203.0.113.10:8080 10.96.0.17:80
//	{"to":"203.0.113.10:8080","server":"outside","source":"10.244.1.7:40112"}
//	{"to":"10.96.0.17:80","error":"dial tcp 10.96.0.17:80: connect: connection refused"}
//
// Without arguments it only waits: that is the pause program of every pod.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/unmasq/unmasq/test/kube/peer"
)

// report of one connection.
type report struct {
	To     string `json:"to"`
	Server string `json:"server,omitempty"`
	Source string `json:"source,omitempty"`
	Error  string `json:"error,omitempty"`
}

func main() {
	name := flag.String("name", "", "who to call oneself")
	serve := flag.String("serve", "", "address to serve at")
	once := flag.Bool("once", false, "end when all connections were made")
	every := flag.Duration("every", 0, "make all connections again, so long after the last, until it's told to end")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, *name, *serve, *once, *every, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "pod:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, name, serve string, once bool, every time.Duration, targets []string) error {
	out := json.NewEncoder(os.Stdout)
	for again := true; again; {
		for _, to := range targets {
			if err := out.Encode(connect(ctx, to, name)); err != nil {
				return err
			}
		}
		again = every > 0 && sleep(ctx, every)
	}
	if once {
		return nil
	}
	if serve != "" {
		l, err := net.Listen("tcp", serve)
		if err != nil {
			return err
		}
		defer peer.Serve(l, name, func(v peer.Visit) { _ = out.Encode(v) }).Close()
	}
	reap(ctx)
	return nil
}

func connect(ctx context.Context, to, name string) report {
	answer, err := peer.Ask(ctx, new(net.Dialer).DialContext, to, name)
	if err != nil {
		return report{To: to, Error: err.Error()}
	}
	return report{To: to, Server: answer.Server, Source: answer.Source.String()}
}

// sleep says whether there is more to do.
func sleep(ctx context.Context, pause time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(pause):
		return true
	}
}

// reap waits for the end. As process 1 of a pod it is the parent of all orphans.
func reap(ctx context.Context) {
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	for {
		select {
		case <-ctx.Done():
			return
		case <-children:
			for pid := 1; pid > 0; {
				pid, _ = syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			}
		}
	}
}
