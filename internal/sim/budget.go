package sim

// Bounds of a question. No ruleset that a kernel would take comes near them; a
// dump that somebody made to hurt (chains that each jump twice to the next) ends
// as unknown, and says so.
const (
	// mostWork counts rules and matches looked at, in all runs, and what else
	// grows with the dump.
	mostWork = 1 << 26
	// choiceWork is what a new choice costs, pathWork what it costs to keep one of
	// a run.
	choiceWork, pathWork = 64, 4
	// mostSteps are kept of all runs.
	mostSteps = 1 << 20
	// mostConditions of an outcome are listed.
	mostConditions = 200
	// mostLacking are named of what the dump doesn't have.
	mostLacking = 1000
)

// budget is what a question has used, its tunnels' outer packets included.
type budget struct{ work, kept int }

func (b *budget) spent() bool { return b.work > mostWork }

// tooLong is what the answer depends on where the bounds were met.
var tooLong = Dependency{What: "rules", Why: "more are to be looked at than can be followed"}

// giveUp ends a run that looked at too much.
func (r *run) giveUp() verdict {
	r.verdict, r.kind, r.sourceKnown, r.decider = VerdictUnknown, SourceUnknown, false, nil
	r.lacks(tooLong.What, tooLong.Why)
	return drop
}

// record keeps a step of the way.
func (r *run) record(s Step) {
	if r.kept+len(r.steps) >= mostSteps {
		r.stepsLost = true
		return
	}
	r.steps = append(r.steps, s)
}
