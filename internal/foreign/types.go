// Package foreign writes the NAT rules of other components (docker, flannel,
// CNI bridge, kube-router, ip-masq-agent, kube-proxy) as they write them
// themselves: with the real programs iptables-legacy, iptables-nft, ipset and
// nft, in both families, and again at a restart. Labs and tests load them
// beside unmasq; nothing in the agent uses them.
//
// What a component does is plain data. It can be printed, as a shell would read
// it, and executed in any network namespace:
//
//	docker, _ := foreign.Named("docker")
//	steps := docker.Write(node, foreign.Legacy, packet.IPv4Family)
//	err := foreign.Run(ctx, foreign.In(namespace), steps)
//
// Only the rules that can change a source address are written; what the
// components put into filter tables is not. The texts are those of docker 20.10,
// flannel 0.28, CNI plugins 1.9, kube-router 2.11, ip-masq-agent 2.12 and
// kube-proxy 1.34.
package foreign

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/packet"
)

// Variant is the kernel interface that a node's iptables programs speak.
type Variant string

const (
	// Legacy is ip_tables (iptables-legacy, xtables-legacy-multi).
	Legacy Variant = "legacy"
	// NFT is nf_tables (iptables-nft, xtables-nft-multi).
	NFT Variant = "nft"
)

// Variants lists both.
var Variants = [...]Variant{Legacy, NFT}

// Node is what the components know of the node that they write rules on.
type Node struct {
	// Bridge is the link that the node's pods hang on, such as docker0.
	Bridge     string
	IPv4, IPv6 Addresses
}

// Addresses of one family. A component writes nothing in a family whose
// LocalPods it isn't given.
type Addresses struct {
	// ClusterPods holds the pods of every node, LocalPods those of this node.
	ClusterPods, LocalPods netip.Prefix
	// Pods are the addresses of this node's pods, for what writes rules for
	// each pod (CNI bridge).
	Pods []netip.Addr
	// PodSubnets and Nodes are the pod subnets and addresses of all nodes
	// (kube-router). Nil PodSubnets: LocalPods alone.
	PodSubnets []netip.Prefix
	Nodes      []netip.Addr
	// NonMasquerade are the destinations that ip-masq-agent leaves alone. Nil:
	// the three ranges of RFC 1918, fd00::/8.
	NonMasquerade []netip.Prefix
}

// Of returns the addresses of a family.
func (n Node) Of(f packet.Family) Addresses {
	if f == packet.IPv4Family {
		return n.IPv4
	}
	return n.IPv6
}

// Steps of a component on a node; nil where it has nothing to do there.
type Steps func(Node, Variant, packet.Family) []Step

// Component is a program that writes NAT rules.
type Component struct {
	Name string
	// Native: it speaks nftables itself, so that the variant makes no difference.
	Native bool
	// Write is what it does at its first start on a node.
	Write Steps
	// Restart is what it does when it is started again, whether or not its rules
	// are still there.
	Restart Steps
	// Remove takes its rules off. It fails where they aren't there.
	Remove Steps
}

// Step is one program that is executed.
type Step struct {
	Program string
	Args    []string
	Stdin   string
	// Unless, where not nil: arguments with which the program is asked first;
	// where it says yes, the step is left out.
	Unless []string
	// MayFail: the component goes on after a failure.
	MayFail bool
}

// String is the step as typed into a shell.
func (s Step) String() string {
	var b strings.Builder
	if s.Unless != nil {
		b.WriteString(commandLine(s.Program, s.Unless) + " 2>/dev/null || ")
	}
	b.WriteString(commandLine(s.Program, s.Args))
	if s.MayFail {
		b.WriteString(" 2>/dev/null || true")
	}
	if s.Stdin != "" {
		b.WriteString(" <<'EOF'\n" + s.Stdin + "EOF")
	}
	return b.String()
}

func commandLine(program string, args []string) string {
	words := []string{program}
	for _, a := range args {
		words = append(words, quote(a))
	}
	return strings.Join(words, " ")
}

// quote makes one shell word of s.
func quote(s string) string {
	if s != "" && !strings.ContainsAny(s, " \t\n\"'\\$`!*?[](){}<>|&;#~") || s == "!" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// Exec executes one program with its standard input and waits for it. The
// error tells what the program said.
type Exec func(ctx context.Context, program string, args []string, stdin string) error

// In executes in a network namespace.
func In(ns *netns.NS) Exec {
	return func(ctx context.Context, program string, args []string, stdin string) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		_, err := ns.Run(stdin, program, args...)
		return err
	}
}

// Run executes the steps in their order, until one fails.
func Run(ctx context.Context, exec Exec, steps []Step) error {
	for _, s := range steps {
		if s.Unless != nil && exec(ctx, s.Program, s.Unless, "") == nil {
			continue
		}
		if err := exec(ctx, s.Program, s.Args, s.Stdin); err != nil && !s.MayFail {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

// Components returns those that masquerade pods, in the order of their names'
// fame; kube-proxy's context rules are apart, in [KubeProxy].
func Components() []Component {
	return []Component{
		Docker(), FlannelOld(), Flannel(), FlannelNFTables(),
		CNIBridge(), CNIBridgeNFTables(), KubeRouter(), IPMasqAgent(),
	}
}

// Named finds a component of [Components], or kube-proxy.
func Named(name string) (Component, bool) {
	for _, c := range append(Components(), KubeProxy()) {
		if c.Name == name {
			return c, true
		}
	}
	return Component{}, false
}
