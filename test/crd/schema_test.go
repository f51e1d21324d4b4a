package crd

import (
	"testing"
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
