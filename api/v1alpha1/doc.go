// Package v1alpha1 holds the objects of the group unmasq.io: SourcePolicy, which
// says what is wanted, and NodeReport, which says what holds on a node. It is
// data only; what a policy means is internal/policy's.
//
// Files and standard input have the same SourcePolicy, with spec.facts in
// addition, which the Kubernetes API doesn't have: there the cluster is asked.
//
// A whole document:
//
//	apiVersion: unmasq.io/v1alpha1
//	kind: SourcePolicy
//	metadata: {name: default}
//	spec:
//	  rules:
//	  - name: inside
//	    from: {pods: {}}
//	    to: {cidrs: [10.0.0.0/8]}
//	    action: Keep
//
// The markers (+kubebuilder) become the CustomResourceDefinitions in deploy/crd:
// `make generate`. They refuse what internal/policy refuses, so that a document
// that the API server takes never fails on a node; test/crd holds one against the
// other. Bounds and the lengths of strings keep the CEL rules within what
// Kubernetes 1.30 and later allow.
//
// +groupName=unmasq.io
// +kubebuilder:object:generate=true
package v1alpha1
