package replay

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/kernel/wires"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// load loads sets, then tables, by the programs that would on a node. What a
// program refuses can't be replayed.
func (s *scratch) load(ctx context.Context, n Node) error {
	for _, source := range n.Sources {
		if source.Kind != snapshot.IPSetSource || strings.TrimSpace(source.Text) == "" {
			continue
		}
		if err := s.run(ctx, source.Text, "ipset", "restore"); err != nil {
			return cannot("IP sets of %s: %w", source.File, err)
		}
	}
	for _, f := range packet.Families {
		for _, v := range []ruleset.Variant{ruleset.NFT, ruleset.Legacy} {
			if err := s.loadTables(ctx, n.Host, f, v); err != nil {
				return err
			}
		}
	}
	return s.loadNative(ctx, n)
}

// loadTables loads iptables' tables of a family and variant.
func (s *scratch) loadTables(ctx context.Context, h *snapshot.Host, f packet.Family, v ruleset.Variant) error {
	var text strings.Builder
	for _, t := range h.Rules.Tables {
		if t.Native != nil || t.Family != f || variantOf(t) != v {
			continue
		}
		if err := s.writeTable(&text, t); err != nil {
			return err
		}
	}
	if text.Len() == 0 {
		return nil
	}
	program := map[packet.Family]string{packet.IPv4Family: "iptables-", packet.IPv6Family: "ip6tables-"}[f] +
		map[ruleset.Variant]string{ruleset.NFT: "nft", ruleset.Legacy: "legacy"}[v] + "-restore"
	if err := wires.AddAccounting(s.node, text.String()); err != nil {
		return cannot("%w", err)
	}
	if err := s.run(ctx, text.String(), program); err != nil {
		return cannot("%w", err)
	}
	return nil
}

// variantOf a table whose dump doesn't say: today's programs are of nf_tables.
func variantOf(t *ruleset.Table) ruleset.Variant {
	if t.Variant == ruleset.Legacy {
		return ruleset.Legacy
	}
	return ruleset.NFT
}

// builtIn chains are there before any rule.
var builtIn = []string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}

// writeTable writes a table as iptables-restore reads it.
func (s *scratch) writeTable(text *strings.Builder, t *ruleset.Table) error {
	switch {
	case t.Unread:
		return cannot("table %s of %s couldn't be listed", t.Name, t.Variant)
	case t.Excerpt:
		s.leave("what of table %s wasn't given", t.Name)
	}
	fmt.Fprintf(text, "*%s\n", t.Name)
	for _, c := range t.Chains {
		policy := c.Policy
		switch {
		case policy == "" && slices.Contains(builtIn, c.Name):
			policy = "ACCEPT"
		case policy == "":
			policy = "-"
		}
		fmt.Fprintf(text, ":%s %s [0:0]\n", c.Name, policy)
	}
	for _, c := range t.Chains {
		for i := range c.Rules {
			rule := strings.TrimSpace(c.Rules[i].Text)
			if !strings.HasPrefix(rule, "-A "+c.Name) {
				return cannot("iptables-restore doesn't read %q; give iptables-save", rule)
			}
			text.WriteString(rule + "\n")
		}
	}
	text.WriteString("COMMIT\n")
	return nil
}

// name of an nftables table.
type name struct{ family, name string }

// loadNative loads nftables' own tables.
func (s *scratch) loadNative(ctx context.Context, n Node) error {
	wanted := map[name]bool{}
	for _, t := range n.Host.Rules.Tables {
		switch {
		case t.Native == nil:
			continue
		case t.Native.IPTables:
			return cannot("table %s %s is of iptables-nft, whose rules nft can't load: give iptables-save", t.Native.Family, t.Name)
		case t.Excerpt:
			s.leave("what of table %s %s wasn't given", t.Native.Family, t.Name)
		}
		wanted[name{t.Native.Family, t.Name}] = true
	}
	for _, source := range n.Sources {
		if len(wanted) == 0 {
			return nil
		}
		var err error
		switch source.Kind {
		case snapshot.NFTSource:
			err = s.loadText(ctx, source.Text, wanted)
		case snapshot.NFTJSONSource:
			err = s.loadJSON(ctx, n.Host, source.Text, wanted)
		}
		if err != nil {
			return cannot("tables of %s: %w", source.File, err)
		}
	}
	for t := range wanted {
		return cannot("table %s %s isn't found in what was given", t.family, t.name)
	}
	return nil
}

var (
	block   = regexp.MustCompile(`^table (?:(\S+) )?(\S+) \{`)
	command = regexp.MustCompile(`^(?:add|create|insert|flush|delete) \S+ (?:(ip|ip6|inet|arp|bridge|netdev) )?(\S+)`)
)

