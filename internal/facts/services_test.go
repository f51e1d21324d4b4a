package facts_test

import (
	"slices"
	"testing"

	"github.com/unmasq/unmasq/internal/facts"
	"github.com/unmasq/unmasq/internal/policy"
)

// Services are stated, or the cluster's where they are known; else no line is of them.
func TestMergeServices(t *testing.T) {
	web := policy.Service{Namespace: "shop", Name: "web", ClusterIPs: addrs("10.96.0.80", "fd00:96::80")}
	db := policy.Service{Namespace: "shop", Name: "db", NoAddress: policy.Headless}
	for _, c := range []struct {
		name    string
		stated  policy.Stated
		cluster *facts.Cluster
		want    []string
	}{
		{"a plain host", policy.Stated{}, nil, nil},
		{"not asked for", policy.Stated{}, &facts.Cluster{}, nil},
		{"known, there are none", policy.Stated{}, &facts.Cluster{ServicesKnown: true}, []string{"cluster: Services"}},
		{"known", policy.Stated{}, &facts.Cluster{ServicesKnown: true, Services: []policy.Service{db, web}}, []string{"shop/db", "shop/web 10.96.0.80 fd00:96::80", "cluster: Services"}},
		{"stated", policy.Stated{Services: stated([]policy.Service{web}, "a.yaml:1")}, &facts.Cluster{ServicesKnown: true, Services: []policy.Service{db}},
			[]string{"shop/web 10.96.0.80 fd00:96::80", "stated in a.yaml:1"}},
	} {
		inForce, lines, _ := facts.Merge(c.stated, c.cluster, host())
		var got []string
		for _, row := range rows(lines) {
			if row[0] == "services" {
				got = row[1:]
			}
		}
		if !slices.Equal(got, c.want) || len(inForce.Services) != max(0, len(c.want)-1) {
			t.Errorf("%s: %q, want %q; in force %v", c.name, got, c.want, inForce.Services)
		}
	}
}
