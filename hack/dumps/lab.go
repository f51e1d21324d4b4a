package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/lab"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/probe"
)

// labFolder holds a folder for each scenario.
const labFolder = "internal/lab/scenarios"

// recordLab records what kube-proxy writes on the hosts of the lab's scenarios, in
// each way that they run it.
func recordLab(ctx context.Context, only string) error {
	var errs []error
	for _, s := range lab.Scenarios() {
		for _, k := range s.Recorded {
			name := "lab/" + s.Name + "/" + k.String()
			if !strings.Contains(name, only) {
				continue
			}
			recording := lab.Recording{}
			var err error
			for _, host := range s.Hosts() {
				var rules map[packet.Family]string
				rules, err = recordHost(ctx, &s, k, host)
				if err != nil {
					break
				}
				recording[host] = rules
			}
			text := fmt.Sprintf("# kube-proxy %s %s. Written by hack/dumps; don't edit.\n%s", newestKube, strings.Join(labFlags(&s, k), " "), recording.Format(&s))
			if err == nil {
				err = os.WriteFile(filepath.Join(labFolder, s.Name, k.File()), []byte(text), 0o644)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", name, err))
				continue
			}
			fmt.Printf("%s: %d bytes\n", name, len(text))
		}
	}
	return errors.Join(errs...)
}

func labFlags(s *lab.Scenario, k lab.KubeProxy) []string {
	flags := []string{"--proxy-mode=iptables"}
	if k.Native {
		flags[0] = "--proxy-mode=nftables"
	}
	if k.ClusterCIDR {
		var cidrs []string
		for _, p := range s.ClusterCIDR {
			cidrs = append(cidrs, p.String())
		}
		flags = append(flags, "--cluster-cidr="+strings.Join(cidrs, ","))
	}
	if k.MasqueradeAll {
		flags = append(flags, "--masquerade-all")
	}
	return flags
}

// recordHost runs kube-proxy on one host and reads its rules.
func recordHost(ctx context.Context, s *lab.Scenario, k lab.KubeProxy, name string) (rules map[packet.Family]string, err error) {
	space, err := s.Space(name)
	if err != nil {
		return nil, err
	}
	d := dump{variant: foreign.NFT, native: k.Native, node: labNode(space)}
	p := proxy{version: newestKube, node: name, address: space.Address(packet.IPv4Family), objects: labObjects(s), flags: labFlags(s, k),
		words: []string{"dport 80", "MASQUERADE"}}
	portName := "default/%s:%s" // of a service's port
	if k.Native {
		p.words, portName = []string{"table ip kube-proxy", "table ip6 kube-proxy", "dnat to"}, "default/%s/%[2]s/%[2]s"
	}
	for _, service := range s.Services {
		p.words = append(p.words, fmt.Sprintf(portName, service.Name, "tcp"), fmt.Sprintf(portName, service.Name, "udp"))
	}
	rules = map[packet.Family]string{}
	err = d.on(func(h *host) error {
		if err := p.run(ctx, h); err != nil {
			return err
		}
		for f, command := range labListing(k) {
			text, err := h.ns.Run("", command[0], command[1:]...)
			if err != nil {
				return err
			}
			rules[f] = loadable(settled(text))
		}
		return nil
	})
	return rules, err
}

// labListing is how rules of each family are read.
func labListing(k lab.KubeProxy) map[packet.Family][]string {
	if k.Native {
		return map[packet.Family][]string{packet.IPv4Family: {"nft", "list", "table", "ip", "kube-proxy"}, packet.IPv6Family: {"nft", "list", "table", "ip6", "kube-proxy"}}
	}
	return map[packet.Family][]string{packet.IPv4Family: {"iptables-nft-save"}, packet.IPv6Family: {"ip6tables-nft-save"}}
}

var nfacct = regexp.MustCompile(`-m nfacct --nfacct-name +\S+ `)

// loadable is without remarks, and without packet counters (nfacct), which not every
// kernel has; kube-proxy itself leaves them out there.
func loadable(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") {
			b.WriteString(nfacct.ReplaceAllString(line, ""))
		}
	}
	return b.String()
}

