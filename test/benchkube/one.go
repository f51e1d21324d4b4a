package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

// starts of one agent.
const starts = 7

// begun is what one start took.
type begun struct {
	took    time.Duration // until /readyz
	traffic traffic
	server  time.Duration // processor time of the API server meanwhile
}

// measureStart starts the first node's agent again and again, from a node without
// a table. The last one stays.
func (b *bench) measureStart(ctx context.Context) error {
	a, err := b.newAgent(ctx, 0)
	if err != nil {
		return err
	}
	files, err := b.startOnFiles(ctx, a)
	if err != nil {
		return err
	}
	var took, server []time.Duration
	var in []int64
	for i := range starts {
		if i > 0 {
			if err := a.runs.Terminate(ctx); err != nil {
				return err
			}
			_ = os.RemoveAll(a.file("run")) // the cache: a new node has none
		}
		idle, err := b.serverTime() // in as long a time as a start is looked at
		if err != nil {
			return err
		}
		s, err := b.startOnce(ctx, a)
		if err != nil {
			return err
		}
		took, in, server = append(took, s.took), append(in, s.traffic.in), append(server, s.server-idle)
	}
	peak, err := memoryOf(a.runs)
	if err != nil {
		return err
	}
	b.add("one agent: start to enforced", fmt.Sprintf("%s median, %s at most of %d", ms(quantile(took, 50)), ms(quantile(took, 100)), starts), "the same policies from files, no cluster: "+ms(files), "10 s")
	plain, err := b.uncompressed(ctx, a.node)
	if err != nil {
		return err
	}
	b.add("one agent: bytes that it gets at its start", kb(quantile(in, 50)), fmt.Sprintf("its %d pods' JSON before compression: %s", b.podsOf(0), kb(plain)), "")
	b.add("one agent: processor time of the API server at its start", ms(max(0, mean(server))), "", "")
	b.add("one agent: memory at its start, at most", mb(peak.most), "", "60 MB")
	return nil
}

// uncompressed is an agent's largest list as JSON.
func (b *bench) uncompressed(ctx context.Context, node int) (int64, error) {
	list, err := b.client.CoreV1().RESTClient().Get().Resource("pods").Param("fieldSelector", "spec.nodeName="+nodeName(node)).SetHeader("Accept", "application/json").DoRaw(ctx)
	return int64(len(list)), err
}

// serverTime of the API server in a second without starts.
func (b *bench) serverTime() (time.Duration, error) {
	before, err := processorTime(b.cluster.API.Server)
	if err != nil {
		return 0, err
	}
	time.Sleep(time.Second)
	after, err := processorTime(b.cluster.API.Server)
	return after - before, err
}

func (b *bench) startOnce(ctx context.Context, a *agent) (s begun, err error) {
	traffic, err := trafficOf(a.host)
	if err != nil {
		return s, err
	}
	server, err := processorTime(b.cluster.API.Server)
	if err != nil {
		return s, err
	}
	begin := time.Now()
	if err := b.launch(ctx, a, a.config); err != nil {
		return s, err
	}
	s.took = time.Since(begin)
	time.Sleep(time.Until(begin.Add(time.Second)))
	if s.server, err = processorTime(b.cluster.API.Server); err != nil {
		return s, err
	}
	s.server -= server
	now, err := trafficOf(a.host)
	s.traffic = now.sub(traffic)
	return s, err
}

// startOnFiles is the baseline: an agent without a cluster.
func (b *bench) startOnFiles(ctx context.Context, a *agent) (time.Duration, error) {
	if err := os.Mkdir(a.file("policies"), 0o755); err != nil {
		return 0, err
	}
	for i := range few {
		p := policy(fmt.Sprintf("policy-%d", i), "", fmt.Sprintf("172.16.%d.0/24", i), fmt.Sprintf("2001:db8:%x::/48", i))
		rule := p.Object["spec"].(map[string]any)["rules"].([]any)[0].(map[string]any)
		rule["from"] = map[string]any{"pods": map[string]any{}}
		if err := os.WriteFile(a.file(fmt.Sprintf("policies/%d.yaml", i)), []byte(text(p)), 0o644); err != nil {
			return 0, err
		}
	}
	var took []time.Duration
	for range starts {
		begin := time.Now()
		if err := b.launch(ctx, a, []string{"agent", "--config", a.file("policies"), "--cni-dir", a.file("net.d"), "--clear-on-exit"}); err != nil {
			return 0, err
		}
		took = append(took, time.Since(begin))
		if err := a.runs.Terminate(ctx); err != nil {
			return 0, err
		}
	}
	return quantile(took, 50), nil
}

