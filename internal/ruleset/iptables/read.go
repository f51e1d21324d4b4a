// Package iptables reads what the iptables programs print: iptables-save and
// ip6tables-save, iptables -S, and iptables -L in its forms.
package iptables
