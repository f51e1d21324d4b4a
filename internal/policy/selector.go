package policy

// Matches says whether the pod's labels and its namespace's are selected.
func (s *PodSelector) Matches(p *Pod) bool {
	return s.Pod.Matches(p.Labels) && s.Namespace.Matches(p.NamespaceLabels)
}