// measureIdle has the agent and nothing that concerns it, beside an informer of all
// Nodes. Then an informer of all Pods is started.
func (b *bench) measureIdle(ctx context.Context) error {
	a, err := b.running(ctx, 0)
	if err != nil {
		return err
	}
	b.beat(ctx)
	defer b.beats.end()
	nodes, err := b.follow(ctx, "nodes")
	if err != nil {
		return err
	}
	time.Sleep(5 * time.Second) // reports are written, leases known
	b.beats.rates()
	own, err := b.ownStatus(ctx, a)
	if err != nil {
		return err
	}
	mine, all, cpu, err := b.idleFor(ctx, a, nodes)
	if err != nil {
		return err
	}
	leases, statuses, pods := b.beats.rates()
	m, err := memoryOf(a.runs)
	if err != nil {
		return err
	}
	b.add("kubelets' heartbeats meanwhile", fmt.Sprintf("%.0f leases, %.1f Nodes' status, %.1f pods' status a second", leases, statuses, pods),
		fmt.Sprintf("as %d kubelets do: %.0f and %.1f", b.nodes, float64(b.nodes)/leaseEvery.Seconds(), float64(b.nodes)/statusEvery.Seconds()), "")
	note := ""
	if b.idle < statusEvery { // its own status didn't come
		mine.in += own * int64(b.idle) / int64(statusEvery)
		note = "; its own Node's status added"
	}
	b.add("one agent: watch traffic to it", rate(mine.in, b.idle)+note, "to an informer of all Nodes: "+rate(all.in, b.idle), "0.5 KB/s")
	b.add("one agent: its own Node's status, every 5 minutes", fmt.Sprintf("%.1f KB", float64(own)/1e3), fmt.Sprintf("%.2f KB/s", float64(own)/1e3/statusEvery.Seconds()), "")
	b.add("one agent: traffic from it", rate(mine.out, b.idle), "", "")
	b.add("one agent: processor time", fmt.Sprintf("%.1f s an hour", cpu.Seconds()*float64(time.Hour)/float64(b.idle)), "", "")
	if err := nodes.runs.Kill(); err != nil {
		return err
	}
	if err := b.beats.end(); err != nil {
		return err
	}
	return b.besidePods(ctx, m)
}

// ownStatus is how much comes of one report of its kubelet.
func (b *bench) ownStatus(ctx context.Context, a *agent) (int64, error) {
	before, err := trafficOf(a.host)
	if err != nil {
		return 0, err
	}
	if err := b.reportNode(ctx, a.node); err != nil {
		return 0, err
	}
	time.Sleep(time.Second)
	after, err := trafficOf(a.host)
	return after.sub(before).in, err
}

func (b *bench) idleFor(ctx context.Context, a *agent, nodes *follower) (mine, all traffic, cpu time.Duration, err error) {
	read := func() (mine, all traffic, cpu time.Duration, err error) {
		if mine, err = trafficOf(a.host); err != nil {
			return
		}
		if all, err = trafficOf(nodes.host); err != nil {
			return
		}
		cpu, err = processorTime(a.runs)
		return
	}
	mine0, all0, cpu0, err := read()
	if err != nil {
		return
	}
	time.Sleep(b.idle)
	mine1, all1, cpu1, err := read()
	return mine1.sub(mine0), all1.sub(all0), cpu1 - cpu0, err
}

// besidePods compares the agent's memory with an informer of all pods.
func (b *bench) besidePods(ctx context.Context, m memory) error {
	pods, err := b.follow(ctx, "pods")
	if err != nil {
		return err
	}
	theirs, err := memoryOf(pods.runs)
	if err != nil {
		return err
	}
	got, err := trafficOf(pods.host)
	if err != nil {
		return err
	}
	b.add("one agent: memory, resident", fmt.Sprintf("%s, of that its own %s", mb(m.resident), mb(m.own)),
		fmt.Sprintf("an informer of all pods: %s, after %s and %s", mb(theirs.resident), mb(got.in), ms(pods.took)), "60 MB")
	return pods.runs.Kill()
}

// stop an agent that runs, as a node's end does.
func stopAll(all []*agent) error {
	return each(len(all), func(i int) error {
		if p := all[i].runs; p != nil {
			return p.Kill()
		}
		return nil
	})
}
