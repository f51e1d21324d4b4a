// Package crd holds what the Kubernetes API does with a document against what the
// agent does with it. It has tests alone.
package crd
