package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	ct "github.com/unmasq/unmasq/internal/conntrack"
	"github.com/unmasq/unmasq/internal/kernel/capture"
	"github.com/unmasq/unmasq/internal/kernel/conntrack"
	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/matrix"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/probe"
	"github.com/unmasq/unmasq/internal/snapshot"
	"github.com/unmasq/unmasq/internal/vicinity"
)

// probeOptions of a host that is measured.
type probeOptions struct {
	on         bool
	namespaces []string
}

func (o *probeOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&o.on, "probe", false, "measure it too: real connections between this host and network namespaces on it (root)")
	f.StringArrayVar(&o.namespaces, "namespace", nil, "`NAME=NAMESPACE` that --probe calls from and answers in: a name that ip netns lists, a path, or a process's number; "+
		"repeatable. NAME is a place's, or says what to call it. Left out, two of this host's containers are found")
}

// probed measures this host.
func (o *matrixOptions) probed(cmd *cobra.Command, expected *matrix.Expected) (err error) {
	if !o.probe.on {
		return inputError{errors.New("--namespace is for --probe")}
	}
	if len(o.snapshots) > 0 || len(o.documents.files) > 0 {
		return inputError{errors.New("--probe measures this host as it is; expected no --snapshot and no -f beside it")}
	}
	s, err := o.asked()
	if err != nil {
		return inputError{err}
	}
	ctx, stop := interruptible(cmd)
	defer stop()
	host, err := capture.Live(ctx, capture.Options{})
	if err != nil {
		return err
	}
	s.Nodes = []matrix.Node{{Host: host}}
	locals, err := o.probe.locals(host)
	if err != nil {
		return err
	}
	defer closeLocals(locals)
	port := uint16(0)
	if cmd.Flags().Changed("port") {
		port = o.port
	}
	spaces, end, err := probe.OpenLocal(ctx, locals, port)
	if err != nil {
		return err
	}
	defer end()
	s.Port, s.Places = spaces[0].Peer, addPlaces(s.Places, spaces[1:], host)
	if err := s.Check(); err != nil {
		return inputError{err}
	}
	m := matrix.Predict(s)
	if err := fill(ctx, probe.Measure{Spaces: spaces, Tracked: tracked(ctx)}, &m, cmd.ErrOrStderr()); err != nil {
		return err
	}
	return showMeasured(cmd.OutOrStdout(), &m, expected, o.output)
}

// fill a matrix with what is measured, and say so meanwhile.
func fill(ctx context.Context, x probe.Measure, m *matrix.Matrix, errOut io.Writer) error {
	fmt.Fprintf(errOut, "measuring %s from %s\n", count(len(m.Cells), "cell"), count(len(x.Spaces), "place"))
	x.Progress = func(done, all int) {
		if isTerminal(errOut) {
			fmt.Fprintf(errOut, "%d of %d\n", done, all)
		}
	}
	return x.Fill(ctx, m)
}

// showMeasured fails where something isn't as predicted, or expected.
func showMeasured(out io.Writer, m *matrix.Matrix, expected *matrix.Expected, format string) error {
	if err := showMatrix(out, m, expected, format); err != nil {
		return err
	}
	if measured, differ := probe.Count(m); differ > 0 {
		return fmt.Errorf("%d of %s measured differ from what was predicted: a defect of unmasq, or something that the nodes' state doesn't show", differ, count(measured, "cell"))
	}
	return nil
}

// tracked asks this host's connection table, which remembers a connection for a while
// after its end.
func tracked(ctx context.Context) func(string, netip.AddrPort, netip.AddrPort) (netip.AddrPort, netip.AddrPort, bool) {
	return func(protocol string, source, target netip.AddrPort) (seen, at netip.AddrPort, ok bool) {
		number := map[string]uint8{probe.TCP: packet.TCP, probe.UDP: packet.UDP}[protocol]
		r, err := conntrack.Open()
		if err != nil {
			return seen, at, false
		}
		defer r.Close() //nolint:errcheck // nothing was written
		_, err = r.Dump(ctx, packet.Of(target.Addr()), func(e *ct.Entry) bool {
			o, back := &e.Original, &e.Reply
			if ok = e.Protocol == number && netip.AddrPortFrom(o.Source, o.SourcePort) == source && netip.AddrPortFrom(o.Destination, o.DestinationPort) == target; ok {
				seen, at = netip.AddrPortFrom(back.Destination, back.DestinationPort), netip.AddrPortFrom(back.Source, back.SourcePort)
			}
			return !ok
		})
		return seen, at, ok && err == nil
	}
}

