package kube

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/test/kube/parts"
)

// inside sets up a node's mounts.
//
//go:embed inside.sh
var inside string

// containerdConfig, of containerd's version 1 and of later ones, which know how to
// read it. It may not make programs less likely to be killed than itself is.
const containerdConfig = `version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = %q
    conf_dir = %q
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
`

// kubeletConfig keeps to the node's namespaces and never evicts.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: %[1]s
healthzBindAddress: 127.0.0.1
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: %[2]q}}
authorization: {mode: Webhook}
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /%[3]s
failCgroupV1: false
failSwapOn: false
enforceNodeAllocatable: []
resolvConf: ""
volumePluginDir: /var/lib/kubelet/volumeplugins
evictionHard: {memory.available: "0%%", nodefs.available: "0%%", imagefs.available: "0%%", nodefs.inodesFree: "0%%"}
imageGCHighThresholdPercent: 100
maxPods: 250
kubeAPIQPS: 1000
kubeAPIBurst: 1000
`

// startKubelet starts containerd, loads the images, and starts the kubelet.
func (n *Node) startKubelet(ctx context.Context) error {
	if !n.config.Kubelet {
		return nil
	}
	programs, err := parts.Kube(ctx, n.cluster.config.Version, "kubelet")
	if err != nil {
		return err
	}
	kubeconfig, err := n.cluster.Kubeconfig("system:node:"+n.Name, "system:nodes")
	if err != nil {
		return err
	}
	file := func(name string) string { return filepath.Join(n.Dir, name) }
	if err := errors.Join(os.Mkdir(file("log"), 0o755),
		os.WriteFile(file("containerd.toml"), fmt.Appendf(nil, containerdConfig, PodImage, n.cluster.plugins, n.cniDir()), 0o644),
		os.WriteFile(file("kubelet.yaml"), fmt.Appendf(nil, kubeletConfig, n.IPv4, filepath.Join(n.cluster.API.options.Dir, "ca.crt"), n.cluster.id), 0o644)); err != nil {
		return err
	}
	n.Runtime = &Process{name: "containerd", log: file("containerd.log"), ready: n.runtimeReady, command: func() *netns.Cmd {
		c := n.NS.Command(context.Background(), "sh", "-c", inside+keeper, "keeper", "containerd", "--config", file("containerd.toml"))
		c.Env = append(os.Environ(), "DIR="+n.Dir, "CGROUP="+n.cluster.id, "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
		return c
	}}
	n.Kubelet = &Process{name: "kubelet", log: file("kubelet.log"), ready: healthy(n.NS, "http://127.0.0.1:10248/healthz"), command: func() *netns.Cmd {
		return n.inside("sh", "-c", keeper, "keeper", programs["kubelet"], "--config="+file("kubelet.yaml"), "--kubeconfig="+kubeconfig,
			"--hostname-override="+n.Name, "--node-ip="+n.IPv4.String()+","+n.IPv6.String(), "--root-dir=/var/lib/kubelet", "--cert-dir=/var/lib/kubelet/pki")
	}}
	n.atEnd(n.Runtime.Kill) // with the kubelet
	return n.awaitKubelet(ctx)
}

func (n *Node) awaitKubelet(ctx context.Context) error {
	if n.Runtime == nil {
		return nil
	}
	if !n.Runtime.Running() {
		if err := n.startRuntime(ctx); err != nil {
			return err
		}
	}
	return n.Kubelet.Start(ctx)
}

// startRuntime starts containerd, which has lost its images if it ran before.
func (n *Node) startRuntime(ctx context.Context) error {
	if err := n.Runtime.Start(ctx); err != nil {
		return err
	}
	pod := Image{Name: PodImage, Files: map[string]string{"/pod": n.cluster.pod}, Entrypoint: []string{"/pod"}}
	for _, image := range append([]Image{pod}, n.cluster.config.Images...) {
		if err := n.LoadImage(image); err != nil {
			return err
		}
	}
	return nil
}

func (n *Node) runtimeReady(context.Context) error {
	_, err := n.ctr("version")
	return err
}

// LoadImage makes an image one that the node's pods can run; another of the same
// name is replaced.
func (n *Node) LoadImage(i Image) error {
	file, err := os.CreateTemp(n.Dir, "image-")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	if err := errors.Join(i.write(file), file.Close()); err != nil {
		return err
	}
	if _, err := n.ctr("--namespace", "k8s.io", "images", "import", file.Name()); err != nil {
		return fmt.Errorf("load image %s: %w", i.Name, err)
	}
	return nil
}

// ctr speaks to the node's containerd.
func (n *Node) ctr(args ...string) (string, error) {
	out, err := n.inside("ctr", args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("ctr in %s: %w: %s", n.Name, err, out)
	}
	return string(out), nil
}

// inside runs a program as on a node with a kubelet: with its mounts and processes.
func (n *Node) inside(program string, args ...string) *netns.Cmd {
	c := n.NS.Command(context.Background(), "nsenter", append([]string{"--target", strconv.Itoa(n.Runtime.cmd.Process.Pid),
		"--mount", "--pid", program}, args...)...)
	c.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	return c
}

// Run a program as on a node with a kubelet, and return what it wrote.
func (n *Node) Run(program string, args ...string) (string, error) {
	if n.Runtime == nil {
		return n.NS.Run("", program, args...) // its mounts are the machine's
	}
	out, err := n.inside(program, args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s in %s: %w: %s", program, n.Name, err, out)
	}
	return string(out), err
}
