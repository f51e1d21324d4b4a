package importer_test

import (
	"testing"

	"github.com/unmasq/unmasq/internal/importer"
)

// masqAgentConfig gives the lists of the dumps' rules, masqAgentDaemonSet their flags.
const (
	masqAgentConfig = `apiVersion: v1
kind: ConfigMap
metadata: {name: ip-masq-agent, namespace: kube-system}
data:
  config: |
    nonMasqueradeCIDRs: [10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, "fd00::/8"]
`
	masqAgentDaemonSet = `apiVersion: apps/v1
kind: DaemonSet
metadata: {name: ip-masq-agent, namespace: kube-system}
spec:
  template:
    spec:
      containers:
      - name: ip-masq-agent
        image: registry.k8s.io/networking/ip-masq-agent:v2.12.6
        args: [--masq-chain=IP-MASQ-AGENT, --enable-ipv6]
`
)

// TestIPMasqAgent: the rules of ip-masq-agent.
func TestIPMasqAgent(t *testing.T) {
	for _, variant := range []string{"legacy", "nft"} {
		t.Run(variant, func(t *testing.T) {
			c := comparison{
				kind: "ip-masq-agent", files: []importer.File{text("cm.yaml", masqAgentConfig), text("ds.yaml", masqAgentDaemonSet)},
				facts: usualFacts(), node: usual(), peer: dump("ip-masq-agent-" + variant), flows: masqAgentFlows(),
			}
			c.run(t)
		})
	}
}

func masqAgentFlows() []flow {
	return usualFlows(row{name: "stranger to the outside", link: "cni0", source: [2]string{"198.51.100.7", "2001:db8:51::7"}, target: [2]string{"203.0.113.5", "2001:db8:113::5"}})
}

const azureRules = `*nat
:IP-MASQ-AGENT - [0:0]
-A POSTROUTING -m comment --comment "\"ip-masq-agent: ensure nat POSTROUTING directs all non-LOCAL destination traffic to our custom IP-MASQ-AGENT chain\"" -m addrtype ! --dst-type LOCAL -j IP-MASQ-AGENT
-A IP-MASQ-AGENT -d 169.254.0.0/16 -m comment --comment "ip-masq-agent: local traffic is not subject to MASQUERADE" -j RETURN
-A IP-MASQ-AGENT -d 192.168.0.0/16 -m comment --comment "ip-masq-agent: local traffic is not subject to MASQUERADE" -j RETURN
-A IP-MASQ-AGENT -m comment --comment "ip-masq-agent: outbound traffic is subject to MASQUERADE (must be last in chain)" -j MASQUERADE
COMMIT
`

// TestAzureIPMasqAgent: a list that lacks the pods, as users of Azure's have had it.
func TestAzureIPMasqAgent(t *testing.T) {
	c := comparison{
		kind: "azure-ip-masq-agent", files: []importer.File{text("ip-masq-agent-config", "nonMasqueradeCIDRs:\n- 192.168.0.0/16\n")},
		facts: usualFacts(), node: usual(), peer: rulesText("nft", azureRules, "*nat\nCOMMIT\n"), flows: masqAgentFlows(),
		meant: []difference{
			{"what comes in for pods is not outbound: the drop-in and the import leave it, unlike the agent", keptHere(outsideToPod, outsideToPod2)},
			{"so is what the node sends to pods: it keeps the address that it has", keptHere(nodeToPod, nodeToRemote)},
		},
	}
	c.run(t)
}
