package nft

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Generation of this network namespace's rules: another number after each change
// by nftables or iptables-nft. iptables-legacy doesn't count.
func Generation() (uint32, error) {
	c, err := dial()
	if err != nil {
		return 0, err
	}
	defer c.close()
	messages, err := c.dump(unix.NFT_MSG_GETGEN, 0, nil)
	if err != nil {
		return 0, fmt.Errorf("read the rules' generation: %w", err)
	}
	for _, m := range messages {
		for typ, data := range m.attributes() {
			if typ == unix.NFTA_GEN_ID {
				return u32(data), nil
			}
		}
	}
	return 0, fmt.Errorf("read the rules' generation: %w", unix.EBADMSG)
}
