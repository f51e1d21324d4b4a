// Package discover finds a host's facts on the host itself: from its
// interfaces and from CNI configuration files. What they mean beside stated
// facts is internal/facts'.
//
//	found, warnings, err := discover.Discover(cni.DefaultDir)
package discover

import (
	"github.com/unmasq/unmasq/internal/cni"
	"github.com/unmasq/unmasq/internal/facts"
	"github.com/unmasq/unmasq/internal/kernel/link"
)

// Discover looks at the caller's network namespace and at the CNI
// configuration in cniDir. Warnings are about files; the error says that the
// kernel could not be asked, and nothing was discovered then.
func Discover(cniDir string) (facts.Discovered, []string, error) {
	host, err := link.Read()
	if err != nil {
		return facts.Discovered{}, nil, err
	}
	configured, warnings := cni.Read(cniDir)
	return facts.Discovered{
		NodeAddresses: host.NodeAddresses(),
		Broadcasts:    host.Broadcasts(),
		TunnelPorts:   host.TunnelPorts(),
		LocalPodCIDRs: append(host.PodSubnets(), configured...),
	}, warnings, nil
}
