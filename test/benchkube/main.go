// Command benchkube measures the agent on a simulated cluster: a real etcd and a
// real API server with thousands of nodes and their pods, and agents in network
// namespaces that stand for some of the nodes. Each number has its baseline beside
// it. `make bench-kube` runs it.
//
//	go run ./test/benchkube -unmasq bin/unmasq                                      # 5,000 nodes, 150,000 pods, 100 agents
//	go run ./test/benchkube -unmasq bin/unmasq -nodes 200 -pods 6000 -agents 10     # the short form
//
// One machine stands for all: on few processors agents wait for each other and for
// the API server, which they don't where each has its node.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// options of a run.
type options struct {
	nodes, pods, agents int
	idle                time.Duration
	unmasq, json, only  string
	kubeVersion         string
}

func main() {
	o := options{}
	flag.IntVar(&o.nodes, "nodes", 5000, "how many nodes")
	flag.IntVar(&o.pods, "pods", 150_000, "how many pods on them")
	flag.IntVar(&o.agents, "agents", 100, "how many agents at once, at most")
	flag.DurationVar(&o.idle, "idle", 0, "how long the traffic of an agent is measured; 0: 5 minutes, as long as from one status of a kubelet to the next, or 20 s with less than 1,000 nodes")
	flag.StringVar(&o.unmasq, "unmasq", "bin/unmasq", "the program")
	flag.StringVar(&o.json, "json", "", "a file to write the numbers to")
	flag.StringVar(&o.only, "only", "", "only these of start, idle, fleet, policies")
	flag.StringVar(&o.kubeVersion, "kube", "", "version of Kubernetes; default: the newest that tests use")
	follow := flag.String("follow", "", "follow a resource as client-go does and tell what came; used by the program itself")
	kubeconfig := flag.String("kubeconfig", "", "for -follow")
	flag.Parse()
	err := error(nil)
	if *follow != "" {
		err = followAll(*follow, *kubeconfig)
	} else {
		err = o.run(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchkube:", err)
		os.Exit(1)
	}
}

func (o options) check() (options, error) {
	if o.nodes < o.agents || o.agents < 1 || o.agents > mostAgents {
		return o, fmt.Errorf("%d agents on %d nodes: expected 1 to %d agents, and a node for each", o.agents, o.nodes, mostAgents)
	}
	if o.nodes > mostNodes || o.pods/o.nodes > mostPods-1 {
		return o, fmt.Errorf("%d pods on %d nodes: expected at most %d nodes, and %d pods on each", o.pods, o.nodes, mostNodes, mostPods-1)
	}
	if o.idle == 0 {
		o.idle = 5 * time.Minute
		if o.short() {
			o.idle = 20 * time.Second
		}
	}
	var err error
	o.unmasq, err = filepath.Abs(o.unmasq)
	return o, err
}

// short runs measure less often.
func (o options) short() bool { return o.nodes < 1000 }

// run measures everything, and says how long each step took. What fails takes no
// other number away.
func (o options) run(ctx context.Context) (err error) {
	if o, err = o.check(); err != nil {
		return err
	}
	b, err := start(ctx, o)
	if b != nil {
		defer func() { err = errors.Join(err, b.cluster.Close()) }()
	}
	if err != nil {
		return err
	}
	if err := b.fill(ctx); err != nil {
		return fmt.Errorf("fill the cluster: %w", err)
	}
	for _, step := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"start", b.measureStart},
		{"idle", b.measureIdle},
		{"fleet", b.measureFleet},
		{"policies", b.measureMany},
	} {
		if o.only != "" && !slices.Contains(strings.Split(o.only, ","), step.name) {
			continue
		}
		begin := time.Now()
		if failed := step.run(ctx); failed != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", step.name, failed))
		}
		b.say("%s: %.0f s", step.name, time.Since(begin).Seconds())
	}
	return errors.Join(b.table.print(os.Stdout, o.json), err)
}
