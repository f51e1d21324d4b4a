package others_test

import (
	"fmt"
	"testing"

	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/kernel/others"
	"github.com/unmasq/unmasq/internal/kernel/others/otherstest"
	"github.com/unmasq/unmasq/internal/ruleset/rulesettest"
)

// BenchmarkPrograms is one look at a node with so many pods, each of which has two
// programs at its interface.
func BenchmarkPrograms(b *testing.B) {
	const pods = 110
	for _, filters := range []bool{false, true} {
		b.Run(fmt.Sprintf("%d pods, programs %t", pods, filters), func(b *testing.B) {
			n := netnstest.Test(b, "bench")
			for i := range pods {
				name := fmt.Sprint("lxc", i)
				ip(b, n, fmt.Sprintf("link add %s type veth peer name p%d", name, i))
				if filters {
					otherstest.TC(b, n, name, otherstest.Ingress, "cil_from_container-"+name)
					otherstest.TC(b, n, name, otherstest.Egress, "cil_to_container-"+name)
				}
			}
			if err := n.Do(func() error {
				r, err := others.Open()
				if err != nil {
					return err
				}
				defer r.Close()
				for b.Loop() {
					if _, err := r.Programs(); err != nil {
						return err
					}
				}
				return nil
			}); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkRules is one look at the rules beside kube-proxy's of so many services,
// after somebody changed any.
func BenchmarkRules(b *testing.B) {
	for _, services := range []int{1000, 5000} {
		b.Run(fmt.Sprint(services, " services"), func(b *testing.B) {
			n := netnstest.Test(b, "bench")
			nft(b, n, rulesettest.KubeProxyNFT(services, 1))
			for b.Loop() {
				r := open(b, n)
				rules(b, n, r)
				r.Close()
			}
		})
	}
}
