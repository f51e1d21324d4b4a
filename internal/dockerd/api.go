package dockerd

import (
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
	"path/filepath"
	"time"
)

// socket of the API in the daemon's own /run. Its name is not the one that a
// docker of the host has: until /run is mounted, the host's is seen.
const socket = "/run/unmasq-docker.sock"

// Host is the value of DOCKER_HOST for the docker program, until the daemon
// ends or restarts.
func (d *Daemon) Host() string { return "unix://" + d.socket() }

// socket is where it's reached from outside.
func (d *Daemon) socket() string {
	return fmt.Sprintf("/proc/%d/root%s", d.run.cmd.Process.Pid, socket)
}

// CreateNetwork makes a bridge network with a subnet in both families, or in
// one where the other is the zero Prefix.
func (d *Daemon) CreateNetwork(ctx context.Context, name string, subnet4, subnet6 netip.Prefix) error {
	type subnet struct{ Subnet string }
	var body struct {
		Name, Driver string
		EnableIPv6   bool
		IPAM         struct{ Config []subnet }
	}
	body.Name, body.Driver, body.EnableIPv6 = name, "bridge", subnet6.IsValid()
	for _, p := range []netip.Prefix{subnet4, subnet6} {
		if p.IsValid() {
			body.IPAM.Config = append(body.IPAM.Config, subnet{p.String()})
		}
	}
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	if err := d.request(ctx, http.MethodPost, "/networks/create", text); err != nil {
		return fmt.Errorf("create docker network %s: %w", name, err)
	}
	return nil
}

// RemoveNetwork removes a network by its name.
func (d *Daemon) RemoveNetwork(ctx context.Context, name string) error {
	if err := d.request(ctx, http.MethodDelete, "/networks/"+name, nil); err != nil {
		return fmt.Errorf("remove docker network %s: %w", name, err)
	}
	return nil
}

// request makes one call of the Engine API.
func (d *Daemon) request(ctx context.Context, method, path string, body []byte) error {
	if d.run == nil {
		return errors.New("docker is not running")
	}
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", d.socket())
		},
	}}
	req, err := http.NewRequestWithContext(ctx, method, "http://docker"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s: %s", resp.Status, bytes.TrimSpace(said))
	}
	return err
}

// awaitAPI returns when the daemon answers, has ended, or ctx has.
func (d *Daemon) awaitAPI(ctx context.Context) error {
	for {
		if d.request(ctx, http.MethodGet, "/_ping", nil) == nil {
			return nil
		}
		select {
		case <-d.run.ended:
			return fmt.Errorf("docker ended at its start: %v%s", d.run.err, d.said())
		case <-ctx.Done():
			return fmt.Errorf("wait for docker's API: %w%s", ctx.Err(), d.said())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// said is the end of the daemon's log, for errors.
func (d *Daemon) said() string {
	const most = 4000
	log, err := os.ReadFile(filepath.Join(d.dir, "log"))
	if err != nil || len(log) == 0 {
		return ""
	}
	return "\n" + string(log[max(0, len(log)-most):])
}
