package main

import (
	"fmt"
	"maps"
	"strings"
)

const (
	servicesPath = "/api/v1/namespaces/default/services"
	slicesPath   = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
)

// cluster is what kube-proxy sees: this node, and a service of each kind, by the
// paths that they are made at.
func cluster() map[string][]object {
	lists := map[string][]object{
		"/api/v1/nodes": {node()},
	}
	for i, s := range services() {
		if !s.made {
			lists[servicesPath] = append(lists[servicesPath], s.object(i))
		}
		lists[slicesPath] = append(lists[slicesPath], s.slices()...)
	}
	return lists
}

func node() object {
	return object{"apiVersion": "v1", "kind": "Node",
		"metadata": object{"name": nodeName},
		"spec":     object{"podCIDR": "10.244.1.0/24", "podCIDRs": []string{"10.244.1.0/24", "fd00:10:244:1::/64"}},
		"status": object{"addresses": []object{{"type": "InternalIP", "address": "192.168.5.10"},
			{"type": "InternalIP", "address": "fd00:192:168:5::10"}}},
	}
}

// service with its endpoints. Its cluster addresses are 10.96.0.N and fd00:96::N.
type service struct {
	name string
	// spec beside type, addresses and ports.
	spec     object
	ports    []port
	balancer []string // addresses of a load balancer
	// local and remote endpoints are the last numbers of pods' addresses in
	// 10.244.1.0/24 and 10.244.2.0/24.
	local, remote []int
	// terminating: the endpoints serve, but are going.
	terminating bool
	// made: the API server makes the service itself.
	made bool
}

type port struct {
	name, protocol         string
	number, target, onNode int
}

func web(onNode int) []port { return []port{{"http", "TCP", 80, 8080, onNode}} }

// services of each kind.
func services() []service {
	dns := []port{{"dns", "UDP", 53, 53, 0}, {"dns-tcp", "TCP", 53, 53, 0}, {"metrics", "TCP", 9153, 9153, 0}}
	affinity := object{"sessionAffinity": "ClientIP", "sessionAffinityConfig": object{"clientIP": object{"timeoutSeconds": 10800}}}
	nodePort := func(more object) object {
		more["type"] = "NodePort"
		return more
	}
	balancer := func(more object) object {
		more["type"] = "LoadBalancer"
		return more
	}
	return []service{
		{name: "kubernetes", made: true, ports: []port{{"https", "TCP", 443, 6443, 0}}, remote: []int{11}},
		{name: "dns", ports: dns, local: []int{7}, remote: []int{7, 8}},
		{name: "one", ports: web(0), local: []int{9}},
		{name: "four", ports: web(0), local: []int{20, 21}, remote: []int{20, 21}},
		{name: "none", ports: web(0)},
		{name: "affinity", ports: web(0), spec: affinity, local: []int{30}, remote: []int{30}},
		{name: "internal-local", ports: web(0), spec: object{"internalTrafficPolicy": "Local"}, local: []int{40}, remote: []int{40}},
		{name: "internal-local-none", ports: web(0), spec: object{"internalTrafficPolicy": "Local"}, remote: []int{41}},
		{name: "external-ip", ports: web(0), spec: object{"externalIPs": []string{"203.0.113.50", "2001:db8:113::50"}}, local: []int{50}, remote: []int{50}},
		{name: "node-port", ports: web(30080), spec: nodePort(object{}), local: []int{60}, remote: []int{60}},
		{name: "node-port-local", ports: web(30081), spec: nodePort(object{"externalTrafficPolicy": "Local"}), local: []int{61}, remote: []int{61}},
		{name: "node-port-local-none", ports: web(30082), spec: nodePort(object{"externalTrafficPolicy": "Local"}), remote: []int{62}},
		{name: "node-port-none", ports: web(30083), spec: nodePort(object{})},
		{name: "node-port-udp", ports: []port{{"game", "UDP", 9999, 9999, 30084}}, spec: nodePort(object{}), local: []int{64}, remote: []int{64}},
		{name: "sctp", ports: []port{{"assoc", "SCTP", 3868, 3868, 30085}}, spec: nodePort(object{}), local: []int{65}, remote: []int{65}},
		{name: "balancer", ports: web(30086), spec: balancer(object{}), balancer: []string{"203.0.113.60", "2001:db8:113::60"}, local: []int{70}, remote: []int{70}},
		{name: "balancer-local", ports: web(30087), spec: balancer(object{"externalTrafficPolicy": "Local", "healthCheckNodePort": 30099}),
			balancer: []string{"203.0.113.61", "2001:db8:113::61"}, local: []int{71}, remote: []int{71}},
		{name: "balancer-sources", ports: web(30088), spec: balancer(object{"loadBalancerSourceRanges": []string{"203.0.113.0/28", "198.51.100.7/32", "2001:db8:113:1::/64"}}),
			balancer: []string{"203.0.113.62", "2001:db8:113::62"}, local: []int{72}, remote: []int{72}},
		{name: "balancer-none", ports: web(30089), spec: balancer(object{}), balancer: []string{"203.0.113.63", "2001:db8:113::63"}},
		{name: "terminating", ports: web(0), terminating: true, local: []int{80}, remote: []int{80}},
		{name: "many", ports: web(0), local: []int{90, 91, 92, 93}, remote: []int{90, 91, 92, 93, 94}},
		{name: "node-port-affinity", ports: web(30090), spec: nodePort(with(affinity, "externalTrafficPolicy", "Local")), local: []int{100, 101}, remote: []int{100}},
		{name: "two-ports", ports: []port{{"a", "TCP", 80, 8080, 30091}, {"b", "TCP", 81, 8080, 30092}}, spec: nodePort(object{"externalIPs": []string{"203.0.113.51", "2001:db8:113::51"}}),
			local: []int{110}, remote: []int{110}},
	}
}

