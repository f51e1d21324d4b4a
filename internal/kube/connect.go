package kube

import (
	"fmt"
	"os"
	"strings"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Clients speak to the API server.
type Clients struct {
	Dynamic  dynamic.Interface
	Metadata metadata.Interface
	// Token is what they show to it now; "" where it isn't a token, or isn't known.
	Token func() string
}

// Connect reads a kubeconfig, or with "" what a pod of the cluster is given. It
// asks nobody: the API server may be away.
func Connect(kubeconfig string) (Clients, error) {
	config, err := rest.InClusterConfig()
	if kubeconfig != "" {
		config, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
	}
	if err != nil {
		return Clients{}, fmt.Errorf("which cluster? %w", err)
	}
	return NewClients(config)
}

// NewClients for a server, without limits of their own: the watches are few.
func NewClients(config *rest.Config) (Clients, error) {
	config = rest.CopyConfig(config)
	config.QPS, config.UserAgent = -1, "unmasq-agent"
	d, err := dynamic.NewForConfig(config)
	if err != nil {
		return Clients{}, err
	}
	m, err := metadata.NewForConfig(config)
	return Clients{Dynamic: d, Metadata: m, Token: func() string { return tokenOf(config) }}, err
}

// tokenOf a configuration. That of a pod is a file, which the kubelet renews.
func tokenOf(config *rest.Config) string {
	if config.BearerTokenFile == "" {
		return config.BearerToken
	}
	text, err := os.ReadFile(config.BearerTokenFile)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
