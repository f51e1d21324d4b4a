package kube

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// Memory is what programs of one name use.
type Memory struct {
	Program   string
	Processes int
	KiB       int64
}

func (m Memory) String() string {
	if m.Processes > 1 {
		return fmt.Sprintf("%s (%d) %d MiB", m.Program, m.Processes, m.KiB>>10)
	}
	return fmt.Sprintf("%s %d MiB", m.Program, m.KiB>>10)
}

// Memory of the cluster's processes, by program, the most first. What several
// share is shared among them (PSS).
func (c *Cluster) Memory() []Memory {
	programs := map[string]Memory{}
	for _, p := range members(c.id) {
		m := programs[p.name]
		programs[p.name] = Memory{Program: p.name, Processes: m.Processes + 1, KiB: m.KiB + proportional(p.pid)}
	}
	return slices.SortedFunc(maps.Values(programs), func(a, b Memory) int { return int(b.KiB - a.KiB) })
}

// proportional set size in KiB; of a process that has ended, 0.
func proportional(pid int) (kib int64) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	for line := range strings.Lines(string(text)) {
		if _, err := fmt.Sscanf(line, "Pss: %d kB", &kib); err == nil {
			return kib
		}
	}
	return 0
}
