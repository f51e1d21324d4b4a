// Package kube brings up a real Kubernetes cluster in network namespaces, for
// tests: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, and nodes
// with kube-proxy, network plugins, and kubelet with containerd. Nodes without a
// kubelet are namespaces with Node objects, their pods namespaces with Pod objects
// whose status says the truth. The programs are built by package parts.
//
//	c, err := kube.Start(ctx, kube.Config{Nodes: []kube.NodeConfig{
//		{Kubelet: true, Proxy: kube.Proxy{Mode: kube.NFTables}}, // n1
//		{Proxy: kube.Proxy{Mode: kube.IPTables}},                // n2
//	}, Images: []kube.Image{agent}})
//	defer c.Close()
//	_, err = c.Kubectl(ctx, manifest, "apply", "-f", "-")          // as a user does
//	config := c.API.Admin()                                        // for client-go, from any namespace
//	outside, err := c.Outside.Listen(8080)                         // sees who comes from where
//	pod, err := c.Node("n2").StartPod(ctx, kube.PodConfig{Name: "client", Labels: labels})
//	answer, err := pod.Connect(ctx, netip.AddrPortFrom(kube.Outside4, 8080), "client")
//	visit, err := outside.Await(ctx, "client")
//	agent, err := c.Node("n2").StartProgram(ctx, kube.Program{…})  // beside Adopt, which makes a
//	agentPod, err := c.Node("n2").Adopt(ctx, daemonSetsPod)        // daemon set's pod Ready there
//	token, err := agentPod.Config(ctx)                             // its service account's, bound to n2
//	err = c.API.Server.Kill(); err = c.API.Start(ctx)              // an outage
//
// It needs root, and nodes with a kubelet need Debian's containerd and runc. The
// machine's own network namespace is left alone. What a cluster needs has process
// and mount namespaces of its own and ends with the process that started it, in
// whatever way that ends; names of namespaces, directories and cgroups that a killed
// process left are swept away by the next start.
package kube

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/test/kube/parts"
)

// patience with each part that starts or ends, the time of one question whether it
// did, and the pause between two.
const patience, tryAgain, pause = time.Minute, 5 * time.Second, 25 * time.Millisecond

// Config of a cluster.
type Config struct {
	// Version of Kubernetes ("v1.37.1"); empty: parts.NewestKube.
	Version string
	// Nodes that it starts with.
	Nodes []NodeConfig
	// NoControllers and no scheduler run: objects stay as they are written, be there
	// nobody behind them, and there is nobody who makes service accounts.
	NoControllers bool
	// APIServerFlags besides.
	APIServerFlags []string
	// Images that every node with a kubelet has, beside PodImage.
	Images []Image
	// Logf, where not nil, is told how long each part took to come up.
	Logf func(format string, args ...any)
}

// Cluster that runs. Its methods may be called concurrently.
type Cluster struct {
	// API may be stopped and started again.
	API *API
	// Client may do everything.
	Client kubernetes.Interface
	// Control is where the control plane runs, Outside a host beyond the cluster.
	Control, Outside *Host
	// Controllers and Scheduler may be killed, and started again.
	Controllers, Scheduler *Process

	config Config
	// id is the start of its namespaces' names; its directory and its cgroups have it too.
	id, dir string
	lan     *netns.NS
	pod     string // program of pods
	plugins string // folder of network plugins

	// alive until Close; stop ends it, and what goes on in the background.
	alive      context.Context
	stop       func()
	background sync.WaitGroup

	closing sync.Mutex // held by Close
	mu      sync.Mutex // of all below
	nodes   []*Node
	count   int // of nodes that there ever were
	hosts   int // that were added
	ends    []func() error
}

