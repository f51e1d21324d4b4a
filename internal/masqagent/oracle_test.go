package masqagent_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/unmasq/unmasq/internal/masqagent"
)

// keys are the agents' keys as Go's encoding/json fills them, which is what the
// agents read their files with.
type keys struct {
	NonMasqueradeCIDRs []string        `json:"nonMasqueradeCIDRs"`
	CidrLimit          int             `json:"cidrLimit"`
	MasqLinkLocal      bool            `json:"masqLinkLocal"`
	MasqLinkLocalIPv6  bool            `json:"masqLinkLocalIPv6"`
	ResyncInterval     metav1.Duration `json:"resyncInterval"`
}

// asEncodingJSON is what a text comes to for a reader of that kind.
func asEncodingJSON(s masqagent.Settings, text []byte) (string, error) {
	k := keys{CidrLimit: 64}
	if s.Dialect == masqagent.Kubernetes {
		k.NonMasqueradeCIDRs = strings.Fields(rfc1918)
	}
	if s.Dialect == masqagent.Cilium && len(text) == 0 {
		k.NonMasqueradeCIDRs = strings.Fields(allRanges)
	}
	k.ResyncInterval.Duration = 60e9
	if err := decode(s, text, &k); err != nil {
		return "", err
	}
	words := []string{nothing}
	seen := map[string]bool{}
	for _, text := range k.NonMasqueradeCIDRs {
		ip, network, err := net.ParseCIDR(text)
		switch {
		case err != nil:
			return "", err
		case s.Dialect != masqagent.Cilium && (!ip.Equal(network.IP) || !s.EnableIPv6 && ip.To4() == nil || len(k.NonMasqueradeCIDRs) > k.CidrLimit):
			return "", errors.New("refused")
		case !seen[network.String()]:
			words = append(words, network.String())
		}
		seen[network.String()] = true
	}
	if len(words) > 1 {
		words = words[1:]
	}
	if k.MasqLinkLocal {
		words = append(words, "link-local")
	}
	if k.MasqLinkLocalIPv6 {
		words = append(words, "link-local-ipv6")
	}
	if text := k.ResyncInterval.Duration.String(); text != "1m0s" {
		words = append(words, text)
	}
	return strings.Join(words, " "), nil
}

func decode(s masqagent.Settings, text []byte, k *keys) error {
	text, err := yaml.ToJSON(text)
	if err != nil {
		return err
	}
	if s.Dialect == masqagent.Kubernetes {
		return json.Unmarshal(text, k)
	}
	var fewer struct {
		NonMasqueradeCIDRs []*string `json:"nonMasqueradeCIDRs"`
		MasqLinkLocal      bool      `json:"masqLinkLocal"`
		MasqLinkLocalIPv6  bool      `json:"masqLinkLocalIPv6"`
	}
	if err := json.Unmarshal(text, &fewer); err != nil {
		return err
	}
	for _, p := range fewer.NonMasqueradeCIDRs {
		if p == nil {
			return errors.New("null")
		}
		k.NonMasqueradeCIDRs = append(k.NonMasqueradeCIDRs, *p)
	}
	k.MasqLinkLocal, k.MasqLinkLocalIPv6 = fewer.MasqLinkLocal, fewer.MasqLinkLocalIPv6
	return nil
}

// checkOracle: what is accepted here, the agents accept, and read the same in it.
// They may accept more: merge keys, and what no packet filter takes.
func checkOracle(t *testing.T, s masqagent.Settings, text []byte) {
	t.Helper()
	got := come(s, masqagent.File{Name: "f", Data: text})
	if strings.HasPrefix(got, "error: ") || bytes.ContainsAny(text, "!&") { // tags, anchors
		return
	}
	got, _, _ = strings.Cut(got, " (f:")
	want, err := asEncodingJSON(s, text)
	if err != nil {
		t.Errorf("%s accepts %q, which the agent refuses: %v", s.Dialect, text, err)
	} else if got != want {
		t.Errorf("%s, %q: read as %s, by the agent as %s", s.Dialect, text, got, want)
	}
}
