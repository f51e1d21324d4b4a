package crd

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/unmasq/unmasq/internal/policy"
)

// creator asks an API server to create a document, and returns it as it would be
// stored. Strict is kubectl's default: fields that aren't known are errors.
type creator func(text []byte, strict bool) (stored []byte, err error)

// options of an agent in a cluster.
func options() policy.Options {
	return policy.Options{NodeLabels: map[string]string{"kubernetes.io/os": "linux"}, PodsKnown: true, ServicesKnown: true, ServiceCIDRsKnown: true}
}

// agentTakes loads what is stored as the agent does.
func agentTakes(stored []byte) error {
	var object map[string]any
	if err := json.Unmarshal(stored, &object); err != nil {
		return err
	}
	source, err := policy.ObjectSource(object)
	if err != nil {
		return err
	}
	_, err = policy.Load([]policy.Source{source}, options())
	return err
}

// fileTakes loads the text as a file.
func fileTakes(text []byte) error {
	_, err := policy.Load([]policy.Source{{Name: "file", Content: text}}, options())
	return err
}

// contract: what the API server takes, strict or not, the agent takes; what it
// refuses it gives a reason for.
func contract(t errorer, create creator, d document) (taken bool, reason string) {
	t.Helper()
	hold(t, create, d, false)
	return hold(t, create, d, true)
}

func hold(t errorer, create creator, d document, strict bool) (taken bool, reason string) {
	t.Helper()
	stored, err := create(d.text, strict)
	if err != nil {
		if poor(err.Error()) {
			t.Errorf("%s: refused without a good reason: %v\nsent: %.2000s", d.name, err, d.text)
		}
		return false, err.Error()
	}
	if err := agentTakes(stored); err != nil {
		t.Errorf("%s: taken by the API server, refused by the agent: %v\nsent: %.2000s\nstored: %.2000s", d.name, err, d.text, stored)
	}
	return true, ""
}

// errorer is *testing.T and *rapid.T.
type errorer interface {
	Helper()
	Errorf(format string, args ...any)
}

// poor reasons: CEL's own words for a rule that could not be evaluated, or that has
// no message.
func poor(reason string) bool {
	return regexp.MustCompile(`rule evaluation error|failed rule:|no such key|no such overload|index out of bounds|cost budget|messageExpression`).MatchString(reason)
}

// checkExamples: every example is taken.
func checkExamples(t *testing.T, create creator) {
	for _, d := range examples(t) {
		if taken, reason := contract(t, create, d); !taken {
			t.Errorf("%s: refused: %s\n%s", d.name, reason, d.text)
		}
	}
}

// agreed are bad documents that a cluster takes, with the reason.
var agreed = map[string]string{
	"document-twice.txtar":               "each alone is right; the API has one of a name",
	"selector-without-pods.txtar":        "a cluster's agent knows its pods",
	"node-selector-without-labels.txtar": "a cluster's agent knows its node's labels",
	"cidr-in-service-cidr.txtar/a.yaml":  "service CIDRs are a node's fact, not the document's; the agent warns",
}

// checkBad: what a file's reader refuses, the API server refuses.
func checkBad(t *testing.T, create creator) {
	for _, d := range bad(t) {
		if !isYAML(d.text) {
			continue // nothing that could be sent
		}
		taken, _ := contract(t, create, d)
		why := ""
		for name, reason := range agreed {
			if strings.HasPrefix(d.name, name) {
				why = reason
			}
		}
		if taken && why == "" && fileTakes(d.text) != nil {
			t.Errorf("%s: taken, though a file like it is refused: %v\n%s", d.name, fileTakes(d.text), d.text)
		}
	}
}

// stricter are the API server's reasons for refusing what a file may have: bounds,
// which CEL needs, ranges of addresses that it can't count, and spaces in ranges.
var stricter = regexp.MustCompile(`Too (many|long)|must have at most|within one /1(6|12)|makes more than 1024|is not an address|is not a range of (ports|addresses)|should have at most|has a wrong prefix length|rules: Required value`)

// agreement: beside the contract, the API server takes what a file may have, and
// nothing else. Fields without a value are looked at elsewhere: checkPeculiar.
func agreement(t errorer, create creator, d document) (taken bool) {
	t.Helper()
	taken, reason := contract(t, create, d)
	switch file := fileTakes(d.text); {
	case taken && file != nil && !bytes.Contains(d.text, []byte("null")):
		t.Errorf("%s: taken, though a file like it is refused: %v\n%s", d.name, file, d.text)
	case !taken && file == nil && (d.common || !stricter.MatchString(reason)):
		t.Errorf("%s: refused, though a file like it is taken: %s\n%s", d.name, reason, d.text)
	}
	return taken
}

// checkRandom: of random documents, those are taken that a file may have.
func checkRandom(t *testing.T, create creator) {
	taken, all := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		for range 10 { // of rapid's 100 checks
			all++
			if agreement(t, create, document{name: "random", text: drawPolicy(t)}) {
				taken++
			}
		}
	})
	if taken*4 < all || taken == all {
		t.Errorf("%d of %d random documents were taken; expected both kinds", taken, all)
	}
	t.Logf("checked: %d random documents, %d of them taken by API server and agent", all, taken)
}

