package doctor

import (
	"fmt"

	"github.com/unmasq/unmasq/internal/takeover"
)

// Taken is what was taken over on a node.
type Taken struct {
	Record takeover.Record
	// Flag with which `unmasq takeover` finds the record, empty where it is in its place.
	Flag string
}

// rulesReturned: of what was taken over something stands again.
func rulesReturned(p *patient) []Finding {
	if p.taken == nil {
		return nil
	}
	var all []Finding
	for _, name := range takeover.Owners() {
		var evidence []string
		for _, part := range p.taken.Record.Of(name) {
			for _, rule := range part.Again(p.host) {
				evidence = append(evidence, fmt.Sprintf("%s %s %s: %s", part.Variant, part.Family, part.Table, rule))
			}
		}
		if evidence == nil {
			continue
		}
		var mend []string
		for _, change := range takeover.Advice(p.host, name).Change {
			mend = append(mend, "# "+change)
		}
		all = append(all, Finding{
			Summary:     fmt.Sprintf("%s has written rules again that were taken over", name),
			Evidence:    evidence,
			Consequence: "What unmasq's policy decides stays as it is; whatever it leaves to others is masqueraded again.",
			Mend:        append(mend, "unmasq takeover --owner "+name+p.taken.Flag),
		})
	}
	return all
}
