package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const (
	// Group and Version of the objects here.
	Group   = "unmasq.io"
	Version = "v1alpha1"

	// APIVersion and Kind name a SourcePolicy in its first two fields.
	APIVersion = Group + "/" + Version
	Kind       = "SourcePolicy"

	// Resources as the API's addresses have them.
	SourcePolicies = "sourcepolicies"
	NodeReports    = "nodereports"
)

// GroupVersion of the objects here.
func GroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: Group, Version: Version}
}

// AddToScheme makes the objects known to a client's scheme.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion(), &SourcePolicy{}, &SourcePolicyList{}, &NodeReport{}, &NodeReportList{})
	metav1.AddToGroupVersion(s, GroupVersion())
	return nil
}
