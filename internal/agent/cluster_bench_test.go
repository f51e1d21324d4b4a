package agent

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/unmasq/unmasq/api/v1alpha1"
	"github.com/unmasq/unmasq/internal/cluster"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/policy"
)

// fakeCluster stands where the API server does.
type fakeCluster struct {
	view    *cluster.View
	changed chan struct{}
	stale   string
	reports []v1alpha1.NodeReportStatus
	instead map[string]*cluster.Policy
	// services: they are asked for.
	services bool
}

func (f *fakeCluster) Run(ctx context.Context)            { <-ctx.Done() }
func (f *fakeCluster) View() *cluster.View                { return f.view }
func (f *fakeCluster) Changed() <-chan struct{}           { return f.changed }
func (f *fakeCluster) Stale() string                      { return f.stale }
func (f *fakeCluster) Report(s v1alpha1.NodeReportStatus) { f.reports = append(f.reports, s) }
func (f *fakeCluster) NeedServices(need bool)             { f.services = need }
func (f *fakeCluster) Refused(instead map[string]*cluster.Policy) {
	f.instead = instead
}

// large is a node with so many pods, in a cluster with so many policies, each of
// which selects pods by a label.
func large(pods, policies int) cluster.Input {
	in := cluster.Input{Stated: cluster.Stated{PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:10:244::/48")}}}
	in.Node = &cluster.Node{Name: "n1", Labels: map[string]string{"zone": "a"}, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:10:244:1::/64")}}
	in.Namespaces = []cluster.Namespace{{Name: "default"}}
	for i := range pods {
		in.Pods = append(in.Pods, largePod(i))
	}
	for i := range policies {
		in.Policies = append(in.Policies, largePolicy(i, "Keep"))
	}
	return in
}

func largePod(i int) cluster.Pod {
	return cluster.Pod{Namespace: "default", Name: fmt.Sprint("pod-", i), UID: fmt.Sprint("uid-", i), Labels: map[string]string{"app": fmt.Sprint("app-", i)},
		Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 244, 1, byte(i + 2)}), netip.MustParseAddr(fmt.Sprintf("fd00:10:244:1::%x", i+2))}}
}

func largePolicy(i int, action string) cluster.Policy {
	name := fmt.Sprintf("policy-%04d", i)
	return cluster.Policy{Name: name, Generation: 1, Source: policy.Source{Name: "sourcepolicies/" + name, NoLines: true, Content: fmt.Appendf(nil,
		`{"apiVersion":"unmasq.io/v1alpha1","kind":"SourcePolicy","metadata":{"name":%q},"spec":{"order":100,"rules":[{"name":"out","action":%q,`+
			`"from":{"pods":{"podSelector":{"matchLabels":{"app":"app-%d"}}}},"to":{"cidrs":["172.%d.%d.0/24","2001:db8:%x::/48"]}}]}}`, name, action, i%200, 16+i>>8, i&255, i)}}
}

// edited is a policy with another text in its place.
func edited(p cluster.Policy, old, now string) cluster.Policy {
	p.Source.Content = bytes.Replace(p.Source.Content, []byte(old), []byte(now), 1)
	return p
}

// BenchmarkChange is the time from a change that the API tells until it is in the
// kernel: joined, loaded, compiled, written.
func BenchmarkChange(b *testing.B) {
	for _, size := range []struct{ pods, policies int }{{110, 10}, {110, 1000}} {
		for _, change := range []struct {
			name string
			of   func(in *cluster.Input, i int)
		}{
			{"pod", func(in *cluster.Input, i int) {
				in.Pods = slices.Clone(in.Pods)
				if i%2 == 0 {
					in.Pods = append(in.Pods, largePod(size.pods))
				} else {
					in.Pods = in.Pods[:size.pods]
				}
			}},
			{"label", func(in *cluster.Input, i int) {
				in.Pods = slices.Clone(in.Pods)
				in.Pods[7].Labels = map[string]string{"app": fmt.Sprint("app-", i%2)}
			}},
			{"action", func(in *cluster.Input, i int) {
				in.Policies = slices.Clone(in.Policies)
				in.Policies[size.policies/2] = largePolicy(size.policies/2, []string{"Leave", "Keep"}[i%2])
			}},
			{"selector", func(in *cluster.Input, i int) {
				in.Policies = slices.Clone(in.Policies)
				in.Policies[size.policies/2] = edited(largePolicy(size.policies/2, "Keep"), `"matchLabels":{"app":"app-`, `"matchLabels":{"app":"app-`+fmt.Sprint(i%2+1))
			}},
			{"destination", func(in *cluster.Input, i int) {
				in.Policies = slices.Clone(in.Policies)
				in.Policies[size.policies/2] = edited(largePolicy(size.policies/2, "Keep"), `"cidrs":[`, fmt.Sprintf(`"cidrs":["192.168.%d.0/24",`, i%2))
			}},
			{"policy", func(in *cluster.Input, i int) {
				in.Policies = slices.Clone(in.Policies[:size.policies-1])
				if i%2 == 1 {
					in.Policies = append(in.Policies, largePolicy(size.policies-1, "Keep"))
				}
			}},
		} {
			b.Run(fmt.Sprintf("pods=%d/policies=%d/%s", size.pods, size.policies, change.name), func(b *testing.B) {
				benchmarkChange(b, large(size.pods, size.policies), change.of)
			})
		}
	}
}

