package wires

import (
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/kernel/netns"
)

// AddAccounting makes an accounting object, without which a rule with -m nfacct
// isn't taken. nfacct(8), which does that, is seldom installed.
func AddAccounting(node *netns.NS, name string) error {
	const subsystem, message, attributeName = 7, 0, 1
	err := node.Do(func() error {
		r := nl.NewNetlinkRequest(subsystem<<8|message, unix.NLM_F_CREATE|unix.NLM_F_ACK)
		r.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC})
		r.AddData(nl.NewRtAttr(attributeName, nl.ZeroTerminated(name)))
		_, err := r.Execute(unix.NETLINK_NETFILTER, 0)
		return err
	})
	if err != nil {
		return fmt.Errorf("make the accounting object %s: %w", name, err)
	}
	return nil
}