// labNode has the interfaces and addresses of a host of the lab.
func labNode(space *lab.Space) nodeSetup {
	n := nodeSetup{sysctls: []string{"net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"}}
	add := func(link string, addresses []netip.Prefix) {
		for _, a := range addresses {
			line := fmt.Sprintf("addr add %s dev %s", a, link)
			if a.Addr().Is6() {
				line += " nodad"
			}
			n.ip = append(n.ip, line)
		}
	}
	for _, p := range space.Ports {
		n.veths = append(n.veths, p.Name)
		add(p.Name, p.Addresses)
	}
	for _, b := range space.Bridges {
		n.bridges = append(n.bridges, bridge{name: b.Name})
		add(b.Name, b.Addresses)
	}
	return n
}

// labObjects are the cluster that a scenario stands for: its hosts, its services and
// their backends, which answer at one port.
func labObjects(s *lab.Scenario) map[string][]object {
	objects := map[string][]object{}
	for _, host := range s.Hosts() {
		var addresses []object
		for _, a := range labAddresses(s, host) {
			addresses = append(addresses, object{"type": "InternalIP", "address": a})
		}
		objects["/api/v1/nodes"] = append(objects["/api/v1/nodes"], object{"apiVersion": "v1", "kind": "Node",
			"metadata": object{"name": host}, "status": object{"addresses": addresses}})
	}
	objects[slicesPath] = []object{slice("kubernetes", packet.IPv4Family, []object{{"addresses": labAddresses(s, s.Hosts()[0])[:1]}},
		[]object{{"name": "https", "protocol": "TCP", "port": 6443}})}
	for _, service := range s.Services {
		objects[servicesPath] = append(objects[servicesPath], labService(service))
		for _, f := range packet.Families {
			objects[slicesPath] = append(objects[slicesPath], labSlice(s, service, f))
		}
	}
	return objects
}

func labAddresses(s *lab.Scenario, space string) (texts []string) {
	x, err := s.Space(space)
	for _, f := range packet.Families {
		if err == nil {
			texts = append(texts, x.Address(f).String())
		}
	}
	return texts
}

func labService(service lab.Service) object {
	var addresses []string
	for _, a := range service.Addresses {
		addresses = append(addresses, a.String())
	}
	spec := object{"type": "ClusterIP", "clusterIP": addresses[0], "clusterIPs": addresses, "ipFamilies": []string{"IPv4", "IPv6"}, "ipFamilyPolicy": "RequireDualStack"}
	port := func(name string) object {
		return object{"name": name, "protocol": strings.ToUpper(name), "port": service.Port, "targetPort": probe.Port}
	}
	ports := []object{port("tcp"), port("udp")}
	if service.NodePort != 0 {
		spec["type"], spec["externalTrafficPolicy"] = "NodePort", "Cluster"
		if service.Local {
			spec["externalTrafficPolicy"] = "Local"
		}
		for _, p := range ports {
			p["nodePort"] = service.NodePort
		}
	}
	spec["ports"] = ports
	return object{"apiVersion": "v1", "kind": "Service", "spec": spec, "metadata": object{"name": service.Name, "namespace": "default"}}
}

func labSlice(s *lab.Scenario, service lab.Service, f packet.Family) object {
	var endpoints []object
	for _, name := range service.Backends {
		pod, err := s.Space(name)
		if err != nil {
			continue // a test of the scenarios misses it
		}
		endpoints = append(endpoints, object{"addresses": []string{pod.Address(f).String()}, "nodeName": pod.Ports[0].Space,
			"conditions": object{"ready": true, "serving": true, "terminating": false}})
	}
	return slice(service.Name, f, endpoints, []object{{"name": "tcp", "protocol": "TCP", "port": probe.Port}, {"name": "udp", "protocol": "UDP", "port": probe.Port}})
}

func slice(service string, f packet.Family, endpoints, ports []object) object {
	return object{"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": f.String(), "endpoints": endpoints, "ports": ports,
		"metadata": object{"name": strings.ToLower(service + "-" + f.String()), "namespace": "default", "labels": object{"kubernetes.io/service-name": service}}}
}