// Start brings a cluster up and returns when all its nodes are ready. What did not
// come up is named in the error, with the end of its log, and nothing is left.
func Start(ctx context.Context, config Config) (*Cluster, error) {
	if config.Version == "" {
		config.Version = parts.NewestKube
	}
	if err := Sweep(); err != nil {
		return nil, err
	}
	c := &Cluster{config: config}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	started := make(chan struct{})
	defer close(started)
	if err := c.prepare(cancel, started); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// prepare makes the cluster's directory, which its names come from, and watches
// for signals. A start that goes on is given up at a signal.
func (c *Cluster) prepare(giveUp func(), started <-chan struct{}) (err error) {
	if c.dir, err = os.MkdirTemp(home(), fmt.Sprintf("%s%d-", prefix, os.Getpid())); err != nil {
		return err
	}
	c.id = filepath.Base(c.dir)
	c.alive, c.stop = context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		defer signal.Stop(signals)
		select {
		case <-c.alive.Done():
		case s := <-signals:
			giveUp()
			<-started
			c.closeAtSignal(s, signals)
		}
	}()
	return nil
}

// closeAtSignal cleans up before the signal ends the process.
func (c *Cluster) closeAtSignal(s os.Signal, signals chan os.Signal) {
	if err := c.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	signal.Stop(signals)
	// Now it does what it does by default, unless another cluster is still at it.
	if number, known := s.(syscall.Signal); known {
		_ = syscall.Kill(os.Getpid(), number)
	}
}

func (c *Cluster) start(ctx context.Context) error {
	if err := c.build(ctx); err != nil {
		return err
	}
	if err := c.timed("network", c.setUpNetwork); err != nil {
		return err
	}
	if err := c.timed("etcd and kube-apiserver", func() error { return c.startAPI(ctx) }); err != nil {
		return err
	}
	var all []func() error
	if !c.config.NoControllers {
		all = append(all, func() error {
			return c.timed("kube-controller-manager", func() error { return c.startControllers(ctx) })
		}, func() error { return c.timed("kube-scheduler", func() error { return c.startScheduler(ctx) }) })
	}
	for _, n := range c.config.Nodes {
		n := c.number(n)
		all = append(all, func() error { return c.timed("node "+n.Name, func() error { return c.addNode(ctx, n) }) })
	}
	if err := together(all...); err != nil {
		return err
	}
	c.background.Go(c.heartbeats)
	c.background.Go(c.reap)
	if c.config.NoControllers {
		return nil
	}
	return c.timed("service account", func() error { return c.awaitServiceAccount(ctx, "default") })
}

// Build builds what a cluster of a version (empty: parts.NewestKube) with such nodes
// needs, unless it's there. Start does so too.
func Build(ctx context.Context, version string, nodes ...NodeConfig) error {
	if version == "" {
		version = parts.NewestKube
	}
	names := []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl"}
	for _, n := range nodes {
		if n.Kubelet && !slices.Contains(names, "kubelet") {
			names = append(names, "kubelet")
		}
	}
	if _, err := parts.Kube(ctx, version, names...); err != nil {
		return err
	}
	for _, n := range nodes {
		if n.Proxy.Mode != "" {
			if _, err := parts.Kube(ctx, n.Proxy.version(version), "kube-proxy"); err != nil {
				return err
			}
		}
	}
	_, err := parts.Etcd(ctx)
	if err == nil {
		_, err = parts.CNI(ctx)
	}
	return err
}

// build all programs that it will need, before a clock runs.
func (c *Cluster) build(ctx context.Context) (err error) {
	if err := Build(ctx, c.config.Version, c.config.Nodes...); err != nil {
		return err
	}
	if c.plugins, err = parts.CNI(ctx); err != nil {
		return err
	}
	c.pod = filepath.Join(c.dir, "pod")
	return parts.Go(ctx, ".", "build", "-trimpath", "-ldflags", "-s -w", "-o", c.pod, "github.com/unmasq/unmasq/test/kube/peer/pod")
}

func (c *Cluster) startAPI(ctx context.Context) (err error) {
	dir := filepath.Join(c.dir, "control")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	c.API, err = StartAPI(ctx, c.Control.NS, APIOptions{Dir: dir, Version: c.config.Version, Address: c.Control.IPv4, Flags: c.config.APIServerFlags})
	c.atEnd(c.API.Stop)
	if err != nil {
		return err
	}
	c.Client, err = kubernetes.NewForConfig(c.API.Admin())
	return err
}

