package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	apiAddress  = "127.0.0.1:6443"
	etcdAddress = "http://127.0.0.1:2379"
	// token of an administrator.
	token = "admin"
)

// api is an API server with its etcd in a node's namespace. It is of the newest
// version, which older kube-proxies are supported with.
type api struct {
	host   *host
	dir    string
	client *http.Client
	stop   []func()
}

// startAPI starts one that has the objects of the cluster.
func startAPI(ctx context.Context, h *host) (a *api, err error) {
	a = &api{host: h, client: &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // it signs its own, on the loopback of a namespace
		DialContext: func(ctx context.Context, network, address string) (c net.Conn, err error) {
			err = h.ns.Do(func() (err error) { c, err = (&net.Dialer{}).DialContext(ctx, network, address); return err })
			return c, err
		},
	}}}
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	if a.dir, err = os.MkdirTemp("", "unmasq-dumps-"); err != nil {
		return nil, err
	}
	if err := errors.Join(a.keys(), a.etcd(ctx)); err != nil {
		return nil, err
	}
	if err := a.server(ctx); err != nil {
		return nil, err
	}
	return a, a.create(ctx)
}

func (a *api) close() {
	a.client.CloseIdleConnections()
	for i := len(a.stop) - 1; i >= 0; i-- {
		a.stop[i]()
	}
	os.RemoveAll(a.dir)
}

// keys that the server wants: of tokens for service accounts, of which there are none.
func (a *api) keys() error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	block := &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
	return errors.Join(os.WriteFile(filepath.Join(a.dir, "sa.key"), pem.EncodeToMemory(block), 0o600),
		os.WriteFile(filepath.Join(a.dir, "tokens.csv"), []byte(token+",admin,admin,system:masters\n"), 0o600))
}

func (a *api) etcd(ctx context.Context) error {
	program, err := moduleProgram(ctx, "etcd-"+etcdVersion, "go.etcd.io/etcd/server/v3 "+etcdVersion, "etcd", "go.etcd.io/etcd/server/v3")
	if err != nil {
		return err
	}
	return a.run(ctx, etcdAddress+"/health", program, "--data-dir="+filepath.Join(a.dir, "etcd"), "--unsafe-no-fsync",
		"--listen-client-urls="+etcdAddress, "--advertise-client-urls="+etcdAddress, "--listen-peer-urls=http://127.0.0.1:2380",
		"--heartbeat-interval=20", "--election-timeout=100")
}

func (a *api) server(ctx context.Context) error {
	program, err := kubeProgram(ctx, newestKube, "kube-apiserver")
	if err != nil {
		return err
	}
	key := filepath.Join(a.dir, "sa.key")
	return a.run(ctx, "https://"+apiAddress+"/readyz", program, "--etcd-servers="+etcdAddress, "--bind-address=127.0.0.1", "--secure-port=6443",
		"--advertise-address=192.168.5.10", "--cert-dir="+a.dir, "--service-cluster-ip-range=10.96.0.0/16,fd00:96::/112",
		"--token-auth-file="+filepath.Join(a.dir, "tokens.csv"), "--authorization-mode=RBAC", "--endpoint-reconciler-type=none",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file="+key, "--service-account-signing-key-file="+key,
		"--disable-admission-plugins=ServiceAccount")
}

// run starts a program and waits until its address answers well.
func (a *api) run(ctx context.Context, health, program string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	log, err := os.Create(filepath.Join(a.dir, filepath.Base(program)+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	c := a.host.command(context.Background(), program, args...)
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		return err
	}
	a.stop = append(a.stop, func() {
		_ = c.Process.Kill()
		_ = c.Wait() // it was killed
	})
	for {
		if err = a.request(ctx, http.MethodGet, health, nil); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			said, _ := os.ReadFile(log.Name())
			return fmt.Errorf("%s isn't ready after %v: %w: %s", program, patience, err, said)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// create the cluster's objects, each with its status.
func (a *api) create(ctx context.Context) error {
	for path, objects := range cluster() {
		for _, o := range objects {
			name := o["metadata"].(object)["name"].(string)
			err := a.request(ctx, http.MethodPost, "https://"+apiAddress+path, o)
			if status := o["status"]; err == nil && status != nil {
				err = a.request(ctx, http.MethodPatch, "https://"+apiAddress+path+"/"+name+"/status", object{"status": status})
			}
			if err != nil {
				return fmt.Errorf("%s %s: %w", path, name, err)
			}
		}
	}
	return nil
}

// request makes one; what isn't well is an error with what was said.
func (a *api) request(ctx context.Context, method, url string, body object) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(text))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		r.Header.Set("Content-Type", "application/merge-patch+json")
	}
	resp, err := a.client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= http.StatusBadRequest {
		err = fmt.Errorf("%s %s: %s: %s", method, url, resp.Status, strings.TrimSpace(string(said)))
	}
	return err
}
