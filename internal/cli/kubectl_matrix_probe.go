package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/unmasq/unmasq/internal/kubectl"
	"github.com/unmasq/unmasq/internal/probe"
)

const (
	// stageLife ends a stage's pods, whatever becomes of who made it.
	stageLife = 15 * time.Minute
	// settlePatience bounds the wait for the data plane to know the services.
	settlePatience = 30 * time.Second
)

// removeLeftovers removes what killed runs have left, and with all what runs are
// under way, too.
func removeLeftovers(ctx context.Context, client *kubectl.Client, all bool, progress io.Writer) error {
	stages, err := client.Stages(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range stages {
		if !all && !s.Going && !runEnded(s.By) && time.Since(s.Made) < stageLife {
			fmt.Fprintf(progress, "namespace %s is another run's (%s): it stays; `kubectl unmasq matrix --clean-up` removes it\n", s.Namespace, s.By)
			continue
		}
		fmt.Fprintf(progress, "removing namespace %s, which an earlier run has left\n", s.Namespace)
		errs = append(errs, client.RemoveStage(ctx, s.Namespace))
	}
	if all && len(stages) == 0 {
		fmt.Fprintln(progress, "nothing is left")
	}
	return errors.Join(errs...)
}

// thisRun tells this process from all others: "process 4711 since 123456 on desk".
func thisRun() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("process %d since %s on %s", os.Getpid(), started(os.Getpid()), host)
}

// started is when a process was, in the kernel's ticks (proc(5), field 22 of stat);
// empty where there is none.
func started(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The second field, a name in parentheses, may have spaces.
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	const starttime = 22 - 3
	if len(fields) <= starttime {
		return ""
	}
	return fields[starttime]
}

// runEnded says whether a run was this machine's and is no more. Of other machines'
// nothing is known.
func runEnded(by string) bool {
	var pid int
	var since, on string
	if n, err := fmt.Sscanf(by, "process %d since %s on %s", &pid, &since, &on); n != 3 || err != nil {
		return false
	}
	host, err := os.Hostname()
	return err == nil && host == on && started(pid) != since
}

// settle waits until both nodes know the services: what was made a moment ago isn't in
// rules yet. What never answers is left to the matrix.
func settle(ctx context.Context, s *kubectl.Stage, progress func(string)) error {
	progress("waiting for services to be known on the nodes")
	end := time.Now().Add(settlePatience)
	for {
		silent, err := unsettled(ctx, s)
		if err != nil || silent == 0 {
			return err
		}
		if time.Now().After(end) {
			progress(fmt.Sprintf("%d of the pods' connections to services aren't answered after %v; measuring all the same", silent, settlePatience))
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// unsettled counts connections of pods to services, and to themselves, that aren't answered.
func unsettled(ctx context.Context, s *kubectl.Stage) (silent int, err error) {
	const patience = 1500
	for _, p := range s.Pods {
		if p.Host {
			continue
		}
		var orders []probe.Order
		for _, a := range p.Addresses {
			orders = append(orders, probe.Order{Protocol: probe.TCP, Target: netip.AddrPortFrom(a, s.Port), Patience: patience})
		}
		for _, service := range s.Services {
			for _, a := range service.ClusterIPs {
				if len(service.Backends) > 0 {
					orders = append(orders, probe.Order{Protocol: probe.TCP, Target: netip.AddrPortFrom(a, s.Port), Patience: patience})
				}
			}
		}
		reports, err := s.Call(p)(ctx, orders)
		if err != nil {
			return 0, err
		}
		for _, r := range reports {
			if !r.Answered {
				silent++
			}
		}
	}
	return silent, nil
}
