package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/unmasq/unmasq/api/v1alpha1"
	"github.com/unmasq/unmasq/test/kube"
)

// bench is a cluster that is measured.
type bench struct {
	options
	cluster *kube.Cluster
	// client may do everything, by protobuf.
	client   kubernetes.Interface
	policies dynamic.NamespaceableResourceInterface
	etcd     *etcd
	program  string // that all users can run
	beats    *beats
	agentsOf map[int]*agent // by node
	table    table
}

// start brings the control plane up: etcd and the API server alone, since
// controllers would look for what isn't behind the objects. The cluster, where there
// is one, must be closed in any case.
func start(ctx context.Context, o options) (*bench, error) {
	b := &bench{options: o, agentsOf: map[int]*agent{}}
	var err error
	b.cluster, err = kube.Start(ctx, kube.Config{Version: o.kubeVersion, NoControllers: true, Logf: b.say})
	if err != nil {
		return nil, err
	}
	config := b.admin()
	if b.client, err = kubernetes.NewForConfig(config); err != nil {
		return b, err
	}
	all, err := dynamic.NewForConfig(b.cluster.API.Admin())
	if err != nil {
		return b, err
	}
	b.policies = all.Resource(v1alpha1.GroupVersion().WithResource(v1alpha1.SourcePolicies))
	b.etcd = newEtcd(b.cluster.Control)
	if err := b.copyProgram(); err != nil {
		return b, err
	}
	if _, err := b.cluster.Kubectl(ctx, "", "apply", "--server-side", "-k", "deploy/base"); err != nil {
		return b, err
	}
	_, err = b.cluster.Kubectl(ctx, "", "wait", "--for=condition=Established", "crd/sourcepolicies.unmasq.io", "crd/nodereports.unmasq.io", "--timeout=60s")
	return b, err
}

// copyProgram to where agents can run it, each of which is a user of its own.
func (b *bench) copyProgram() error {
	if err := os.Chmod(b.cluster.Dir(), 0o711); err != nil {
		return err
	}
	text, err := os.ReadFile(b.unmasq)
	if err != nil {
		return err
	}
	b.program = filepath.Join(b.cluster.Dir(), "unmasq")
	return os.WriteFile(b.program, text, 0o755)
}

// admin speaks protobuf, as Kubernetes' own programs do.
func (b *bench) admin() *rest.Config {
	config := b.cluster.API.Admin()
	config.ContentType, config.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf
	return config
}

// say something beside the numbers.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s\n", fmt.Sprintf(format, args...))
}

// load of the machine in the last minute.
func load() string {
	text, _ := os.ReadFile("/proc/loadavg") // Linux has it
	one, _, _ := strings.Cut(string(text), " ")
	return one
}
