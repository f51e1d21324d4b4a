package kube

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/unmasq/unmasq/test/kube/parts"
)

// Kubectl runs the cluster's version of kubectl as an administrator, beside the
// API server, and returns its standard output.
func (c *Cluster) Kubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	programs, err := parts.Kube(ctx, c.config.Version, "kubectl")
	if err != nil {
		return "", err
	}
	kubeconfig, err := c.Kubeconfig("admin", Admins)
	if err != nil {
		return "", err
	}
	home := filepath.Dir(kubeconfig) // its cache
	cmd := c.Control.NS.Command(ctx, programs["kubectl"], append([]string{"--kubeconfig=" + kubeconfig, "--cache-dir=" + home}, args...)...)
	var said strings.Builder
	cmd.Stdin, cmd.Stderr = strings.NewReader(stdin), &said
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, said.String())
	}
	return string(out), err
}

// awaitServiceAccount of a namespace: no pod is admitted there before.
func (c *Cluster) awaitServiceAccount(ctx context.Context, namespace string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("not within %v", patience))
	defer cancel()
	err := poll(ctx, nil, func(ctx context.Context) error {
		_, err := c.Client.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", meta.GetOptions{})
		return err
	})
	if err != nil {
		return fmt.Errorf("namespace %s has no service account: %w%s", namespace, err, c.Controllers.said())
	}
	return nil
}
