package main

import (
	"debug/elf"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// wanted modules, as path.Match patterns below kernel/. What a kernel has built
// in, or doesn't have, is not missed here: tests tell.
var wanted = []string{
	"lib/ts_*.ko", "net/netfilter/*.ko", "net/netfilter/ipset/*.ko", "net/ipv4/netfilter/*.ko", "net/ipv6/netfilter/*.ko",
	"net/bridge/bridge.ko", "net/bridge/br_netfilter.ko",
	"net/ipv4/ipip.ko", "net/ipv4/ip_gre.ko", "net/ipv4/fou.ko", "net/ipv4/esp4.ko",
	"net/ipv6/sit.ko", "net/ipv6/ip6_tunnel.ko", "net/ipv6/esp6.ko", "net/xfrm/xfrm_user.ko",
	"crypto/authenc.ko", "crypto/crypto_null.ko", "crypto/echainiv.ko", // of an ESP without a cipher
	"drivers/net/veth.ko", "drivers/net/dummy.ko", "drivers/net/tun.ko", "drivers/net/macvlan.ko", "drivers/net/geneve.ko",
	"drivers/net/vxlan.ko", "drivers/net/vxlan/vxlan.ko", "drivers/net/wireguard/wireguard.ko",
}

// moduleOrder lists the wanted modules and what they depend on, each after its
// own dependencies, as paths below the kernel's folder of modules.
func moduleOrder(k kernel) ([]string, error) {
	files := map[string]string{} // by name
	err := filepath.WalkDir(k.modules, func(file string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(file, ".ko") {
			files[moduleName(file)] = file
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	var order []string
	done := map[string]bool{}
	var add func(name string) error
	add = func(name string) error {
		file, ok := files[name]
		if done[name] || !ok { // not there: built in
			return nil
		}
		done[name] = true
		depends, err := dependencies(file)
		if err != nil {
			return err
		}
		for _, d := range depends {
			if err := add(d); err != nil {
				return err
			}
		}
		order = append(order, file)
		return nil
	}
	names := slices.Sorted(maps.Keys(files))
	for _, pattern := range wanted {
		for _, name := range names {
			below, err := filepath.Rel(filepath.Join(k.modules, "kernel"), files[name])
			if err != nil {
				return nil, err
			}
			if ok, _ := path.Match(pattern, below); ok {
				if err := add(name); err != nil {
					return nil, err
				}
			}
		}
	}
	return order, nil
}

func moduleName(file string) string {
	return strings.ReplaceAll(strings.TrimSuffix(filepath.Base(file), ".ko"), "-", "_")
}

// dependencies of a module, as it says itself.
func dependencies(file string) ([]string, error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("%s is no kernel module", file)
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	for entry := range strings.SplitSeq(string(info), "\x00") {
		if list, ok := strings.CutPrefix(entry, "depends="); ok && list != "" {
			return strings.Split(strings.ReplaceAll(list, "-", "_"), ","), nil
		}
	}
	return nil, nil
}
