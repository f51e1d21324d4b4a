package masqagent

import (
	"fmt"
	"slices"
	"strings"
)

// FilePrefix begins the names of files that an agent reads; SingleFile is the only
// one that all but Azure's read.
const (
	FilePrefix = "ip-masq"
	SingleFile = "ip-masq-agent"
)

// Evidence of whose flags and files these are.
type Evidence struct {
	// Program is the name that the agent is started under.
	Program string
	// Flags that are given, without dashes.
	Flags []string
	// Files are the names in the directory of settings.
	Files []string
}

// Find says whose they are, and why. Cilium's file has no sign that it is Cilium's:
// its dialect must be asked for. An error says that flags contradict each other.
func (e Evidence) Find() (d Dialect, why string, err error) {
	azure, kubernetes := e.first("resync-interval"), e.first("to-ports", "random-fully")
	switch {
	case azure != "" && kubernetes != "":
		return "", "", fmt.Errorf("--%s is Azure's ip-masq-agent-v2's, --%s is Kubernetes' ip-masq-agent's; say --dialect azure or --dialect kubernetes", azure, kubernetes)
	case azure != "":
		return Azure, "only ip-masq-agent-v2 has --" + azure, nil
	case kubernetes != "":
		return Kubernetes, "only Kubernetes' ip-masq-agent has --" + kubernetes, nil
	case e.Program == "ip-masq-agent-v2":
		return Azure, "started as ip-masq-agent-v2", nil
	}
	for _, name := range e.Files {
		if strings.HasPrefix(name, FilePrefix) && name != SingleFile {
			return Azure, "only ip-masq-agent-v2 reads " + name, nil
		}
	}
	return Kubernetes, "by default", nil
}

func (e Evidence) first(names ...string) string {
	for _, n := range names {
		if slices.Contains(e.Flags, n) {
			return n
		}
	}
	return ""
}

// Reads are the files of a directory that a dialect reads, by their names, sorted.
func Reads(d Dialect, names []string) (out []string) {
	for _, n := range names {
		if n == SingleFile || d == Azure && strings.HasPrefix(n, FilePrefix) {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}
