package plan

import (
	"fmt"
	"hash/fnv"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/policy"
)

const (
	// AboutChain says what each rule does, and holds facts and warnings, as comments.
	AboutChain = "about"
	// RulePrefix begins the comment that ties a rule's counter to its line in
	// AboutChain: "rule 3" there, "rule 3: from … to …: Keep" here; by tags "rule #17"
	// there, "rule 3 #17: from … to …: Keep" here.
	RulePrefix = "rule "
	TagPrefix  = "#"

	localChainName = "local"
	tunnelPortsSet = "tunnel-ports"
	// localBackendsSet has the pods of this node that services may lead to.
	localBackendsSet = "local-backends"

	// maxName leaves room for a generation's suffix in NFT_NAME_MAXLEN (256).
	maxName = 200
	// maxComment is what nft takes: NFTNL_UDATA_COMMENT_MAXLEN (128), the final NUL included.
	maxComment = 127
)

// CounterName is the name of a rule's counter: "rule/DOCUMENT/NAME".
func CounterName(r *policy.Rule) string { return shorten("rule/" + r.ID()) }

// RuleChainName is the name of the chain that counts and acts for a rule.
func RuleChainName(r *policy.Rule, f packet.Family) string {
	return shorten(name("rule", f) + "/" + r.ID())
}

// name appends the family as nft spells it: "guards-ip", "guards-ip6".
func name(kind string, f packet.Family) string {
	if f == packet.IPv4Family {
		return kind + "-ip"
	}
	return kind + "-ip6"
}

// shorten keeps a name within the kernel's limit, and distinct.
func shorten(s string) string {
	if len(s) <= maxName {
		return s
	}
	h := fnv.New64a()
	h.Write([]byte(s))
	return fmt.Sprintf("%s-%016x", s[:maxName-17], h.Sum64())
}

// Continued begins a comment that goes on with the one before it.
const Continued = "+ "

// comments divides a text into what nft takes at a time, with characters that it
// can quote.
func comments(s string) []string {
	s = strings.Map(func(r rune) rune {
		if r == '"' || r < ' ' || r > '~' {
			return '_'
		}
		return r
	}, s)
	var out []string
	for len(s) > maxComment {
		cut := maxComment
		if space := strings.LastIndexByte(s[:maxComment], ' '); space > maxComment/2 {
			cut = space + 1
		}
		out = append(out, s[:cut])
		s = Continued + s[cut:]
	}
	return append(out, s)
}

// prefix tells the views' names apart: "", "local-", "override-", "override-local-".
func (v *view) prefix() string {
	var s string
	if v.marked {
		s = "override-"
	}
	if v.origin == local {
		s += "local-"
	}
	return s
}

// setName names what belongs to a group after its first rule's number or tag.
func (v *view) setName(kind string, first *policy.Rule) string {
	return name(fmt.Sprintf("%s%s-%d", v.prefix(), kind, v.tag(first)), v.family)
}

func (v *view) sourceSet(kind string) string {
	return name(v.prefix()+"from-"+kind, v.family)
}

// className names the chain of a class after its groups, so that the same
// sources get the same chain whatever other classes there are.
func (v *view) className(groups []int) string {
	var b strings.Builder
	b.WriteString(v.prefix() + "from")
	for _, g := range groups {
		fmt.Fprintf(&b, "-%d", v.tag(v.groups[g].first))
	}
	return shorten(name(b.String(), v.family))
}
