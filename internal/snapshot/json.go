package snapshot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/unmasq/unmasq/internal/route"
)

// looksJSON says whether JSON begins with the text's first character, [ or {, and no prompt, counter or Markdown:
// a list or an object, empty or with an object or a key as its first thing.
func looksJSON(text string) bool {
	const far = 200
	text = text[:min(len(text), far)]
	first := text[0]
	text = strings.TrimLeft(text[1:], " \t\r\n")
	if text == "" {
		return false
	}
	if first == '{' {
		return text[0] == '"' || text[0] == '}'
	}
	return text[0] == '{' || text[0] == ']' && strings.TrimLeft(text[1:min(len(text), 2)], "\n") == ""
}

// jsonError is an error with its line, counted from 0.
type jsonError struct {
	error
	line int
}

// jsonLength is how long the value is that a text begins with.
func jsonLength(text string) (int, *jsonError) {
	d := json.NewDecoder(strings.NewReader(text))
	var skip json.RawMessage
	err := d.Decode(&skip)
	if err == nil {
		return int(d.InputOffset()), nil
	}
	var syntax *json.SyntaxError
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF):
		return 0, &jsonError{errors.New("the JSON ends in the middle: the file was cut off"), strings.Count(strings.TrimRight(text, " \t\n"), "\n")}
	case errors.As(err, &syntax):
		at := min(int(syntax.Offset), len(text))
		return 0, &jsonError{fmt.Errorf("not valid JSON: %w", err), strings.Count(text[:at], "\n")}
	}
	return 0, &jsonError{err, 0}
}

// jsonKind is what a JSON value is about.
type jsonKind struct {
	// kind of ip's or bridge's output, 0 where it is none.
	kind route.Kind
	// nft: of nft -j; meta: a snapshot's meta.json; empty: a list of nothing.
	nft, meta, empty bool
	// keys of its first object, for people.
	keys []string
}

// jsonKindOf looks at the keys of the first object.
func jsonKindOf(text string) jsonKind {
	d := json.NewDecoder(strings.NewReader(text))
	first, err := d.Token()
	if err != nil {
		return jsonKind{}
	}
	if first == json.Delim('{') {
		return objectKind(topKeys(d))
	}
	if first != json.Delim('[') {
		return jsonKind{}
	}
	for d.More() {
		t, err := d.Token()
		if err != nil || t != json.Delim('{') {
			return jsonKind{}
		}
		keys := topKeys(d)
		if len(keys) > 0 {
			return jsonKind{kind: elementKind(keys), keys: keys}
		}
	}
	return jsonKind{empty: true}
}

// topKeys reads an object to its end and returns its keys.
func topKeys(d *json.Decoder) []string {
	var keys []string
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return keys
		}
		key, _ := t.(string)
		if len(keys) < 100 {
			keys = append(keys, key)
		}
		if key == "nftables" {
			return keys
		}
		var skip json.RawMessage
		if d.Decode(&skip) != nil {
			return keys
		}
	}
	_, _ = d.Token()
	return keys
}

func has(keys []string, all ...string) bool {
	for _, want := range all {
		found := false
		for _, k := range keys {
			found = found || k == want
		}
		if !found {
			return false
		}
	}
	return true
}

func objectKind(keys []string) jsonKind {
	return jsonKind{nft: has(keys, "nftables"), meta: has(keys, "version", "kernel", "programs"), keys: keys}
}

// elementKind tells ip's lists apart.
func elementKind(keys []string) route.Kind {
	switch {
	case has(keys, "addr_info"):
		return route.Addresses
	case has(keys, "mac", "ifname"):
		return route.FDB
	case has(keys, "ifname", "state", "priority"), has(keys, "ifname", "state", "cost"):
		return route.BridgeLinks
	case has(keys, "ifname", "flags"), has(keys, "ifname", "link_type"), has(keys, "ifname", "operstate"):
		return route.Links
	case has(keys, "priority", "src"), has(keys, "priority", "table"), has(keys, "priority", "action"), has(keys, "priority", "goto"):
		return route.Rules
	case has(keys, "dst", "lladdr"), has(keys, "dst", "state"):
		return route.Neighbors
	case has(keys, "dst", "flags"), has(keys, "dst", "dev"), has(keys, "dst", "type"), has(keys, "dst", "gateway"), has(keys, "dst", "nexthops"):
		return route.Routes
	}
	return 0
}
