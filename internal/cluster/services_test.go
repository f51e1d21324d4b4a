package cluster

import (
	"fmt"
	"testing"
)

// Services come in one order, with the labels of their namespaces.
func TestJoinServices(t *testing.T) {
	in := Input{NoServices: "forbidden", Objects: Objects{Namespaces: []Namespace{{Name: "a", Labels: map[string]string{"team": "x"}}},
		Services: []Service{{Namespace: "b", Name: "web", NoAddress: "is headless"}, {Namespace: "a", Name: "z", Labels: map[string]string{"app": "z"}}, {Namespace: "a", Name: "b"}}, ServicesKnown: true}}
	v := Join(in)
	got := ""
	for _, s := range v.Facts.Services {
		got += fmt.Sprintf("%s {%s} {%s} %s;", s.ID(), s.Labels, s.NamespaceLabels, s.NoAddress)
	}
	if want := "a/b {} {team=x} ;a/z {app=z} {team=x} ;b/web {} {} is headless;"; got != want || !v.Facts.ServicesKnown || v.NoServices != "forbidden" {
		t.Errorf("%s, want %s; %+v", got, want, v)
	}
}
