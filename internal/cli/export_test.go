package cli

import (
	"bytes"
	"strings"
	"testing"
)

const exportedPolicy = `apiVersion: unmasq.io/v1alpha1
kind: SourcePolicy
metadata: {name: pods}
spec:
  facts: {podCIDRs: [10.244.0.0/16]}
  rules:
  - {name: inside, from: {pods: {}}, to: {pods: {}}, action: Keep}
  - {name: web, from: {pods: {podSelector: {matchLabels: {app: web}}}}, to: {cidrs: [203.0.113.0/24]}, action: Keep}
  - {name: rest, from: {pods: {}}, action: Masquerade}
`

func TestExport(t *testing.T) {
	for name, c := range map[string]struct {
		args     []string
		status   int
		out, log string
	}{
		"less than the policy":  {args: []string{"cilium", "-f", "-"}, out: "- 203.0.113.0/24", log: "lost: rule pods/web: is about some sources alone"},
		"the same, strictly":    {args: []string{"cilium", "-f", "-", "--strict"}, status: statusWrong, out: "- 203.0.113.0/24", log: "cilium can't be told all"},
		"more than the policy":  {args: []string{"ip-masq-agent", "-f", "-"}, status: statusWrong, out: "nonMasqueradeCIDRs", log: "lost: WIDER: what others"},
		"pods by a flag":        {args: []string{"calico", "-f", "-", "--pod-cidrs", "10.9.0.0/16"}, out: "cidr: 10.9.0.0/16\n  natOutgoing: true", log: "lost"},
		"no kind":               {args: []string{"-f", "-"}, status: statusUsage, log: "expected one of ip-masq-agent, cilium, calico, aws-vpc-cni"},
		"two kinds":             {args: []string{"cilium", "calico"}, status: statusUsage, log: `unexpected argument "calico"`},
		"a kind that isn't one": {args: []string{"flannel", "-f", "-"}, status: statusUsage, log: `"flannel" can't be written`},
		"no policy":             {args: []string{"cilium"}, status: statusUsage, log: "no policy given"},
		"a CIDR that isn't one": {args: []string{"cilium", "-f", "-", "--pod-cidrs", "10.9.0.0"}, status: statusUsage, log: "--pod-cidrs"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			status := Main("v0-test", append([]string{"export"}, c.args...), strings.NewReader(exportedPolicy), &stdout, &stderr)
			if status != c.status || !strings.Contains(stdout.String(), c.out) || !strings.Contains(stderr.String(), c.log) || c.out == "" && stdout.Len() > 0 {
				t.Errorf("exit status %d, want %d\n%s\n%s", status, c.status, stdout.String(), stderr.String())
			}
		})
	}
}
