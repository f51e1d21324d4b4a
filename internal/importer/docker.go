package importer

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/unmasq/unmasq/api/v1alpha1"
	"github.com/unmasq/unmasq/internal/policy"
)

// docker reads daemon.json, or dockerd's flags, and what `docker network inspect`
// prints. What docker writes for a bridge network:
//
//	-I POSTROUTING -s SUBNET ! -o BRIDGE -j MASQUERADE      (or -j SNAT --to-source host_ipv4)
//
// daemon.json is about the default bridge alone: ip-masq doesn't concern networks that
// users make.
func docker() Kind {
	return Kind{
		Name: "docker", Reads: "daemon.json, a unit file with dockerd's flags, output of docker network inspect",
		Knows: func(f File) bool {
			return runsProgram(f, "dockerd") || slices.ContainsFunc(objects(f), func(v Value) bool { return isDockerNetwork(v) || isDockerDaemon(v) })
		},
		Import: importDocker,
	}
}

const (
	optionMasquerade = "com.docker.network.bridge.enable_ip_masquerade"
	optionBridge     = "com.docker.network.bridge.name"
	optionHost       = "com.docker.network.host_ipv"                // 4 or 6 behind it
	optionMode       = "com.docker.network.bridge.gateway_mode_ipv" // likewise
	optionDefault    = "com.docker.network.bridge.default_bridge"
)

func isDockerNetwork(v Value) bool { return v.Get("Driver").Is() && v.Get("IPAM").IsMap() }

// daemonKeys are those that only daemon.json has.
var daemonKeys = [...]string{"bip", "bip6", "ip-masq", "iptables", "ip6tables", "default-address-pools", "fixed-cidr", "fixed-cidr-v6", "log-driver",
	"storage-driver", "data-root", "exec-opts", "live-restore", "insecure-registries", "registry-mirrors", "userland-proxy", "firewall-backend"}

func isDockerDaemon(v Value) bool {
	return !v.Get("kind").Is() && slices.ContainsFunc(daemonKeys[:], func(key string) bool { return v.Get(key).Is() })
}

// moreDaemonKeys are others of daemon.json, one of which is enough to take a file for it
// that is said to be docker's: dockerd refuses keys that it doesn't know.
var moreDaemonKeys = [...]string{"bridge", "containerd", "debug", "default-gateway", "default-network-opts", "default-runtime", "dns", "experimental", "features", "group",
	"hosts", "icc", "init", "ip", "ip-forward", "ipv6", "labels", "log-level", "log-opts", "metrics-addr", "mtu", "proxies", "runtimes", "storage-opts", "tls", "userns-remap"}

// saysDocker is isDockerDaemon for a file of kind docker; an empty object is one, too.
func saysDocker(v Value) bool {
	return isDockerDaemon(v) || v.IsMap() && !v.Get("kind").Is() && (len(v.Keys()) == 0 || slices.ContainsFunc(moreDaemonKeys[:], func(key string) bool { return v.Get(key).Is() }))
}

// dockerNetwork is one network of driver bridge.
type dockerNetwork struct {
	name    string
	subnets []Network
	// off says why docker doesn't translate in a family; "": it does.
	off [2]string
	// host is the address that docker translates to; the zero Addr: masquerade.
	host [2]netip.Addr
	// at is the setting that decides.
	at Place
	// pool: it is a range that networks are made in.
	pool bool
}

func importDocker(files []File, opts Options) (*Result, error) {
	r := &Result{}
	daemon := dockerDaemon{}
	var networks []dockerNetwork
	for _, f := range files {
		found, err := daemon.read(r, f)
		if err != nil {
			return nil, err
		}
		networks = append(networks, found...)
	}
	if daemon.seen {
		more, err := daemon.networks(r, networks)
		if err != nil {
			return nil, err
		}
		networks = append(more, networks...)
	}
	d := NewDocument(opts, "docker")
	names := map[string]bool{}
	for i := range networks {
		networks[i].rules(r, d, names)
	}
	if len(d.Rules) == 0 {
		r.Warn(Place{File: files[0].Name, Line: 1, Setting: "networks"}, "none of them is one that docker translates for: there is nothing to carry over")
		return r, nil
	}
	r.Documents = append(r.Documents, d)
	return r, nil
}

// readNetwork of `docker network inspect`; nil for those that have nothing to do with
// NAT.
func readNetwork(r *Result, v Value) (*dockerNetwork, error) {
	name, at := v.Get("Name").Text(), v.Get("Name").Place()
	switch driver := v.Get("Driver").Text(); driver {
	case "bridge":
	case "host", "null", "macvlan", "ipvlan":
		return nil, nil
	default:
		r.Warn(v.Get("Driver").Place(), "network %s has driver %s, whose rules are not carried over", name, driver)
		return nil, nil
	}
	n := &dockerNetwork{name: name, at: at}
	for _, c := range v.Get("IPAM", "Config").Items() {
		if subnet := c.Get("Subnet"); subnet.Text() != "" {
			p, err := subnet.Prefix()
			if err != nil {
				return nil, err
			}
			n.subnets = append(n.subnets, p)
		}
	}
	internal, err := v.Get("Internal").Bool(false)
	if err != nil {
		return nil, err
	}
	if internal {
		n.off = [2]string{"an internal network", "an internal network"}
	}
	return n, n.options(v.Get("Options"))
}

