// Package results reads the cache that libcni keeps of what network plugins
// answered (by default /var/lib/cni/results): which pod has which addresses. A
// file is there before any container of its pod starts, which is earlier than the
// Kubernetes API tells the addresses, and it is removed when they are given back.
//
//	dir := results.Open(results.DefaultDir)
//	found, err := dir.Read()
//	// web/nginx-0 10.244.1.7 fd00:10:244:1::7
//
// It is not a CNI runtime: it never writes, and leaves alone what it doesn't
// understand.
package results

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// DefaultDir is libcni's (CacheDir in libcni/api.go), which containerd and CRI-O
// leave as it is.
const DefaultDir = "/var/lib/cni/results"

// PodInterface is the interface whose addresses are the pod's; those of others,
// such as multus' net1, the Kubernetes API doesn't know either.
const PodInterface = "eth0"

// Result is what the network plugins of one network answered to an ADD.
type Result struct {
	Namespace, Name string
	// UID of the pod; "": this runtime doesn't tell plugins.
	UID string
	// Sandbox is the container that the addresses are in; a pod can have another later.
	Sandbox string
	// Network by its name, and the interface inside the sandbox.
	Network, Interface string
	// Addresses in the sandbox that the network can see, in the plugins' order.
	Addresses []netip.Addr
	// Added is when the file was written, in nanoseconds since 1970.
	Added int64
}

// ErrForeign says that a file is not about a pod's network.
var ErrForeign = errors.New("not a network plugin's result for a pod")

// kindV1 is the only kind there is; libcni before 0.8 wrote results as they were,
// without the pods that they are of.
const kindV1 = "cniCacheV1"

type cached struct {
	Kind        string
	ContainerID string      `json:"containerId"`
	IfName      string      `json:"ifName"`
	NetworkName string      `json:"networkName"`
	CNIArgs     [][2]string `json:"cniArgs"`
	Result      answer      `json:"result"`
}

// answer of a plugin: of specification 0.3 to 1.1, or as of 0.2.
type answer struct {
	Interfaces []struct{ Sandbox string }
	IPs        []struct {
		Interface *int
		Address   string
	}
	IP4, IP6 *struct{ IP string }
}

// Parse reads one file of the cache. The error is ErrForeign where it's about
// something else than a pod.
//
//	{"kind":"cniCacheV1","containerId":"3f…","config":"…","ifName":"eth0","networkName":"cbr0",
//	 "cniArgs":[["K8S_POD_NAMESPACE","web"],["K8S_POD_NAME","nginx-0"],["K8S_POD_UID","0c…"]],
//	 "result":{"interfaces":[{"name":"eth0","sandbox":"/var/run/netns/cni-1"}],
//	  "ips":[{"interface":0,"address":"10.244.1.7/24"}]}}
func Parse(content []byte) (Result, error) {
	var c cached
	if err := json.Unmarshal(content, &c); err != nil {
		return Result{}, err
	}
	r := Result{Sandbox: c.ContainerID, Network: c.NetworkName, Interface: c.IfName}
	for _, arg := range c.CNIArgs {
		switch arg[0] {
		case "K8S_POD_NAMESPACE":
			r.Namespace = arg[1]
		case "K8S_POD_NAME":
			r.Name = arg[1]
		case "K8S_POD_UID":
			r.UID = arg[1]
		}
	}
	if c.Kind != kindV1 || r.Namespace == "" || r.Name == "" {
		return Result{}, ErrForeign
	}
	texts, err := c.Result.addresses()
	if err != nil {
		return Result{}, err
	}
	for _, text := range texts {
		a, err := address(text)
		if err != nil {
			return Result{}, err
		}
		if !a.IsLoopback() && !a.IsLinkLocalUnicast() && !slices.Contains(r.Addresses, a) {
			r.Addresses = append(r.Addresses, a)
		}
	}
	return r, nil
}

// addresses that are in the sandbox; a plugin may also tell the host's ends.
func (a *answer) addresses() (texts []string, err error) {
	for _, ip := range a.IPs {
		if i := ip.Interface; i != nil {
			if *i < 0 || *i >= len(a.Interfaces) {
				return nil, fmt.Errorf("address %q is of interface %d, of which there are %d", ip.Address, *i, len(a.Interfaces))
			}
			if a.Interfaces[*i].Sandbox == "" {
				continue
			}
		}
		texts = append(texts, ip.Address)
	}
	if a.IP4 != nil {
		texts = append(texts, a.IP4.IP)
	}
	if a.IP6 != nil {
		texts = append(texts, a.IP6.IP)
	}
	return texts, nil
}

// address reads "10.244.1.7/24".
func address(text string) (netip.Addr, error) {
	host, _, _ := strings.Cut(text, "/")
	a, err := netip.ParseAddr(host)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("address %q: expected one such as 10.244.1.7/24", text)
	}
	return a.Unmap(), nil
}
