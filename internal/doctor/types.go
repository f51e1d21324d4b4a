// Package doctor looks over a node's state for what hides, loses or misleads
// packets: conflicts and risks, each with its evidence, what follows from it, and
// the commands that mend it.
//
// It claims nothing that package sim wouldn't say of a packet: most checks put
// questions to it, before and after an imagined change. What wasn't given is not
// guessed; the report says which checks could not be made.
//
//	report := doctor.Examine(doctor.Node{Host: host})
package doctor

import "github.com/unmasq/unmasq/internal/snapshot"

// Severity of a finding.
type Severity string

const (
	// Error: packets are lost, or leave otherwise than somebody has set.
	Error Severity = "error"
	// Warning: it goes wrong for some packets, or as soon as something changes.
	Warning Severity = "warning"
	// Info: nothing goes wrong by it.
	Info Severity = "info"
)

// Finding is one thing that is wrong on a node.
type Finding struct {
	// Code is stable; `unmasq doctor --explain CODE` tells about it.
	Code     string   `json:"code"`
	Severity Severity `json:"severity"`
	Summary  string   `json:"summary"`
	// Evidence are rules, counters and settings as the node has them.
	Evidence []string `json:"evidence"`
	// Consequence in one sentence.
	Consequence string `json:"consequence"`
	// Mend are lines for a shell on the node, as root. Those that begin with # are
	// for people.
	Mend []string `json:"mend"`
	// Node is empty where there is one alone.
	Node string `json:"node,omitempty"`

	// keeps: the mend begins with the policy that all checks have asked for.
	keeps bool
}

// Unmade is a check that could not be made.
type Unmade struct {
	Codes []string `json:"codes"`
	// Why: what wasn't given.
	Why  string `json:"why"`
	Node string `json:"node,omitempty"`
}

// Report of one node or several. Fields are only ever added.
type Report struct {
	Version     int       `json:"version"`
	Findings    []Finding `json:"findings"`
	NotLookedAt []Unmade  `json:"notLookedAt"`
	// Entering of each node whose tracked connections were given.
	Entering []Entering `json:"entering,omitempty"`
}

// Errors says whether one of the findings is an error.
func (r *Report) Errors() bool {
	for i := range r.Findings {
		if r.Findings[i].Severity == Error {
			return true
		}
	}
	return false
}

// Node is a host with its name, which may be empty where there is one alone.
type Node struct {
	Name string
	Host *snapshot.Host
	// Saved are files that are loaded at boot, by their paths; nil where they
	// weren't looked at.
	Saved map[string]string
	// Want is the policy that shall be in force; nil where none is stated.
	Want *Wanted
	// Taken is nil where nothing was taken over.
	Taken *Taken
}
