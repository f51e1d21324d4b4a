package iptables

import (
	"strconv"
	"strings"

	"github.com/unmasq/unmasq/internal/ruleset"
)

// saveLine reads a line of iptables-save or iptables -S.
//
//	*nat
//	:POSTROUTING ACCEPT [65:3916]
//	[12:720] -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
//	COMMIT
//	-P POSTROUTING ACCEPT
//	-N DOCKER
func (r *reader) saveLine() {
	line := r.line
	if line == "" {
		return
	}
	switch line[0] {
	case '*':
		r.tableLine()
	case ':':
		r.chainLine()
	case '-', '[':
		r.commandLine()
	default:
		r.otherLine()
	}
}

// otherLine reads what is the same around every format.
func (r *reader) otherLine() {
	switch {
	case r.line == "COMMIT":
		if r.dump != nil && len(r.dump.parts) > 0 && r.dump.parts[len(r.dump.parts)-1].header {
			r.flush()
			r.dump.parts[len(r.dump.parts)-1].complete = true
		}
	case strings.HasPrefix(r.line, "```"), strings.HasPrefix(r.line, "~~~"):
	case r.remark(), r.line[0] == '#':
	default:
		r.problem("not a line of a dump of rules")
	}
}

// tableLine reads *nat.
func (r *reader) tableLine() {
	name := r.line[1:]
	if named(name) == 0 {
		if !r.remark() { // a heading in bold letters
			r.problem("iptables has no such table")
			r.begin(origin{ignored: true})
		}
		return
	}
	if r.full() {
		return
	}
	d := r.current()
	for _, p := range d.parts {
		if p.stated && p.table.Name == name || !p.header {
			r.resume()
			break
		}
	}
	p := r.newPart(name)
	p.header = true
}

// chainLine reads :POSTROUTING ACCEPT [65:3916], and :DOCKER - [0:0].
func (r *reader) chainLine() {
	name, rest := cutBlank(r.line[1:])
	policy, rest := cutBlank(rest)
	_, _, ok := counts(rest) // of a policy: the model has no place for them
	if name == "" || !ok && rest != "" || !validPolicy(policy) {
		r.problem("not the declaration of a chain")
		return
	}
	r.declare(name, strings.TrimPrefix(policy, "-"))
}

func validPolicy(s string) bool {
	return s == "-" || s == "ACCEPT" || s == "DROP" || s == "QUEUE" || s == "RETURN"
}

// counts reads [packets:bytes].
func counts(s string) (packets, bytes uint64, ok bool) {
	inside, ok := strings.CutPrefix(s, "[")
	inside, ok2 := strings.CutSuffix(inside, "]")
	a, b, ok3 := strings.Cut(inside, ":")
	packets, err := strconv.ParseUint(a, 10, 64)
	bytes, err2 := strconv.ParseUint(b, 10, 64)
	return packets, bytes, ok && ok2 && ok3 && err == nil && err2 == nil
}

// cutBlank splits the first word from the rest, which begins with a word.
func cutBlank(s string) (first, rest string) {
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.TrimLeft(s[i:], " \t")
}

// counters of a rule, where ok.
type counters struct {
	packets, bytes uint64
	ok             bool
}

// commandLine reads -A, -I, -P and -N, with counters in front of -A.
func (r *reader) commandLine() {
	line := r.line
	var c counters
	if line[0] == '[' {
		var first string
		first, line = cutBlank(line)
		if c.packets, c.bytes, c.ok = counts(first); !c.ok {
			r.notRule("not a line of a dump of rules")
			return
		}
	}
	verb, rest := cutBlank(line)
	name, arguments := cutBlank(rest)
	if name == "" {
		r.notRule("no chain is named")
		return
	}
	offset := len(line) - len(arguments)
	if c.ok && verb != "-A" && verb != "-I" {
		verb = "" // only rules have counters in front
	}
	switch verb {
	case "-A", "--append":
		r.rule(line, offset, name, 0, c)
	case "-I", "--insert":
		at, skip := position(arguments)
		r.rule(line, offset+skip, name, at, c)
	case "-P", "--policy":
		r.policy(name, arguments)
	case "-N", "--new-chain":
		r.declare(name, "")
	case "-D", "-R", "-F", "-X", "-Z", "-E", "-C", "--delete", "--replace", "--flush", "--delete-chain":
		r.problem("a command that changes rules, not a rule")
	default:
		r.notRule("not a line of a dump of rules")
	}
}

// notRule handles a line that only begins like a rule: "[root@node ~]# iptables -S".
func (r *reader) notRule(why string) {
	if !r.remark() {
		r.problem(why)
	}
}

// policy reads the rest of -P INPUT DROP [-c 0 0].
func (r *reader) policy(name, rest string) {
	policy, _ := cutBlank(rest)
	if !validPolicy(policy) || policy == "-" {
		r.problem("no policy")
		return
	}
	r.declare(name, policy)
}

// cutOff makes the last rule uncertain where the text ends within a line of a
// table that should have gone on.
func (r *reader) cutOff() {
	if r.owner == nil || len(r.scratch) == 0 || r.scratch[len(r.scratch)-1].Line != r.number || !r.last().header {
		return
	}
	rule := &r.scratch[len(r.scratch)-1]
	const why = "the line may be cut off"
	rule.Matches = append(rule.Matches, ruleset.Unknown{Name: "rule", Text: rule.Text, Why: why})
	rule.Target = ruleset.UnknownTarget{Text: rule.Text, Why: why}
	r.problem(why)
}

// position reads the number of -I CHAIN 3, 1 where there is none, and how long it is.
func position(arguments string) (at, length int) {
	first, _ := cutBlank(arguments)
	at, err := strconv.Atoi(first)
	if err != nil || at < 1 {
		return 1, 0
	}
	return at, len(first)
}

// rule reads the options from offset on, and adds the rule to a chain.
func (r *reader) rule(text string, offset int, chain string, at int, c counters) {
	s := &r.spec
	if len(text) > maxRule {
		s.clear()
		s.words.reset(text[:maxRule])
		s.rule.Text = text[:maxRule]
		s.wrong("longer than a rule can be")
		s.unknown("rule", 0, maxRule, whyUnknown)
		s.hidden = true
	} else {
		s.read(text, offset)
	}
	if c.ok {
		s.rule.Packets, s.rule.Bytes, s.rule.Counted = c.packets, c.bytes, true
	}
	r.append(chain, at)
}
