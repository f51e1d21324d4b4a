// Package capture reads a live node's state by running the programs that print
// it (iptables-save, nft, ipset, ip, sysctl, conntrack). It changes nothing, and
// is no part of the enforcing path.
package capture
