package probe

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/unmasq/unmasq/internal/matrix"
	"github.com/unmasq/unmasq/internal/packet"
)

// Measure fills in what was measured of a matrix.
type Measure struct {
	// Spaces that calls come from and whose peers answer.
	Spaces Spaces
	// Patience with silence; 0: a second and a half. What isn't as predicted is asked
	// again, with twice of it: packets get lost.
	Patience time.Duration
	// Tracked says whom a server that is no peer saw, and where: the source that a connection
	// of ours had when it left a host that tracks it. Nil: that isn't known.
	Tracked func(protocol string, source, target netip.AddrPort) (seen, at netip.AddrPort, ok bool)
	// Progress is told of each portion; nil: nobody is.
	Progress func(done, all int)
}

const firstPatience = 1500 * time.Millisecond

// Calls to a destination with several backends: a fair coin falls so many times on one
// side once in two thousand.
const manyCalls = 12

// asked is a cell with its calls.
type asked struct {
	cell   *matrix.Cell
	column *matrix.Column
	space  *Space
	// peers answer there: whom they saw is known. Else only whether somebody answers.
	peers bool
	order Order
	times int
}

// Fill makes the calls. Cells that nothing is predicted of, that no space has the source
// of, or where nobody would answer, aren't measured; notes say so.
func (x Measure) Fill(ctx context.Context, m *matrix.Matrix) error {
	if x.Patience == 0 {
		x.Patience = firstPatience
	}
	all := x.plan(m)
	progress := x.counter(len(all), len(all))
	if err := x.ask(ctx, all, x.Patience, progress); err != nil {
		return err
	}
	again := slices.DeleteFunc(slices.Clone(all), func(a asked) bool { return !a.cell.Differs })
	if len(again) > 0 {
		if err := x.ask(ctx, again, 2*x.Patience, x.counter(len(again), len(again))); err != nil {
			return err
		}
	}
	x.name(m)
	m.Measured = true
	return nil
}

// counter of calls.
func (x Measure) counter(cells, all int) func(int) {
	var mu sync.Mutex
	done := 0
	return func(n int) {
		mu.Lock()
		defer mu.Unlock()
		if done += n; x.Progress != nil {
			x.Progress(done, all)
		}
	}
}

// plan which cells are asked, from where.
func (x Measure) plan(m *matrix.Matrix) []asked {
	var all []asked
	notes := map[string]bool{}
	for i := range m.Cells {
		c := &m.Cells[i]
		if !c.Destination.IsValid() || !c.Source.IsValid() || len(c.Predicted) == 0 {
			continue
		}
		a, why := x.asked(m, c)
		if why != "" {
			notes[why] = true
			continue
		}
		all = append(all, a)
	}
	m.Notes = append(m.Notes, slices.Sorted(maps.Keys(notes))...)
	return all
}

// asked says why a cell isn't.
func (x Measure) asked(m *matrix.Matrix, c *matrix.Cell) (a asked, why string) {
	a = asked{cell: c, times: 1, space: x.Spaces.from(m, c)}
	i := slices.IndexFunc(m.Columns, func(column matrix.Column) bool { return column.Name == c.Column })
	if i < 0 {
		return a, fmt.Sprintf("not measured: column %s isn't known", c.Column)
	}
	a.column = &m.Columns[i]
	to := c.Destination.Addr()
	target := a.column.Target(packet.Of(to))
	switch {
	case a.space == nil || a.space.Call == nil:
		return a, fmt.Sprintf("not measured: from %s, of which no network namespace is known here", c.Row)
	case a.space.Elsewhere != nil && a.space.Elsewhere(to):
		return a, fmt.Sprintf("not measured: from %s to services and pods: which way its packets to them take isn't known", c.Row)
	case target == nil:
		return a, fmt.Sprintf("not measured: %s has no target", c.Column)
	}
	a.order = Order{Protocol: target.Protocol, Target: c.Destination}
	a.peers = x.answers(c, target)
	if !a.peers && (a.column.Place != nil || target.Protocol != TCP) && !x.nobody(c) {
		return a, fmt.Sprintf("not measured: to %s: nobody there would answer", c.Column)
	}
	if len(target.Backends) > 1 || len(c.Predicted) > 1 {
		a.times = manyCalls
	}
	return a, ""
}