// checkPeculiar documents, of which the reason of a refusal, or that there is none,
// is stated: numbers as JSON lets them be written, and fields without a value, which
// API servers take out unless the schema keeps them, so that `cidrs: null` would
// mean everything.
func checkPeculiar(t *testing.T, create creator) {
	const null = "has a field without a value (null); expected a value, {} where any is meant, or leave the field out"
	for _, c := range []struct{ spec, want string }{
		{`{"order": 1.0, "rules": [{"action": "Keep"}]}`, "invalid data, expected int, got float64"},
		{`{"rules": [{"action": "Keep", "to": {"ports": [{"port": 4.43e2}]}}]}`, "invalid data, expected int, got float64"},
		{`{"order": 1.5, "rules": [{"action": "Keep"}]}`, "spec.order"},
		{`{"order": -0, "rules": [{"action": "\u004beep"}]}`, ""},
		{`{"order": null, "mode": null, "rules": [{"action": "Keep", "name": null, "masquerade": null, "overrideServiceMasquerade": null}]}`, ""},
		{`{"rules": [{"action": "Keep", "to": {"ports": [{"protocol": null, "port": 443, "endPort": null}]}}]}`, ""},
		{`{"rules": [{"action": "Keep", "to": {"ports": [{"port": null}]}}]}`, "spec.rules[0].to.ports[0]: Required value: " + null},
		{`{"rules": [{"action": "Keep", "to": {"ports": null}}]}`, "spec.rules[0].to: Required value: " + null},
		{`{"rules": [{"action": "Keep", "to": {"cidrs": null}}]}`, "spec.rules[0].to: Required value: " + null},
		{`{"rules": [{"action": "Keep", "to": {"except": null}}]}`, "spec.rules[0].to: Required value: " + null},
		{`{"rules": [{"action": "Keep", "to": {"pods": null}}]}`, "spec.rules[0].to: Required value: " + null},
		{`{"rules": [{"action": "Keep", "to": {"nodes": null}}]}`, "spec.rules[0].to: Required value: " + null},
		{`{"rules": [{"action": "Keep", "to": {"services": null}}]}`, "spec.rules[0].to: Required value: " + null},
		{`{"rules": [{"action": "Keep", "to": {"services": {"names": null}}}]}`, "spec.rules[0].to.services: Required value: " + null},
		{`{"rules": [{"action": "Keep", "to": {"services": {"serviceSelector": null}}}]}`, "spec.rules[0].to.services: Required value: " + null},
		{`{"rules": [{"action": "Keep", "to": {"services": {"namespaceSelector": null}}}]}`, "spec.rules[0].to.services: Required value: " + null},
		{`{"rules": [{"action": "Keep", "to": {"services": {"cidrs": null}}}]}`, "spec.rules[0].to.services: Required value: " + null},
		{`{"rules": [{"action": "Keep", "to": {"services": {"ports": null}}}]}`, "spec.rules[0].to.services: Required value: " + null},
		{`{"rules": [{"action": "Keep", "to": {"services": {"backends": null, "via": null}}}]}`, ""},
		{`{"rules": [{"action": "Keep", "to": null}]}`, "spec.rules[0]: Required value: " + null},
		{`{"rules": [{"action": "Keep", "from": null}]}`, "spec.rules[0]: Required value: " + null},
		{`{"rules": [{"action": "Keep", "outInterfaces": null}]}`, "spec.rules[0]: Required value: " + null},
		{`{"rules": [{"action": "Keep", "from": {"pods": null}}]}`, "spec.rules[0].from: Required value: " + null},
		{`{"rules": [{"action": "Keep", "from": {"cidrs": null}}]}`, "spec.rules[0].from: Required value: " + null},
		{`{"rules": [{"action": "Keep", "from": {"except": null}}]}`, "spec.rules[0].from: Required value: " + null},
		{`{"rules": [{"action": "Keep", "from": {"node": null}}]}`, "spec.rules[0].from: Required value: " + null},
		{`{"rules": [{"action": "Keep", "from": {"pods": {"podSelector": null}}}]}`, "spec.rules[0].from.pods: Required value: " + null},
		{`{"rules": [{"action": "Keep", "from": {"pods": {"namespaceSelector": null}}}]}`, "spec.rules[0].from.pods: Required value: " + null},
		{`{"rules": [{"action": "Keep", "from": {"pods": {"podSelector": {"matchLabels": null}}}}]}`, "spec.rules[0].from.pods.podSelector: Required value: " + null},
		{`{"rules": [{"action": "Keep", "from": {"pods": {"podSelector": {"matchExpressions": null}}}}]}`, "spec.rules[0].from.pods.podSelector: Required value: " + null},
		{`{"rules": [{"action": "Keep", "from": {"pods": {"namespaceSelector": {"matchLabels": null}}}}]}`, "spec.rules[0].from.pods.namespaceSelector: Required value: " + null},
		{`{"rules": [{"action": "Keep", "from": {"pods": {"namespaceSelector": {"matchExpressions": null}}}}]}`, "spec.rules[0].from.pods.namespaceSelector: Required value: " + null},
		{`{"nodeSelector": {"matchLabels": null}, "rules": [{"action": "Keep"}]}`, "spec.nodeSelector: Required value: " + null},
		{`{"nodeSelector": {"matchExpressions": null}, "rules": [{"action": "Keep"}]}`, "spec.nodeSelector: Required value: " + null},
		{`{"nodeSelector": null, "rules": [{"action": "Keep"}]}`, "spec: Required value: " + null},
		{`{"rules": null}`, "spec.rules: Required value"},
		{`{}`, "spec.rules: Required value"},
		{`null`, "spec: Required value"},
	} {
		text := []byte(`{"apiVersion": "unmasq.io/v1alpha1", "kind": "SourcePolicy", "metadata": {"name": "default"}, "spec": ` + c.spec + `}`)
		if taken, reason := contract(t, create, document{name: "peculiar", text: text}); taken != (c.want == "") || !strings.Contains(reason, c.want) {
			t.Errorf("%s: taken: %t %s\nwant %s", c.spec, taken, reason, c.want)
		}
	}
}
