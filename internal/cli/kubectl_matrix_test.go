package cli

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/kubectl"
	"github.com/unmasq/unmasq/internal/matrix"
)

// A run is left alone while its process may be there.
func TestRunEnded(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, by string
		want     bool
	}{
		{"this one", thisRun(), false},
		{"a process that took its number", strings.Replace(thisRun(), "since ", "since 9", 1), true},
		{"a number that nobody has", fmt.Sprintf("process %d since 1 on %s", 1<<30, host), true},
		{"on another machine", fmt.Sprintf("process %d since 1 on elsewhere-%s", 1<<30, host), false},
		{"who knows", "somebody", false},
	} {
		if got := runEnded(c.by); got != c.want {
			t.Errorf("%s, %q: ended %v, want %v", c.name, c.by, got, c.want)
		}
	}
}

// Columns have the same names in each run, whatever its namespace is called.
func TestTidy(t *testing.T) {
	stage := &kubectl.Stage{Namespace: "unmasq-matrix-x",
		Pods: []kubectl.StagePod{{Name: "b1", Node: "n1", Backend: true}, {Name: "b2", Node: "n2", Backend: true}},
		Services: []kubectl.StageService{{Name: "on-b1", Backends: []string{"b1"}}, {Name: "local-b1", Backends: []string{"b1"}, Local: true},
			{Name: "on-b2", Backends: []string{"b2"}}, {Name: "spread", Backends: []string{"b1", "b2"}}, {Name: "empty"}}}
	m := &matrix.Matrix{Nodes: []string{"n1", "n2"}, Columns: []matrix.Column{{Name: "pod-here", Role: matrix.PodHere}}}
	add := func(service string, role matrix.Role) {
		name := "unmasq-matrix-x/" + service + ":tcp " + string(role)
		m.Columns = append(m.Columns, matrix.Column{Name: name, Role: role, Service: "unmasq-matrix-x/" + service + ":tcp"})
		m.Cells = append(m.Cells, matrix.Cell{Row: "pod-here", Column: name})
	}
	add("on-b1", matrix.ClusterIPHere)
	add("local-b1", matrix.ClusterIPHere)
	add("on-b2", matrix.ClusterIPThere)
	add("spread", matrix.ClusterIPBoth)
	add("empty", matrix.ClusterIPNone)
	add("local-b1", matrix.Hairpin)
	add("on-b1", matrix.NodePortCluster)
	add("on-b2", matrix.NodePortCluster)
	add("spread", matrix.NodePortCluster)
	add("empty", matrix.NodePortCluster)
	add("local-b1", matrix.NodePortLocal)
	tidy(m, stage)
	var names, cells []string
	for _, c := range m.Columns {
		names = append(names, c.Name)
	}
	for _, c := range m.Cells {
		cells = append(cells, c.Column)
	}
	const services = "cluster-ip-here cluster-ip-there cluster-ip-both cluster-ip-none itself node-port-cluster-here node-port-cluster-there node-port-local-here"
	if got, want := strings.Join(names, " "), "pod-here "+services; got != want {
		t.Errorf("columns %s\nwant    %s", got, want)
	}
	if got := strings.Join(cells, " "); got != services {
		t.Errorf("cells of %s\nwant     %s", got, services)
	}
}
