package wires

import (
	"errors"
	"fmt"
	"regexp"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/kernel/netns"
)

var accounting = regexp.MustCompile(`--nfacct-name\s+"?([^\s"]+)`)

// AddAccounting makes the accounting objects that rules of iptables-save count
// in: with -m nfacct a rule isn't taken before its object is there. nfacct(8),
// which makes them, is seldom installed.
func AddAccounting(node *netns.NS, rules string) error {
	for _, m := range accounting.FindAllStringSubmatch(rules, -1) {
		if err := node.Do(func() error { return addAccounting(m[1]) }); err != nil {
			return fmt.Errorf("make the accounting object %s: %w", m[1], err)
		}
	}
	return nil
}

// addAccounting makes one object in the namespace of this thread, or finds it there.
func addAccounting(name string) error {
	const subsystem, message, attributeName = 7, 0, 1 // NFNL_SUBSYS_ACCT, NFNL_MSG_ACCT_NEW, NFACCT_NAME
	r := nl.NewNetlinkRequest(subsystem<<8|message, unix.NLM_F_CREATE|unix.NLM_F_ACK)
	r.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC})
	r.AddData(nl.NewRtAttr(attributeName, nl.ZeroTerminated(name)))
	_, err := r.Execute(unix.NETLINK_NETFILTER, 0)
	if errors.Is(err, unix.EBUSY) { // one of that name
		return nil
	}
	return err
}
