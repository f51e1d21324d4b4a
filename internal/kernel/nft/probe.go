package nft

import (
	"errors"
	"fmt"
	"os"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Probe asks the kernel what it can do, on throw-away tables of which nothing
// stays. It needs CAP_NET_ADMIN.
func Probe() (Features, error) {
	c, err := dial()
	if err != nil {
		return Features{}, err
	}
	defer c.close()
	var f Features
	if f.Ownership, err = c.try(flagOwner|flagPersist, nil); err != nil {
		return f, err
	}
	f.IPsec, err = c.try(0, &expr.Rt{Key: rtXFRM, Register: reg1})
	return f, err
}

// needsAdmin is the error of whoever may not write rules.
func needsAdmin(err error) error {
	return fmt.Errorf("%w: writing nftables rules needs CAP_NET_ADMIN (root, or sudo)", err)
}

// try creates a table with a rule, and deletes it. It is false where the kernel
// refuses the contents, an error where it refuses us.
func (c *conn) try(flags uint32, x expr.Any) (bool, error) {
	w := &writer{table: fmt.Sprintf("unmasq-probe-%d-%d", os.Getpid(), c.port)}
	w.addTable(flags)
	if x != nil {
		const chain = "probe"
		data, err := expr.Marshal(unix.NFPROTO_INET, x)
		if err != nil {
			return false, err
		}
		w.add("chain", unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, func(b []byte) []byte {
			b = attrString(b, unix.NFTA_CHAIN_TABLE, w.table)
			return attrString(b, unix.NFTA_CHAIN_NAME, chain)
		})
		w.add("rule", unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, func(b []byte) []byte {
			b = attrString(b, unix.NFTA_RULE_TABLE, w.table)
			b = attrString(b, unix.NFTA_RULE_CHAIN, chain)
			b, at := nest(b, unix.NFTA_RULE_EXPRESSIONS)
			return end(attr(b, unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, data...), at)
		})
	}
	err := c.send(&w.batch)
	switch {
	case errors.Is(err, unix.EPERM):
		return false, needsAdmin(err)
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("probe what the kernel can do: %w", err)
	}
	w = &writer{table: w.table}
	w.deleteTable()
	return true, c.send(&w.batch)
}
