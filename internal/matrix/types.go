// Package matrix says who is seen as whom: rows are sources of connections
// (a pod here, a pod there, this node, another node, a client outside), columns
// are what they connect to (pods, nodes, services in all their forms, the world
// outside), and a cell is what the server there sees. Packages sim and explain
// predict it from the nodes' state; whoever measures fills in what was seen. It
// is also a test: a matrix, or a few lines by hand, says what is expected.
//
//	m := matrix.Predict(matrix.Situation{Nodes: nodes})
package matrix

import (
	"net/netip"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// Version of the JSON. Fields are only ever added.
const Version = 1

// Situation is what a matrix is made of.
type Situation struct {
	// Nodes whose state is known, at least one. The first is "here"; all others are
	// "there".
	Nodes []Node
	// Places that were stated. Where one has the role of one that would be found it
	// stands in its stead; more of a role are rows and columns beside it, by their names.
	Places []Place
	// Services to ask about, as namespace/name or namespace/name:port, or an address; none: one of each kind.
	Services []string
	// AllServices asks about each that is known.
	AllServices bool
	// Port that pods, nodes and hosts outside are asked at, where the rules tell of
	// none; 0 is [DefaultPort], or the next that no service has.
	Port uint16
	// Protocol of all connections, packet.TCP or packet.UDP; 0 is TCP. Services of
	// another are left out.
	Protocol uint8
}

// DefaultPort of what has none by itself.
const DefaultPort = 8080

// Node is a host with its name, which may be empty where there is one alone.
type Node struct {
	Name string
	Host *snapshot.Host
}

// What a place may be alone.
const (
	Source      = "source"
	Destination = "destination"
)

// Kind of a place.
type Kind string

const (
	// Pod is a container with an address of its own, on a node.
	Pod Kind = "pod"
	// Host is a node itself.
	Host Kind = "node"
	// Outside is a host that is neither a node nor a pod.
	Outside Kind = "outside"
	// Network is one of addresses outside that is asked about by itself: one that is to
	// see pods as they are, say.
	Network Kind = "network"
)

// Place is an end of connections.
type Place struct {
	Kind Kind   `json:"kind"`
	Name string `json:"name"`
	// Node that a pod or host is on; of what is outside, the node that its packets come
	// in at: empty for the one that their destination is on, and here for services.
	Node string `json:"node,omitempty"`
	// Interface of that node that they come in by; empty: the one that the route back takes.
	Interface string `json:"interface,omitempty"`
	// Addresses, at most one of each family.
	Addresses []netip.Addr `json:"addresses"`
	// CIDR of a network; its address is one of it.
	CIDR netip.Prefix `json:"cidr,omitzero"`
	// Port that it is asked at as a destination; 0: [Situation.Port].
	Port uint16 `json:"port,omitempty"`
	// Only is [Source] or [Destination] where a stated place is to be that alone; empty: it is both.
	Only string `json:"only,omitempty"`
	// Found says what of the state tells of it; empty for what was stated.
	Found string `json:"found,omitempty"`
}

// Address of a family; invalid where it has none.
func (p *Place) Address(f packet.Family) netip.Addr {
	for _, a := range p.Addresses {
		if packet.Of(a) == f {
			return a
		}
	}
	return netip.Addr{}
}

// Matrix is what is shown, written as JSON, and compared.
type Matrix struct {
	Version int `json:"version"`
	// Nodes whose state is known; the first is here.
	Nodes []string `json:"nodes"`
	// Policies that were taken to be in force although they aren't, by file.
	Policies []string `json:"policies,omitempty"`
	Rows     []Row    `json:"rows"`
	Columns  []Column `json:"columns"`
	// Cells in the order of rows, then columns, then families. Those that make no sense
	// (a node through a service to itself) or that nothing is known about have no
	// sights.
	Cells []Cell `json:"cells"`
	// Notes say what isn't in the table and why, and what its answers rest on.
	Notes []string `json:"notes"`
	// Measured: cells have been.
	Measured bool `json:"measured,omitempty"`
}

// Row is a source.
type Row struct {
	// Name of the row: pod-here, pod-there, this-node, other-node, outside; or, of one of
	// several alike, what it is called.
	Name  string `json:"name"`
	Role  Role   `json:"role"`
	Place Place  `json:"place"`
}

// Role of a row or column: what the source, or destination, is.
type Role string

const (
	PodHere    Role = "pod-here"
	PodThere   Role = "pod-there"
	ThisNode   Role = "this-node"
	OtherNode  Role = "other-node"
	OutsideOne Role = "outside"
	// KeptNetwork is an address of a network that was asked about.
	KeptNetwork Role = "network"
	// Services: by their address in the cluster, with a backend here, with one there,
	// with backends on both sides, with none, and from a backend to itself.
	ClusterIPHere  Role = "cluster-ip-here"
	ClusterIPThere Role = "cluster-ip-there"
	ClusterIPBoth  Role = "cluster-ip-both"
	ClusterIPNone  Role = "cluster-ip-none"
	Hairpin        Role = "itself"
	// NodePorts of this node by external traffic policy.
	NodePortCluster Role = "node-port-cluster"
	NodePortLocal   Role = "node-port-local"
	// ExternalIP is an external address of a service, or a load balancer's.
	ExternalIP Role = "external-ip"
	// Published is a port of this node that a container engine forwards.
	Published Role = "published-port"
)

// Column is a destination.
type Column struct {
	// Name is the role, or, where there are several of it, tells them apart.
	Name string `json:"name"`
	Role Role   `json:"role"`
	// Place of what isn't a service.
	Place *Place `json:"place,omitempty"`
	// Service, namespace/name:port, where the rules name it.
	Service string `json:"service,omitempty"`
	// Targets that are connected to, at most one of each family.
	Targets []Target `json:"targets"`
}

// Target is what a connection goes to.
type Target struct {
	Address  netip.Addr `json:"address"`
	Port     uint16     `json:"port"`
	Protocol string     `json:"protocol"`
	// Backends of a service, as the rules of this node have them.
	Backends []netip.AddrPort `json:"backends,omitempty"`
}

// Target of a family, nil where the column has none.
func (c *Column) Target(f packet.Family) *Target {
	for i := range c.Targets {
		if packet.Of(c.Targets[i].Address) == f {
			return &c.Targets[i]
		}
	}
	return nil
}

// Cell is one source's connections to one destination by one family.
type Cell struct {
	Row    string `json:"row"`
	Column string `json:"column"`
	// Family is ipv4 or ipv6.
	Family string `json:"family"`
	// Source and Destination that were asked about; absent where nothing was. The
	// source of [Hairpin] is the backend, not the row's own pod.
	Source      netip.Addr     `json:"source,omitzero"`
	Destination netip.AddrPort `json:"destination,omitzero"`
	// Predicted has all that can come about, the likeliest first; several with load
	// balancing, and where it depends on what isn't known.
	Predicted []Sight `json:"predicted"`
	// Before has what comes about today, where a policy that isn't in force yet changes it.
	Before []Sight `json:"before,omitempty"`
	// Measured has what came about; nil where it wasn't measured.
	Measured []Sight `json:"measured,omitempty"`
	// Differs: something was measured that wasn't predicted.
	Differs bool `json:"differs,omitempty"`
	// Why says why a cell has no sights.
	Why string `json:"why,omitempty"`
}

// Verdict on how a server sees a source.
type Verdict string

const (
	Kept        Verdict = "kept"
	Pinned      Verdict = "pinned"
	Masqueraded Verdict = "masqueraded"
	SNAT        Verdict = "snat"
	// Lost: no answer: it is dropped on the way, or the answer can't come back.
	Lost Verdict = "lost"
	// Refused: somebody says no.
	Refused Verdict = "refused"
	Unknown Verdict = "unknown"
	// None is no sight at all: of an expectation, and of a cell without sights.
	None Verdict = "none"
)

// Sight is one thing that comes about.
type Sight struct {
	Verdict Verdict `json:"verdict"`
	// Share of the connections, in (0, 1]; null where it depends on something.
	Share *float64 `json:"share"`
	// Source that the server sees; invalid where it isn't known, and where none sees it.
	Source netip.Addr `json:"source,omitzero"`
	// As is the name of that address: "node-a's eth0", "itself".
	As string `json:"as,omitempty"`
	// At is the server that sees it: the backend of a service.
	At netip.AddrPort `json:"at,omitzero"`
	// AtName is its name, where it has one.
	AtName string `json:"atName,omitempty"`
	// By whom; nil where nobody did anything.
	By *By `json:"by,omitempty"`
	// Why it is lost, refused or unknown, in a sentence.
	Why string `json:"why,omitempty"`
	// DependsOn: what wasn't given, or isn't known.
	DependsOn []string `json:"dependsOn,omitempty"`
}

// By is what decided.
type By struct {
	// Node that it stands on.
	Node  string `json:"node,omitempty"`
	Owner string `json:"owner,omitempty"`
	// Place of the rule: "nat KUBE-POSTROUTING rule 3", "ip kube-proxy masquerading
	// handle 12".
	Place string `json:"place,omitempty"`
	Rule  string `json:"rule,omitempty"`
	File  string `json:"file,omitempty"`
	Line  int    `json:"line,omitempty"`
	// Because is the owner's reason.
	Because string `json:"because,omitempty"`
}