// component runs a program of the control plane, as a user of its own.
func (c *Cluster) component(ctx context.Context, name string, port int, flags ...string) (*Process, error) {
	programs, err := parts.Kube(ctx, c.config.Version, name)
	if err != nil {
		return nil, err
	}
	kubeconfig, err := c.Kubeconfig("system:" + name)
	if err != nil {
		return nil, err
	}
	p := newProcess(c.Control.NS, c.API.options.Dir, Program{Name: name, Path: programs[name],
		Ready: healthy(c.Control.NS, fmt.Sprintf("https://127.0.0.1:%d/healthz", port)),
		Args: append([]string{"--kubeconfig=" + kubeconfig, "--authentication-kubeconfig=" + kubeconfig, "--authorization-kubeconfig=" + kubeconfig,
			"--leader-elect=false", "--bind-address=127.0.0.1", "--kube-api-qps=1000", "--kube-api-burst=1000"}, flags...)})
	c.atEnd(p.Kill)
	return p, p.Start(ctx)
}

func (c *Cluster) startControllers(ctx context.Context) (err error) {
	file := func(name string) string { return filepath.Join(c.API.options.Dir, name) }
	c.Controllers, err = c.component(ctx, "kube-controller-manager", 10257, "--use-service-account-credentials=true",
		"--service-account-private-key-file="+file("sa.key"), "--root-ca-file="+file("ca.crt"),
		"--cluster-cidr="+clusterCIDRs, "--service-cluster-ip-range="+serviceCIDRs, "--allocate-node-cidrs=false",
		// How often it looks whether a node is ready, and so how long that takes to be known.
		"--node-monitor-period=500ms")
	return err
}

func (c *Cluster) startScheduler(ctx context.Context) (err error) {
	c.Scheduler, err = c.component(ctx, "kube-scheduler", 10259)
	return err
}

// Kubeconfig of a user, a file that programs of the cluster's namespaces can use.
func (c *Cluster) Kubeconfig(user string, groups ...string) (string, error) {
	config, err := c.API.User(user, groups...)
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(c.dir, "kubeconfig-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "kubeconfig")
	return path, WriteKubeconfig(path, config)
}

// Dir has all files of the cluster, and goes with it; root's alone may look into it.
func (c *Cluster) Dir() string { return c.dir }

// Nodes that there are, in the order of their adding.
func (c *Cluster) Nodes() []*Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*Node(nil), c.nodes...)
}

// atEnd remembers what Close does; the last first.
func (c *Cluster) atEnd(f func() error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ends = append(c.ends, f)
}

// Close ends all that the cluster started and removes what it made. More calls do
// nothing.
func (c *Cluster) Close() error {
	c.closing.Lock()
	defer c.closing.Unlock()
	if c.stop != nil {
		c.stop()
	}
	c.background.Wait()
	var errs []error
	for {
		c.mu.Lock()
		last := len(c.ends) - 1
		if last < 0 {
			c.mu.Unlock()
			break
		}
		end := c.ends[last]
		c.ends = c.ends[:last]
		c.mu.Unlock()
		errs = append(errs, end())
	}
	if c.dir != "" {
		errs = append(errs, removeCgroups(c.id), os.RemoveAll(c.dir))
	}
	return errors.Join(errs...)
}

// timed tells how long a step took.
func (c *Cluster) timed(name string, step func() error) error {
	start := time.Now()
	err := step()
	if err == nil && c.config.Logf != nil {
		c.config.Logf("%s up after %.2f s", name, time.Since(start).Seconds())
	}
	return err
}

// together runs all at once and waits for all.
func together(steps ...func() error) error {
	errs := make([]error, len(steps))
	var all sync.WaitGroup
	for i, step := range steps {
		all.Go(func() { errs[i] = step() })
	}
	all.Wait()
	return errors.Join(errs...)
}