// options of a network, which are all strings.
func (n *dockerNetwork) options(v Value) error {
	if masq := v.Get(optionMasquerade); masq.Is() {
		one := Setting{Name: optionMasquerade, Value: masq.Text(), At: masq.Place()}
		one.At.Setting = optionMasquerade
		on, err := one.Bool()
		if err != nil {
			return err
		}
		if n.at = one.At; !on {
			n.off = [2]string{one.At.String() + " is off", one.At.String() + " is off"}
		}
	}
	for i, family := range []string{"4", "6"} {
		switch mode := v.Get(optionMode + family); mode.Text() {
		case "", "nat", "nat-unprotected", "isolated":
		case "routed":
			n.off[i] = fmt.Sprintf("%s:%d: gateway_mode_ipv%s is routed", mode.file, mode.Line(), family)
		default:
			return mode.Wrong("is not a gateway mode; expected nat, nat-unprotected, routed or isolated")
		}
		host := v.Get(optionHost + family)
		if host.Text() == "" {
			continue
		}
		a, err := netip.ParseAddr(host.Text())
		if err != nil || a.Is4() != (family == "4") || a.IsUnspecified() {
			return host.Wrong("is not an IPv%s address of this host", family)
		}
		n.host[i] = a
	}
	return nil
}

// rules of a network: what it sends elsewhere is translated. What it sends to itself,
// a published port's hairpins too, is docker's.
func (n *dockerNetwork) rules(r *Result, d *Document, names map[string]bool) {
	label := uniqueLabel(n.name, names)
	var same []Network
	for i, v4 := range []bool{true, false} {
		subnets := slices.DeleteFunc(slices.Clone(n.subnets), func(p Network) bool { return p.Addr().Is4() != v4 })
		switch {
		case len(subnets) == 0:
		case n.off[i] != "":
			d.networkRule(uniqueLabel(label+map[bool]string{true: "-ipv4", false: "-ipv6"}[v4], names), subnets, v1alpha1.Rule{Action: "Leave"},
				fmt.Sprintf("Network %s: %s: docker translates nothing; Keep holds against others, too.", n.name, n.off[i]))
		case n.host[i].IsValid():
			d.networkRule(uniqueLabel(label+"-host", names), subnets, v1alpha1.Rule{Action: "SNAT", SNAT: &v1alpha1.SNAT{Addresses: []v1alpha1.AddressRange{v1alpha1.AddressRange(n.host[i].String())}}},
				fmt.Sprintf("Network %s: %s%d: hidden behind this address.", n.name, optionHost, 4+2*i))
		default:
			same = append(same, subnets...)
		}
	}
	if len(same) == 0 {
		return
	}
	what := "Network " + n.name
	if n.pool {
		what = "Networks that docker makes in " + n.name
	}
	d.networkRule(label, same, v1alpha1.Rule{Action: "Masquerade"}, fmt.Sprintf("%s: %s: hidden behind the host's address.", what, n.at))
}

func (d *Document) networkRule(name string, subnets []Network, rule v1alpha1.Rule, note string) {
	path := fmt.Sprintf("rules[%d]", len(d.Rules))
	rule.Name, rule.From = name, &v1alpha1.From{CIDRs: d.CIDRs(path+".from.cidrs", subnets)}
	if rule.Action != "Leave" {
		rule.To = &v1alpha1.To{Except: prefixTexts(subnets)}
	}
	d.Rule(rule, note)
}

// dockerDaemon is what the daemon is told of its default bridge.
type dockerDaemon struct {
	seen     bool
	file     string
	settings map[string]Value
	flags    Settings
}

// read takes daemon.json, flags, or networks.
func (d *dockerDaemon) read(r *Result, f File) (networks []dockerNetwork, err error) {
	if words, starts := programLine(f, "dockerd"); starts {
		d.seen, d.file = true, f.Name
		d.flags = append(d.flags, flagsOf(words, "bip", "fixed-cidr-v6", "bridge", "b")...)
		return nil, nil
	}
	documents, err := Documents(f)
	if err != nil {
		return nil, err
	}
	for _, v := range documents {
		switch {
		case isDockerNetwork(v):
			n, err := readNetwork(r, v)
			if err != nil {
				return nil, err
			}
			if n != nil {
				networks = append(networks, *n)
			}
		case saysDocker(v):
			if d.settings == nil {
				d.settings = map[string]Value{}
			}
			for _, key := range v.Keys() {
				d.settings[key] = v.Get(key)
			}
			d.seen, d.file = true, f.Name
		default:
			return nil, v.Wrong("expected %s", docker().Reads)
		}
	}
	if len(documents) == 0 {
		return nil, &policy.FieldError{File: f.Name, Line: 1, Message: "nothing here; expected " + docker().Reads}
	}
	return networks, nil
}

