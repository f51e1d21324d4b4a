package kubectl

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	yaml "go.yaml.in/yaml/v3"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/fake"
	clienttesting "k8s.io/client-go/testing"
)

// cluster has the objects of a text; client-go's fake stands for the API server.
func cluster(t *testing.T, text string) (*Client, *fake.FakeDynamicClient) {
	t.Helper()
	var objects []runtime.Object
	for _, document := range strings.Split(text, "\n---\n") {
		var o map[string]any
		if err := yaml.Unmarshal([]byte(document), &o); err != nil {
			t.Fatal(err)
		}
		content, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		u := &unstructured.Unstructured{}
		if err := u.UnmarshalJSON(content); err != nil {
			t.Fatalf("%v in\n%s", err, document)
		}
		objects = append(objects, u)
	}
	api := fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{
		Pods: "PodList", Services: "ServiceList", Nodes: "NodeList", EndpointSlices: "EndpointSliceList", DaemonSets: "DaemonSetList", NodeReports: "NodeReportList"}, objects...)
	return &Client{Objects: api, Namespace: "default", Where: Where{}.orDefault()}, api
}

// forbid a verb on a resource.
func forbid(api *fake.FakeDynamicClient, verb string, kind schema.GroupVersionResource) {
	api.PrependReactor(verb, kind.Resource, func(a clienttesting.Action) (bool, runtime.Object, error) {
		name := ""
		if get, ok := a.(clienttesting.GetAction); ok {
			name = get.GetName()
		}
		return true, nil, apierrors.NewForbidden(kind.GroupResource(), name, context.Canceled)
	})
}

// objects of a cluster of two nodes.
const objects = `
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: default}
spec:
  nodeName: n1
  containers: [{name: a, ports: [{name: http, containerPort: 8080}, {name: dns, containerPort: 53, protocol: UDP}]}]
status: {phase: Running, podIPs: [{ip: 10.244.1.7}, {ip: "fd00::7"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: four, namespace: default}
spec: {nodeName: n1, containers: [{name: a}]}
status: {phase: Running, podIPs: [{ip: 10.244.1.8}]}
---
apiVersion: v1
kind: Pod
metadata: {name: host, namespace: kube-system}
spec: {nodeName: n1, hostNetwork: true, containers: [{name: a}]}
status: {phase: Running, podIPs: [{ip: 192.0.2.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: pending, namespace: default}
spec: {nodeName: n1, containers: [{name: a}]}
status: {phase: Pending}
---
apiVersion: v1
kind: Pod
metadata: {name: done, namespace: default}
spec: {nodeName: n1, containers: [{name: a}]}
status: {phase: Succeeded, podIPs: [{ip: 10.244.1.9}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-0, namespace: default}
spec: {nodeName: n2, containers: [{name: a}]}
status: {phase: Running, podIPs: [{ip: 10.244.2.3}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {type: ClusterIP, clusterIP: 10.96.0.5, clusterIPs: [10.96.0.5], ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-x, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints:
- {addresses: [10.244.2.3], conditions: {ready: true}, targetRef: {kind: Pod, namespace: default, name: web-0}}
- {addresses: [10.244.2.4], conditions: {ready: false}, targetRef: {kind: Pod, namespace: default, name: web-1}}
---
apiVersion: v1
kind: Service
metadata: {name: both, namespace: shop}
spec: {clusterIP: "fd00:96::5", clusterIPs: ["fd00:96::5", 10.96.0.6], ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}, {name: metrics, port: 9153}]}
---
apiVersion: v1
kind: Service
metadata: {name: six, namespace: shop}
spec: {clusterIP: "fd00:96::6", clusterIPs: ["fd00:96::6"], ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: client, namespace: default}
spec: {clusterIP: 10.96.0.7, clusterIPs: [10.96.0.7], ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: None, clusterIPs: [None], ports: [{name: sql, port: 5432}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-x, namespace: shop, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
ports: [{name: sql, port: 15432, protocol: TCP}]
endpoints:
- {addresses: [10.244.2.8], targetRef: {kind: Pod, namespace: shop, name: db-0}}
- {addresses: [10.244.2.9], targetRef: {kind: Pod, namespace: shop, name: db-1}}
---
apiVersion: v1
kind: Service
metadata: {name: single, namespace: shop}
spec: {clusterIP: None, clusterIPs: [None], ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: single-x, namespace: shop, labels: {kubernetes.io/service-name: single}}
addressType: IPv4
ports: [{name: "", port: 8080, protocol: TCP}]
endpoints: [{addresses: [10.244.2.7]}]
---
apiVersion: v1
kind: Service
metadata: {name: nobody, namespace: shop}
spec: {clusterIP: None, clusterIPs: [None], ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: away, namespace: shop}
spec: {type: ExternalName, externalName: db.example.com}`
