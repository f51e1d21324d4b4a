// Command flannelrules writes flannel's masquerade and forward rules, through
// iptables or nftables, with flannel's own code, as flanneld does for a node with
// a subnet of each family, and keeps them until it is killed.
//
//	flannelrules iptables|nftables NETWORK SUBNET NETWORK6 SUBNET6
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/flannel-io/flannel/pkg/ip"
	"github.com/flannel-io/flannel/pkg/lease"
	"github.com/flannel-io/flannel/pkg/trafficmngr"
	"github.com/flannel-io/flannel/pkg/trafficmngr/iptables"
	"github.com/flannel-io/flannel/pkg/trafficmngr/nftables"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "flannelrules:", err)
		os.Exit(1)
	}
}

// resync is in seconds.
const resync = 5

func run(args []string) error {
	if len(args) != 5 {
		return fmt.Errorf("usage: flannelrules iptables|nftables NETWORK SUBNET NETWORK6 SUBNET6")
	}
	var network ip.IP4Net
	var network6 ip.IP6Net
	l := &lease.Lease{EnableIPv4: true, EnableIPv6: true}
	for i, v := range []json.Unmarshaler{&network, &l.Subnet, &network6, &l.IPv6Subnet} {
		if err := v.UnmarshalJSON([]byte(`"` + args[1+i] + `"`)); err != nil {
			return err
		}
	}
	var m trafficmngr.TrafficManager = &iptables.IPTablesManager{}
	if args[0] == "nftables" {
		m = &nftables.NFTablesManager{}
	}
	ctx := context.Background()
	if err := m.Init(ctx); err != nil {
		return err
	}
	// The networks of the run before are the same: there is nothing to remove.
	err := m.SetupAndEnsureMasqRules(ctx, network, network, l.Subnet, network6, network6, l.IPv6Subnet, l, resync, false)
	if err != nil {
		return err
	}
	m.SetupAndEnsureForwardRules(ctx, network, network6, resync)
	select {}
}
