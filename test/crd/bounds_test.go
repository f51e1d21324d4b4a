package crd

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/version"

	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/model"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"
)

// policyOf is a document with these rules.
func policyOf(rules ...any) []byte {
	text, err := json.Marshal(map[string]any{"apiVersion": "unmasq.io/v1alpha1", "kind": "SourcePolicy",
		"metadata": map[string]any{"name": "large"}, "spec": map[string]any{"rules": rules}})
	if err != nil {
		panic(err) // it is made of strings
	}
	return text
}

func many(n int, format string) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf(format, i/256, i%256)
	}
	return out
}

// etcdLimit is the largest request that etcd takes by default.
const etcdLimit = 1_500_000

// largest are documents at the bounds: as many rules as may be, lists as long as may
// be, and as many networks as fit an object, in as few characters as a network has.
func largest() map[string][]byte {
	full := map[string]any{"action": "SNAT", "snat": map[string]any{"addresses": many(64, "10.0.%d.%d")},
		"outInterfaces": strings.Split(strings.Repeat("eth0 ", 127)+"eth0", " "),
		"from":          map[string]any{"cidrs": many(1024, "10.1.%d.%d/32"), "except": many(1024, "10.2.%d.%d/32")},
		"to":            map[string]any{"cidrs": many(1024, "10.3.%d.%d/32"), "except": many(1024, "10.4.%d.%d/32")}}
	rules := func(n int, rule any) (out []any) {
		for range n {
			out = append(out, rule)
		}
		return out
	}
	var ports []any
	for i := range 128 {
		ports = append(ports, map[string]any{"port": i + 1, "endPort": i + 1})
	}
	cidrs := strings.Split(strings.Repeat("::/0 ", 1023)+"::/0", " ")
	networks := map[string]any{"action": "Keep", "from": map[string]any{"cidrs": cidrs, "except": cidrs}, "to": map[string]any{"cidrs": cidrs, "except": cidrs}}
	services := map[string]any{"action": "Keep", "to": map[string]any{"services": map[string]any{
		"names": many(1024, "namespace-%d/name-%d"), "cidrs": many(16, "10.%d.%d.0/24"), "ports": ports}}}
	ranges := map[string]any{"action": "SNAT", "snat": map[string]any{"addresses": many(64, "2001:db8:ffff:ffff:ffff:ffff:%x:%[2]x0-2001:db8:ffff:ffff:ffff:ffff:%[1]x:%[2]xf")}}
	return map[string][]byte{
		"128 rules":               policyOf(rules(128, map[string]any{"action": "Keep"})...),
		"long lists in each rule": policyOf(rules(17, full)...),
		"most networks":           policyOf(rules(51, networks)...),
		"most ranges":             policyOf(rules(128, ranges)...),
		"most services":           policyOf(rules(55, services)...),
	}
}

// checkLargest: they are taken, within CEL's budget, and one more of anything is not.
func checkLargest(t *testing.T, create creator) {
	for name, text := range largest() {
		if len(text) > etcdLimit {
			t.Errorf("%s: %d bytes don't fit an object", name, len(text))
		}
		if taken, reason := hold(t, create, document{name: name, text: text}, true); !taken {
			t.Errorf("%s: refused: %.1000s", name, reason)
		}
	}
	for _, c := range []struct {
		rule any
		n    int
		want string
	}{
		{map[string]any{"action": "Keep"}, 129, "spec.rules: Too many: 129: must have at most 128 items"},
		{map[string]any{"action": "Keep", "to": map[string]any{"cidrs": many(1025, "10.1.%d.%d/32")}}, 1, "spec.rules[0].to.cidrs: Too many: 1025: must have at most 1024 items"},
		{map[string]any{"action": "SNAT", "snat": map[string]any{"addresses": []string{"10.0.0.0-10.0.3.255", "10.1.0.0"}}}, 1, "makes more than 1024 IPv4 addresses in this rule; expected fewer"},
		{map[string]any{"action": "SNAT", "snat": map[string]any{"addresses": []string{"2001:db8::-2001:db8::3ff", "2001:db8:1::"}}}, 1, "makes more than 1024 IPv6 addresses in this rule; expected fewer"},
	} {
		rules := make([]any, c.n)
		for i := range rules {
			rules[i] = c.rule
		}
		if taken, reason := hold(t, create, document{name: c.want, text: policyOf(rules...)}, true); taken || !strings.Contains(reason, c.want) {
			t.Errorf("got %v %q, want %q", taken, reason, c.want)
		}
	}
}

func TestLargest(t *testing.T) { checkLargest(t, newServer(t, "sourcepolicies").create) }

// The rules are those of CEL as Kubernetes 1.31 takes them in a new definition: it
// holds to what 1.30 knew. (1.30 holds to 1.29, which had no networks in CEL.)
func TestCELOfKubernetes131(t *testing.T) {
	base := environment.MustBaseEnvSet(version.MajorMinor(1, 30))
	for _, plural := range []string{"sourcepolicies", "nodereports"} {
		s := newServer(t, plural)
		var compile func(path string, s *schema.Structural)
		compile = func(path string, s *schema.Structural) {
			results, err := cel.Compile(s, model.SchemaDeclType(s, false), celconfig.PerCallLimit, base, cel.NewExpressionsEnvLoader())
			if err != nil {
				t.Errorf("%s: %v", path, err)
			}
			for i, r := range results {
				if r.Error != nil || r.MessageExpressionError != nil {
					t.Errorf("%s: rule %d: %v, %v", path, i, r.Error, r.MessageExpressionError)
				}
			}
			for name, p := range s.Properties {
				compile(path+"."+name, &p)
			}
			if s.Items != nil {
				compile(path+"[]", s.Items)
			}
			if s.AdditionalProperties != nil && s.AdditionalProperties.Structural != nil {
				compile(path+"{}", s.AdditionalProperties.Structural)
			}
		}
		compile(plural, s.structural)
	}
}
