package agent

import "github.com/unmasq/unmasq/internal/policy"

// tags are numbers that rules keep for as long as they are there. In a cluster
// policies come and go one by one among thousands: named after the rules' places,
// everything behind a new one would have to be built anew.
type tags struct {
	byID map[string]int
	free []int
	next int
}

// of gives each rule its tag. The map is another every time something changed.
func (t *tags) of(p *policy.Policy) map[string]int {
	now := make(map[string]int, len(p.Rules))
	var without []string
	for i := range p.Rules {
		id := p.Rules[i].ID()
		if tag, known := t.byID[id]; known {
			now[id] = tag
		} else {
			without = append(without, id)
		}
	}
	for id, tag := range t.byID {
		if _, there := now[id]; !there {
			t.free = append(t.free, tag)
		}
	}
	for _, id := range without {
		now[id] = t.take()
	}
	t.byID = now
	return now
}

func (t *tags) take() int {
	if n := len(t.free); n > 0 {
		tag := t.free[n-1]
		t.free = t.free[:n-1]
		return tag
	}
	t.next++
	return t.next
}
