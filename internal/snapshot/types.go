// Package snapshot holds the state of one node as data: the rules, sets, routes,
// sysctls and connections that decide what happens to a packet there. It reads
// a snapshot that unmasq wrote (a directory or a .tar.gz), and any bare dump,
// whose format it finds by looking at it.
//
// A live node, a support ticket's file and a test fixture are the same [Host];
// what wasn't given is known not to be known.
package snapshot

import (
	"net/netip"
	"strings"

	"github.com/unmasq/unmasq/internal/conntrack"
	"github.com/unmasq/unmasq/internal/ipset"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/route"
	"github.com/unmasq/unmasq/internal/ruleset"
)

// Host is a node's state.
type Host struct {
	// Name of the node, empty where not known.
	Name  string
	Rules ruleset.Ruleset
	// Sets is nil where no ipset dump was given.
	Sets    ipset.Sets
	Network route.Network
	// Sysctls by name with dots; nil where none were given.
	Sysctls map[string]string
	// AllSysctls: one that is missing in Sysctls doesn't exist on the node; else
	// it may just not have been given.
	AllSysctls bool
	// NFTGiven: a dump of nftables was given, so that Rules.Native is all there is.
	NFTGiven bool
	// NFTWhole: and it is a whole ruleset, so that a table of nftables or of
	// iptables-nft that it lacks doesn't exist. One table alone may be a part.
	NFTWhole bool
	// Connections of conntrack -L; ConnectionsGiven says whether it was asked for.
	Connections      []conntrack.Entry
	ConnectionsGiven bool
	// Counters of connection tracking; nil where they weren't given.
	Counters conntrack.Counters
	// IPVS holds the lines of `ipvsadm -Sn`, VirtualServersGiven whether it was given.
	VirtualServers      []VirtualServer
	VirtualServersGiven bool
	// NoIPsec: the IPsec policies were given, and there is none.
	NoIPsec bool
	// IPsecOut are the policies for what leaves.
	IPsecOut []IPsecPolicy
	// WireGuard has the peers of its links.
	WireGuard []WireGuardPeer
	// Bypass says, in a sentence, what takes pods' packets past netfilter, and what to
	// do; empty where nothing is known to.
	Bypass string
	// IPTables says for each family whether a whole dump of the iptables tables
	// was given, so that a table that is missing there is empty.
	IPTables map[packet.Family]bool
	// Notes are what could not be read, or looks wrong: an answer may depend on it.
	Notes []Note
	// Meta of a snapshot that unmasq took, nil for bare dumps.
	Meta *Meta
}

// IPsecPolicy is one that `ip xfrm policy` lists with dir out.
type IPsecPolicy struct{ Source, Destination netip.Prefix }

// Note is a line or file that wasn't understood.
type Note struct {
	File string
	// Line from 1, 0 for the whole file.
	Line int
	Text string
	Why  string
}

// VirtualServer is an IPVS service with its real servers.
type VirtualServer struct {
	Protocol  uint8
	Address   string
	Scheduler string
	Servers   []RealServer
}

// RealServer of a virtual server. Method is masq, route or tunnel.
type RealServer struct {
	Address, Method string
	Weight          int
}

// Meta is meta.json of a snapshot.
type Meta struct {
	// Version of the layout, 1.
	Version int `json:"version"`
	// Unmasq is the version of the program that took it.
	Unmasq string `json:"unmasq"`
	// Time is RFC 3339, UTC.
	Time     string            `json:"time"`
	Host     string            `json:"host"`
	Kernel   string            `json:"kernel"`
	Programs map[string]string `json:"programs"`
	Redacted bool              `json:"redacted,omitempty"`
	// Missing: file → why it could not be read.
	Missing map[string]string `json:"missing,omitempty"`
}

// UnreadRules is the first file with rules that couldn't be read, and why, nft's last;
// empty where all were that there can be. What no program is there for can't hold rules.
func (m *Meta) UnreadRules() (file, why string) {
	for _, file := range [...]string{FileIPTables, FileIPTablesLegacy, FileIP6Tables, FileIP6TablesLegacy, FileNFT} {
		if why := m.Missing[file]; why != "" && !strings.HasSuffix(why, NotInstalled) {
			return file, why
		}
	}
	return "", ""
}

// NotInstalled ends the reason in Meta.Missing where a program isn't there, and
// so nothing that it could have made.
const NotInstalled = "is not installed"

// Names of the files of a snapshot.
const (
	FileIPTables        = "iptables-save.txt"
	FileIPTablesLegacy  = "iptables-legacy-save.txt"
	FileIP6Tables       = "ip6tables-save.txt"
	FileIP6TablesLegacy = "ip6tables-legacy-save.txt"
	FileNFT             = "nft.json"
	// FileNFTChains tells the devices of chains at ingress and egress, which older
	// nft (1.0.6) leaves out of its JSON.
	FileNFTChains   = "nft-chains.txt"
	FileIPSet       = "ipset.txt"
	FileLinks       = "ip-link.json"
	FileAddresses   = "ip-addr.json"
	FileRoutes      = "ip-route.json"
	FileRules       = "ip-rule.json"
	FileRoutes6     = "ip6-route.json"
	FileRules6      = "ip6-rule.json"
	FileNeighbors   = "ip-neigh.json"
	FileBridgeLinks = "bridge-link.json"
	FileBridgeFDB   = "bridge-fdb.json"
	FileXFRM        = "ip-xfrm.txt"
	FileIPVS        = "ipvs.txt"
	FileWireGuard   = "wg.txt"
	FileBPF         = "tc-bpf.json"
	FileSysctl      = "sysctl.txt"
	FileConntrack   = "conntrack.txt"
	// FileConntrackStat is /proc/net/stat/nf_conntrack.
	FileConntrackStat = "conntrack-stat.txt"
	FileMeta          = "meta.json"
)
