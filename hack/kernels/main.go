// Command kernels runs the kernel tests on other kernels than this machine's,
// for make kernels: Debian's, as virtual machines of one processor without a
// disk. Nothing is installed on this machine but the emulator.
//
//	go run ./hack/kernels                     # every kernel, every package
//	go run ./hack/kernels -series 6.1 -run TestOwnership ./internal/kernel/nft
//
// A machine has this system's own nft, iptables, ipset and ip programs, the
// tests' binaries and the sources; hack/kernels/guest is its first process. The
// last thing printed is a table: kernel × package.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// tested packages, where none are named. test/shield, test/lab and test/field
// aren't: a docker daemon and whole scenarios take hours in an emulator.
var tested = []string{"./internal/kernel/nft", "./internal/kernel/link", "./internal/kernel/netns", "./internal/rig", "./internal/ipset", "./test/meaning", "./test/agent", "./test/guards", "./test/loss", "./test/offload"}

type options struct {
	series   []string
	packages []string
	run      string
	accel    string
	limit    time.Duration
	cache    string
}

func main() {
	var o options
	series := flag.String("series", "6.1,6.12", "kernel series, as far as apt offers them")
	flag.StringVar(&o.run, "run", "", "run only tests that match, as in go test")
	flag.StringVar(&o.accel, "accel", "tcg", "qemu's accelerator; kvm is faster, where there is one")
	flag.DurationVar(&o.limit, "limit", 15*time.Minute, "time limit of a package")
	flag.StringVar(&o.cache, "cache", ".cache/kernels", "where kernels are kept")
	flag.Parse()
	o.series = strings.Split(*series, ",")
	if o.packages = flag.Args(); len(o.packages) == 0 {
		o.packages = tested
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ok, err := run(ctx, o, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "kernels:", err)
	}
	if !ok || err != nil {
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, out io.Writer) (ok bool, err error) {
	start := time.Now()
	if err := installEmulator(ctx); err != nil {
		return false, err
	}
	work, err := os.MkdirTemp("", "unmasq-kernels-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(work)
	common, jobs, err := contents(ctx, o, work)
	if err != nil {
		return false, err
	}
	var reports []report
	for _, series := range o.series {
		k, err := fetchKernel(ctx, series, o.cache)
		if err != nil {
			return false, fmt.Errorf("a kernel %s: %w", series, err)
		}
		fmt.Fprintf(out, "== %s\n", k.release)
		r, err := boot(ctx, k, common, jobs, o, work, out)
		if err != nil {
			return false, fmt.Errorf("kernel %s: %w", k.release, err)
		}
		reports = append(reports, r)
	}
	fmt.Fprintln(out)
	printTable(out, jobs, reports)
	fmt.Fprintf(out, "%d kernels in %.0f s\n", len(reports), time.Since(start).Seconds())
	return !slices.ContainsFunc(reports, func(r report) bool { return !r.ok(jobs) }), nil
}

// Job is a test binary to run; hack/kernels/guest reads a list of them.
type Job struct {
	Package string
	Binary  string
	Dir     string
	Args    []string
}

// boot runs one machine to its end.
func boot(ctx context.Context, k kernel, common *archive, jobs []Job, o options, work string, out io.Writer) (report, error) {
	image := filepath.Join(work, "initrd")
	if err := writeImage(image, common, k); err != nil {
		return report{}, err
	}
	console := filepath.Join(work, "console")
	ctx, cancel := context.WithTimeout(ctx, time.Duration(len(jobs))*o.limit+5*time.Minute)
	defer cancel()
	// One processor runs packets and the writing of rules in turn. Without preempt=full
	// a batch would never be met half-way, and the tests of loss would see nothing.
	cmd := exec.CommandContext(ctx, "nice", "qemu-system-x86_64", "-accel", o.accel, "-cpu", "max", "-smp", "1", "-m", "3072",
		"-nodefaults", "-display", "none", "-no-reboot", "-kernel", k.image, "-initrd", image,
		"-append", "console=ttyS0 quiet panic=-1 preempt=full random.trust_cpu=on", "-serial", "file:"+console, "-serial", "stdio")
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return report{}, err
	}
	if err := cmd.Start(); err != nil {
		return report{}, err
	}
	r := newReport(k.release)
	r.read(stdout, out)
	err = cmd.Wait()
	if err == nil && !r.ended {
		err = fmt.Errorf("the machine stopped before its end")
	}
	if err != nil {
		said, _ := os.ReadFile(console)
		err = fmt.Errorf("%w; its console:\n%s", err, said)
	}
	return r, err
}