func (s service) object(i int) object {
	spec := object{"type": "ClusterIP", "clusterIP": fmt.Sprintf("10.96.0.%d", i+1), "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
		"clusterIPs": []string{fmt.Sprintf("10.96.0.%d", i+1), fmt.Sprintf("fd00:96::%x", i+1)},
		"ipFamilies": []string{"IPv4", "IPv6"}, "ipFamilyPolicy": "RequireDualStack"}
	if s.spec["type"] != nil {
		spec["externalTrafficPolicy"] = "Cluster"
	}
	for k, v := range s.spec {
		spec[k] = v
	}
	var ports []object
	for _, p := range s.ports {
		ports = append(ports, object{"name": p.name, "protocol": p.protocol, "port": p.number, "targetPort": p.target, "nodePort": p.onNode})
	}
	spec["ports"] = ports
	var ingress []object
	for _, a := range s.balancer {
		ingress = append(ingress, object{"ip": a, "ipMode": "VIP"})
	}
	return object{"apiVersion": "v1", "kind": "Service", "spec": spec,
		"metadata": object{"name": s.name, "namespace": "default"},
		"status":   object{"loadBalancer": object{"ingress": ingress}}}
}

// slices of both families.
func (s service) slices() (out []object) {
	for _, f := range []struct{ name, format string }{{"IPv4", "10.244.%d.%d"}, {"IPv6", "fd00:10:244:%d::%x"}} {
		var endpoints, ports []object
		add := func(network, number int, node string) {
			endpoints = append(endpoints, object{"addresses": []string{fmt.Sprintf(f.format, network, number)}, "nodeName": node,
				"conditions": object{"ready": !s.terminating, "serving": true, "terminating": s.terminating}})
		}
		for _, n := range s.local {
			add(1, n, nodeName)
		}
		for _, n := range s.remote {
			add(2, n, "node2")
		}
		for _, p := range s.ports {
			ports = append(ports, object{"name": p.name, "protocol": p.protocol, "port": p.target})
		}
		out = append(out, object{"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": f.name, "endpoints": endpoints, "ports": ports,
			"metadata": object{"name": s.name + "-" + strings.ToLower(f.name), "namespace": "default",
				"labels": object{"kubernetes.io/service-name": s.name}}})
	}
	return out
}

// with one thing more.
func with(o object, key string, value any) object {
	o = maps.Clone(o)
	o[key] = value
	return o
}
