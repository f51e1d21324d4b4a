// Command dumps writes, with the programs themselves, the dumps of nodes that
// tests read: kube-proxy, flannel, the CNI plugins, docker, and the rules of
// kube-router and ip-masq-agent. Each runs in a network namespace that is set up
// as a node; what iptables-save, nft, ipset and ip print there afterwards is the
// dump.
//
//	make dumps
//	go run ./hack/dumps -only kube-proxy
//	go run ./hack/dumps -only lab/office
//
// A dump is a txtar archive of the files of a snapshot (package snapshot), with
// one more, "situation": how the node was set up, so that a test can set up
// another. Where there are native tables, "ruleset.nft" has them as text, to be
// loaded there. kube-proxy reads a real API server, with its etcd, and writes its
// chains in any order, so that its dumps in nftables mode differ each time.
//
// It also records what kube-proxy writes for the scenarios of the lab, which load it
// (package lab).
//
// It needs root and, the first time, the network: Kubernetes' programs, etcd and
// dockerd are built from their sources (20 minutes in all) and kept (package parts).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/kernel/netns"
)

func main() {
	only := flag.String("only", "", "write the dumps alone whose name holds this")
	out := flag.String("o", "test/judge/testdata/dumps", "folder of the dumps")
	flag.Parse()
	if err := run(context.Background(), *only, *out); err != nil {
		fmt.Fprintln(os.Stderr, "dumps:", err)
		os.Exit(1)
	}
}

// dump is one file to make.
type dump struct {
	name string
	// about says in a few lines what ran, with its version and settings.
	about   string
	variant foreign.Variant
	// native: the programs write nft's own tables.
	native bool
	node   nodeSetup
	write  func(context.Context, *host) error
}

// backend as CNI plugins call it.
func (d dump) backend() string {
	if d.native {
		return "nftables"
	}
	return "iptables"
}

func run(ctx context.Context, only, out string) error {
	var errs []error
	for _, d := range dumps() {
		if !strings.Contains(d.name, only) {
			continue
		}
		text, err := d.make(ctx)
		if err == nil {
			err = os.WriteFile(filepath.Join(out, d.name+".txt"), text, 0o644)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", d.name, err))
			continue
		}
		fmt.Printf("%s: %d bytes\n", d.name, len(text))
	}
	return errors.Join(append(errs, recordLab(ctx, only))...)
}

// host is a node in a namespace, whose programs are of one variant.
type host struct {
	ns, far *netns.NS
	dump    dump
	// bin holds iptables, ip6tables and their companions as links to the variant's.
	bin string
}

func (d dump) make(ctx context.Context) (text []byte, err error) {
	err = d.on(func(h *host) error {
		if err := d.write(ctx, h); err != nil {
			return err
		}
		text, err = h.take()
		return err
	})
	return text, err
}

// on a host that is set up for the dump.
func (d dump) on(do func(*host) error) (err error) {
	bin, err := os.MkdirTemp("", "unmasq-dumps-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(bin)
	ns, err := netns.New(fmt.Sprintf("dumps-%d", os.Getpid()))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ns.Close()) }()
	far, err := netns.New(fmt.Sprintf("dumps-%d-far", os.Getpid()))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, far.Close()) }()
	h := &host{ns: ns, far: far, dump: d, bin: bin}
	if err := errors.Join(h.choosePrograms(), h.setUp()); err != nil {
		return err
	}
	return do(h)
}

// choosePrograms makes what is called iptables the variant's.
func (h *host) choosePrograms() error {
	for _, name := range []string{"iptables", "ip6tables"} {
		for _, suffix := range []string{"", "-save", "-restore"} {
			target := "/usr/sbin/" + name + "-" + string(h.dump.variant) + suffix
			if err := os.Symlink(target, filepath.Join(h.bin, name+suffix)); err != nil {
				return err
			}
		}
	}
	return nil
}

// command runs a program in the node, that finds the variant's programs.
func (h *host) command(ctx context.Context, name string, args ...string) *netns.Cmd {
	c := h.ns.Command(ctx, name, args...)
	c.Env = append(os.Environ(), "PATH="+h.bin+":"+os.Getenv("PATH"))
	return c
}

// patience with a program that writes rules, and how long those must stay as
// they are to be taken for all.
const patience, settle = time.Minute, time.Second

// runUntil runs a program that goes on for ever until it has written its rules:
// until what iptables-save shows in both families, or nft, holds the words and
// has stayed the same for a while.
func (h *host) runUntil(ctx context.Context, words []string, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	log, err := os.Create(filepath.Join(h.bin, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	c := h.command(ctx, name, args...)
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		return err
	}
	err = h.awaitRules(ctx, words)
	if err != nil {
		said, _ := os.ReadFile(log.Name())
		err = fmt.Errorf("%w: %s", err, said)
	}
	_ = c.Process.Kill()
	_ = c.Wait() // it was killed
	return err
}

func (h *host) awaitRules(ctx context.Context, words []string) error {
	before, since := "", time.Now()
	for {
		text, complete := "", true
		for _, command := range h.listing() {
			some, err := h.ns.Run("", command[0], command[1:]...)
			if err != nil {
				return err
			}
			for _, w := range words {
				complete = complete && strings.Contains(some, w)
			}
			text += settled(some)
		}
		if text != before {
			before, since = text, time.Now()
		}
		if complete && time.Since(since) > settle {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("its rules aren't there after %v: %w", patience, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// listing are the commands that each show all that a program writes.
func (h *host) listing() [][]string {
	if h.dump.native {
		return [][]string{{"nft", "list", "ruleset"}}
	}
	save := "-" + string(h.dump.variant) + "-save"
	return [][]string{{"iptables" + save}, {"ip6tables" + save}}
}
