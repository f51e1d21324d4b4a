package kube

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/unmasq/unmasq/internal/cluster"
)

const serviceText = `{"apiVersion":"v1","kind":"Service","metadata":{"namespace":"web","name":"shop","labels":{"app":"x"}},
	"spec":{"type":"LoadBalancer","externalTrafficPolicy":"Local","clusterIP":"10.96.0.80","clusterIPs":["10.96.0.80","fd00:96::80"],"externalIPs":["203.0.113.80"],
	"ports":[{"port":80,"protocol":"TCP","nodePort":30080,"targetPort":"http"},{"port":53,"protocol":"UDP"},{"port":9,"protocol":"DCCP"}]},
	"status":{"loadBalancer":{"ingress":[{"ip":"203.0.113.81","ipMode":"VIP"},{"ip":"203.0.113.82","ipMode":"Proxy"},{"hostname":"lb.example"}]}}}`

func TestServiceOf(t *testing.T) {
	for _, c := range []struct{ text, want, strange string }{
		{serviceText, "web/shop map[app:x]  [10.96.0.80 fd00:96::80] [203.0.113.80] [203.0.113.81] [{6 80 30080} {17 53 0}] true", "spec.ports: DCCP port 9, node port 0"},
		{`{"apiVersion":"v1","kind":"Service","metadata":{"namespace":"web","name":"db"},"spec":{"type":"ClusterIP","clusterIP":"None","clusterIPs":["None"],"ports":[{"port":5432}]}}`,
			"web/db map[] is headless [] [] [] [] false", ""},
		{`{"apiVersion":"v1","kind":"Service","metadata":{"namespace":"web","name":"out"},"spec":{"type":"ExternalName","externalName":"example.com"}}`,
			"web/out map[] is of type ExternalName [] [] [] [] false", ""},
		{`{"apiVersion":"v1","kind":"Service","metadata":{"namespace":"web","name":"odd"},"spec":{"clusterIPs":["10.96.0.1","x"],"ports":[{"port":70000,"protocol":"TCP"}]}}`,
			"web/odd map[]  [10.96.0.1] [] [] [] false", `spec.clusterIPs: "x" is not an address; spec.ports: TCP port 70000, node port 0`},
	} {
		o, strange := serviceOf(object(c.text))
		s := o.(cluster.Service)
		got := fmt.Sprintf("%s/%s %v %s %v %v %v %v %t", s.Namespace, s.Name, s.Labels, s.NoAddress, s.ClusterIPs, s.ExternalIPs, s.LoadBalancerIPs, s.Ports, s.LocalOnly)
		if said := strings.Join(strange, "; "); got != c.want || said != c.strange {
			t.Errorf("got %s, %q\nwant %s, %q", got, said, c.want, c.strange)
		}
	}
}

// Services are followed while they are needed, and at no other time.
func TestServicesWhileNeeded(t *testing.T) {
	s := newServer(t, object(nodeText), object(podText), object(policyText), object(serviceText))
	var requests atomic.Int32
	var forbidden atomic.Bool
	s.dynamic.PrependReactor("list", "services", func(clienttesting.Action) (bool, runtime.Object, error) {
		requests.Add(1)
		return forbidden.Load(), nil, errors.New("services is forbidden")
	})
	cache := filepath.Join(t.TempDir(), "cluster.json")
	w := s.run(t, Options{Cache: cache})
	await(t, w, "known", func(v *cluster.View) bool {
		return !v.Facts.ServicesKnown && v.NoServices == "" && len(v.Facts.Pods) == 1
	})
	if n := requests.Load(); n != 0 {
		t.Errorf("%d requests for services that nobody needs", n)
	}
	w.NeedServices(true)
	v := await(t, w, "with services", func(v *cluster.View) bool { return v.Facts.ServicesKnown })
	if got := fmt.Sprint(v.Facts.Services[0].ID(), v.Facts.Services[0].NamespaceLabels); got != "web/shopteam=a" || len(v.Facts.Services) != 1 {
		t.Errorf("services: %s", got)
	}
	other := object(strings.Replace(serviceText, `"name":"shop"`, `"name":"another"`, 1))
	if err := s.dynamic.Tracker().Create(servicesResource, other, "web"); err != nil {
		t.Fatal(err)
	}
	await(t, w, "with one more", func(v *cluster.View) bool { return len(v.Facts.Services) == 2 })
	w.NeedServices(false)
	await(t, w, "without services", func(v *cluster.View) bool { return !v.Facts.ServicesKnown })
	asked := requests.Load()
	if err := s.dynamic.Tracker().Delete(servicesResource, "web", "another"); err != nil {
		t.Fatal(err)
	}
	forbidden.Store(true)
	w.NeedServices(true)
	await(t, w, "refused", func(v *cluster.View) bool { return strings.Contains(v.NoServices, "services is forbidden") })
	if text := w.Stale(); !strings.Contains(text, "services: not followed") {
		t.Errorf("Stale says %q", text)
	}
	if v := w.View(); len(v.Facts.Pods) != 1 || v.Facts.ServicesKnown {
		t.Errorf("all else isn't known, or they are: %+v", v)
	}
	forbidden.Store(false)
	await(t, w, "again", func(v *cluster.View) bool { return len(v.Facts.Services) == 1 && v.NoServices == "" })
	if requests.Load() <= asked {
		t.Error("they were not asked for")
	}
}

// A start without the API has the services of before.
func TestServicesOfBefore(t *testing.T) {
	s := newServer(t, object(nodeText), object(podText), object(policyText), object(serviceText))
	cache := filepath.Join(t.TempDir(), "cluster.json")
	t.Run("before", func(t *testing.T) {
		w := s.run(t, Options{Cache: cache})
		w.NeedServices(true)
		await(t, w, "with services", func(v *cluster.View) bool { return v.Facts.ServicesKnown })
	})
	s.away.Store(true)
	w := s.run(t, Options{Cache: cache})
	await(t, w, "as before", func(v *cluster.View) bool { return v.Facts.ServicesKnown && len(v.Facts.Services) == 1 })
	w.NeedServices(true)
	if v := w.View(); !v.Facts.ServicesKnown {
		t.Error("asked for, they are known no more")
	}
	s.away.Store(false)
	await(t, w, "followed", func(v *cluster.View) bool { return v.Facts.ServicesKnown && w.Stale() == "" })
}

// A start with the API, but without an answer of services, has those of before.
func TestServicesThatDoNotCome(t *testing.T) {
	s := newServer(t, object(nodeText), object(podText), object(policyText), object(serviceText))
	cache := filepath.Join(t.TempDir(), "cluster.json")
	t.Run("before", func(t *testing.T) {
		w := s.run(t, Options{Cache: cache})
		w.NeedServices(true)
		await(t, w, "with services", func(v *cluster.View) bool { return v.Facts.ServicesKnown })
	})
	s.dynamic.PrependReactor("list", "services", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, errors.New("services is forbidden")
	})
	w := s.run(t, Options{Cache: cache})
	await(t, w, "known", func(v *cluster.View) bool { return !v.Facts.ServicesKnown })
	w.NeedServices(true)
	await(t, w, "as before", func(v *cluster.View) bool { return v.Facts.ServicesKnown && v.NoServices == "" })
	w.NeedServices(false)
	await(t, w, "not needed", func(v *cluster.View) bool { return !v.Facts.ServicesKnown })
	w.NeedServices(true)
	await(t, w, "refused", func(v *cluster.View) bool { return strings.Contains(v.NoServices, "services is forbidden") })
}
