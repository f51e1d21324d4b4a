package sim

import (
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

const bridgesTrack = "bridges track connections by themselves"

// ctSubject is ct KEY: net/netfilter/nft_ct.c.
func ctSubject(e nftables.CT) subject {
	if e.Key == "state" {
		return subject{value: func(r *run) (nftables.Value, state) {
			if r.hook.onBridge() {
				return "", open
			}
			return r.values.number32(ctState(r.states())), known
		}, why: bridgesTrack}
	}
	read := ctField(e)
	return subject{value: func(r *run) (nftables.Value, state) {
		switch {
		case r.hook.onBridge():
			return "", open
		case !r.tracked || r.noTrack:
			return "", broken
		case read == nil:
			return "", open
		}
		return read(r)
	}}
}

// Bits of ct state, which are those of linux/nf_conntrack_common.h.
func ctState(s ruleset.States) (bits uint32) {
	for _, x := range [...]struct {
		state ruleset.States
		bit   uint32
	}{{ruleset.StateInvalid, 1}, {ruleset.StateEstablished, 2}, {ruleset.StateRelated, 4}, {ruleset.StateNew, 8}, {ruleset.StateUntracked, 64}} {
		if s&x.state != 0 {
			bits |= x.bit
		}
	}
	return bits
}

// Bits of ct status: IPS_….
const (
	statusSeenReply       = 1 << 1
	statusAssured         = 1 << 2
	statusConfirmed       = 1 << 3
	statusSourceNAT       = 1 << 4
	statusDestinationNAT  = 1 << 5
	statusSourceDone      = 1 << 7
	statusDestinationDone = 1 << 8
)

func (r *run) ctStatus() (bits uint32) {
	have := r.statuses()
	for _, x := range [...]struct {
		is  bool
		bit uint32
	}{
		{have&ruleset.StatusSeenReply != 0, statusSeenReply}, {have&ruleset.StatusAssured != 0, statusAssured}, {have&ruleset.StatusConfirmed != 0, statusConfirmed},
		{r.states()&ruleset.StateSNAT != 0, statusSourceNAT}, {r.states()&ruleset.StateDNAT != 0, statusDestinationNAT},
		{r.boundSource, statusSourceDone}, {r.boundDest, statusDestinationDone},
	} {
		if x.is {
			bits |= x.bit
		}
	}
	return bits
}

func ctField(e nftables.CT) func(r *run) (nftables.Value, state) {
	switch e.Key {
	case "status":
		return func(r *run) (nftables.Value, state) { return r.values.number32(r.ctStatus()), known }
	case "mark":
		return func(r *run) (nftables.Value, state) { return r.values.number32(r.connMark), known }
	case "direction":
		return func(r *run) (nftables.Value, state) {
			if r.reply {
				return number8(1), known
			}
			return number8(0), known
		}
	case "l3proto":
		return func(r *run) (nftables.Value, state) {
			if r.family == packet.IPv4Family {
				return number8(2), known
			}
			return number8(10), known
		}
	case "protocol":
		return func(r *run) (nftables.Value, state) { return number8(r.protocol), known }
	case "saddr", "daddr", "proto-src", "proto-dst":
		return func(r *run) (nftables.Value, state) { return r.tupleField(e) }
	}
	return nil
}

func (r *run) tupleField(e nftables.CT) (nftables.Value, state) {
	of := r.original()
	if e.Direction == "reply" {
		of = r.replyTuple()
	}
	if e.Family == "ip" && r.family != packet.IPv4Family || e.Family == "ip6" && r.family != packet.IPv6Family {
		return "", broken
	}
	port := of.sport
	switch e.Key {
	case "saddr":
		return r.values.address(of.src), known
	case "daddr":
		return r.values.address(of.dst), known
	case "proto-dst":
		port = of.dport
	}
	if port < 0 || !r.hasPorts() {
		return "", open
	}
	return number16(uint16(port)), known
}
