package snapshot

import (
	"path"
	"strings"

	"github.com/unmasq/unmasq/internal/route"
)

// command is one that a line of a shell session, a heading or a sentence shows.
type command struct {
	// format of what it prints, unrecognised where not known.
	format format
	// namespace that it looks into, empty for the node's own.
	namespace string
	// ip command, where it is one: what its output is part of.
	ip route.Command
	// whole is a save of all tables; part one that names a table, or went through a filter.
	whole, part bool
}

// parseCommand finds a command whose output is read here.
//
//	root@node:~# ip -6 route show table all
//	$ sudo iptables -t nat -S
//	### `ipset list`
func parseCommand(line string) (command, bool) {
	const long = 1000
	line = line[:min(len(line), long)]
	if c, ok := iptablesCommand(line); ok {
		return c, true
	}
	bare := strings.TrimSpace(strings.Trim(strings.TrimLeft(line, "#*>-= "), "`*= "))
	prompt := strings.HasPrefix(line, "#") || strings.HasPrefix(line, "$") || strings.HasPrefix(line, "`") || strings.HasPrefix(line, "*") || strings.HasPrefix(line, "=") || isPrompt(line)
	for _, text := range []string{line, "# " + bare} {
		if text != line && !prompt {
			break
		}
		if c, ok := route.ParseCommand(text); ok {
			return ipCommand(c, text), true
		}
	}
	if !prompt {
		return command{}, false
	}
	return otherCommand(line)
}

func ipCommand(c route.Command, text string) command {
	out := command{namespace: c.Namespace, ip: c}
	switch c.Kind {
	case route.Links, route.Addresses:
		out.format = formatLinks
	case route.Routes:
		out.format = formatRoutes
	case route.Rules:
		out.format = formatRules
	case route.Neighbors:
		out.format = formatNeighbors
	case route.BridgeLinks:
		out.format = formatBridgeLinks
	case route.FDB:
		out.format = formatFDB
	default:
		if other, ok := otherCommand(text); ok {
			out.format = other.format
		}
	}
	return out
}

// iptablesCommand: programs of the iptables family, with options that list rules.
func iptablesCommand(line string) (command, bool) {
	if !strings.Contains(line, "tables") {
		return command{}, false
	}
	fields := strings.Fields(line)
	for i, field := range fields {
		name := path.Base(strings.Trim(field, "`'\"()*$:,“”‘’"))
		if !strings.HasPrefix(name, "iptables") && !strings.HasPrefix(name, "ip6tables") && !strings.HasPrefix(name, "xtables") {
			continue
		}
		before := strings.Join(fields[:i], " ")
		namespace := ""
		if strings.Contains(before, "netns exec ") || strings.Contains(before, "nsenter ") {
			namespace = before
		}
		rest := fields[i+1:]
		if strings.HasSuffix(name, "-save") {
			if len(rest) > 0 && !strings.ContainsAny(rest[0][:1], "-|>2") {
				continue // a sentence
			}
			part := strings.Contains(line, "|") || strings.Contains(line, " -t")
			return command{format: formatSave, namespace: namespace, whole: !part && namespace == "", part: part}, true
		}
		if f := listFormat(rest); f != unrecognised {
			return command{format: f, namespace: namespace, part: true}, true
		}
	}
	return command{}, false
}

// listFormat finds -S or -L among the options of iptables.
func listFormat(args []string) format {
	for _, arg := range args {
		arg = strings.Trim(arg, "`'\"()“”‘’")
		switch {
		case arg == "|":
			return unrecognised
		case arg == "--list-rules":
			return formatSave
		case arg == "--list":
			return formatList
		case strings.HasPrefix(arg, "-") && !strings.HasPrefix(arg, "--") && strings.Trim(arg, "-nvxLS") == "":
			if strings.Contains(arg, "S") {
				return formatSave
			}
			if strings.Contains(arg, "L") {
				return formatList
			}
		}
	}
	return unrecognised
}

// otherCommand: programs that print one format each.
func otherCommand(line string) (command, bool) {
	fields := strings.Fields(line)
	if len(fields) > 12 {
		return command{}, false // a sentence
	}
	for i, field := range fields {
		c := command{}
		switch path.Base(strings.Trim(field, "`'\"()*$#:")) {
		case "ipset":
			c.format = formatIPSet
		case "conntrack":
			c.format = formatConntrack
		case "sysctl":
			c.format = formatSysctl
		case "ipvsadm":
			c.format = formatIPVS
		case "nft":
			c.format = formatNFT
		default:
			continue
		}
		if i+1 < len(fields) && !isArgument(fields[i+1]) {
			return command{}, false
		}
		if before := strings.Join(fields[:i], " "); strings.Contains(before, "netns exec") || strings.Contains(before, "nsenter") {
			c.namespace = before
		}
		return c, true
	}
	return command{}, false
}

func isArgument(word string) bool {
	switch strings.Trim(word, "`") {
	case "list", "save", "-", "|", ">":
		return true
	}
	return word[0] == '-' || strings.HasPrefix(word, "net.")
}
