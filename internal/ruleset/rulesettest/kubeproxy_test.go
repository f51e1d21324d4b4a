package rulesettest

import (
	"strings"
	"testing"
)

// The names are those of a real node.
func TestChainNames(t *testing.T) {
	for want, of := range map[string][2]string{
		"KUBE-SVC-CDGGSHYLG3RE2FKL": {"SVC", "default/web:http" + "tcp"},
		"KUBE-SEP-ELX6N4Z5RGB67TLC": {"SEP", "default/web:http" + "tcp" + "10.244.1.11:8080"},
	} {
		if got := chain(of[0], of[1]); got != want {
			t.Errorf("chain(%q) = %s, want %s", of, got, want)
		}
	}
}

func TestKubeProxyIsAsLargeAsStated(t *testing.T) {
	text := KubeProxy(100, 3)
	if got, want := strings.Count(text, "\n-A "), 100*(1+1+3+2*3)+23; got != want {
		t.Errorf("%d rules, want %d", got, want)
	}
	for _, line := range []string{
		`-A KUBE-SERVICES -d 10.96.0.7/32 -p tcp -m comment --comment "default/svc-7:http cluster IP" -m tcp --dport 80 -j KUBE-SVC-`,
		` -m comment --comment "default/svc-7:http -> 10.244.0.21:8080" -m statistic --mode random --probability 0.33333333349 -j KUBE-SEP-`,
		` -m comment --comment "default/svc-7:http -> 10.244.0.22:8080" -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-`,
	} {
		if !strings.Contains(text, line) {
			t.Errorf("it has no line with %s", line)
		}
	}
}
