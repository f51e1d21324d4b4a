package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/packet"
)

// dumps lists all that are made.
func dumps() []dump { return append(iptablesDumps(), nativeDumps()...) }

// nativeDumps are of programs that write nft's own tables.
func nativeDumps() (all []dump) {
	add := func(name, about string, node nodeSetup, write func(context.Context, *host) error) {
		all = append(all, dump{name: name + "-nftables", about: about + ". Written by hack/dumps; don't edit.", variant: foreign.NFT, native: true, node: node, write: write})
	}
	for _, version := range kubeNativeVersions {
		add("kube-proxy-"+version, "kube-proxy "+version+" in nftables mode", usual(), kubeProxyNative(version))
		add("kube-proxy-"+version+"-masquerade-all", "kube-proxy "+version+" in nftables mode with --masquerade-all", usual(), kubeProxyNative(version, "--masquerade-all"))
	}
	add("flannel", "flannel v0.28.4 with EnableNFTables and --ip-masq", usual(), flannelNative)
	add("cni-bridge", "CNI plugins v1.9.1: bridge with ipMasq, two pods, the second with portmap, both plugins' backends nftables", usual(), cniBridge)
	add("cni-ptp", "CNI plugins v1.9.1: ptp with ipMasq, two pods, the second with portmap, both plugins' backends nftables", ptpNode(), cniPTP)
	add("aws-vpc-cni", "the rules of amazon-vpc-cni v1.23.2 for a VPC of 192.168.0.0/16, 10.244.0.0/16 and 172.31.0.0/16, with 198.51.100.0/24 excluded, its own marks through nftables", usual(), awsVPCCNI)
	add("docker", newDocker+" and a second network", dockerNode(), dockerNative)
	add("docker-published", newDocker+", a second network, and containers with published ports", dockerNode(), dockerPublished)
	add("docker-published-noproxy", newDocker+" --userland-proxy=false, a second network, and containers with published ports", dockerNode(), dockerPublishedNoProxy)
	add("node", "kube-proxy "+newestKube+" in nftables mode, flannel v0.28.4 with EnableNFTables, and dockerd 20.10 through iptables-nft, on one node", dockerNode(), together(
		docker, flannelNative, kubeProxyNative(newestKube)))
	return all
}

// iptablesDumps are of programs that write their rules through iptables.
func iptablesDumps() (all []dump) {
	for _, v := range foreign.Variants {
		add := func(name, about string, node nodeSetup, write func(context.Context, *host) error) {
			about = fmt.Sprintf("%s, through iptables-%s. Written by hack/dumps; don't edit.", about, v)
			all = append(all, dump{name: name + "-" + string(v), about: about, variant: v, node: node, write: write})
		}
		for _, version := range kubeVersions {
			add("kube-proxy-"+version, "kube-proxy "+version+" in iptables mode", usual(), kubeProxy(version))
			add("kube-proxy-"+version+"-masquerade-all", "kube-proxy "+version+" in iptables mode with --masquerade-all", usual(), kubeProxy(version, "--masquerade-all"))
		}
		add("flannel", "flannel v0.28.4 with --ip-masq", usual(), flannel)
		add("cni-bridge", "CNI plugins v1.9.1: bridge with ipMasq, two pods, the second with portmap", usual(), cniBridge)
		add("cni-ptp", "CNI plugins v1.9.1: ptp with ipMasq, two pods, the second with portmap", ptpNode(), cniPTP)
		add("docker", "dockerd 20.10 with a second network", dockerNode(), docker)
		add("kube-router", "kube-router 2.11 with --enable-pod-egress", usual(), components(foreign.KubeRouter()))
		add("ip-masq-agent", "ip-masq-agent 2.12", usual(), components(foreign.IPMasqAgent()))
		add("k3s", "kube-proxy "+kubeVersions[0]+", flannel v0.28.4 with --ip-masq, and ip-masq-agent 2.12, on one node", usual(), together(
			kubeProxy(kubeVersions[0]), flannel, components(foreign.IPMasqAgent())))
	}
	return all
}

// together runs several writers one after the other.
func together(writers ...func(context.Context, *host) error) func(context.Context, *host) error {
	return func(ctx context.Context, h *host) error {
		for _, w := range writers {
			if err := w(ctx, h); err != nil {
				return err
			}
		}
		return nil
	}
}

// components whose programs can't be had, as package foreign knows them.
func components(all ...foreign.Component) func(context.Context, *host) error {
	return func(ctx context.Context, h *host) error {
		for _, c := range all {
			for _, f := range packet.Families {
				if err := foreign.Run(ctx, foreign.In(h.ns), c.Write(foreignNode(), h.dump.variant, f)); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

func flannel(ctx context.Context, h *host) error {
	program, err := peer(ctx, "./flannelrules", "flannelrules")
	if err != nil {
		return err
	}
	return h.runUntil(ctx, []string{"-A FLANNEL-POSTRTG", "-A FLANNEL-FWD"}, program, "iptables", "10.244.0.0/16", "10.244.1.0/24", "fd00:10:244::/48", "fd00:10:244:1::/64")
}

func flannelNative(ctx context.Context, h *host) error {
	program, err := peer(ctx, "./flannelrules", "flannelrules")
	if err != nil {
		return err
	}
	return h.runUntil(ctx, []string{"table ip flannel-ipv4", "table ip6 flannel-ipv6", "masquerade"}, program, "nftables", "10.244.0.0/16", "10.244.1.0/24", "fd00:10:244::/48", "fd00:10:244:1::/64")
}

// awsVPCCNI has rules of iptables and a table of nft's own.
func awsVPCCNI(ctx context.Context, h *host) error {
	program, err := peer(ctx, "./awsrules", "awsrules")
	if err != nil {
		return err
	}
	c := h.command(ctx, program, "192.168.0.0/16,10.244.0.0/16,172.31.0.0/16", "192.168.5.10")
	c.Env = append(c.Env, "AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS=198.51.100.0/24", "AWS_VPC_K8S_CNI_LOG_FILE=stdout")
	if said, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, said)
	}
	return nil
}

// bare is the usual node without its bridge.
func bare() nodeSetup {
	s := usual()
	s.bridges = nil
	s.ip = slices.DeleteFunc(s.ip, func(line string) bool { return strings.Contains(line, "cni0") })
	return s
}

// ptpNode has links that stand for those of the plugin's pods, which go with
// their namespaces: nothing but their names differs.
func ptpNode() nodeSetup {
	s := bare()
	s.veths = append(s.veths, "vethptp1", "vethptp2")
	s.after = []string{
		"addr add 10.244.1.1/32 dev vethptp1", "addr add fd00:10:244:1::1/128 dev vethptp1 nodad", "route add 10.244.1.2 dev vethptp1", "route add fd00:10:244:1::2 dev vethptp1",
		"addr add 10.244.1.1/32 dev vethptp2", "addr add fd00:10:244:1::1/128 dev vethptp2 nodad", "route add 10.244.1.3 dev vethptp2", "route add fd00:10:244:1::3 dev vethptp2",
	}
	return s
}
