package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unmasq/unmasq/internal/flows"
	"github.com/unmasq/unmasq/internal/kernel/conntrack"
	"github.com/unmasq/unmasq/internal/packet"
)

// watching the router's connections.
type watching struct {
	lines *bufio.Scanner
	log   *bytes.Buffer
	end   func() int
}

func (r *routed) watch(t *testing.T, args ...string) *watching {
	t.Helper()
	in, out := io.Pipe()
	w := &watching{lines: bufio.NewScanner(in), log: &bytes.Buffer{}}
	stdin, hold := io.Pipe()
	done := make(chan int, 1)
	go func() {
		_ = r.router.Do(func() error {
			done <- Main("v0-test", append([]string{"flows", "--watch", "--attached", "-o", "json"}, args...), stdin, out, w.log)
			out.Close()
			return nil
		})
	}()
	_, _ = io.WriteString(hold, "10.1.0.9 default/client\n\n")
	w.end = func() int {
		hold.Close()
		go func() { _, _ = io.Copy(io.Discard, in) }()
		return <-done
	}
	return w
}

// watched is a line as it is read.
type watched struct {
	flowLine
	flows.Flow
}

func (w *watching) next(t *testing.T) (line watched) {
	t.Helper()
	if !w.lines.Scan() {
		t.Fatalf("no more lines: %v", w.lines.Err())
	}
	if err := json.Unmarshal(w.lines.Bytes(), &line); err != nil {
		t.Fatalf("%v\n%s", err, w.lines.Text())
	}
	return line
}

// becomes connects from a host until who did it is said so.
func (r *routed) becomes(t *testing.T, w *watching, host int, by string) {
	t.Helper()
	for {
		time.Sleep(10 * time.Millisecond)
		c := r.udp(t, routedAddress(packet.IPv4Family, 1, host), routedAddress(packet.IPv4Family, 2, 9), 5353)
		for line := w.next(t); ; line = w.next(t) { // others' ends come between
			if line.Event != flowNew || *line.SourcePort != c.from.Port() {
				continue
			}
			if agrees(t, &line.Flow, c); line.Flow.By() == by {
				return
			}
			break
		}
	}
}

// Each connection that begins and ends is told, the ones that are over at once, too.
func TestFlowsWatch(t *testing.T) {
	r := newRouted(t)
	r.rules(t)
	if err := r.router.Sysctl("net.netfilter.nf_conntrack_udp_timeout", "1"); err != nil {
		t.Fatal(err)
	}
	server := routedAddress(packet.IPv4Family, 2, 9)
	standing, _ := r.tcp(t, routedAddress(packet.IPv4Family, 1, 9), server, 8080)
	w := r.watch(t, "--source", "10.1.0.0/24", "--source", "fd00:1::/64")
	first := w.next(t)
	if first.Event != flowOpen || first.SourceName != "default/client" {
		t.Errorf("%s, %q", first.Event, first.SourceName)
	}
	agrees(t, &first.Flow, standing)
	for i := range 50 {
		f := packet.Families[i%2]
		c := r.udp(t, routedAddress(f, 1, 7+i%5), routedAddress(f, 96, 1), 53)
		if _, err := r.router.Run("", "conntrack", "-D", "-f", strings.ToLower(f.String()), "-p", "udp"); err != nil {
			t.Fatal(err)
		}
		began, ended := w.next(t), w.next(t)
		if began.Event != flowNew || ended.Event != flowEnded || began.ID != ended.ID || began.Time == "" {
			t.Fatalf("%s %s", began.Event, ended.Event)
		}
		agrees(t, &began.Flow, c)
		agrees(t, &ended.Flow, c)
		if began.ByRules != flows.Same {
			t.Errorf("%s: %s", c.from, began.By())
		}
	}
	// Rules that change meanwhile are asked as they are.
	r.unmasq(t, strings.NewReplacer("Keep", "Masquerade", "Masquerade", "Keep").Replace(routedPolicy), "apply", "-f", "-")
	r.becomes(t, w, 8, "masqueraded by lab/keep") // and was pinned
	// Also those of iptables-legacy, which the kernel raises no event for.
	if _, err := r.router.Run("", "iptables-legacy", "-t", "nat", "-A", "POSTROUTING", "-s", "10.1.0.7", "-j", "SNAT", "--to-source", "10.2.0.77"); err != nil {
		t.Fatal(err)
	}
	r.becomes(t, w, 7, "snat by POSTROUTING:1")
	if status := w.end(); status != statusOK {
		t.Errorf("exit status %d, %s", status, w.log)
	}
}

