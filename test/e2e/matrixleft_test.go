//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/unmasq/unmasq/internal/agent/agenttest"
	plugins "github.com/unmasq/unmasq/internal/kubectl"
	"github.com/unmasq/unmasq/test/kube"
)

// TestMatrixLeavesNothing: whatever ends a measuring run, and whoever may not make one.
func TestMatrixLeavesNothing(t *testing.T) {
	ctx, program := bounded(t), agenttest.Program(t)
	proxy := kube.Proxy{Mode: kube.NFTables}
	c := start(t, ctx, kube.Config{Nodes: []kube.NodeConfig{{Kubelet: true, Proxy: proxy}}, Images: []kube.Image{tools(t, program)}})
	p := &plugin{c: c, node: c.Node("n1"), program: program}
	p.install(t, ctx)
	for _, step := range []struct {
		name string
		run  func(*testing.T, context.Context, *plugin)
	}{
		{"one node", matrixOfOneNode},
		{"predicted alone", matrixPredicted},
		{"interrupted", matrixInterrupted},
		{"killed", matrixKilled},
		{"clean-up", matrixCleanUp},
		{"image that isn't there", matrixNoImage},
		{"rights", matrixRights},
	} {
		t.Run(step.name, func(t *testing.T) {
			step.run(t, ctx, p)
			p.noStage(t, ctx)
		})
	}
}

// matrixOfOneNode: text says which cells differ, in a cluster of one node, too.
func matrixOfOneNode(t *testing.T, ctx context.Context, p *plugin) {
	s := p.run(t, ctx, "admin", "matrix", "--probe")
	s.want(t, 0, "who is seen as whom", "removing namespace unmasq-matrix-")
	t.Logf("checked:\n%s\n%s", s.out, s.err)
}

func matrixPredicted(t *testing.T, ctx context.Context, p *plugin) {
	p.run(t, ctx, "admin", "matrix").want(t, 0, "cluster-ip", "")
	p.run(t, ctx, "admin", "matrix", "--nodes=n1,nowhere").want(t, 2, "", "--nodes: node nowhere has no agent")
	p.run(t, ctx, "admin", "matrix", "--from-here").want(t, 2, "", "are for --probe")
	p.run(t, ctx, "admin", "matrix", "--probe", "--service=default/web").want(t, 2, "", "services of its own")
}

// probing starts a run and returns when it says something.
func (p *plugin) probing(t *testing.T, ctx context.Context, word string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	kubeconfig, err := p.c.Kubeconfig("admin", kube.Admins)
	if err != nil {
		t.Fatal(err)
	}
	cmd := p.c.Control.NS.Command(ctx, p.program, "kubectl", "matrix", "--probe", "--kubeconfig="+kubeconfig)
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := &bytes.Buffer{}
	lines := bufio.NewScanner(io.TeeReader(out, said))
	for lines.Scan() && !strings.Contains(lines.Text(), word) {
	}
	if !strings.Contains(said.String(), word) {
		t.Fatalf("it never said %q: %v\n%s", word, cmd.Wait(), said)
	}
	go io.Copy(said, out)
	return cmd.Cmd, said
}

// matrixInterrupted at each step: Ctrl-C removes all of it.
func matrixInterrupted(t *testing.T, ctx context.Context, p *plugin) {
	for _, word := range []string{"pods on n1", "waiting for services", "measuring"} {
		cmd, said := p.probing(t, ctx, word)
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 1 {
			t.Errorf("interrupted at %q: %v, want status 1\n%s", word, err, said)
		}
		p.noStage(t, ctx)
	}
}

// matrixKilled: what it leaves goes with the next run.
func matrixKilled(t *testing.T, ctx context.Context, p *plugin) {
	p.kill(t, ctx)
	s := p.run(t, ctx, "admin", "matrix", "--probe", "-o", "json")
	s.want(t, 0, "", "which an earlier run has left")
}

// kill a run that measures: its namespace is left.
func (p *plugin) kill(t *testing.T, ctx context.Context) {
	t.Helper()
	cmd, said := p.probing(t, ctx, "measuring")
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	left, err := p.c.Client.CoreV1().Namespaces().List(ctx, meta.ListOptions{LabelSelector: plugins.StageLabels})
	if err != nil || len(left.Items) != 1 {
		t.Fatalf("left by a run that was killed: %v, %v; want one namespace\n%s", left.Items, err, said)
	}
}

// matrixCleanUp: a run that is under way is left alone by others, unless they are told
// to clean up.
func matrixCleanUp(t *testing.T, ctx context.Context, p *plugin) {
	p.run(t, ctx, "admin", "matrix", "--clean-up").want(t, 0, "", "nothing is left")
	p.kill(t, ctx)
	p.run(t, ctx, "admin", "matrix", "--clean-up").want(t, 0, "", "which an earlier run has left")
	p.noStage(t, ctx)
	cmd, said := p.probing(t, ctx, "measuring")
	s := p.run(t, ctx, "admin", "matrix", "--probe", "-o", "json")
	s.want(t, 0, "", "is another run's (process ")
	if err := cmd.Wait(); err != nil {
		t.Errorf("beside another one: %v\n%s", err, said)
	}
}

func matrixNoImage(t *testing.T, ctx context.Context, p *plugin) {
	s := p.run(t, ctx, "admin", "matrix", "--probe", "--image=unmasq.test/none:1", "--timeout=5s")
	s.want(t, 1, "", "where its image can't be had, name another with --image")
	t.Log("checked: " + s.err)
	p.run(t, ctx, "admin", "matrix", "--probe", "--image="+kube.PodImage, "--timeout=10s").want(t, 1, "", "")
}

// matrixRights are those that docs/matrix.md lists; who lacks them is told which.
func matrixRights(t *testing.T, ctx context.Context, p *plugin) {
	apply(t, ctx, p.c, rights+`
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: unmasq-matrix}
rules:
- {apiGroups: [""], resources: [namespaces], verbs: [create, list, get, delete]}
- {apiGroups: [""], resources: [pods, services], verbs: [create, get]}
- {apiGroups: [""], resources: [pods/exec], verbs: [create, get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: unmasq-matrix}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: unmasq-matrix}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: measurer}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: unmasq-measurer, namespace: unmasq}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: unmasq-user}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: measurer}]
`)
	eventually(t, ctx, func() error {
		if s := p.run(t, ctx, "measurer", "matrix", "--probe"); s.status != 0 {
			return errors.New(s.err)
		}
		return nil
	})
	s := p.run(t, ctx, "operator", "matrix", "--probe")
	s.want(t, 1, "", "you may not look for what an earlier run has left: list namespaces: namespaces is forbidden")
	s.want(t, 1, "", "it takes create, list, get and delete on namespaces")
	t.Log("checked: " + s.err)
	p.run(t, ctx, "operator", "matrix").want(t, 0, "", "")
}
