package lab

import (
	"fmt"
	"io/fs"
	"strings"

	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/packet"
)

// KubeProxy is a way to run kube-proxy. What the real program writes for a scenario's
// services is recorded (hack/dumps), one file of policies' folder for each way.
type KubeProxy struct {
	// Native: in nftables mode; else in iptables mode.
	Native bool
	// ClusterCIDR: it is told the pods' network; else it is not, and takes nobody for a
	// client outside.
	ClusterCIDR bool
	// MasqueradeAll: every connection to a ClusterIP is masqueraded.
	MasqueradeAll bool
}

func (k KubeProxy) String() string {
	name := "iptables"
	if k.Native {
		name = "nftables"
	}
	if k.ClusterCIDR {
		name += "-clustercidr"
	}
	if k.MasqueradeAll {
		name += "-masqueradeall"
	}
	return name
}

// File of the recording, among the scenario's policies.
func (k KubeProxy) File() string { return "kube-proxy/" + k.String() + ".txt" }

// sectionMark starts the line before what was written on a host in a family:
// "#-- node1 ipv4". Programs that load rules take it for a comment.
const sectionMark = "#-- "

// Recording is what kube-proxy wrote, by host and family.
type Recording map[string]map[packet.Family]string

// Format is the text of a recording's file, hosts in the order of the scenario.
func (r Recording) Format(s *Scenario) string {
	var b strings.Builder
	for _, host := range s.Hosts() {
		for _, f := range packet.Families {
			fmt.Fprintf(&b, "%s%s %s\n%s", sectionMark, host, familyName(f), r[host][f])
		}
	}
	return b.String()
}

// parseRecording reads it.
func parseRecording(text string) Recording {
	r := Recording{}
	for section := range strings.SplitSeq("\n"+text, "\n"+sectionMark) {
		title, rules, _ := strings.Cut(section, "\n")
		host, family, _ := strings.Cut(title, " ")
		for _, f := range packet.Families {
			if family != familyName(f) {
				continue
			}
			if r[host] == nil {
				r[host] = map[packet.Family]string{}
			}
			r[host][f] = strings.TrimSuffix(rules, "\n") + "\n"
		}
	}
	return r
}

// KubeProxy returns what kube-proxy, run in one of the ways that are recorded, writes
// on the hosts.
func (s *Scenario) KubeProxy(k KubeProxy) []Rules {
	text, err := fs.ReadFile(s.Policies, k.File())
	if err != nil {
		text = nil // before the first recording; a test misses it
	}
	recording := parseRecording(string(text))
	var all []Rules
	for _, host := range s.Hosts() {
		all = append(all, Rules{On: host, Component: foreign.Recorded("kube-proxy", k.Native, recording[host])})
	}
	return all
}
