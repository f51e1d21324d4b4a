package route

import (
	"path"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
)

// Command is a command line as people paste it above its output.
type Command struct {
	// Kind of the output; 0 for one that isn't read here, such as ip route get.
	Kind Kind
	// Family by -4 or -6, 0 where neither is there.
	Family packet.Family
	// Table of a routes command: a name or number, all, or empty (main).
	Table string
	// Namespace that it looks into, empty for the node's own.
	Namespace string
	// Partial: it shows some entries only (a device's, a prefix's).
	Partial bool
}

// ParseCommand recognises a line that shows an ip or bridge command:
//
//	# ip r s t 101
//	root@node:~# ip -6 route show table all
//	## ip netns exec cni-1 ip a
//	$ bridge fdb show dev vxlan0
//	$ route -n
func ParseCommand(line string) (Command, bool) {
	words := strings.Fields(line)
	if i := slices.IndexFunc(words, isProgram); i >= 0 && i <= 4 && isPrompt(words[:i]) {
		return parseCommand(words[i:])
	}
	return Command{}, false
}

func isProgram(word string) bool {
	base := path.Base(strings.TrimLeft(word, "#$>`"))
	return base == "ip" || base == "bridge" || base == "route" || base == "netstat"
}

// isPrompt says whether the words before a command can be a prompt: the last one
// ends in #, $ or >, or there are none, but for sudo.
func isPrompt(words []string) bool {
	if n := len(words); n > 0 && words[n-1] == "sudo" {
		words = words[:n-1]
	}
	if len(words) == 0 {
		return true
	}
	last := words[len(words)-1]
	return strings.HasSuffix(last, "#") || strings.HasSuffix(last, "$") || strings.HasSuffix(last, ">")
}

// parseCommand takes the words from the program on.
func parseCommand(words []string) (Command, bool) {
	program := path.Base(strings.Trim(words[0], "#$>`"))
	if program == "route" || program == "netstat" {
		return Command{Kind: Routes, Family: packet.IPv4Family}, len(words) == 2 && slices.Contains([]string{"-n", "-rn", "-nr"}, words[1])
	}
	var c Command
	words = words[1:]
	for len(words) > 0 && strings.HasPrefix(words[0], "-") {
		switch words[0] {
		case "-4":
			c.Family = packet.IPv4Family
		case "-6":
			c.Family = packet.IPv6Family
		case "-n", "-netns":
			if len(words) < 2 {
				return Command{}, false
			}
			c.Namespace, words = words[1], words[1:]
		case "-f", "-family":
			if len(words) < 2 {
				return Command{}, false
			}
			c.Family, words = familyNamed(words[1]), words[1:]
		}
		words = words[1:]
	}
	if len(words) == 0 {
		return Command{}, false
	}
	object := strings.Trim(words[0], "`:")
	words = words[1:]
	if program == "bridge" {
		return bridgeCommand(c, object, words)
	}
	return ipCommand(c, object, words)
}

func familyNamed(word string) packet.Family {
	switch word {
	case "inet":
		return packet.IPv4Family
	case "inet6":
		return packet.IPv6Family
	}
	return 0
}

func bridgeCommand(c Command, object string, words []string) (Command, bool) {
	switch {
	case abbreviates(object, "link"):
		c.Kind = BridgeLinks
	case abbreviates(object, "fdb"):
		c.Kind = FDB
	default:
		return c, abbreviates(object, "vlan") || abbreviates(object, "mdb")
	}
	filters, ok := shown(words)
	c.Partial = len(filters) > 0
	return c, ok
}

// ipCommand reads the object as ip does: by the first that it abbreviates.
func ipCommand(c Command, object string, words []string) (Command, bool) {
	switch {
	case abbreviates(object, "address"):
		c.Kind = Addresses
	case abbreviates(object, "route"):
		return routeCommand(c, words)
	case abbreviates(object, "rule"):
		c.Kind = Rules
	case abbreviates(object, "neighbor"), abbreviates(object, "neighbour"):
		c.Kind = Neighbors
	case abbreviates(object, "link"):
		c.Kind = Links
	case object == "netns" && len(words) > 2 && abbreviates(words[0], "exec"):
		inner, _ := ParseCommand(strings.Join(words[2:], " "))
		inner.Namespace = words[1]
		return inner, true
	default:
		return c, slices.Contains([]string{"netns", "tunnel", "xfrm", "maddr", "monitor", "nexthop", "vrf", "addrlabel"}, object)
	}
	filters, ok := shown(words)
	c.Partial = len(filters) > 0
	return c, ok
}

func routeCommand(c Command, words []string) (Command, bool) {
	if len(words) > 0 && abbreviates(words[0], "get") {
		return c, true
	}
	c.Kind = Routes
	filters, ok := shown(words)
	for i := 0; i < len(filters); i++ {
		if abbreviates(filters[i], "table") && i+1 < len(filters) {
			c.Table = strings.Trim(filters[i+1], "`:")
			i++
			continue
		}
		c.Partial = true
	}
	return c, ok
}

// shown returns the filters that follow show or list, a pipe to another program
// as one; ok is false where something else follows: a change, or prose.
func shown(words []string) (filters []string, ok bool) {
	words = slices.DeleteFunc(slices.Clone(words), func(w string) bool { return w == "`" })
	for i, w := range words {
		if strings.ContainsAny(w[:1], "#>;&") {
			words = words[:i]
			break
		}
	}
	if len(words) == 0 || words[0] == "|" {
		return words, true
	}
	verb := strings.Trim(words[0], "`:")
	return words[1:], abbreviates(verb, "show") || abbreviates(verb, "list") || verb == "ls"
}

func abbreviates(word, full string) bool {
	return word != "" && strings.HasPrefix(full, word)
}