// locals are this host, first, and the namespaces that were named or are found.
func (o *probeOptions) locals(host *snapshot.Host) (all []probe.Local, err error) {
	name := host.Name
	if name == "" {
		name = "this node"
	}
	all = []probe.Local{{Name: name}}
	if len(o.namespaces) == 0 {
		return append(all, containers(host)...), nil
	}
	for _, text := range o.namespaces {
		name, word, ok := strings.Cut(text, "=")
		if !ok || name == "" || word == "" {
			closeLocals(all)
			return nil, inputError{fmt.Errorf("--namespace %q; expected NAME=NAMESPACE", text)}
		}
		ns, err := probe.OpenNS(word)
		if err != nil {
			closeLocals(all)
			return nil, inputError{fmt.Errorf("--namespace %s: %w", name, err)}
		}
		all = append(all, probe.Local{Name: name, NS: ns})
	}
	return all, nil
}

func closeLocals(all []probe.Local) {
	for _, l := range all {
		if l.NS != nil {
			l.NS.Release() //nolint:errcheck // a file that was read
		}
	}
}

// mostFound containers are called from without being named.
const mostFound = 2

// containers of the host's own networks, by their processes or names.
func containers(host *snapshot.Host) (found []probe.Local) {
	networks := vicinity.Networks(host)
	seen := map[string]bool{inode("/proc/self/ns/net"): true, "": true}
	named, _ := filepath.Glob(filepath.Join(netns.Dir, "*")) // the pattern is right
	processes, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, path := range append(named, processes...) {
		id := inode(path)
		if seen[id] || len(found) == mostFound {
			continue
		}
		seen[id] = true
		ns, err := netns.OpenFile(path)
		if err != nil {
			continue
		}
		l := probe.Local{Name: containerName(path), NS: ns}
		if addresses, err := l.Addresses(); err == nil && slices.ContainsFunc(addresses, func(a netip.Addr) bool { return inside(networks, a) }) {
			found = append(found, l)
			continue
		}
		closeLocals([]probe.Local{l})
	}
	return found
}

// inode tells namespaces apart; empty where it can't be seen.
func inode(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	stat, _ := info.Sys().(*syscall.Stat_t)
	return fmt.Sprint(stat.Dev, stat.Ino)
}

// containerName is the namespace's, or that of a process in it: "nginx (4711)".
func containerName(path string) string {
	if dir, file := filepath.Split(path); filepath.Clean(dir) == netns.Dir {
		return file
	}
	process := filepath.Dir(filepath.Dir(path))
	comm, _ := os.ReadFile(filepath.Join(process, "comm")) // a name is good to have, no more
	return fmt.Sprintf("%s (%s)", strings.TrimSpace(string(comm)), filepath.Base(process))
}

func inside(networks []vicinity.Network, a netip.Addr) bool {
	return slices.ContainsFunc(networks, func(n vicinity.Network) bool { return n.Prefix.Contains(a) })
}

// addPlaces for namespaces that no place stands for yet: containers by their addresses,
// all others are outside.
func addPlaces(places []matrix.Place, spaces probe.Spaces, host *snapshot.Host) []matrix.Place {
	networks := vicinity.Networks(host)
	for _, s := range spaces {
		if slices.ContainsFunc(places, func(p matrix.Place) bool { return p.Name == s.Name }) {
			continue
		}
		p := matrix.Place{Kind: matrix.Outside, Name: s.Name}
		for _, a := range s.Addresses {
			if inside(networks, a) && !p.Address(packet.Of(a)).IsValid() {
				p.Kind, p.Addresses = matrix.Pod, append(p.Addresses, a)
			}
		}
		for _, a := range s.Addresses {
			if p.Kind == matrix.Outside && !p.Address(packet.Of(a)).IsValid() {
				p.Addresses = append(p.Addresses, a)
			}
		}
		if len(p.Addresses) > 0 {
			places = append(places, p)
		}
	}
	return places
}