// BenchmarkServiceChange is the same on a node of a cluster with so many services, all
// of which a policy names by their namespace's label.
func BenchmarkServiceChange(b *testing.B) {
	const pods = 110
	for _, services := range []int{0, 100, 10000} {
		in := large(pods, 10)
		in.Namespaces[0].Labels = map[string]string{"team": "web"}
		in.ServicesKnown = true
		for i := range services {
			in.Services = append(in.Services, largeService(i))
		}
		if services > 0 {
			in.Policies = append(in.Policies, cluster.Policy{Name: "services", Generation: 1, Source: policy.Source{Name: "sourcepolicies/services", NoLines: true, Content: []byte(
				`{"apiVersion":"unmasq.io/v1alpha1","kind":"SourcePolicy","metadata":{"name":"services"},"spec":{"rules":[{"name":"remote","action":"Masquerade",` +
					`"from":{"cidrs":["172.30.0.0/16"]},"to":{"services":{"namespaceSelector":{"matchLabels":{"team":"web"}},"backends":"Remote"}}}]}}`)}})
		}
		b.Run(fmt.Sprintf("services=%d/pod", services), func(b *testing.B) {
			benchmarkChange(b, in, func(in *cluster.Input, i int) {
				in.Pods = slices.Clone(in.Pods[:pods])
				if i%2 == 0 {
					in.Pods = append(in.Pods, largePod(pods))
				}
			})
		})
		if services == 0 {
			continue
		}
		b.Run(fmt.Sprintf("services=%d/service", services), func(b *testing.B) {
			benchmarkChange(b, in, func(in *cluster.Input, i int) {
				in.Services = slices.Clone(in.Services[:services])
				if i%2 == 0 {
					in.Services = append(in.Services, largeService(services))
				}
			})
		})
	}
}

func largeService(i int) cluster.Service {
	return cluster.Service{Namespace: "default", Name: fmt.Sprint("service-", i), ClusterIPs: []netip.Addr{
		netip.AddrFrom4([4]byte{10, 96 + byte(i>>16), byte(i >> 8), byte(i)}), netip.MustParseAddr(fmt.Sprintf("fd00:10:96::%x", i+1)),
	}, Ports: []policy.ServicePort{{Protocol: packet.TCP, Port: 80}, {Protocol: packet.TCP, Port: 443}}}
}

func benchmarkChange(b *testing.B, in cluster.Input, change func(*cluster.Input, int)) {
	err := netnstest.Test(b, "change").Do(func() error {
		f := &fakeCluster{view: cluster.Join(in)}
		a, err := New(Options{Cluster: f, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		defer a.closeTable()
		a.status.setCluster(f.Stale)
		a.reloadCluster()
		var took []time.Duration
		before := processorTime()
		defer func() {
			slices.Sort(took)
			b.ReportMetric(float64((processorTime()-before).Microseconds())/1000/float64(len(took)), "cpu-ms/op")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
		}()
		for i := 0; b.Loop(); i++ {
			change(&in, i)
			begin := time.Now()
			f.view = cluster.Join(in)
			a.reloadCluster()
			took = append(took, time.Since(begin))
			if err := a.status.problem(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}

// processorTime that this process took, which a busy machine doesn't lengthen as
// much as the time that passes.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
