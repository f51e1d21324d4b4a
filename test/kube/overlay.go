package kube

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Overlay writes a kustomization into dir that takes unmasq's, from the folder
// base, to this cluster: with an image (an entry of images in YAML), told the
// cluster's pod CIDRs, and with more JSON patches of the DaemonSet, a line each.
func Overlay(dir, base, image string, patches ...string) error {
	base, err := filepath.Abs(base)
	if err != nil {
		return err
	}
	relative, err := filepath.Rel(dir, base) // kustomize takes no absolute path
	if err != nil {
		return err
	}
	cidrs := fmt.Sprintf(`{op: add, path: /spec/template/spec/containers/0/args/-, value: "--pod-cidrs=%s,%s"}`, ClusterPods4, ClusterPods6)
	text := fmt.Sprintf(`apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [%s]
images: [%s]
patches:
- target: {kind: DaemonSet, name: unmasq-agent}
  patch: |
    - %s
`, relative, image, strings.Join(append([]string{cidrs}, patches...), "\n    - "))
	return os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o644)
}
