package doctor

import (
	"fmt"
	"net/netip"
	"strconv"

	"github.com/unmasq/unmasq/internal/snapshot"
)

const (
	trackedMax   = "net.netfilter.nf_conntrack_max"
	trackedCount = "net.netfilter.nf_conntrack_count"
)

// tracked: what the table of connections holds. A node without tracking has neither setting.
func tracked(h *snapshot.Host) string {
	return unless(h.AllSysctls || h.Sysctls[trackedMax] != "" && h.Sysctls[trackedCount] != "", "no sysctls of connection tracking were given")
}

// counters of the kernel, which a node without tracking hasn't.
func counters(h *snapshot.Host) string {
	return unless(h.Counters != nil || h.AllSysctls && h.Sysctls[trackedMax] == "", "no counters of connection tracking were given")
}

// Parts of the table of connections that are in use.
const (
	// halfFull is too much for one that had to throw connections out before.
	halfFull = 0.5
	// dropping is where the next few hundred connections end it.
	dropping = 0.95
)

// conntrackFull: the table of connections is nearly full, or half full after it was full.
func conntrackFull(p *patient) []Finding {
	most, _ := strconv.ParseUint(p.host.Sysctls[trackedMax], 10, 64)
	count, err := strconv.ParseUint(p.host.Sysctls[trackedCount], 10, 64)
	if most == 0 || err != nil { // 0 is no bound
		return nil
	}
	part, evicted := float64(count)/float64(most), p.host.Counters["early_drop"]
	if part < halfFull || part < nearlyFull && evicted == 0 {
		return nil
	}
	f := Finding{
		Severity:    Warning,
		Summary:     fmt.Sprintf("the table of connections holds %d of %d", count, most),
		Evidence:    []string{p.setting(trackedCount), p.setting(trackedMax)},
		Consequence: "When it is full the first packet of each new connection is dropped, of the node's own too, without a word to its sender; connections without an answer are thrown out before.",
		Mend: []string{
			fmt.Sprintf("sysctl -w %s=%d", trackedMax, roomFor(count, most)),
			"# that is until the next boot: put it into /etc/sysctl.d too; kube-proxy sets its own at its start (conntrack.maxPerCore, conntrack.min)",
		},
	}
	if p.host.Counters != nil {
		f.Evidence = append(f.Evidence, p.counted("early_drop", "drop", "insert_failed"))
	}
	if evicted > 0 || part >= dropping {
		f.Severity = Error
	}
	if who, n := p.busiest(); n > 0 {
		f.Evidence = append(f.Evidence, fmt.Sprintf("conntrack: %d of them are from %s", n, who))
	}
	return []Finding{f}
}

// roomFor doubles the bound until the connections take less than half of it.
func roomFor(count, most uint64) uint64 {
	for float64(count) >= halfFull*float64(most) {
		most *= 2
	}
	return most
}

// counted are counters as evidence.
func (p *patient) counted(names ...string) string {
	text := "conntrack -S:"
	for _, name := range names {
		text += fmt.Sprintf(" %s=%d", name, p.host.Counters[name])
	}
	return text
}

// busiest is the source of most connections; 0 where they weren't given.
func (p *patient) busiest() (who netip.Addr, n int) {
	of := map[netip.Addr]int{}
	for i := range p.host.Connections {
		source := p.host.Connections[i].Original.Source
		of[source]++
		if of[source] > n {
			who, n = source, of[source]
		}
	}
	return who, n
}
