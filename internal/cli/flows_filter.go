package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/unmasq/unmasq/internal/explain"
	"github.com/unmasq/unmasq/internal/flows"
	"github.com/unmasq/unmasq/internal/packet"
)

// filterFlags choose connections; a flag that is repeated takes any of its values.
type filterFlags struct {
	source, destination, seenAs []string
	protocol, port, sourcePort  string
	state, family               string
	kinds                       []string
	rule, owner                 string
	kept, translated, four, six bool
}

func (o *filterFlags) add(f *pflag.FlagSet) {
	f.StringArrayVar(&o.source, "source", nil, "sent by this `ADDRESS` or network; repeatable")
	f.StringArrayVar(&o.destination, "destination", nil, "sent to this `ADDRESS` or network, or ending up there; repeatable")
	f.StringArrayVar(&o.seenAs, "seen-as", nil, "seen by the peer as this `ADDRESS` or network; repeatable")
	f.StringVar(&o.protocol, "protocol", "", "`PROTOCOL`: tcp, udp, sctp, icmp, icmpv6, gre, or a number")
	f.StringVar(&o.port, "port", "", "destination `PORT`, before or after translation")
	f.StringVar(&o.sourcePort, "source-port", "", "`PORT` that the source sent from")
	f.StringVar(&o.state, "state", "", "`STATE` such as ESTABLISHED or SYN_SENT")
	f.StringVar(&o.family, "family", "", "ipv4 or ipv6; also -4 and -6")
	f.BoolVarP(&o.four, "ipv4", "4", false, "IPv4 only")
	f.BoolVarP(&o.six, "ipv6", "6", false, "IPv6 only")
	f.BoolVar(&o.kept, "kept", false, "the peer sees the sender's own address")
	f.BoolVar(&o.translated, "translated", false, "the peer sees another address")
	f.StringSliceVar(&o.kinds, "kind", nil, "`KIND`: kept, pinned, masqueraded, snat, unknown (a translation that the rules as they are now don't make); repeatable")
	f.StringVar(&o.rule, "rule", "", "decided by unmasq's `POLICY/RULE`, or by any rule of POLICY")
	f.StringVar(&o.owner, "owner", "", "decided by a rule of this `OWNER`, such as flannel, kube-proxy, unmasq, unknown")
}

func (o *filterFlags) filter(args []string, names explain.Names) (*flows.Filter, error) {
	f := &flows.Filter{State: o.state, Kept: o.kept, Translated: o.translated, Kinds: o.kinds, Rule: o.rule, Owner: o.owner}
	if o.kept && o.translated {
		return nil, errors.New("--kept and --translated leave nothing; expected one of them")
	}
	for _, list := range []struct {
		what  string
		texts []string
		to    *[]netip.Prefix
	}{{"address", args, &f.Any}, {"--source", o.source, &f.Source}, {"--destination", o.destination, &f.Destination}, {"--seen-as", o.seenAs, &f.SeenAs}} {
		for _, text := range list.texts {
			networks, err := networksOf(text, names)
			if err != nil {
				return nil, fmt.Errorf("%s %q: %w", list.what, text, err)
			}
			*list.to = append(*list.to, networks...)
		}
	}
	known := []string{"kept", "pinned", "masqueraded", "snat", "unknown"}
	for _, kind := range o.kinds {
		if !slices.Contains(known, kind) {
			return nil, fmt.Errorf("--kind %q; expected %s", kind, strings.Join(known, ", "))
		}
	}
	if err := o.numbers(f); err != nil {
		return nil, err
	}
	return f, nil
}

func (o *filterFlags) numbers(f *flows.Filter) (err error) {
	if o.protocol != "" {
		if f.Protocol, err = explain.ParseProtocol(o.protocol); err != nil {
			return fmt.Errorf("--protocol: %w", err)
		}
	}
	if f.Port, err = portOf("--port", o.port); err != nil {
		return err
	}
	if f.SourcePort, err = portOf("--source-port", o.sourcePort); err != nil {
		return err
	}
	four, six := o.four || o.family == "ipv4", o.six || o.family == "ipv6"
	switch {
	case o.family != "" && o.family != "ipv4" && o.family != "ipv6":
		return fmt.Errorf("--family %q; expected ipv4 or ipv6", o.family)
	case four && !six:
		f.Family = packet.IPv4Family
	case six && !four:
		f.Family = packet.IPv6Family
	}
	return nil
}

func portOf(flag, text string) (uint16, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%s %q; expected a number from 1 to 65535", flag, text)
	}
	return uint16(n), nil
}

// networksOf an address, a network, or a name with all its addresses.
func networksOf(text string, names explain.Names) ([]netip.Prefix, error) {
	if p, err := netip.ParsePrefix(text); err == nil {
		if p != p.Masked() {
			return nil, fmt.Errorf("it has bits behind its length; expected %s, or the address alone", p.Masked())
		}
		return []netip.Prefix{p}, nil
	}
	addresses, err := names.Addresses(text)
	if err != nil {
		return nil, err
	}
	var all []netip.Prefix
	for _, a := range addresses {
		all = append(all, netip.PrefixFrom(a, a.BitLen()))
	}
	return all, nil
}

// untilBlank reads lines up to an empty one; rest is what comes behind it.
func untilBlank(in io.Reader) (text string, rest io.Reader, err error) {
	r := bufio.NewReader(in)
	var b strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", r, err
		}
		if err != nil || line == "\n" {
			return b.String() + strings.TrimSuffix(line, "\n"), r, nil
		}
		b.WriteString(line)
	}
}
