package crd

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdvalidation "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"
)

// server does with an object of one CustomResourceDefinition what an API server
// does when it is created, in the same order, with the same packages. The real one
// is asked too: api_test.go.
type server struct {
	definition *apiextensions.CustomResourceDefinition
	structural *schema.Structural
	validator  validation.SchemaValidator
	cel        *cel.Validator
}

// newServer reads deploy/crd; a definition that an API server would refuse fails the test.
func newServer(t *testing.T, plural string) *server {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "deploy", "crd", "unmasq.io_"+plural+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var external apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(text, &external); err != nil {
		t.Fatal(err)
	}
	apiextensionsv1.SetObjectDefaults_CustomResourceDefinition(&external)
	s := &server{definition: &apiextensions.CustomResourceDefinition{}}
	if err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(&external, s.definition, nil); err != nil {
		t.Fatal(err)
	}
	s.definition.Status.StoredVersions = []string{"v1alpha1"} // as its strategy does
	for _, err := range crdvalidation.ValidateCustomResourceDefinition(context.Background(), s.definition) {
		t.Errorf("%s: %v", plural, err)
	}
	if t.Failed() {
		t.FailNow()
	}
	properties := s.openAPI()
	if s.structural, err = schema.NewStructural(properties); err != nil {
		t.Fatal(err)
	}
	if s.validator, _, err = validation.NewSchemaValidator(properties); err != nil {
		t.Fatal(err)
	}
	s.cel = cel.NewValidator(s.structural, true, celconfig.PerCallLimit)
	return s
}

// openAPI is the schema; with one version, conversion puts it above the versions.
func (s *server) openAPI() *apiextensions.JSONSchemaProps {
	if v := s.definition.Spec.Validation; v != nil {
		return v.OpenAPIV3Schema
	}
	return s.definition.Spec.Versions[0].Schema.OpenAPIV3Schema
}

// create returns the object as it would be stored, or all that is wrong with it, as
// `kubectl create` shows it. Strict is kubectl's default for unknown fields.
func (s *server) create(text []byte, strict bool) (stored []byte, err error) {
	asJSON, err := toJSON(text)
	if err != nil {
		return nil, err
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(asJSON); err != nil {
		return nil, err
	}
	if u.GetAPIVersion() != "unmasq.io/v1alpha1" || u.GetKind() != s.definition.Spec.Names.Kind {
		return nil, fmt.Errorf("the server doesn't know %s %s", u.GetAPIVersion(), u.GetKind())
	}
	if err := s.coerce(u, strict); err != nil {
		return nil, err
	}
	if errs := s.validate(u); len(errs) > 0 {
		return nil, errs.ToAggregate()
	}
	return json.Marshal(u)
}

// coerce is (*unstructuredSchemaCoercer).apply and (unstructuredDefaulter).Default.
func (s *server) coerce(u *unstructured.Unstructured, strict bool) error {
	meta, found, unknown, err := objectmeta.GetObjectMetaWithOptions(u.Object, objectmeta.ObjectMetaOptions{ReturnUnknownFieldPaths: true})
	if err != nil {
		return err
	}
	unknown = append(unknown, pruning.PruneWithOptions(u.Object, s.structural, true,
		schema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})...)
	defaulting.PruneNonNullableNullsWithoutDefaults(u.Object, s.structural)
	if found {
		if err := objectmeta.SetObjectMeta(u.Object, meta); err != nil {
			return err
		}
	}
	if strict && len(unknown) > 0 {
		return fmt.Errorf("strict decoding error: unknown field %q", strings.Join(unknown, `", "`))
	}
	defaulting.Default(u.Object, s.structural)
	return nil
}

// validate is (customResourceStrategy).Validate.
func (s *server) validate(u *unstructured.Unstructured) field.ErrorList {
	errs := apivalidation.ValidateObjectMetaAccessor(u, false, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	errs = append(errs, validation.ValidateCustomResource(nil, u.Object, s.validator)...)
	errs = append(errs, objectmeta.Validate(context.Background(), nil, u.Object, s.structural, false)...)
	errs = append(errs, listtype.ValidateListSetsAndMaps(nil, s.structural, u.Object)...)
	for _, e := range errs {
		switch e.Type {
		case field.ErrorTypeRequired, field.ErrorTypeTooLong, field.ErrorTypeTooMany, field.ErrorTypeTypeInvalid:
			return errs // CEL isn't asked then
		}
	}
	if s.cel == nil {
		return errs
	}
	more, _ := s.cel.Validate(context.Background(), nil, s.structural, u.Object, nil, celconfig.RuntimeCELCostBudget)
	return append(errs, more...)
}

// toJSON is what kubectl sends of a text. JSON is sent as it is, as other clients do.
func toJSON(text []byte) ([]byte, error) {
	if json.Valid(text) {
		return text, nil
	}
	return yaml.YAMLToJSONStrict(text)
}
