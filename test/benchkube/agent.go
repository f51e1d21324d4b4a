package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	authentication "k8s.io/api/authentication/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/unmasq/unmasq/test/kube"
)

// agent of one node, in a namespace that stands for it.
type agent struct {
	node   int
	host   *kube.Host
	dir    string
	table  *tableEvents
	runs   *kube.Process
	config []string // flags about the cluster
}

const ready = "http://127.0.0.1:9809/readyz"

// newAgent prepares the agent of a node: its namespace, what network plugins left
// there, its token.
func (b *bench) newAgent(ctx context.Context, node int) (*agent, error) {
	if a := b.agentsOf[node]; a != nil {
		return a, nil
	}
	host, dir, err := b.cluster.AddHost(fmt.Sprintf("agent-%d", node))
	if err != nil {
		return nil, err
	}
	a := &agent{node: node, host: host, dir: dir}
	if err := a.writeResults(b.podsOf(node)); err != nil {
		return nil, err
	}
	if err := b.writeToken(ctx, a); err != nil {
		return nil, err
	}
	a.config = []string{"agent", "--kube", "--kubeconfig", a.file("kubeconfig"), "--node-name", nodeName(node), "--pod-cidrs", clusterPods, "--node-cidrs", "172.20.0.0/14",
		"--cni-results", a.file("results"), "--cni-dir", a.file("net.d"), "--cluster-cache", a.file("run/cluster.json"), "--clear-on-exit"}
	if err := a.own(); err != nil {
		return nil, err
	}
	if a.table, err = listen(ctx, host); err != nil {
		return nil, err
	}
	b.agentsOf[node] = a
	return a, nil
}

func (a *agent) file(name string) string { return filepath.Join(a.dir, name) }

// writeResults of network plugins, as libcni keeps them.
func (a *agent) writeResults(pods int) error {
	if err := os.Mkdir(a.file("results"), 0o755); err != nil {
		return err
	}
	for i := range pods {
		at := place{a.node, i}
		a4, a6 := at.addresses()
		id := strings.ReplaceAll(at.uid(), "-", "")
		text, err := json.Marshal(map[string]any{"kind": "cniCacheV1", "containerId": id, "ifName": "eth0", "networkName": "pods", "netns": "/run/netns/" + id,
			"config":  []byte(`{"cniVersion":"1.0.0","name":"pods","plugins":[{"type":"bridge","bridge":"cni0","isGateway":true,"ipam":{"type":"host-local"}},{"type":"portmap","capabilities":{"portMappings":true}}]}`),
			"cniArgs": [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", at.namespace()}, {"K8S_POD_NAME", at.name()}, {"K8S_POD_INFRA_CONTAINER_ID", id}, {"K8S_POD_UID", at.uid()}},
			"result": map[string]any{"cniVersion": "1.0.0", "interfaces": []map[string]string{{"name": "eth0", "sandbox": "/run/netns/" + id}},
				"ips": []map[string]any{{"address": a4.String() + "/24", "interface": 0}, {"address": a6.String() + "/64", "interface": 0}}}})
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(a.file("results"), "pods-"+id+"-eth0"), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// writeToken that a kubelet gives the agent's pod.
func (b *bench) writeToken(ctx context.Context, a *agent) error {
	const account, namespace = "unmasq-agent", "unmasq"
	pod, err := b.client.CoreV1().Pods(namespace).Create(ctx, &core.Pod{ObjectMeta: meta.ObjectMeta{Name: "agent-" + nodeName(a.node)},
		Spec: core.PodSpec{NodeName: nodeName(a.node), HostNetwork: true, ServiceAccountName: account, Containers: []core.Container{{Name: "agent", Image: "none"}}}}, meta.CreateOptions{})
	if err != nil {
		return err
	}
	token, err := b.client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, &authentication.TokenRequest{Spec: authentication.TokenRequestSpec{
		BoundObjectRef: &authentication.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID}}}, meta.CreateOptions{})
	if err != nil {
		return err
	}
	return kube.WriteKubeconfig(a.file("kubeconfig"), b.cluster.API.Bearer(token.Status.Token))
}

// own gives the agent its files. Each is a user of its own, since a user has 128
// inotify instances, which would be enough where each has its node.
func (a *agent) own() error {
	return filepath.WalkDir(a.dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			err = os.Chown(path, a.user(), a.user())
		}
		return err
	})
}

func (a *agent) user() int { return 300_000 + a.node }

// launch the agent, with the one capability that it needs, and wait until its policy
// is in force.
func (b *bench) launch(ctx context.Context, a *agent, args []string) error {
	var err error
	a.runs, err = b.cluster.StartProgram(ctx, a.host, a.dir, kube.Program{Name: "agent", Path: "setpriv", Args: append([]string{fmt.Sprintf("--reuid=%d", a.user()), fmt.Sprintf("--regid=%d", a.user()), "--clear-groups",
		"--inh-caps=-all,+net_admin", "--ambient-caps=-all,+net_admin", "--bounding-set=-all,+net_admin", b.program}, args...), Ready: func(ctx context.Context) error {
		_, err := a.host.Get(ctx, ready)
		return err
	}})
	return err
}

// running agent of a node, started if need be.
func (b *bench) running(ctx context.Context, node int) (*agent, error) {
	a, err := b.newAgent(ctx, node)
	if err == nil && (a.runs == nil || !a.runs.Running()) {
		err = b.launch(ctx, a, a.config)
	}
	return a, err
}

// memory of a process in bytes: resident now, of that its own (not the program's
// file), resident at most.
type memory struct{ resident, own, most int64 }

func memoryOf(p *kube.Process) (m memory, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return m, err
	}
	for line := range strings.Lines(string(text)) {
		for name, to := range map[string]*int64{"VmRSS:": &m.resident, "RssAnon:": &m.own, "VmHWM:": &m.most} {
			if rest, found := strings.CutPrefix(line, name); found {
				_, err = fmt.Sscan(rest, to) // KiB
				*to <<= 10
			}
		}
	}
	return m, err
}

// processorTime that a process took.
func processorTime(p *kube.Process) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	f := strings.Fields(rest) // from the third field on (proc(5))
	user, err := strconv.Atoi(f[11])
	if err != nil {
		return 0, err
	}
	system, err := strconv.Atoi(f[12])
	const tick = 10 * time.Millisecond // USER_HZ is 100
	return time.Duration(user+system) * tick, err
}

// traffic of a host's only link in bytes, all headers included.
type traffic struct{ in, out int64 }

func (t traffic) sub(u traffic) traffic { return traffic{t.in - u.in, t.out - u.out} }

func trafficOf(h *kube.Host) (t traffic, err error) {
	var text []byte
	err = h.NS.Do(func() (err error) {
		text, err = os.ReadFile("/proc/thread-self/net/dev")
		return err
	})
	if err != nil {
		return t, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, found := strings.CutPrefix(strings.TrimSpace(line), "eth0:"); found {
			var skip int64
			_, err = fmt.Sscan(rest, &t.in, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &t.out)
			return t, err
		}
	}
	return t, fmt.Errorf("%s has no eth0", h.Name)
}