// answers says whether peers of ours do, at the destination or wherever it leads to.
func (x Measure) answers(c *matrix.Cell, target *matrix.Target) bool {
	ends := slices.Clone(target.Backends)
	for _, s := range c.Predicted {
		if s.At.IsValid() && s.At.Port() != 0 {
			ends = append(ends, s.At)
		}
	}
	if len(ends) == 0 {
		return x.peerAt(c.Destination)
	}
	return !slices.ContainsFunc(ends, func(b netip.AddrPort) bool { return !x.peerAt(b) })
}

func (x Measure) peerAt(to netip.AddrPort) bool {
	return slices.ContainsFunc(x.Spaces, func(s Space) bool {
		return s.Peer != 0 && s.Peer == to.Port() && slices.Contains(s.Addresses, to.Addr())
	})
}

// nobody is expected to answer: silence, and a no, tell something all the same.
func (x Measure) nobody(c *matrix.Cell) bool {
	return !slices.ContainsFunc(c.Predicted, func(s matrix.Sight) bool { return s.Verdict != matrix.Lost && s.Verdict != matrix.Refused })
}

// ask all, each space its own at once, and judge the cells.
func (x Measure) ask(ctx context.Context, all []asked, patience time.Duration, done func(int)) error {
	bySpace := map[*Space][]asked{}
	for _, a := range all {
		bySpace[a.space] = append(bySpace[a.space], a)
	}
	var wait sync.WaitGroup
	var mu sync.Mutex
	var first error
	for space, cells := range bySpace {
		wait.Go(func() {
			err := x.askFrom(ctx, space, cells, patience)
			done(len(cells))
			mu.Lock()
			defer mu.Unlock()
			if first == nil {
				first = err
			}
		})
	}
	wait.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return first
}

func (x Measure) askFrom(ctx context.Context, space *Space, cells []asked, patience time.Duration) error {
	var orders []Order
	for _, a := range cells {
		order := a.order
		order.Patience = int(patience / time.Millisecond)
		orders = append(orders, slices.Repeat([]Order{order}, a.times)...)
	}
	reports, err := space.Call(ctx, orders)
	if err != nil {
		return err
	}
	for _, a := range cells {
		if err := a.judge(x, reports[:a.times]); err != nil {
			return err
		}
		reports = reports[a.times:]
	}
	return nil
}

// judge what came about, each thing once.
func (a asked) judge(x Measure, reports []Report) error {
	a.cell.Measured, a.cell.Differs = nil, false
	seen := map[string]int{}
	for _, r := range reports {
		if r.Error != "" {
			return fmt.Errorf("%s from %s to %s: %s", a.order.Protocol, a.space.Name, a.order.Target, r.Error)
		}
		r, s := a.sight(x, r)
		key := sightKey(&s)
		if seen[key]++; seen[key] == 1 {
			a.cell.Measured = append(a.cell.Measured, s)
		}
		if !slices.ContainsFunc(a.cell.Predicted, func(p matrix.Sight) bool { return a.agrees(x, p, s, r) }) {
			a.cell.Differs = true
		}
	}
	for i := range a.cell.Measured {
		s := &a.cell.Measured[i]
		share := float64(seen[sightKey(s)]) / float64(len(reports))
		s.Share = &share
	}
	return nil
}

// sightKey tells what was measured apart.
func sightKey(s *matrix.Sight) string { return fmt.Sprint(s.Verdict, s.Source, s.At, s.AtName, s.Why) }

// answeredUnseen is said of those who answer otherwise than a peer.
const answeredUnseen = "answered, by somebody who doesn't say whom he sees"

// sight that a report tells of, and the report with what connection tracking adds.
func (a asked) sight(x Measure, r Report) (Report, matrix.Sight) {
	var at netip.AddrPort
	if r.Answered && !r.Seen.IsValid() && x.Tracked != nil {
		r.Seen, at, _ = x.Tracked(a.order.Protocol, r.Source, a.order.Target)
	}
	switch {
	case r.Seen.IsValid():
		s := matrix.Sight{Verdict: matrix.Masqueraded, Source: r.Seen.Addr(), At: at, AtName: r.By}
		if r.Seen.Addr() == r.Source.Addr() {
			s.Verdict = matrix.Kept
		}
		if by := x.Spaces.named(r.By); by != nil {
			s.At = by.at(r.Seen.Addr())
		}
		return r, s
	case r.Answered:
		return r, matrix.Sight{Verdict: matrix.Unknown, Why: answeredUnseen}
	case r.No == "":
		return r, x.silent(r)
	case r.No == Denied:
		return r, matrix.Sight{Verdict: matrix.Refused, Why: "the caller's own kernel doesn't send it"}
	}
	return r, matrix.Sight{Verdict: matrix.Refused, Why: string(r.No)}
}

