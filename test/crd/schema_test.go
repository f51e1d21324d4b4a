package crd

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDefinitions(t *testing.T) {
	for _, plural := range []string{"sourcepolicies", "nodereports"} {
		newServer(t, plural)
	}
}

func TestExamples(t *testing.T) { checkExamples(t, newServer(t, "sourcepolicies").create) }

func TestBadDocuments(t *testing.T) { checkBad(t, newServer(t, "sourcepolicies").create) }

func TestRandomDocuments(t *testing.T) { checkRandom(t, newServer(t, "sourcepolicies").create) }

func TestPeculiarDocuments(t *testing.T) { checkPeculiar(t, newServer(t, "sourcepolicies").create) }

func TestSpoiledDocuments(t *testing.T) { checkSpoiled(t, newServer(t, "sourcepolicies").create) }

func TestDefaults(t *testing.T) {
	stored, err := newServer(t, "sourcepolicies").create([]byte(`{"apiVersion":"unmasq.io/v1alpha1","kind":"SourcePolicy","metadata":{"name":"a"},
		"spec":{"rules":[{"action":"Keep","to":{"ports":[{}]}}]}}`), true)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"apiVersion":"unmasq.io/v1alpha1","kind":"SourcePolicy","metadata":{"name":"a"},` +
		`"spec":{"mode":"Enforce","order":100,"rules":[{"action":"Keep","to":{"ports":[{"protocol":"TCP"}]}}]}}`
	if diff := cmp.Diff(want, string(stored)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
