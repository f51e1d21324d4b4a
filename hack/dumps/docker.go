package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/unmasq/unmasq/internal/dockerd"
)

// newDocker is a docker that is newer than Debian's.
const newDocker = "dockerd of github.com/moby/moby/v2 " + dockerVersion + " with --firewall-backend=nftables"

// dockerNode is rebuilt with the bridges that docker makes.
func dockerNode() nodeSetup {
	s := bare()
	r := bare()
	r.bridges = []bridge{{"docker0", []string{"vethdocker"}}, {blueBridge, []string{"vethblue"}}}
	r.ip = append(r.ip, "addr add 172.17.0.1/16 dev docker0", "addr add fd00:d0c::1/64 dev docker0 nodad",
		"addr add 172.18.0.1/16 dev "+blueBridge, "addr add fd00:b1::1/64 dev "+blueBridge+" nodad")
	s.rebuilt = &r
	return s
}

// blueBridge is what docker's br-…, named after a random number, is called in dumps.
const blueBridge = "br-0123456789ab"

func docker(ctx context.Context, h *host) error {
	d, err := dockerd.Start(ctx, h.ns, dockerd.Options{Variant: h.dump.variant, Bridge: netip.MustParsePrefix("172.17.0.1/16")})
	if err != nil {
		return err
	}
	defer d.Stop()
	return d.CreateNetwork(ctx, "blue", netip.MustParsePrefix("172.18.0.0/16"), netip.MustParsePrefix("fd00:b1::/64"))
}

// dockerNative runs a docker that is newer than Debian's.
func dockerNative(ctx context.Context, h *host) error {
	d, err := startNewDocker(ctx, h)
	if err != nil {
		return err
	}
	if err := d.Stop(); err != nil {
		return err
	}
	return h.settleBridges(ctx)
}

func dockerPublished(ctx context.Context, h *host) error { return publish(ctx, h) }

// Without its proxy, docker has rules for containers that ask for their own ports,
// and for what the node sends to a port of its own.
func dockerPublishedNoProxy(ctx context.Context, h *host) error {
	return publish(ctx, h, "--userland-proxy=false")
}

// startNewDocker starts one with a second network.
func startNewDocker(ctx context.Context, h *host, more ...string) (*dockerd.Daemon, error) {
	program, err := dockerProgram(ctx)
	if err != nil {
		return nil, err
	}
	proxy, err := moduleProgram(ctx, "docker-"+dockerVersion, "github.com/moby/moby/v2 "+dockerVersion, "docker-proxy", "github.com/moby/moby/v2/cmd/docker-proxy")
	if err != nil {
		return nil, err
	}
	arguments := []string{"--firewall-backend=nftables", "--userland-proxy-path", proxy, "--feature", "time-namespaces=false"} // which Debian's runc doesn't know
	d, err := dockerd.Start(ctx, h.ns, dockerd.Options{Variant: h.dump.variant, Bridge: netip.MustParsePrefix("172.17.0.1/16"),
		Program: program, Arguments: append(arguments, more...)})
	if err != nil {
		return nil, err
	}
	if err := d.CreateNetwork(ctx, "blue", netip.MustParsePrefix("172.18.0.0/16"), netip.MustParsePrefix("fd00:b1::/64")); err != nil {
		return nil, errors.Join(err, d.Stop())
	}
	return d, nil
}

// container with its published ports: "80/tcp" of its own at a port of the node,
// or of one of its addresses, as `docker run -p` has them.
type container struct {
	name, network string
	ports         map[string]string
}

// Not in there: SCTP, which needs a kernel that has it, and two ports of the node
// for one of a container, which docker refuses where it has no proxy.
var containers = []container{
	{"web", "bridge", map[string]string{
		"80/tcp": "8080", "81/tcp": "192.168.5.10:8081", "82/tcp": "127.0.0.1:8082", "83/tcp": "[fd00:192:168:5::10]:8083", "84/tcp": "[::1]:8084",
		"85/tcp": "0.0.0.0:8085", "86/tcp": "[::]:8086", "53/udp": "5353",
	}},
	{"silent", "bridge", nil},
	{"game", "blue", map[string]string{"9000/tcp": "9000", "9000/udp": "172.31.0.10:9000", "9001/udp": "[fd00:172:31::10]:9001"}},
}

