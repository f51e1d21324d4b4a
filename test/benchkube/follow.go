package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"

	"os"

	"github.com/unmasq/unmasq/test/kube"
)

// synced is what a follower says when it has all objects.
const synced = "synced"

// followAll is the baseline: client-go's informer of all objects of a kind, with
// protobuf and nothing else, as many programs have it.
func followAll(resource, kubeconfig string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	config.ContentType, config.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	example := map[string]runtime.Object{"nodes": &core.Node{}, "pods": &core.Pod{}}[resource]
	if example == nil {
		return fmt.Errorf("-follow %s: expected nodes or pods", resource)
	}
	lw := cache.NewListWatchFromClient(client.CoreV1().RESTClient(), resource, "", fields.Everything())
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{ListerWatcher: cache.ToListWatcherWithWatchListSemantics(lw, client), ObjectType: example, Handler: cache.ResourceEventHandlerFuncs{}})
	ctx := context.Background()
	go informer.RunWithContext(ctx)
	for !informer.HasSynced() {
		time.Sleep(10 * time.Millisecond)
	}
	fmt.Println(synced)
	select {}
}

// follower is such a process on a host of its own.
type follower struct {
	host *kube.Host
	runs *kube.Process
	took time.Duration // until it had all
}

// follow starts one and waits until it has all objects.
func (b *bench) follow(ctx context.Context, resource string) (*follower, error) {
	host, dir, err := b.cluster.AddHost("all-" + resource)
	if err != nil {
		return nil, err
	}
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := kube.WriteKubeconfig(kubeconfig, b.cluster.API.Admin()); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	f := &follower{host: host}
	f.runs, err = b.cluster.StartProgram(ctx, host, dir, kube.Program{Name: "follower", Path: self, Args: []string{"-follow", resource, "-kubeconfig", kubeconfig}})
	if err != nil {
		return nil, err
	}
	for {
		log, err := f.runs.Log()
		switch {
		case err != nil:
			return nil, err
		case strings.Contains(log, synced):
			f.took = time.Since(begin)
			return f, nil
		case !f.runs.Running() || time.Since(begin) > 5*time.Minute:
			return nil, fmt.Errorf("the informer of all %s has nothing after %v: %s", resource, time.Since(begin), log)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
