package crd

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/unmasq/unmasq/api/v1alpha1"
)

// fill sets every field, so that a field which the schema lost shows.
func fill(t *testing.T, v reflect.Value, name string) {
	t.Helper()
	values := map[string]string{"Origin": "API", "Family": "IPv6", "Action": "SNAT", "State": "Unknown", "Reason": "BypassedByEBPF",
		"Status": "True", "Type": "Enforced"}
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[metav1.Time]() {
			v.Set(reflect.ValueOf(metav1.Unix(1_800_000_000, 0)))
			return
		}
		for i := range v.NumField() {
			fill(t, v.Field(i), v.Type().Field(i).Name)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(t, v.Index(0), name)
	case reflect.String:
		if value, known := values[name]; known {
			v.SetString(value)
		} else if value, known := values[v.Type().Name()]; known {
			v.SetString(value)
		} else {
			v.SetString("text of " + name)
		}
	case reflect.Int32, reflect.Int64:
		v.SetInt(7)
	default:
		t.Fatalf("%s is a %s: say here how to fill it", name, v.Type())
	}
}

// A report with every field is stored as it is.
func TestReportWithEveryField(t *testing.T) {
	s := newServer(t, "nodereports")
	want := v1alpha1.NodeReport{TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.APIVersion, Kind: "NodeReport"}, ObjectMeta: metav1.ObjectMeta{Name: "node-a"}}
	fill(t, reflect.ValueOf(&want.Status).Elem(), "status")
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	stored, err := s.create(text, true)
	if err != nil {
		t.Fatal(err)
	}
	var got v1alpha1.NodeReport
	if err := json.Unmarshal(stored, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// The schema's bounds of a report's lists are those that the agent is told of.
func TestReportBounds(t *testing.T) {
	s := newServer(t, "nodereports")
	var r v1alpha1.NodeReport
	r.TypeMeta, r.Name = metav1.TypeMeta{APIVersion: v1alpha1.APIVersion, Kind: "NodeReport"}, "node-a"
	create := func() string {
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = s.create(text, true); err != nil {
			return err.Error()
		}
		return ""
	}
	lists := func(n, values int) {
		r.Status.Policies = make([]v1alpha1.PolicyInForce, n)
		r.Status.Rules = make([]v1alpha1.RuleInForce, n)
		r.Status.Refusals = make([]v1alpha1.Refusal, n)
		r.Status.Conflicts = make([]v1alpha1.ConflictFound, n)
		for i := range n {
			r.Status.Policies[i].Origin, r.Status.Refusals[i].Origin = v1alpha1.OriginAPI, v1alpha1.OriginFile
			r.Status.Rules[i].Action, r.Status.Conflicts[i].Reason = "Keep", "A"
		}
		r.Status.Facts = []v1alpha1.FactUsed{{Name: "nodes", Values: make([]string, values)}}
	}
	lists(v1alpha1.MostReported, v1alpha1.MostReportedValues)
	if reason := create(); reason != "" {
		t.Errorf("refused: %s", reason)
	}
	lists(v1alpha1.MostReported+1, v1alpha1.MostReportedValues+1)
	if n := strings.Count(create(), "Too many"); n != 5 {
		t.Errorf("%d lists are too long, want 5: %s", n, create())
	}
	lists(0, 0)
	r.Status.Conditions = []metav1.Condition{{Type: "Enforced", Status: "True", Reason: "A"}, {Type: "Enforced", Status: "False", Reason: "A"}}
	if reason := create(); !strings.Contains(reason, "Duplicate value") {
		t.Errorf("one condition twice: %q", reason)
	}
}