// bool of a setting; dockerd refuses one that is both a flag and in daemon.json.
func (d *dockerDaemon) bool(name string, otherwise bool) (bool, Place, error) {
	if v := d.settings[name]; v.Is() {
		b, err := v.Bool(otherwise)
		return b, v.Place(), err
	}
	return d.flags.Bool("--", name, otherwise)
}

func (d *dockerDaemon) prefix(name string) (Network, bool, error) {
	if v := d.settings[name]; v.Is() {
		p, err := v.Prefix()
		return p, true, err
	}
	if one, ok := d.flags.Get(name); ok {
		all, err := one.Networks()
		if err != nil || len(all) != 1 {
			return Network{}, false, one.Wrong("is not a CIDR; expected one such as 172.17.0.1/16")
		}
		return all[0], true, nil
	}
	return Network{}, false, nil
}

func (d *dockerDaemon) text(name string) string {
	one, _ := d.flags.Get(name)
	if v := d.settings[name]; v.Is() {
		return v.Text()
	}
	return one.Value
}

// firstSubnet is what docker gives its bridge where nothing is stated and it is free.
var firstSubnet = netip.MustParsePrefix("172.17.0.0/16")

// networks of the daemon: its default bridge, unless it was inspected, and the ranges
// that it makes others in. What turns docker's rules off turns them off for all.
func (d *dockerDaemon) networks(r *Result, inspected []dockerNetwork) (all []dockerNetwork, err error) {
	off, err := d.off(inspected)
	if err != nil {
		return nil, err
	}
	pools, err := d.pools()
	if err != nil {
		return nil, err
	}
	name := d.text("bridge")
	if name != "none" && !slices.ContainsFunc(inspected, func(n dockerNetwork) bool { return n.name == "bridge" }) {
		bridge, err := d.bridge(r, pools, off)
		if err != nil {
			return nil, err
		}
		all = append(all, *bridge)
	}
	if len(inspected) == 0 && len(pools) == 0 {
		r.Warn(Place{File: d.file, Setting: "networks"}, "those that users made are not in it; add what `docker network inspect $(docker network ls -q)` prints")
	}
	for _, p := range pools {
		all = append(all, dockerNetwork{name: p.Prefix.String(), pool: true, subnets: []Network{p}, at: p.At, off: off})
	}
	return all, nil
}

// off says in which families docker writes no rules at all, and says so of networks
// that were inspected too.
func (d *dockerDaemon) off(inspected []dockerNetwork) (off [2]string, err error) {
	for i, name := range []string{"iptables", "ip6tables"} {
		on, at, err := d.bool(name, true)
		if err != nil {
			return off, err
		}
		if !on {
			off[i] = at.String() + " is off"
		}
		for n := range inspected {
			if inspected[n].off[i] == "" {
				inspected[n].off[i] = off[i]
			}
		}
	}
	return off, nil
}

// bridge is docker0.
func (d *dockerDaemon) bridge(r *Result, pools []Network, off [2]string) (*dockerNetwork, error) {
	masq, at, err := d.bool("ip-masq", true)
	if err != nil {
		return nil, err
	}
	n := &dockerNetwork{name: "bridge", at: at, off: off}
	if !masq {
		n.off = [2]string{at.String() + " is off", at.String() + " is off"}
	}
	bip, stated, err := d.prefix("bip")
	if err != nil {
		return nil, err
	}
	switch {
	case stated:
		n.subnets = append(n.subnets, bip)
	case len(pools) == 0:
		bip = Network{firstSubnet, Place{Setting: "bip"}}
		n.subnets = append(n.subnets, bip)
		r.Warn(Place{File: d.file, Setting: "bip"}, "isn't stated: docker takes %s where that is free; check it with `docker network inspect bridge`", firstSubnet)
	}
	ipv6, at6, err := d.bool("ipv6", false)
	if err != nil || !ipv6 {
		return n, err
	}
	for _, name := range []string{"bip6", "fixed-cidr-v6"} {
		p, stated, err := d.prefix(name)
		if err != nil {
			return nil, err
		}
		if stated {
			n.subnets = append(n.subnets, p)
			return n, nil
		}
	}
	r.Warn(at6, "docker chooses the bridge's IPv6 network, which isn't in the file: not carried over (docker network inspect bridge)")
	return n, nil
}

// pools that networks are made in.
func (d *dockerDaemon) pools() (all []Network, err error) {
	for _, v := range d.settings["default-address-pools"].Items() {
		p, err := v.Get("base").Prefix()
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}