// loadText loads the tables that are wanted of nft list ruleset, or of commands.
func (s *scratch) loadText(ctx context.Context, text string, wanted map[name]bool) error {
	var out strings.Builder
	loaded := map[name]bool{}
	inside, take := false, false
	for line := range strings.Lines(text) {
		if m := block.FindStringSubmatch(line); m != nil && !inside {
			inside = true
			take = mark(loaded, wanted, m)
		} else if m := command.FindStringSubmatch(line); m != nil && !inside {
			take = mark(loaded, wanted, m)
		}
		if take {
			out.WriteString(line)
		}
		if strings.HasPrefix(line, "}") {
			inside, take = false, false
		}
	}
	return s.loaded(ctx, out.String(), loaded, wanted, "-f", "-")
}

func mark(loaded, wanted map[name]bool, m []string) bool {
	n := name{m[1], m[2]}
	if n.family == "" {
		n.family = "ip"
	}
	if wanted[n] {
		loaded[n] = true
	}
	return wanted[n]
}

// loaded gives nft what was picked; those tables aren't wanted any more.
func (s *scratch) loaded(ctx context.Context, text string, loaded, wanted map[name]bool, args ...string) error {
	if len(loaded) == 0 {
		return nil
	}
	for n := range loaded {
		delete(wanted, n)
	}
	return s.run(ctx, text, "nft", args...)
}

// order in which nft needs what JSON lists: a map may name chains.
var order = map[string]int{"table": 0, "chain": 1, "set": 3, "map": 3, "rule": 4, "element": 4}

// deviceChains are commands for the chains at ingress and egress of the tables
// that are wanted: older nft (1.0.6) can't read them from JSON.
func deviceChains(h *snapshot.Host, wanted map[name]bool) (string, error) {
	var out strings.Builder
	for _, t := range h.Rules.Tables {
		if t.Native == nil || !wanted[name{t.Native.Family, t.Name}] {
			continue
		}
		for _, c := range t.Chains {
			b := c.Native.Base
			switch {
			case b == nil || !isDeviceHook(b.Hook):
				continue
			case len(b.Devices) == 0:
				return "", fmt.Errorf("the devices of chain %s aren't listed: give nft list ruleset as text", c.Name)
			}
			fmt.Fprintf(&out, "add table %s %s\nadd chain %s %s %s { type %s hook %s devices = { \"%s\" } priority %d; policy %s; }\n", t.Native.Family, t.Name,
				t.Native.Family, t.Name, c.Name, b.Type, b.Hook, strings.Join(b.Devices, `", "`), b.Priority, strings.ToLower(c.Policy))
		}
	}
	return out.String(), nil
}

func isDeviceHook(hook string) bool { return hook == "ingress" || hook == "egress" }

// loadJSON loads the tables that are wanted of nft -j list ruleset.
func (s *scratch) loadJSON(ctx context.Context, h *snapshot.Host, text string, wanted map[name]bool) error {
	chains, err := deviceChains(h, wanted)
	if err == nil && chains != "" {
		err = s.run(ctx, chains, "nft", "-f", "-")
	}
	if err != nil {
		return err
	}
	var all struct {
		Objects []map[string]json.RawMessage `json:"nftables"`
	}
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		return err
	}
	loaded := map[name]bool{}
	var picked []map[string]json.RawMessage
	for _, o := range all.Objects {
		for kind, body := range o {
			var at struct{ Family, Table, Name, Hook string }
			if json.Unmarshal(body, &at) != nil || kind == "chain" && isDeviceHook(at.Hook) {
				continue
			}
			if kind == "table" {
				at.Table = at.Name
			}
			if n := (name{at.Family, at.Table}); wanted[n] {
				loaded[n] = true
				picked = append(picked, map[string]json.RawMessage{kind: ordinary(kind, body)})
			}
		}
	}
	slices.SortStableFunc(picked, func(a, b map[string]json.RawMessage) int { return rank(a) - rank(b) })
	commands := []map[string]map[string]json.RawMessage{}
	for _, o := range picked {
		commands = append(commands, map[string]map[string]json.RawMessage{"add": o})
	}
	body, err := json.Marshal(map[string]any{"nftables": commands})
	if err != nil {
		return err
	}
	return s.loaded(ctx, string(body), loaded, wanted, "-j", "-f", "-")
}

func rank(o map[string]json.RawMessage) int {
	for kind := range o {
		if n, known := order[kind]; known {
			return n
		}
	}
	return 2 // counters, limits and the like
}

// ordinary is an object without its handle, which nft would take for the place
// that a rule goes to, and a table without an owner: who made it is gone.
func ordinary(kind string, body json.RawMessage) json.RawMessage {
	var o map[string]json.RawMessage
	if json.Unmarshal(body, &o) != nil {
		return body
	}
	delete(o, "handle")
	if kind == "table" && !strings.Contains(string(o["flags"]), "dormant") {
		delete(o, "flags")
	}
	out, err := json.Marshal(o)
	if err != nil {
		return body
	}
	return out
}
