package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

type object = map[string]any

const network = "pods"

// writeCNI writes the network's configuration, which containerd reads, and the
// harness for pods that are namespaces.
func (n *Node) writeCNI() error {
	plugin := object{"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "ipMasq": n.config.Masquerade,
		"ipam": object{"type": "host-local", "dataDir": filepath.Join(n.Dir, "leases"),
			"ranges": [][]object{{n.addresses(n.Pods4)}, {n.addresses(n.Pods6)}},
			"routes": []object{{"dst": "0.0.0.0/0"}, {"dst": "::/0"}}}}
	text, err := json.MarshalIndent(object{"cniVersion": "1.0.0", "name": network, "plugins": []object{plugin,
		{"type": "portmap", "capabilities": object{"portMappings": true}}}}, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(n.CNIResults(), 0o755); err != nil {
		return err
	}
	if err := os.MkdirAll(n.cniDir(), 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(n.cniDir(), "10-pods.conflist"), text, 0o644)
}

// addresses that pods get: those after the bridge's own, which is the first.
func (n *Node) addresses(subnet netip.Prefix) object {
	if n.config.Addresses == 0 {
		return object{"subnet": subnet.String()}
	}
	last := subnet.Addr().Next()
	for range n.config.Addresses {
		last = last.Next()
	}
	return object{"subnet": subnet.String(), "rangeEnd": last.String()}
}

func (n *Node) cniDir() string { return filepath.Join(n.Dir, "net.d") }

// CNIResults is where the container runtime keeps what network plugins said: the
// node's /var/lib/cni/results, as it's called on the machine.
func (n *Node) CNIResults() string { return filepath.Join(n.Dir, "lib", "cni", "results") }

// container is what network plugins know of a pod.
type container struct{ id, netns, namespace, pod, uid string }

func (c container) args() string {
	return fmt.Sprintf("IgnoreUnknown=1;K8S_POD_NAMESPACE=%s;K8S_POD_NAME=%s;K8S_POD_INFRA_CONTAINER_ID=%s;K8S_POD_UID=%s", c.namespace, c.pod, c.id, c.uid)
}

// attach gives a pod its link and addresses, as a container runtime does, and
// leaves libcni's file about it.
func (n *Node) attach(ctx context.Context, c container) (a4, a6 netip.Addr, err error) {
	text, err := n.plugin(ctx, "ADD", c)
	if err != nil {
		return a4, a6, err
	}
	var result struct {
		IPs []struct{ Address netip.Prefix } `json:"ips"`
	}
	if err := json.Unmarshal([]byte(text), &result); err != nil {
		return a4, a6, fmt.Errorf("network plugin's result for %s: %w: %s", c.pod, err, text)
	}
	for _, ip := range result.IPs {
		if ip.Address.Addr().Is4() {
			a4 = ip.Address.Addr()
		} else {
			a6 = ip.Address.Addr()
		}
	}
	if !a4.IsValid() || !a6.IsValid() {
		return a4, a6, fmt.Errorf("network plugin's result for %s: expected an address of each family: %s", c.pod, text)
	}
	return a4, a6, n.cacheResult(c, text)
}

// detach takes them away again.
func (n *Node) detach(ctx context.Context, c container) error {
	_, err := n.plugin(ctx, "DEL", c)
	if gone := os.Remove(n.resultFile(c)); !errors.Is(gone, os.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	return err
}

// plugin runs the network's first plugin in the node; pods without host ports
// don't need the second.
func (n *Node) plugin(ctx context.Context, command string, c container) (string, error) {
	conf, err := os.ReadFile(filepath.Join(n.cniDir(), "10-pods.conflist"))
	if err != nil {
		return "", err
	}
	var list struct{ Plugins []object }
	if err := json.Unmarshal(conf, &list); err != nil {
		return "", err
	}
	list.Plugins[0]["cniVersion"], list.Plugins[0]["name"] = "1.0.0", network
	stdin, err := json.Marshal(list.Plugins[0])
	if err != nil {
		return "", err
	}
	n.plugins.Lock()
	defer n.plugins.Unlock()
	cmd := n.NS.Command(ctx, filepath.Join(n.cluster.plugins, "bridge"))
	cmd.Stdin = strings.NewReader(string(stdin))
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+command, "CNI_CONTAINERID="+c.id, "CNI_NETNS="+c.netns, "CNI_IFNAME="+uplink,
		"CNI_ARGS="+c.args(), "CNI_PATH="+n.cluster.plugins, "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("network plugin, %s %s: %w: %s", command, c.pod, err, out)
	}
	return string(out), nil
}

func (n *Node) resultFile(c container) string {
	return filepath.Join(n.CNIResults(), network+"-"+c.id+"-"+uplink)
}

// cacheResult writes the file of libcni/api.go, cacheAdd.
func (n *Node) cacheResult(c container, result string) error {
	conf, err := os.ReadFile(filepath.Join(n.cniDir(), "10-pods.conflist"))
	if err != nil {
		return err
	}
	var args [][2]string
	for pair := range strings.SplitSeq(c.args(), ";") {
		key, value, _ := strings.Cut(pair, "=")
		args = append(args, [2]string{key, value})
	}
	text, err := json.Marshal(object{"kind": "cniCacheV1", "containerId": c.id, "config": conf, "ifName": uplink, "networkName": network,
		"netns": c.netns, "cniArgs": args, "result": json.RawMessage(result)})
	if err != nil {
		return err
	}
	return os.WriteFile(n.resultFile(c), text, 0o600)
}
