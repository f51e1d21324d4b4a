// Package deploy holds what an operator installs, deploy/, against what it should
// be: manifests of kustomize and of the Helm chart, their privileges, the
// dashboard.
package deploy