// Connections that begin while the table is read are told once: from the table or by
// an event.
func TestFlowsWatchTellsEachOnce(t *testing.T) {
	r := newRouted(t)
	r.rules(t)
	const n, firstPort = 4000, 20000
	from, to := routedAddress(packet.IPv4Family, 1, 7), netip.AddrPortFrom(routedAddress(packet.IPv4Family, 2, 9), 5353)
	begun := make(chan error, 1)
	go func() {
		begun <- r.client.Do(func() error {
			for i := range n {
				c, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, firstPort+uint16(i))), net.UDPAddrFromAddrPort(to))
				if err != nil {
					return err
				}
				_, _ = c.Write([]byte("x")) // nobody answers but with errors
				c.Close()
			}
			return nil
		})
	}()
	w := r.watch(t, "--protocol", "udp", "--destination", to.Addr().String())
	told, events := map[uint16]int{}, map[string]int{}
	count := func(line watched) {
		events[line.Event]++
		if line.Event != flowEnded {
			told[*line.SourcePort]++
		}
	}
	lines := make(chan watched)
	go func() {
		for w.lines.Scan() {
			var line watched
			if err := json.Unmarshal(w.lines.Bytes(), &line); err != nil {
				t.Error(err)
			}
			lines <- line
		}
	}()
	for done := false; !done; {
		select {
		case err := <-begun:
			if err != nil {
				t.Fatal(err)
			}
		case line := <-lines:
			if line.Source == from {
				count(line)
				continue
			}
			// One that is new comes behind all others; one that was there says nothing.
			if done = line.Event == flowNew; done {
				continue
			}
		}
		if !done {
			r.udp(t, routedAddress(packet.IPv4Family, 1, 8), to.Addr(), 5353)
		}
	}
	for i := range n {
		if times := told[firstPort+uint16(i)]; times != 1 {
			t.Fatalf("port %d was told %d times; of %d, %v", firstPort+i, times, n, events)
		}
	}
	t.Logf("checked: %d connections, %v", n, events)
	if status := w.end(); status != statusOK {
		t.Errorf("exit status %d, %s", status, w.log)
	}
}

// Where events were lost, the table tells what is there now.
func TestFlowsWatchAfterLoss(t *testing.T) {
	r := newRouted(t)
	r.rules(t)
	server := routedAddress(packet.IPv4Family, 2, 9)
	stays, _ := r.tcp(t, routedAddress(packet.IPv4Family, 1, 7), server, 8080)
	goes := r.udp(t, routedAddress(packet.IPv4Family, 1, 8), server, 5353)
	var out, log bytes.Buffer
	o := &flowsOptions{noRules: true, watch: true, output: "json"}
	w := &flowWatch{flowsOptions: o, standing: map[flowKey]struct{}{}, pipe: &flowPipe{filter: &flows.Filter{}, judge: flows.NoRules(), out: o.printer(&out), log: &log}}
	err := r.router.Do(func() (err error) {
		w.reader, err = conntrack.Open()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer w.reader.Close()
	if err := w.list(t.Context(), flowOpen, 2); err != nil {
		t.Fatal(err)
	}
	if _, err := r.router.Run("", "conntrack", "-D", "-p", "udp"); err != nil {
		t.Fatal(err)
	}
	begins := r.udp(t, routedAddress(packet.IPv4Family, 1, 9), server, 5353)
	if err := w.tell(t.Context(), conntrack.Event{Kind: conntrack.Lost}); err != nil {
		t.Fatal(err)
	}
	if err := w.pipe.out.end(nil); err != nil {
		t.Fatal(err)
	}
	var told []string
	for line := range strings.Lines(out.String()) {
		var l watched
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		if l.SourcePort != nil {
			l.Text = fmt.Sprint(*l.SourcePort)
		}
		told = append(told, l.Event+" "+l.Text)
	}
	slices.Sort(told[:2])
	open := []string{fmt.Sprint("open ", stays.from.Port()), fmt.Sprint("open ", goes.from.Port())}
	slices.Sort(open)
	want := append(open, "lost the kernel dropped events; connections that began and ended meanwhile aren't told. The table is read again",
		fmt.Sprint("new ", begins.from.Port()), "note ended meanwhile, untold: 1")
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}
