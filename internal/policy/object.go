package policy

import (
	"encoding/json"
	"fmt"

	"github.com/unmasq/unmasq/api/v1alpha1"
)

// ObjectSource makes a SourcePolicy of the Kubernetes API, as a client gets it
// without types, a Source. Of its metadata the name alone is taken: a newer API
// server may have fields there that aren't known here. Its spec is taken whole: a
// field that isn't known here must be refused, not lost.
//
// What the schema in deploy/crd accepts loads without an error, with the node's
// labels and PodsKnown in Options; only what several documents say together can be
// wrong then.
func ObjectSource(object map[string]any) (Source, error) {
	metadata, _ := object["metadata"].(map[string]any)
	name, _ := metadata["name"].(string)
	source := Source{Name: v1alpha1.SourcePolicies + "/" + name, NoLines: true}
	document := map[string]any{
		"apiVersion": object["apiVersion"], "kind": object["kind"], "metadata": map[string]any{"name": name},
	}
	if spec, ok := object["spec"]; ok {
		document["spec"] = spec
	}
	var err error
	if source.Content, err = json.Marshal(document); err != nil {
		return Source{}, fmt.Errorf("%s: %w", source.Name, err)
	}
	return source, nil
}