// publish starts containers, and kills docker with all that it runs: its rules stay.
func publish(ctx context.Context, h *host, more ...string) (err error) {
	d, err := startNewDocker(ctx, h, more...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Stop()) }()
	e := engine{host: d.Host()}
	if err := e.loadImage(ctx); err != nil {
		return err
	}
	for _, c := range containers {
		if err := e.start(ctx, c); err != nil {
			return err
		}
	}
	if err := d.Kill(); err != nil {
		return err
	}
	return h.settleBridges(ctx)
}

// settleBridges waits until the containers' links are gone with their namespaces,
// and gives docker's bridges other addresses than random ones.
func (h *host) settleBridges(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	names, err := h.ns.Run("", "ip", "-brief", "link", "show", "type", "bridge")
	if err != nil {
		return err
	}
	var commands strings.Builder
	for i, line := range strings.Split(strings.TrimSpace(names), "\n") {
		name := strings.Fields(line)[0]
		if err := h.awaitNoPorts(ctx, name); err != nil {
			return err
		}
		fmt.Fprintf(&commands, "link set %s address 02:42:00:00:00:%02x\naddr flush dev %[1]s scope link\naddr add fe80::42:ff:fe00:%[2]x/64 dev %[1]s nodad\n", name, i+1)
	}
	_, err = h.ns.Run(commands.String(), "ip", "-batch", "-")
	return err
}

func (h *host) awaitNoPorts(ctx context.Context, bridge string) error {
	for {
		ports, err := h.ns.Run("", "ip", "-brief", "link", "show", "master", bridge)
		if err != nil || ports == "" {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("still ports of %s after %v: %s", bridge, patience, ports)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// engine is a daemon's API for containers.
type engine struct{ host string }

// image is the name of one that has the program pause alone.
const image = "pause"

func (e engine) loadImage(ctx context.Context) error {
	path, err := peer(ctx, "./pause", "pause")
	if err != nil {
		return err
	}
	program, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var files bytes.Buffer
	w := tar.NewWriter(&files)
	err = w.WriteHeader(&tar.Header{Name: "pause", Mode: 0o755, Size: int64(len(program))})
	if err == nil {
		_, err = w.Write(program)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		return err
	}
	_, err = e.post(ctx, "/images/create?fromSrc=-&repo="+image, "application/x-tar", &files)
	return err
}

func (e engine) start(ctx context.Context, c container) error {
	exposed, bindings := object{}, object{}
	for port, at := range c.ports {
		i := strings.LastIndex(at, ":")
		exposed[port], bindings[port] = object{}, []object{{"HostIp": strings.Trim(at[:max(i, 0)], "[]"), "HostPort": at[i+1:]}}
	}
	text, err := json.Marshal(object{"Image": image, "Cmd": []string{"/pause"}, "ExposedPorts": exposed,
		"HostConfig": object{"NetworkMode": c.network, "PortBindings": bindings}})
	if err != nil {
		return err
	}
	said, err := e.post(ctx, "/containers/create?name="+c.name, "application/json", bytes.NewReader(text))
	if err != nil {
		return err
	}
	var made struct{ ID string }
	if err := json.Unmarshal(said, &made); err != nil {
		return err
	}
	_, err = e.post(ctx, "/containers/"+made.ID+"/start", "application/json", nil)
	return err
}

func (e engine) post(ctx context.Context, path, kind string, body io.Reader) ([]byte, error) {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(e.host, "unix://"))
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://docker"+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", kind)
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("docker: %s: %s: %s", path, resp.Status, bytes.TrimSpace(said))
	}
	return said, err
}
