package lab

import (
	"context"
	"fmt"
	"io/fs"
	"net/netip"

	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/packet"
)

// Scenario is one situation of the field: what stands there, and what must hold.
type Scenario struct {
	Name string
	// Summary is one line for lists; Story a few for the run.
	Summary, Story string
	Spaces         []Space
	// Services whose addresses kube-proxy's rules translate, and the network of all pods,
	// of each family, where it is told.
	Services    []Service
	ClusterCIDR []netip.Prefix
	// Grid: stages are shown with a row for each caller, a column for each of what is called.
	Grid bool
	// Recorded are the ways in which kube-proxy is run.
	Recorded []KubeProxy
	// Forms are the ways in which the foreign rules are written; at least one.
	Forms []Form
	// Calls that every stage measures.
	Calls []Call
	// Stages in their order, of forms that have none of their own; the first has no policy.
	Stages []Stage
	// Policies are the policy files that the stages name.
	Policies fs.FS
}

// Role is what a namespace stands for.
type Role string

const (
	Host    Role = "host"    // forwards, carries foreign rules, runs the agent
	Pod     Role = "pod"     // behind a host's bridge
	Router  Role = "router"  // forwards and joins the hosts' networks; never runs the agent
	Outside Role = "outside" // a peer beyond the hosts
)

// Space is one network namespace.
type Space struct {
	Name    string
	Role    Role
	Bridges []Bridge
	Ports   []Port
	Tunnels []Tunnel
	// Hairpin: a port of its bridges gets back what it sent, as CNI plugins set it.
	Hairpin bool
	Routes  []Route
	// Sysctls beside forwarding: "net.ipv4.conf.all.rp_filter=0"; "-net.bridge…=0" is
	// passed over on kernels that don't have it.
	Sysctls []string
	// Filter, as nft -f takes it, is what the space lets through.
	Filter string
}

// Bridge is a bridge device of a space, with the space's addresses on it.
type Bridge struct {
	Name      string
	Addresses []netip.Prefix
}

// Port is an interface of a space, plugged into a bridge of another space.
type Port struct {
	Name string
	// Space and Bridge that the other end is plugged into.
	Space, Bridge string
	Addresses     []netip.Prefix
}

// Tunnel is a VXLAN interface: what leaves by it travels in UDP packets from Local,
// an address of the space, to Remote.
type Tunnel struct {
	Name          string
	ID            int
	Local, Remote netip.Addr
	Addresses     []netip.Prefix
}

// Route sends a network to a next hop.
type Route struct {
	To  netip.Prefix
	Via netip.Addr
	// Dev, where set: To is on this link, and Via left out.
	Dev string
	// From, where valid: only packets from these addresses (a table of their own).
	From netip.Prefix
}

// Form is a way in which a scenario's foreign rules are written.
type Form struct {
	// Name of the form; "" where a scenario has one only.
	Name, About string
	// Rules in the order in which they are written.
	Rules []Rules
	// Stages, where the form has its own.
	Stages []Stage
}

// Rules are what one foreign component writes in a space.
type Rules struct {
	On        string
	Component foreign.Component
	Node      foreign.Node
	// Context: the rules are there for truth's sake and stay as they are when the
	// component that the scenario is about restarts.
	Context bool
}

// Variants are the variants of iptables in which the form can be written; of a
// form without iptables rules one, which makes no difference.
func (f *Form) Variants() []foreign.Variant {
	for _, r := range f.Rules {
		if !r.Component.Native {
			return foreign.Variants[:]
		}
	}
	return foreign.Variants[len(foreign.Variants)-1:]
}

// Call is who calls whom.
type Call struct {
	From, To string
	// Service, where set, is what is called; To then is the backend that the call must
	// reach, or empty: an echo request to the service's address.
	Service string
	// Node, where set: the service is called by its node port at this space.
	Node string
}

// Sight is whom a peer takes its caller for: the name of a space whose address
// it sees, or one of the constants.
type Sight string

const (
	// Itself: the peer sees the caller's own address.
	Itself Sight = "itself"
	// NoReply: the caller gets no answer, whatever arrived.
	NoReply Sight = "no reply"
	// Stranger: the peer sees an address that no space has. Never expected.
	Stranger Sight = "unknown address"
)

// Expect is what a call must be seen as in each family.
type Expect struct{ IPv4, IPv6 Sight }

// Both is an Expect that is the same in both families.
func Both(s Sight) Expect { return Expect{IPv4: s, IPv6: s} }

// Of returns the expectation for a family.
func (e Expect) Of(f packet.Family) Sight {
	if f == packet.IPv4Family {
		return e.IPv4
	}
	return e.IPv6
}

// Step is something that happens before a stage is measured.
type Step func(context.Context, *World) error

// Stage is a moment at which every call is measured.
type Stage struct {
	Title string
	// Policy is the file of Scenario.Policies that is in force; "": unmasq isn't
	// there yet.
	Policy string
	// Step happens first; nil: nothing.
	Step Step
	// Expect has an entry for each call of the scenario.
	Expect map[Call]Expect
}

// Space returns the space of a name.
func (s *Scenario) Space(name string) (*Space, error) {
	for i := range s.Spaces {
		if s.Spaces[i].Name == name {
			return &s.Spaces[i], nil
		}
	}
	return nil, fmt.Errorf("scenario %s has no %q", s.Name, name)
}

// Hosts returns the names of the spaces that run the agent.
func (s *Scenario) Hosts() []string {
	var names []string
	for i := range s.Spaces {
		if s.Spaces[i].Role == Host {
			names = append(names, s.Spaces[i].Name)
		}
	}
	return names
}

// StagesOf returns the stages that a form goes through.
func (s *Scenario) StagesOf(f *Form) []Stage {
	if f.Stages != nil {
		return f.Stages
	}
	return s.Stages
}

// Namespace is the name of the network namespace of a space.
func (s *Scenario) Namespace(space string) string {
	return "unmasq-" + s.Name + "-" + space
}

// Address returns the space's address in a family: of its first port that has
// one, else of its first bridge; the zero Addr where it has none.
func (s *Space) Address(f packet.Family) netip.Addr {
	for _, a := range s.addresses() {
		if packet.Of(a) == f {
			return a
		}
	}
	return netip.Addr{}
}

// addresses returns every address of the space, ports first.
func (s *Space) addresses() []netip.Addr {
	var all []netip.Addr
	for _, p := range s.Ports {
		all = appendAddresses(all, p.Addresses)
	}
	for _, b := range s.Bridges {
		all = appendAddresses(all, b.Addresses)
	}
	for _, t := range s.Tunnels {
		all = appendAddresses(all, t.Addresses)
	}
	return all
}

func appendAddresses(all []netip.Addr, prefixes []netip.Prefix) []netip.Addr {
	for _, p := range prefixes {
		all = append(all, p.Addr())
	}
	return all
}

// forwards says whether the space passes packets on.
func (s *Space) forwards() bool { return s.Role == Host || s.Role == Router }
