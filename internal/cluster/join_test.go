package cluster_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/unmasq/unmasq/internal/cluster"
	"github.com/unmasq/unmasq/internal/cni/results"
	"github.com/unmasq/unmasq/internal/facts"
	"github.com/unmasq/unmasq/internal/policy"
)

func addrs(texts ...string) (out []netip.Addr) {
	for _, t := range texts {
		out = append(out, netip.MustParseAddr(t))
	}
	return out
}

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, t := range texts {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}

// pod of namespace web, created at a second, as the API shows it.
func pod(name string, created int64, addresses ...string) cluster.Pod {
	return cluster.Pod{Namespace: "web", Name: name, UID: "uid-" + name, Created: created, Addresses: addrs(addresses...)}
}

// added is a result for such a pod at a second.
func added(name string, at int64, addresses ...string) results.Result {
	return results.Result{Namespace: "web", Name: name, UID: "uid-" + name, Sandbox: fmt.Sprint(name, at), Network: "pods", Interface: "eth0",
		Addresses: addrs(addresses...), Added: at * 1_000_000_000}
}

func web() []cluster.Namespace {
	return []cluster.Namespace{{Name: "web", Labels: map[string]string{"team": "a"}}}
}

// owned is who owns what: "a 10.0.0.1 fd00::1".
func owned(v *cluster.View) (out []string) {
	for _, p := range v.Facts.Pods {
		text := p.Name
		for _, a := range p.Addresses {
			text += " " + a.String()
		}
		out = append(out, text)
	}
	return out
}

func with[T any](p T, change func(*T)) T {
	change(&p)
	return p
}

