package parts

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestReplaceStaging reads the go.mod of a release.
func TestReplaceStaging(t *testing.T) {
	const upstream = `// This is a generated file. Do not edit directly.

module k8s.io/kubernetes

go 1.26.0

godebug default=go1.26

require (
	bitbucket.org/bertimus9/systemstat v0.5.0
	k8s.io/api v0.0.0
	k8s.io/klog/v2 v2.140.0
	k8s.io/kubelet v0.0.0 // indirect
	sigs.k8s.io/yaml v1.6.0
)
`
	const want = `module kubernetes-programs

go 1.26.0
godebug default=go1.26
replace k8s.io/api => k8s.io/api v0.37.1
replace k8s.io/kubelet => k8s.io/kubelet v0.37.1
require k8s.io/kubernetes v1.37.1
`
	if diff := cmp.Diff(want, string(replaceStaging([]byte(upstream), "v1.37.1"))); diff != "" {
		t.Error("-want +got:\n", diff)
	}
}

func TestBinary(t *testing.T) {
	for pkg, want := range map[string]string{
		"k8s.io/kubernetes/cmd/kube-proxy": "kube-proxy",
		"go.etcd.io/etcd/server/v3":        "server",
		"github.com/example/v2ray":         "v2ray",
		"example.com/v":                    "v",
	} {
		if got := binary(pkg); got != want {
			t.Errorf("program of %s: %s, want %s", pkg, got, want)
		}
	}
}

// TestLock: another process's folder can't be had before it is let go.
func TestLock(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	had := make(chan error)
	go func() {
		unlock, err := lock(dir)
		if err == nil {
			unlock()
		}
		had <- err
	}()
	select {
	case err := <-had:
		t.Error("locked twice", err)
		return
	default:
	}
	unlock()
	if err := <-had; err != nil {
		t.Error(err)
	}
}
