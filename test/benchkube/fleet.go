package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// rounds in which a policy comes, changes, and goes.
const rounds = 12

// measureFleet has more and more agents at once, without heartbeats: what they all
// do at a change is work for one machine here.
func (b *bench) measureFleet(ctx context.Context) (err error) {
	var all []*agent
	defer func() {
		if len(all) > 0 {
			err = errors.Join(err, stopAll(all[1:]))
		}
	}()
	sizes := slices.DeleteFunc([]int{10, 30, b.agents}, func(n int) bool { return n > b.agents })
	for _, n := range slices.Compact(sizes) {
		fresh, err := b.prepare(ctx, len(all), n)
		if err != nil {
			return err
		}
		all = append(all, fresh...)
		if err := b.startTogether(ctx, fresh, n); err != nil {
			return err
		}
		time.Sleep(5 * time.Second) // the first reports
		if err := b.measureRounds(ctx, all); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) prepare(ctx context.Context, from, to int) (fresh []*agent, err error) {
	for i := from; i < to; i++ {
		a, err := b.newAgent(ctx, i)
		if err != nil {
			return nil, err
		}
		fresh = append(fresh, a)
	}
	return fresh, nil
}

// startTogether those that don't run.
func (b *bench) startTogether(ctx context.Context, fresh []*agent, n int) error {
	begin := time.Now()
	var mu sync.Mutex
	var took []time.Duration
	var in int64
	var together sync.WaitGroup
	var errs []error
	for _, a := range fresh {
		if a.runs != nil && a.runs.Running() {
			continue
		}
		together.Go(func() {
			before, err := trafficOf(a.host)
			if err == nil {
				err = b.launch(ctx, a, a.config)
			}
			after, err2 := trafficOf(a.host)
			mu.Lock()
			defer mu.Unlock()
			took, in, errs = append(took, time.Since(begin)), in+after.sub(before).in, append(errs, errors.Join(err, err2))
		})
	}
	together.Wait()
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		return fmt.Errorf("of %d agents that started at once: %w", len(took), errs[i])
	}
	each := in / int64(len(took))
	b.add(fmt.Sprintf("%d agents started at once: all enforce", len(took)), ms(quantile(took, 100)), fmt.Sprintf("median %s; %s each", ms(quantile(took, 50)), kb(each)), "")
	if n == b.agents {
		plain, err := b.uncompressed(ctx, fresh[len(fresh)-1].node)
		if err != nil {
			return err
		}
		b.add(fmt.Sprintf("bytes sent when all %d agents start at once", b.nodes), mb(each*int64(b.nodes)), "their pods' JSON before compression: "+mb(plain*int64(b.nodes)), "stated")
	}
	return nil
}

// arrivals in the kernels after a change.
type arrivals struct {
	each []time.Duration // of all agents in all rounds, from the request on
	last []time.Duration // of each round
	api  []time.Duration // until the API server answered
}

func (b *bench) measureRounds(ctx context.Context, all []*agent) error {
	const name, app = "round", "app-1"
	var got arrivals
	for i := range rounds {
		cidr4, cidr6 := fmt.Sprintf("198.51.100.%d/32", i), fmt.Sprintf("2001:db8:ffff:%x::/64", i)
		next4, next6 := fmt.Sprintf("203.0.113.%d/32", i), fmt.Sprintf("2001:db8:fffe:%x::/64", i)
		for _, change := range []struct {
			there, gone string // in the table's listing behind it
			do          func() error
		}{
			{cidr4, next4, func() error { return b.createPolicy(ctx, policy(name, app, cidr4, cidr6)) }},
			{next4, cidr4, func() error { _, err := b.patchPolicy(ctx, name, next4, next6); return err }},
			{"", next4, func() error { return b.policies.Delete(ctx, name, meta.DeleteOptions{}) }},
		} {
			if err := got.measure(ctx, all, change.do); err != nil {
				return err
			}
			if err := inKernels(all, listed(change.there), listed(change.gone)); err != nil {
				return err
			}
		}
	}
	b.add(fmt.Sprintf("%d agents: a policy comes, changes, goes: in each kernel", len(all)), spread(got.each), "the API server's answer alone: "+ms(quantile(got.api, 50))+" median", "500 ms p99")
	b.add(fmt.Sprintf("%d agents: in all kernels", len(all)), spread(got.last), "", "")
	return nil
}

// listed is how nft prints a network of one address.
func listed(cidr string) string { return strings.TrimSuffix(cidr, "/32") }

// measure one change: until the last event of each kernel.
func (a *arrivals) measure(ctx context.Context, all []*agent, change func() error) error {
	var tables []*tableEvents
	for _, x := range all {
		x.table.reset()
		tables = append(tables, x.table)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("a change didn't come to all kernels within a minute"))
	defer cancel()
	begin := time.Now()
	if err := change(); err != nil {
		return err
	}
	a.api = append(a.api, time.Since(begin))
	if err := settle(ctx, tables...); err != nil {
		return err
	}
	most := time.Duration(0)
	for _, t := range tables {
		last, err := t.lastChange()
		if err != nil {
			return err
		}
		took := last.Sub(begin)
		a.each, most = append(a.each, took), max(most, took)
	}
	a.last = append(a.last, most)
	return nil
}

// inKernels makes sure that what came is the change.
func inKernels(all []*agent, there, gone string) error {
	return each(len(all), func(i int) error {
		out, err := all[i].host.NS.Run("", "nft", "list", "table", "inet", "unmasq")
		if err != nil {
			return err
		}
		if !strings.Contains(out, there) || gone != "" && strings.Contains(out, gone) {
			return fmt.Errorf("the table on %s: expected %q and no %q in it:\n%s", nodeName(all[i].node), there, gone, out)
		}
		return nil
	})
}