func TestOwners(t *testing.T) {
	type list = []results.Result
	for _, tt := range []struct {
		name     string
		pods     []cluster.Pod
		results  list
		released map[string]bool
		want     []string
	}{
		{name: "the API alone", pods: []cluster.Pod{pod("a", 1, "10.0.0.1", "fd00::1")}, want: []string{"a 10.0.0.1 fd00::1"}},
		{name: "a result before the API tells", pods: []cluster.Pod{pod("a", 1)}, results: list{added("a", 2, "10.0.0.1", "fd00::1")}, want: []string{"a 10.0.0.1 fd00::1"}},
		{name: "both", pods: []cluster.Pod{pod("a", 1, "10.0.0.1")}, results: list{added("a", 2, "10.0.0.1")}, want: []string{"a 10.0.0.1"}},
		{name: "the API tells one family first", pods: []cluster.Pod{pod("a", 1, "10.0.0.1")}, results: list{added("a", 2, "10.0.0.1", "fd00::1")}, want: []string{"a 10.0.0.1 fd00::1"}},
		{name: "a new pod has an address that the API still shows of another", pods: []cluster.Pod{pod("old", 1, "10.0.0.1", "fd00::1"), pod("new", 5)},
			results: list{added("old", 2, "10.0.0.1", "fd00::1"), added("new", 6, "10.0.0.1")}, want: []string{"new 10.0.0.1", "old fd00::1"}},
		{name: "of a pod whose result is gone", pods: []cluster.Pod{pod("old", 1, "10.0.0.1"), pod("new", 5)},
			results: list{added("new", 6, "10.0.0.1")}, want: []string{"new 10.0.0.1"}},
		{name: "the newest of several results", pods: []cluster.Pod{pod("a", 1), pod("b", 1), pod("c", 1)},
			results: list{added("a", 2, "10.0.0.1"), added("c", 3, "10.0.0.1"), added("b", 4, "10.0.0.1")}, want: []string{"b 10.0.0.1"}},
		{name: "the newest is of a pod that isn't known", pods: []cluster.Pod{pod("a", 1, "10.0.0.1")},
			results: list{added("a", 2, "10.0.0.1"), added("unknown", 3, "10.0.0.1")}},
		{name: "a pod that isn't known, before one that the API shows", pods: []cluster.Pod{pod("a", 9, "10.0.0.1")},
			results: list{added("leaked", 3, "10.0.0.1")}, want: []string{"a 10.0.0.1"}},
		{name: "a pod that isn't known, after one that the API shows", pods: []cluster.Pod{pod("a", 1, "10.0.0.1")}, results: list{added("early", 3, "10.0.0.1")}},
		{name: "given back by DEL", pods: []cluster.Pod{pod("a", 1, "10.0.0.1")}, released: map[string]bool{"uid-a": true}},
		{name: "given back, without UIDs", pods: []cluster.Pod{pod("a", 1, "10.0.0.1")}, released: map[string]bool{"web/a": true}},
		{name: "given back and added again", pods: []cluster.Pod{pod("a", 1, "10.0.0.1")}, released: map[string]bool{"uid-b": true},
			results: list{added("a", 9, "10.0.0.2")}, want: []string{"a 10.0.0.1 10.0.0.2"}},
		{name: "ended", pods: []cluster.Pod{with(pod("a", 1, "10.0.0.1"), func(p *cluster.Pod) { p.Ended = true })}},
		{name: "ended, with a result", pods: []cluster.Pod{with(pod("a", 1, "10.0.0.1"), func(p *cluster.Pod) { p.Ended = true })}, results: list{added("a", 2, "10.0.0.1")}},
		{name: "ended, and another has the address", pods: []cluster.Pod{with(pod("a", 1, "10.0.0.1"), func(p *cluster.Pod) { p.Ended = true }), pod("b", 2, "10.0.0.1")},
			want: []string{"b 10.0.0.1"}},
		{name: "host network", pods: []cluster.Pod{with(pod("a", 1, "192.0.2.1"), func(p *cluster.Pod) { p.HostNetwork = true })}},
		{name: "of the same name, another UID", pods: []cluster.Pod{pod("a", 5)},
			results: list{{Namespace: "web", Name: "a", UID: "before", Interface: "eth0", Addresses: addrs("10.0.0.1")}}},
		{name: "without UID", pods: []cluster.Pod{pod("a", 5)},
			results: list{{Namespace: "web", Name: "a", Interface: "eth0", Addresses: addrs("10.0.0.1")}}, want: []string{"a 10.0.0.1"}},
		{name: "static pod", pods: []cluster.Pod{with(pod("a", 5), func(p *cluster.Pod) { p.UID, p.StaticUID = "mirror", "uid-a" })},
			results: list{added("a", 6, "10.0.0.1")}, want: []string{"a 10.0.0.1"}},
		{name: "a second network", pods: []cluster.Pod{pod("a", 5)},
			results: list{{Namespace: "web", Name: "a", UID: "uid-a", Interface: "net1", Addresses: addrs("192.0.2.7")}}},
		{name: "a namespace that isn't known yet", pods: []cluster.Pod{with(pod("a", 5, "10.0.0.1"), func(p *cluster.Pod) { p.Namespace = "new" })}},
		{name: "two in the API, the later one", pods: []cluster.Pod{pod("b", 7, "10.0.0.1"), pod("a", 5, "10.0.0.1")}, want: []string{"b 10.0.0.1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := cluster.Join(cluster.Input{Objects: cluster.Objects{Pods: tt.pods, Namespaces: web()}, Results: tt.results, Released: tt.released})
			if diff := cmp.Diff(tt.want, owned(v)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestJoin(t *testing.T) {
	node := cluster.Node{Name: "n1", UID: "u", Labels: map[string]string{"zone": "a"}, Addresses: addrs("192.0.2.1", "fd00::1"), PodCIDRs: prefixes("10.244.1.0/24"), Paused: true}
	other := cluster.Node{Name: "n0", Addresses: addrs("192.0.2.9"), PodCIDRs: prefixes("10.244.0.0/24")}
	objects := cluster.Objects{Node: &node, Nodes: []cluster.Node{node, other}, Namespaces: web(),
		Pods:         []cluster.Pod{with(pod("a", 1, "10.244.1.7"), func(p *cluster.Pod) { p.Labels = map[string]string{"app": "x"} })},
		Policies:     []cluster.Policy{{Name: "b", Generation: 2}, {Name: "a"}},
		ServiceCIDRs: []cluster.ServiceCIDR{{Name: "kubernetes", CIDRs: prefixes("10.96.0.0/16")}}}
	type prefix = facts.Found[netip.Prefix]
	type addr = facts.Found[netip.Addr]
	base := cluster.View{NoResults: cluster.Elsewhere, NodeName: "n1", NodeUID: "u", NodeLabels: node.Labels, Policies: []cluster.Policy{{Name: "a"}, {Name: "b", Generation: 2}}, Paused: true,
		Facts: facts.Cluster{LocalPodCIDRs: []prefix{{Value: node.PodCIDRs[0], Origin: "Node n1"}}, ServiceCIDRs: []prefix{{Value: prefixes("10.96.0.0/16")[0], Origin: "ServiceCIDR kubernetes"}},
			Nodes: []addr{{Value: node.Addresses[0], Origin: "Node n1"}, {Value: node.Addresses[1], Origin: "Node n1"}},
			Pods: []policy.Pod{{Namespace: "web", Name: "a", Labels: map[string]string{"app": "x"}, NamespaceLabels: map[string]string{"team": "a", "kubernetes.io/metadata.name": "web"},
				Addresses: addrs("10.244.1.7")}}}}
	for _, tt := range []struct {
		name   string
		stated cluster.Stated
		want   func(*cluster.View)
	}{
		{"nothing stated", cluster.Stated{}, func(v *cluster.View) { v.NoNodes = cluster.NoNodes }},
		{"networks stated", cluster.Stated{PodCIDRs: prefixes("10.244.0.0/16"), NodeCIDRs: prefixes("192.0.2.0/24"), ServiceCIDRs: prefixes("10.97.0.0/16")}, func(v *cluster.View) {
			v.Facts.PodCIDRs = []prefix{{Value: prefixes("10.244.0.0/16")[0], Origin: "--pod-cidrs"}}
			v.Facts.NodeCIDRs = []prefix{{Value: prefixes("192.0.2.0/24")[0], Origin: "--node-cidrs"}}
			v.Facts.ServiceCIDRs = []prefix{{Value: prefixes("10.97.0.0/16")[0], Origin: "--service-cidrs"}}
		}},
		{"all nodes watched", cluster.Stated{AllNodes: true}, func(v *cluster.View) {
			v.Facts.PodCIDRs = []prefix{{Value: other.PodCIDRs[0], Origin: "Node n0"}, {Value: node.PodCIDRs[0], Origin: "Node n1"}}
			v.Facts.Nodes = slices.Insert(v.Facts.Nodes, 1, addr{Value: other.Addresses[0], Origin: "Node n0"})
		}},
		{"all nodes watched, pods' networks stated", cluster.Stated{AllNodes: true, PodCIDRs: prefixes("10.244.0.0/16")}, func(v *cluster.View) {
			v.Facts.PodCIDRs = []prefix{{Value: prefixes("10.244.0.0/16")[0], Origin: "--pod-cidrs"}}
			v.Facts.Nodes = slices.Insert(v.Facts.Nodes, 1, addr{Value: other.Addresses[0], Origin: "Node n0"})
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := base
			want.Facts.Nodes = slices.Clone(base.Facts.Nodes)
			tt.want(&want)
			if diff := cmp.Diff(&want, cluster.Join(cluster.Input{Objects: objects, Stated: tt.stated}), equal); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	in := cluster.Input{Objects: objects, Results: []results.Result{added("a", 2, "10.244.1.7")}}
	if v := cluster.Join(in); v.NoResults != "" {
		t.Errorf("with a result: %s", v.NoResults)
	}
	for _, r := range []results.Result{added("gone", 2, "10.244.1.8"), with(added("a", 2, "10.244.1.7"), func(r *results.Result) { r.Interface = "net1" })} {
		if v := cluster.Join(cluster.Input{Objects: objects, Results: []results.Result{r}}); v.NoResults != cluster.Elsewhere {
			t.Errorf("with the result of another, %s of %s: %q", r.Interface, r.Name, v.NoResults)
		}
	}
	if v := cluster.Join(cluster.Input{Objects: objects, Released: map[string]bool{"uid-gone": true}}); v.NoResults != "" {
		t.Errorf("right after a result was given back: %s", v.NoResults)
	}
	empty := cluster.Join(cluster.Input{NoResults: "no such directory"})
	if diff := cmp.Diff(&cluster.View{NodeLabels: map[string]string{}, NoNodes: cluster.NoNodes, NoResults: "no such directory"}, empty, equal); diff != "" {
		t.Errorf("an empty cluster, -want +got:\n%s", diff)
	}
}

var equal = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty()}

// random is a small world where addresses are used again and again.
func random(t *rapid.T) cluster.Input {
	in := cluster.Input{Released: map[string]bool{}}
	in.Namespaces = web()
	addresses := func(what string) (out []string) {
		return rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1"}), 0, 2, rapid.ID[string]).Draw(t, what)
	}
	for i := range rapid.IntRange(0, 5).Draw(t, "pods") {
		p := pod(fmt.Sprint("p", i), rapid.Int64Range(1, 5).Draw(t, "created"), addresses("shown")...)
		p.Ended, p.HostNetwork = rapid.IntRange(0, 4).Draw(t, "ended") == 0, rapid.IntRange(0, 9).Draw(t, "host") == 0
		if rapid.IntRange(0, 9).Draw(t, "released") == 0 {
			in.Released[p.UID] = true
		}
		in.Pods = append(in.Pods, p)
	}
	for i := range rapid.IntRange(0, 5).Draw(t, "results") {
		in.Results = append(in.Results, added(fmt.Sprint("p", rapid.IntRange(0, 6).Draw(t, "of")), int64(i+1), addresses("added")...))
	}
	return in
}

func TestOwnersProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := random(t)
		before := cluster.Join(in)
		in.Pods = rapid.Permutation(in.Pods).Draw(t, "order")
		v := cluster.Join(in)
		if diff := cmp.Diff(before, v, equal); diff != "" {
			t.Fatalf("in another order, -want +got:\n%s", diff)
		}
		owner := map[netip.Addr]string{}
		for _, p := range v.Facts.Pods {
			for _, a := range p.Addresses {
				if other, twice := owner[a]; twice {
					t.Fatalf("%s is of %s and of %s", a, other, p.Name)
				}
				owner[a] = p.Name
			}
		}
		byName := map[string]cluster.Pod{}
		for _, p := range in.Pods {
			byName[p.Name] = p
		}
		for a, name := range owner {
			if p := byName[name]; p.Ended || p.HostNetwork {
				t.Fatalf("%s is of %s, which has none", a, name)
			}
		}
		newest := map[netip.Addr]string{}
		for _, r := range in.Results {
			for _, a := range r.Addresses {
				newest[a] = r.Name
			}
		}
		for a, name := range newest {
			p, known := byName[name]
			if live := known && !p.Ended && !p.HostNetwork; live && owner[a] != name || known && !p.HostNetwork && p.Ended && owner[a] != "" {
				t.Fatalf("%s was added last for %s, and is of %q", a, name, owner[a])
			}
		}
	})
}
