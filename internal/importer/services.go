package importer

import "github.com/unmasq/unmasq/api/v1alpha1"

// notedRule is a rule with the note above it.
type notedRule struct {
	v1alpha1.Rule
	note string
}

// servicesExact hides every client of every service, as masqueradeAll does.
func servicesExact(origin string) []notedRule {
	return []notedRule{{
		v1alpha1.Rule{Name: "services", To: &v1alpha1.To{Services: &v1alpha1.Services{}}, Action: "Masquerade"},
		origin + ": hides every client of every service.",
	}}
}

// servicesWhereNeeded hides the clients whose replies would go past this node.
func servicesWhereNeeded(origin string) []notedRule {
	services := func(backends string) *v1alpha1.To {
		return &v1alpha1.To{Services: &v1alpha1.Services{Backends: backends}}
	}
	return []notedRule{
		{
			v1alpha1.Rule{Name: "pods", From: fromPods(), To: services(""), Action: "Leave"},
			origin + ", but only where replies would be lost. Replies to pods come back anyway.",
		},
		{
			v1alpha1.Rule{Name: "remote", To: services("Remote"), Action: "Masquerade"},
			origin + ": backends on other nodes answer clients past this node, so those are hidden.",
		},
		{
			v1alpha1.Rule{Name: "local", To: services("Local"), Action: "Keep", OverrideServiceMasquerade: true},
			origin + ": backends on this node answer through it, so they see the client.",
		},
	}
}
