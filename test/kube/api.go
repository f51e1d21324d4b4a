package kube

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"

	"k8s.io/client-go/rest"

	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/test/kube/parts"
)

const (
	etcdURL = "http://127.0.0.1:2379"
	apiPort = 6443
)

// APIOptions of an API server.
type APIOptions struct {
	// Dir, which must exist, is for its keys, data and logs.
	Dir string
	// Version of Kubernetes; empty: parts.NewestKube.
	Version string
	// Address, of its namespace, that clients reach it at.
	Address netip.Addr
	// Flags of kube-apiserver besides.
	Flags []string
}

// API is an etcd with a kube-apiserver, in a network namespace.
type API struct {
	// Etcd and Server may be killed, and started again by Start.
	Etcd, Server *Process
	ns           *netns.NS
	options      APIOptions
	pki          *pki
}

// StartAPI starts an API server that has no objects but its own; RBAC and bound
// tokens of service accounts are on. Stop it, whether or not there was an error.
func StartAPI(ctx context.Context, ns *netns.NS, o APIOptions) (*API, error) {
	if o.Version == "" {
		o.Version = parts.NewestKube
	}
	a := &API{ns: ns, options: o}
	var err error
	if a.pki, err = newPKI(); err != nil {
		return a, err
	}
	if err := a.writeKeys(); err != nil {
		return a, err
	}
	etcd, err := parts.Etcd(ctx)
	if err != nil {
		return a, err
	}
	programs, err := parts.Kube(ctx, o.Version, "kube-apiserver")
	if err != nil {
		return a, err
	}
	// etcd's start is the wait for its election, which it wins alone.
	a.Etcd = newProcess(ns, o.Dir, Program{Name: "etcd", Path: etcd, Ready: healthy(ns, etcdURL+"/health"), Args: []string{
		"--data-dir=" + filepath.Join(o.Dir, "etcd"), "--unsafe-no-fsync",
		"--listen-client-urls=" + etcdURL, "--advertise-client-urls=" + etcdURL, "--listen-peer-urls=http://127.0.0.1:2380",
		"--heartbeat-interval=20", "--election-timeout=100", "--quota-backend-bytes=8589934592"}})
	a.Server = newProcess(ns, o.Dir, Program{Name: "kube-apiserver", Path: programs["kube-apiserver"], Ready: a.answers, Args: append(a.flags(), o.Flags...)})
	return a, a.Start(ctx)
}

// writeKeys writes what the API server reads.
func (a *API) writeKeys() error {
	names := []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"}
	server, err := a.pki.server(names, a.options.Address, firstService4, firstService6, netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		return err
	}
	kubelets, err := a.pki.client("kube-apiserver-kubelet-client", Admins)
	if err != nil {
		return err
	}
	dir := a.options.Dir
	return errors.Join(os.WriteFile(filepath.Join(dir, "ca.crt"), a.pki.caPEM, 0o600), writeTokenKeys(dir),
		server.write(dir, "apiserver"), kubelets.write(dir, "kubelet-client"))
}

func (a *API) flags() []string {
	file := func(name string) string { return filepath.Join(a.options.Dir, name) }
	return []string{
		"--etcd-servers=" + etcdURL, "--bind-address=0.0.0.0", fmt.Sprintf("--secure-port=%d", apiPort),
		"--advertise-address=" + a.options.Address.String(), "--service-cluster-ip-range=" + serviceCIDRs,
		"--client-ca-file=" + file("ca.crt"), "--tls-cert-file=" + file("apiserver.crt"), "--tls-private-key-file=" + file("apiserver.key"),
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + file("sa.pub"), "--service-account-signing-key-file=" + file("sa.key"),
		"--kubelet-client-certificate=" + file("kubelet-client.crt"), "--kubelet-client-key=" + file("kubelet-client.key"),
		"--kubelet-preferred-address-types=InternalIP",
	}
}

// Start starts what doesn't run of the two, with the objects that there were.
func (a *API) Start(ctx context.Context) error {
	if err := a.Etcd.Start(ctx); err != nil {
		return err
	}
	return a.Server.Start(ctx)
}

// answers: the server is ready, and its certificate is right.
func (a *API) answers(ctx context.Context) error {
	admin, err := rest.HTTPClientFor(a.Admin())
	if err != nil {
		return err
	}
	defer admin.CloseIdleConnections()
	_, err = get(ctx, admin, a.URL()+"/readyz")
	return err
}

// Stop ends both.
func (a *API) Stop() (err error) {
	for _, p := range []*Process{a.Server, a.Etcd} {
		if p != nil {
			err = errors.Join(err, p.Kill())
		}
	}
	return err
}

// URL of the server, inside its namespace and those with a way to it.
func (a *API) URL() string {
	return fmt.Sprintf("https://%s", netip.AddrPortFrom(a.options.Address, apiPort))
}

// Admins is the group that may do everything.
const Admins = "system:masters"

// Admin may do everything, from any network namespace.
func (a *API) Admin() *rest.Config {
	config, err := a.User("admin", Admins)
	if err != nil {
		panic(err) // keys are made of the machine's random numbers, which always come
	}
	return config
}

// User with a certificate. Its connections are made in the server's namespace,
// whichever one the caller is in.
func (a *API) User(name string, groups ...string) (*rest.Config, error) {
	p, err := a.pki.client(name, groups...)
	if err != nil {
		return nil, err
	}
	c := a.anyone()
	c.CertData, c.KeyData = p.cert, p.key
	return c, nil
}

// Bearer of a token.
func (a *API) Bearer(token string) *rest.Config {
	c := a.anyone()
	c.BearerToken = token
	return c
}

func (a *API) anyone() *rest.Config {
	return &rest.Config{Host: a.URL(), TLSClientConfig: rest.TLSClientConfig{CAData: a.pki.caPEM}, QPS: -1,
		Dial: dialer(a.ns)}
}

// WriteKubeconfig writes the file that a program reads, which runs where the
// server is or has a way to it.
func WriteKubeconfig(path string, c *rest.Config) error {
	encode := base64.StdEncoding.EncodeToString
	user := fmt.Sprintf("{client-certificate-data: %s, client-key-data: %s}", encode(c.CertData), encode(c.KeyData))
	if c.BearerToken != "" {
		user = fmt.Sprintf("{token: %s}", c.BearerToken)
	}
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: %q, certificate-authority-data: %s}}]
users: [{name: u, user: %s}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`, c.Host, encode(c.CAData), user)
	return os.WriteFile(path, []byte(text), 0o600)
}

// dialer makes connections in a namespace, to literal addresses.
func dialer(ns *netns.NS) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (c net.Conn, err error) {
		// Without fallback: a second attempt would be made on a thread elsewhere.
		d := net.Dialer{FallbackDelay: -1}
		err = ns.Do(func() (err error) { c, err = d.DialContext(ctx, network, address); return err })
		return c, err
	}
}

// get what an address answers; a status of 400 or above is an error.
func get(ctx context.Context, client *http.Client, url string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= http.StatusBadRequest {
		err = fmt.Errorf("%s: %s: %s", url, resp.Status, said)
	}
	return string(said), err
}

// healthy asks an address of a namespace, whoever certifies it.
func healthy(ns *netns.NS, url string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := get(ctx, client(ns), url)
		return err
	}
}

// client asks inside a namespace, where programs certify themselves.
func client(ns *netns.NS) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: dialer(ns), DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
}
