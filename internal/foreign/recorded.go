package foreign

import (
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
)

// Recorded is a component by what the real program once wrote on a node: of each
// family the text of iptables-save or, where native, of one table as nft lists it.
// Write wants none of it to be there. Restart wants it there, be it as another
// configuration of the program left it, and writes its own chains anew, as
// kube-proxy does; jumps from the kernel's chains stay where they are.
func Recorded(name string, native bool, rules map[packet.Family]string) Component {
	each := func(change func(string) string) Steps {
		return func(_ Node, v Variant, f packet.Family) []Step {
			if rules[f] == "" {
				return nil
			}
			return []Step{load(native, v, f, change(rules[f]))}
		}
	}
	c := Component{Name: name, Native: native, Write: each(asItIs), Restart: each(ownChains), Remove: each(removed)}
	if native {
		c.Restart, c.Remove = each(replacedTable), each(func(text string) string { return "delete " + tableName(text) + "\n" })
	}
	return c
}

func load(native bool, v Variant, f packet.Family, text string) Step {
	if native {
		return nft(strings.TrimSuffix(text, "\n"))
	}
	return Step{Program: iptables(v, f) + "-restore", Args: []string{"--wait=5", "--noflush"}, Stdin: text}
}

func asItIs(text string) string { return text }

// tableName is "table ip kube-proxy" of nft's listing of one table.
func tableName(text string) string {
	_, rest, _ := strings.Cut(text, "table ")
	name, _, _ := strings.Cut(rest, " {")
	return "table " + name
}

func replacedTable(text string) string {
	table := tableName(text)
	return "add " + table + "\ndelete " + table + "\n" + text
}

// ownChains leaves the rules out that stand in the kernel's chains; chains that
// are declared are emptied by iptables-restore.
func ownChains(text string) string {
	return eachLine(text, func(line string) string {
		if kernelsRule(line) {
			return ""
		}
		return line
	})
}

// removed deletes the rules in the kernel's chains, and the others with their chains.
func removed(text string) string {
	var chains strings.Builder
	return eachLine(text, func(line string) string {
		name, isChain := strings.CutPrefix(line, ":")
		switch name, _, _ := strings.Cut(name, " "); {
		case isChain && kernelsChain(name):
			return ""
		case isChain:
			chains.WriteString("-X " + name + "\n")
			return line
		case kernelsRule(line):
			return "-D" + strings.TrimPrefix(line, "-A")
		case strings.HasPrefix(line, "-A "):
			return ""
		case line == "COMMIT\n":
			line = chains.String() + line
			chains.Reset()
		}
		return line
	})
}

func eachLine(text string, change func(string) string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(change(line))
	}
	return b.String()
}

// kernelsRule: "-A POSTROUTING …".
func kernelsRule(line string) bool {
	rest, ok := strings.CutPrefix(line, "-A ")
	chain, _, _ := strings.Cut(rest, " ")
	return ok && kernelsChain(chain)
}

func kernelsChain(name string) bool {
	switch name {
	case "PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING":
		return true
	}
	return false
}
