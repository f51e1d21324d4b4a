package loss_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/rig"
)

// rate of new flows a second: what the tests aim at.
const rate = 28000

// foreign is another component's rule: what no rule of unmasq's decides leaves
// with the uplink's address.
const foreign = "table inet foreign {\nchain postrouting {\ntype nat hook postrouting priority 100;\nmasquerade\n}\n}\n"

// Ports of pods are none of those that the policy's Masquerade takes, so that the
// foreign masquerade, which keeps ports, is told from unmasq's.
const (
	podPort     = 30000
	podPorts    = 30000
	masqFirst   = 20000
	masqLast    = 29999
	destination = 1 << 15 // addresses of each action
)

var (
	snat4 = netip.MustParseAddr("192.0.2.77")
	snat6 = netip.MustParseAddr("2001:db8::77")
)

// policyText has a rule for each action in both families.
const policyText = `apiVersion: unmasq.io/v1alpha1
kind: SourcePolicy
metadata: {name: loss}
spec:
  facts:
    podCIDRs: [10.244.0.0/16, "fd00:10:244::/48"]
  rules:
  - name: keep
    from: {pods: {}}
    to: {cidrs: [198.18.0.0/17, "2001:db8:a::/48"]}
    action: Keep
  - name: snat
    from: {pods: {}}
    to: {cidrs: [198.18.128.0/17, "2001:db8:b::/48"]}
    action: SNAT
    snat: {addresses: [192.0.2.77, "2001:db8::77"]}
  - name: masquerade
    from: {pods: {}}
    to: {cidrs: [198.19.0.0/17, "2001:db8:c::/48"]}
    action: Masquerade
    masquerade: {ports: 20000-29999}
`

// flow i of a load on policyText: keep, snat, masquerade in turn, each in both
// families. No two of a billion have the same destination and source port, so
// that no translation ever finds its tuple taken.
func flow(i uint64) packet.Flow {
	f := packet.Flow{Protocol: packet.UDP, DestinationPort: 53}
	v6, action, n := i%2 == 1, i/2%3, i/6
	low := uint16(n % destination)
	f.SourcePort = uint16(podPort + n/destination%podPorts)
	host := byte(2 + n%200)
	if v6 {
		f.Source = netip.AddrFrom16([16]byte{0: 0xfd, 3: 0x10, 4: 0x02, 5: 0x44, 7: 1, 15: host})
		f.Destination = netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0, byte(0xa + action), 14: byte(low >> 8), 15: byte(low)})
		return f
	}
	f.Source = netip.AddrFrom4([4]byte{10, 244, 1, host})
	at := uint32(198)<<24 | 18<<16 | uint32(action)<<15 | uint32(low)
	f.Destination = netip.AddrFrom4([4]byte{byte(at >> 24), byte(at >> 16), byte(at >> 8), byte(at)})
	return f
}

// check says what is wrong with what came out of flow i.
func check(i uint64, s rig.Seen) string {
	f := flow(i)
	want, ports := f.Source, [2]uint16{f.SourcePort, f.SourcePort}
	switch v6 := f.Source.Is6(); i / 2 % 3 {
	case 1:
		want = snat4
		if v6 {
			want = snat6
		}
	case 2:
		want, ports = rig.AddressOf(rig.Eth0, v6), [2]uint16{masqFirst, masqLast}
	}
	if s.Source == want && s.SourcePort >= ports[0] && s.SourcePort <= ports[1] {
		return ""
	}
	return fmt.Sprintf("%s port %d → %s came out as %s port %d, want %s port %d-%d",
		f.Source, f.SourcePort, f.Destination, s.Source, s.SourcePort, want, ports[0], ports[1])
}

// newRig is a node where a foreign rule masquerades everything.
func newRig(t *testing.T) *rig.Rig {
	t.Helper()
	r := rig.New(t)
	r.NFT(t, foreign)
	return r
}

// underLoad runs fn while new flows go through the node, and counts every packet.
func underLoad(t *testing.T, r *rig.Rig, traffic rig.Traffic, fn func()) rig.Report {
	t.Helper()
	traffic.Rate = rate
	ctx, cancel := context.WithCancel(context.Background())
	var report rig.Report
	var err error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		report, err = r.Load(ctx, traffic)
	}()
	stop := func() {
		cancel()
		<-ended
	}
	defer stop() // also where fn fails the test
	time.Sleep(50 * time.Millisecond)
	fn()
	stop()
	if err != nil {
		t.Fatal(err)
	}
	if report.Lost() > report.Sent/tolerated(t) {
		t.Errorf("%s: too many packets were lost for the load to say much", report)
	}
	return report
}

// tolerated is the part of all packets that may be lost on the way to the
// counter: every hundredth; every fifth where the kernel doesn't let the
// counter's sockets have large buffers, in a user namespace.
func tolerated(t *testing.T) uint64 {
	t.Helper()
	initial, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		t.Fatal(err)
	}
	if fields := strings.Fields(string(initial)); len(fields) == 3 && fields[2] == "4294967295" {
		return 100
	}
	return 5
}

// noneWrong prints what was checked, and fails where anything was wrong.
func noneWrong(t *testing.T, report rig.Report, what string, args ...any) {
	t.Helper()
	t.Logf("checked: %s: %s", fmt.Sprintf(what, args...), report)
	if report.Wrong == 0 {
		return
	}
	for _, e := range report.Examples {
		t.Error(e)
	}
	t.Errorf("%d packets had a third decision", report.Wrong)
}

// during repeats fn for a while, and says how often it ran.
func during(d time.Duration, fn func(n int)) int {
	n := 0
	for start := time.Now(); time.Since(start) < d; n++ {
		fn(n)
	}
	return n
}
