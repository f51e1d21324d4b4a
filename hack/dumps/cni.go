package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"github.com/unmasq/unmasq/internal/kernel/netns"
)

type object = map[string]any

// cniBridge and cniPTP start two pods as a container runtime does.
func cniBridge(ctx context.Context, h *host) error {
	return startPods(ctx, h, object{"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true})
}

func cniPTP(ctx context.Context, h *host) error { return startPods(ctx, h, object{"type": "ptp"}) }

func startPods(ctx context.Context, h *host, plugin object) error {
	for _, p := range []string{"bridge", "ptp", "host-local", "portmap"} {
		if _, err := peer(ctx, "github.com/containernetworking/plugins/plugins/"+map[string]string{"bridge": "main/", "ptp": "main/",
			"host-local": "ipam/", "portmap": "meta/"}[p]+p, p); err != nil {
			return err
		}
	}
	leases, err := os.MkdirTemp("", "unmasq-dumps-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(leases)
	plugin["cniVersion"], plugin["name"], plugin["ipMasq"], plugin["ipMasqBackend"] = "1.0.0", "podnet", true, h.dump.backend()
	plugin["ipam"] = object{"type": "host-local", "dataDir": leases, "ranges": [][]object{{{"subnet": "10.244.1.0/24"}}, {{"subnet": "fd00:10:244:1::/64"}}}}
	for i := range 2 {
		if err := startPod(ctx, h, plugin, fmt.Sprintf("pod-%d", i+1), i == 1); err != nil {
			return err
		}
	}
	return removeLinks(h)
}

// podLink is a name that the plugins give the node's end of a pod's link.
var podLink = regexp.MustCompile(`\bveth[0-9a-f]{8}\b`)

// removeLinks of the pods, whose names are random: what is left are the rules.
func removeLinks(h *host) error {
	text, err := h.ns.Run("", "ip", "-o", "link", "show", "type", "veth")
	if err != nil {
		return err
	}
	for _, name := range podLink.FindAllString(text, -1) {
		if _, err := h.ns.Run("", "ip", "link", "del", name); err != nil {
			return err
		}
	}
	return nil
}

// startPod adds one pod, and publishes a port of it where asked to. The pod's
// namespace goes again.
func startPod(ctx context.Context, h *host, plugin object, id string, publish bool) (err error) {
	pod, err := netns.New(fmt.Sprintf("dumps-%d-%s", os.Getpid(), id))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pod.Close()) }()
	path := filepath.Join(netns.Dir, fmt.Sprintf("dumps-%d-%s", os.Getpid(), id))
	result, err := callPlugin(ctx, h, plugin, id, path)
	if err != nil || !publish {
		return err
	}
	var previous object
	if err := json.Unmarshal(result, &previous); err != nil {
		return err
	}
	_, err = callPlugin(ctx, h, object{
		"cniVersion": "1.0.0", "name": "podnet", "type": "portmap", "snat": true, "backend": h.dump.backend(), "prevResult": previous,
		"capabilities": object{"portMappings": true},
		"runtimeConfig": object{"portMappings": []object{
			{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}, {"hostPort": 5353, "containerPort": 53, "protocol": "udp"},
			{"hostPort": 9443, "containerPort": 443, "protocol": "tcp", "hostIP": "192.168.5.10"}}},
	}, id, path)
	return err
}

func callPlugin(ctx context.Context, h *host, config object, id, pod string) ([]byte, error) {
	stdin, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	c := h.command(ctx, filepath.Join(cache, config["type"].(string)))
	c.Env = append(c.Env, "CNI_COMMAND=ADD", "CNI_CONTAINERID="+id, "CNI_NETNS="+pod, "CNI_IFNAME=eth0", "CNI_PATH="+cache)
	var out, said bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(stdin), &out, &said
	if err := c.Run(); err != nil {
		return nil, fmt.Errorf("CNI plugin %s: %w: %s%s", config["type"], err, out.Bytes(), said.Bytes())
	}
	return out.Bytes(), nil
}