// silent: nobody answered, whoever heard it.
func (x Measure) silent(r Report) matrix.Sight {
	for i := range x.Spaces {
		s := &x.Spaces[i]
		if s.Arrived == nil {
			continue
		}
		if seen, arrived := s.Arrived(r.Key); arrived {
			return matrix.Sight{Verdict: matrix.Lost, Source: seen.Addr(), At: s.at(seen.Addr()), AtName: s.Name, Why: ArrivedUnanswered}
		}
	}
	return matrix.Sight{Verdict: matrix.Lost, Why: "no answer"}
}

// ArrivedUnanswered is said of what a peer heard and whose answer didn't come back.
const ArrivedUnanswered = "it arrived; the answer didn't"

// at is the peer's address in the family of another.
func (s *Space) at(like netip.Addr) netip.AddrPort {
	for _, a := range s.Addresses {
		if packet.Of(a) == packet.Of(like) {
			return netip.AddrPortFrom(a, s.Peer)
		}
	}
	return netip.AddrPort{}
}

// agrees says whether what was measured is one of the things that were predicted.
func (a asked) agrees(x Measure, p, s matrix.Sight, r Report) bool {
	switch {
	case p.Verdict == matrix.Unknown:
		return true
	case p.Verdict == matrix.Lost:
		// A packet that the caller's own kernel drops isn't lost in silence.
		return r.No == Denied || s.Verdict == matrix.Lost && (!p.Source.IsValid() || !s.Source.IsValid() || p.Source == s.Source)
	case p.Verdict == matrix.Refused:
		return s.Verdict == matrix.Refused
	case s.Verdict == matrix.Unknown:
		return true
	case s.Verdict == matrix.Refused && !a.peers && r.No == Refused:
		return true // it arrived: whose program isn't there says so
	case !r.Seen.IsValid():
		return false
	}
	by := x.Spaces.named(r.By)
	switch {
	case p.Source.IsValid() && p.Source != s.Source:
		return false
	case by == nil:
		return !p.At.IsValid() || !s.At.IsValid() || p.At.Addr() == s.At.Addr()
	}
	return !p.At.IsValid() || slices.Contains(by.Addresses, p.At.Addr())
}

// name the addresses that were seen, as the prediction names them.
func (x Measure) name(m *matrix.Matrix) {
	names := map[netip.Addr]string{}
	for _, s := range x.Spaces {
		for _, a := range s.Addresses {
			names[a] = s.Name
		}
	}
	for _, r := range m.Rows {
		for _, a := range r.Place.Addresses {
			names[a] = r.Place.Name
		}
	}
	for i := range m.Cells {
		for _, s := range m.Cells[i].Predicted {
			if s.As != "" && s.As != itself {
				names[s.Source] = s.As
			}
		}
	}
	for i := range m.Cells {
		for j := range m.Cells[i].Measured {
			s := &m.Cells[i].Measured[j]
			if s.As = names[s.Source]; s.Verdict == matrix.Kept {
				s.As = itself
			}
		}
	}
}

const itself = "itself"

// Differing cells, in words: "tcp ipv4 pod-here to node-port-local: predicted …, measured …".
func Differing(m *matrix.Matrix) []string {
	var lines []string
	for i := range m.Cells {
		c := &m.Cells[i]
		if c.Differs {
			lines = append(lines, fmt.Sprintf("%s from %s to %s (%s to %s): predicted %s, measured %s", c.Family, c.Row, c.Column, c.Source, c.Destination,
				sights(c.Predicted), sights(c.Measured)))
		}
	}
	return lines
}

func sights(all []matrix.Sight) string {
	var words []string
	for _, s := range all {
		word := string(s.Verdict)
		if s.Source.IsValid() {
			word += " as " + s.Source.String()
		}
		if s.At.IsValid() {
			word += " at " + s.At.Addr().String()
		}
		if s.Why != "" {
			word += " (" + s.Why + ")"
		}
		words = append(words, word)
	}
	return strings.Join(words, " or ")
}

// Count the cells that were measured, and those of them that differ.
func Count(m *matrix.Matrix) (measured, differ int) {
	for i := range m.Cells {
		if len(m.Cells[i].Measured) > 0 {
			measured++
		}
		if m.Cells[i].Differs {
			differ++
		}
	}
	return measured, differ
}
