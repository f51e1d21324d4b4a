package iptables

import (
	"strings"

	"github.com/unmasq/unmasq/internal/ruleset"
)

// markOperation reads the five spellings of a change of a mark into
// mark = mark &^ mask ^ value: extensions/libxt_MARK.c, mark_tg_parse.
func markOperation(name string, value, mask uint32, hasMask bool) (newValue, newMask uint32, ok bool) {
	if hasMask && name != "--set-mark" && name != "--set-xmark" {
		return 0, 0, false
	}
	switch name {
	case "--set-mark":
		return value, value | mask, true
	case "--set-xmark":
		return value, mask, true
	case "--and-mark":
		return 0, ^value, true
	case "--or-mark":
		return value, value, true
	case "--xor-mark":
		return value, 0, true
	}
	return 0, 0, false
}

// markOption reads --set-xmark 0x1/0xff and its kin.
func markOption(o option) (value, mask uint32, ok bool) {
	value, mask, ok = masked(o.value)
	if !ok || o.n != 1 || o.not {
		return 0, 0, false
	}
	return markOperation(o.name, value, mask, strings.Contains(o.value, "/"))
}

func (s *spec) setMark() (ruleset.Target, string) {
	if len(s.targetOptions) != 1 {
		return nil, whyMalformed
	}
	value, mask, ok := markOption(s.targetOptions[0])
	if !ok {
		return nil, whyMalformed
	}
	return ruleset.SetMark{Value: value, Mask: mask}, ""
}

// connMark reads -j CONNMARK: a change of the connection's mark, or
// --save-mark and --restore-mark with --mask, or --nfmask and --ctmask.
func (s *spec) connMark() (ruleset.Target, string) {
	if len(s.targetOptions) == 0 {
		return nil, whyMalformed
	}
	first := s.targetOptions[0]
	t := ruleset.ConnMark{PacketMask: ^uint32(0), ConnMask: ^uint32(0)}
	switch first.name {
	case "--save-mark":
		t.Operation = ruleset.ConnMarkSave
	case "--restore-mark":
		t.Operation = ruleset.ConnMarkRestore
	default:
		value, mask, ok := markOption(first)
		if !ok || len(s.targetOptions) != 1 {
			return nil, whyMalformed
		}
		return ruleset.ConnMark{Operation: ruleset.ConnMarkSet, Value: value, Mask: mask}, ""
	}
	if first.n != 0 {
		return nil, whyMalformed
	}
	for _, o := range s.targetOptions[1:] {
		mask, ok := number(o.value)
		switch o.name {
		case "--mask":
			t.PacketMask, t.ConnMask = mask, mask
		case "--nfmask":
			t.PacketMask = mask
		case "--ctmask":
			t.ConnMask = mask
		default:
			ok = false
		}
		if !ok || o.n != 1 {
			return nil, whyMalformed
		}
	}
	return t, ""
}
