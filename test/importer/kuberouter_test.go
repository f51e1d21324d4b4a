package importer_test

import (
	"testing"

	"github.com/unmasq/unmasq/internal/importer"
)

const kubeRouterDaemonSet = `apiVersion: apps/v1
kind: DaemonSet
metadata: {name: kube-router, namespace: kube-system}
spec:
  template:
    spec:
      containers:
      - name: kube-router
        image: docker.io/cloudnativelabs/kube-router:v2.11.0
        args: [--run-router=true, --run-firewall=true, --run-service-proxy=false, --enable-ipv6=true, --enable-pod-egress=true]
`

func TestKubeRouter(t *testing.T) {
	for _, variant := range []string{"legacy", "nft"} {
		t.Run(variant, func(t *testing.T) {
			c := comparison{
				kind: "kube-router", files: []importer.File{{Name: "ds.yaml", Data: []byte(kubeRouterDaemonSet)}},
				facts: usualFacts(), node: usual(), peer: dump("kube-router-" + variant), flows: usualFlows(),
				meant: []difference{
					{"the node's own packets are no pods', whichever of its addresses they come from", keptHere(podOnNode)},
				},
			}
			c.run(t)
		})
	}
}
