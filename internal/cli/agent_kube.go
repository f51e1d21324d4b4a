package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/unmasq/unmasq/internal/agent"
	"github.com/unmasq/unmasq/internal/cluster"
	"github.com/unmasq/unmasq/internal/cni/results"
	"github.com/unmasq/unmasq/internal/kube"
	"github.com/unmasq/unmasq/internal/kubectl"
)

// kubeOptions are the agent's flags about a cluster.
type kubeOptions struct {
	on                                bool
	kubeconfig, nodeName              string
	podCIDRs, nodeCIDRs, serviceCIDRs []string
	watchNodes                        bool
	results, cache                    string
	daemonSet                         string
}

// kubeFlags are refused without --kube.
var kubeFlags = []string{"kubeconfig", "node-name", "pod-cidrs", "node-cidrs", "service-cidrs", "watch-nodes", "cni-results", "cluster-cache", "daemon-set"}

func (o *kubeOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&o.on, "kube", false, "follow a Kubernetes cluster")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "`FILE` that says where the API server is; default: as a pod of the cluster knows it")
	f.StringVar(&o.nodeName, "node-name", "", "`NAME` of this node's Node; default: $NODE_NAME, or the host's name")
	f.StringSliceVar(&o.podCIDRs, "pod-cidrs", nil, "`CIDR`s of all pods in the cluster; default: this node's alone, or all nodes' with --watch-nodes")
	f.StringSliceVar(&o.nodeCIDRs, "node-cidrs", nil, "`CIDR`s of the networks that the cluster's nodes are in, for to.nodes")
	f.StringSliceVar(&o.serviceCIDRs, "service-cidrs", nil, "`CIDR`s of ClusterIPs; default: the API's ServiceCIDRs (Kubernetes 1.33)")
	f.BoolVar(&o.watchNodes, "watch-nodes", false, "watch all Nodes for their addresses and pod CIDRs: for clusters of some hundred nodes at most")
	f.StringVar(&o.results, "cni-results", results.DefaultDir, "`DIRECTORY` where the container runtime keeps network plugins' results: whose a new pod's address is")
	f.StringVar(&o.cache, "cluster-cache", defaultCache, "`FILE` to keep what is known of the cluster in, for a start while the API doesn't answer; \"\" keeps nothing")
	f.StringVar(&o.daemonSet, "daemon-set", "", "`NAMESPACE/NAME` of the DaemonSet that this is a pod of, with the pod's name in $POD_NAME: on exit, if it is gone or going, the rules are removed")
}

// defaultCache is of agents in a cluster; a hostPath in their pods.
const defaultCache = "/run/unmasq/cluster.json"

// follow a cluster, with --kube.
func (o *kubeOptions) follow(cmd *cobra.Command, log *slog.Logger, opts *agent.Options) error {
	if !o.on {
		for _, name := range kubeFlags {
			if cmd.Flags().Changed(name) {
				return inputError{fmt.Errorf("--%s needs --kube", name)}
			}
		}
		return nil
	}
	set := kube.DaemonSet{}
	if o.daemonSet != "" {
		var ok bool
		if set.Namespace, set.Name, ok = strings.Cut(o.daemonSet, "/"); !ok || set.Namespace == "" || set.Name == "" || strings.Contains(set.Name, "/") {
			return inputError{fmt.Errorf("--daemon-set %q: expected NAMESPACE/NAME", o.daemonSet)}
		}
	}
	watch, err := o.watch(cmd, log)
	if err != nil {
		return err
	}
	opts.Cluster = watch
	if o.daemonSet != "" {
		opts.Removed = func(ctx context.Context) (bool, string) { return watch.Removed(ctx, set, os.Getenv("POD_NAME")) }
		opts.Cleared = func() {
			if err := kube.Forget(o.cache); err != nil {
				log.Warn("could not remove the cache", "error", err)
			}
			tellKubelet(kubectl.SaidCleared)
		}
	}
	return nil
}

func (o *kubeOptions) watch(cmd *cobra.Command, log *slog.Logger) (*kube.Watch, error) {
	if cmd.Flags().Changed("node-labels") {
		return nil, inputError{errors.New("--node-labels: not expected with --kube, where the Node has them")}
	}
	opts := kube.Options{Results: o.results, Cache: o.cache, Log: log, Stated: cluster.Stated{AllNodes: o.watchNodes}}
	for _, list := range []struct {
		flag  string
		texts []string
		to    *[]netip.Prefix
	}{
		{"pod-cidrs", o.podCIDRs, &opts.Stated.PodCIDRs},
		{"node-cidrs", o.nodeCIDRs, &opts.Stated.NodeCIDRs},
		{"service-cidrs", o.serviceCIDRs, &opts.Stated.ServiceCIDRs},
	} {
		var err error
		if *list.to, err = cidrs(list.flag, list.texts); err != nil {
			return nil, err
		}
	}
	hostname, err := os.Hostname()
	if opts.NodeName = cmp.Or(o.nodeName, os.Getenv("NODE_NAME"), hostname); opts.NodeName == "" {
		return nil, inputError{fmt.Errorf("name this node with --node-name: %w", err)}
	}
	clients, err := kube.Connect(o.kubeconfig)
	if err != nil {
		return nil, inputError{err}
	}
	return kube.New(clients, opts), nil
}

func cidrs(flag string, texts []string) (out []netip.Prefix, err error) {
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil || p.Addr().Is4In6() {
			return nil, inputError{fmt.Errorf("--%s %q: expected CIDRs such as 10.244.0.0/16,fd00:10:244::/48", flag, text)}
		}
		if p != p.Masked() {
			return nil, inputError{fmt.Errorf("--%s %s has host bits set; the network is %s", flag, text, p.Masked())}
		}
		out = append(out, p)
	}
	return out, nil
}

// terminationLog is where a container leaves a word for its pod's status: Kubernetes'
// own place for it. It is there in pods alone.
const terminationLog = "/dev/termination-log"

// tellKubelet what became of the table. Nobody hears it elsewhere, which is no error.
func tellKubelet(text string) {
	f, err := os.OpenFile(terminationLog, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return
	}
	defer f.Close()
	_, _ = f.WriteString(text)
}
