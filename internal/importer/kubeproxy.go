package importer

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/policy"
)

// kubeProxy reads a KubeProxyConfiguration, also in a ConfigMap, or kube-proxy's flags.
// What kube-proxy writes for masqueradeAll, of each ClusterIP:
//
//	-A KUBE-SVC-X -d CLUSTERIP -p tcp --dport PORT -j KUBE-MARK-MASQ
//
// and otherwise, where it is told the cluster's pods, for clients that are none:
//
//	-A KUBE-SVC-X ! -s CLUSTERCIDR -d CLUSTERIP -p tcp --dport PORT -j KUBE-MARK-MASQ
//
// The second goes on beside unmasq and is not carried over.
func kubeProxy() Kind {
	return Kind{
		Name: "kube-proxy", Reads: "KubeProxyConfiguration, ConfigMap kube-proxy, DaemonSet or command line with its flags",
		Knows: func(f File) bool {
			config, err := proxyConfiguration(f)
			return err == nil && config.Is() || runsProgram(f, kubeProxyProgram)
		},
		Import: importKubeProxy,
	}
}

const kubeProxyProgram = "kube-proxy"

// proxySettings are those that concern source NAT.
type proxySettings struct {
	mode              string
	modeAt            Place
	masqueradeAll     bool
	masqueradeAllAt   Place
	bit               int
	bitAt             Place
	cluster           []Network
	detectLocal       string
	detectLocalAt     Place
	configurationSeen bool
	// ignored are flags beside a configuration.
	ignored []Setting
}

// Names of the two ways, as in docs/policy.md.
const (
	exactName       = "masquerade-all"
	whereNeededName = "masquerade-where-replies-would-be-lost"
)

func importKubeProxy(files []File, opts Options) (*Result, error) {
	s, err := proxySettingsOf(files)
	if err != nil {
		return nil, err
	}
	r := &Result{}
	s.warn(r)
	if !s.masqueradeAll {
		d := NewDocument(opts, kubeProxyProgram, "kube-proxy hides no clients of its own accord but those from outside of the cluster, and goes on with that:",
			"there is nothing to carry over but what it knows of the cluster.")
		s.facts(d, opts)
		if !d.Facts.empty() {
			r.Documents = append(r.Documents, d)
		}
		r.Warn(s.masqueradeAllAt, "is off: there are no rules to carry over")
		return r, nil
	}
	r.needServiceCIDRs(s.masqueradeAllAt, opts)
	if opts.MasqueradeAll != MasqueradeExact {
		r.Documents = append(r.Documents, s.way(opts, whereNeededName, servicesWhereNeeded(s.masqueradeAllAt.String()), "Recommended: hides clients only where replies to them would be lost."))
	}
	if opts.MasqueradeAll != MasqueradeWhereNeeded {
		d := s.way(opts, exactName, servicesExact(s.masqueradeAllAt.String()), "The same as masqueradeAll: hides every client of every service.")
		d.Off = opts.MasqueradeAll == ""
		r.Documents = append(r.Documents, d)
	}
	return r, nil
}

// way is one of the two ways to say masqueradeAll.
func (s *proxySettings) way(opts Options, name string, rules []notedRule, about string) *Document {
	d := NewDocument(opts, name, about)
	s.facts(d, opts)
	for _, rule := range rules {
		d.Rule(rule.Rule, rule.note)
	}
	return d
}

// needServiceCIDRs warns where a document in a file will lack them.
func (r *Result) needServiceCIDRs(at Place, opts Options) {
	if len(opts.ServiceCIDRs) == 0 && !opts.Cluster {
		r.Warn(at, "the rules need spec.facts.serviceCIDRs in a file: state --service-cidrs (kube-apiserver's --service-cluster-ip-range), or import for a cluster with --cluster")
	}
}

func (s *proxySettings) facts(d *Document, opts Options) {
	cluster := s.cluster
	if len(opts.PodCIDRs) > 0 {
		cluster = stated("--pod-cidrs", opts.PodCIDRs)
	}
	d.Facts.PodCIDRs = d.CIDRs("facts.podCIDRs", cluster)
	d.Facts.LocalPodCIDRs = d.CIDRs("facts.localPodCIDRs", stated("--local-pod-cidrs", opts.LocalPodCIDRs))
	d.Facts.ServiceCIDRs = d.CIDRs("facts.serviceCIDRs", stated("--service-cidrs", opts.ServiceCIDRs))
	if mark := uint32(1) << s.bit; mark != policy.DefaultServiceMark.Mask {
		d.Facts.ServiceMark = fmt.Sprintf("0x%x/0x%x", mark, mark)
		d.Note("facts.serviceMark", s.bitAt.String())
	}
}

func (s *proxySettings) warn(r *Result) {
	for _, one := range s.ignored {
		r.Warn(one.At, "kube-proxy takes no notice of it beside a configuration")
	}
	if s.mode == "ipvs" {
		r.Warn(s.modeAt, "rules for services hold in mode ipvs by design, but that is untested")
	}
	switch {
	case s.masqueradeAll:
	case s.detectLocal == "" && len(s.cluster) == 0:
		r.Warn(s.detectLocalAt, "is not stated, and neither is clusterCIDR: kube-proxy hides no client of a ClusterIP; where replies to clients from outside are lost, see docs/policy.md, Services")
	case s.detectLocal != "" && s.detectLocal != "ClusterCIDR":
		r.Warn(s.detectLocalAt, "%s: whom kube-proxy takes for pods; it goes on with that, and unmasq goes by pod CIDRs", s.detectLocal)
	}
}

// proxyModes on Linux.
var proxyModes = [...]string{"", "iptables", "ipvs", "nftables"}

func proxySettingsOf(files []File) (*proxySettings, error) {
	s := &proxySettings{bit: bits.TrailingZeros32(policy.DefaultServiceMark.Mask)}
	var flags Settings
	for _, f := range files {
		config, err := proxyConfiguration(f)
		if err != nil && !runsProgram(f, kubeProxyProgram) {
			return nil, err
		}
		if config.Is() {
			if err := s.configuration(config); err != nil {
				return nil, err
			}
			continue
		}
		more, _, err := startWith([]File{f}, []string{kubeProxyProgram}, "cluster-cidr", "proxy-mode", "detect-local-mode", "iptables-masquerade-bit", "config")
		if err != nil {
			return nil, err
		}
		flags = append(flags, more...)
	}
	if !s.configurationSeen {
		if config, ok := flags.Get("config"); ok {
			return nil, config.Wrong("is where the settings are; give that file (ConfigMap kube-proxy) too")
		}
		return s, s.fromFlags(flags)
	}
	for _, one := range flags {
		if slices.Contains([]string{"masquerade-all", "cluster-cidr", "proxy-mode", "detect-local-mode", "iptables-masquerade-bit"}, one.Name) {
			s.ignored = append(s.ignored, one)
		}
	}
	return s, nil
}

// proxyConfiguration in a file, as it is or in a ConfigMap, under whatever key.
func proxyConfiguration(f File) (Value, error) {
	documents, err := Documents(f)
	if err != nil {
		return Value{}, err
	}
	for _, d := range documents {
		if d.Get("kind").Text() == "KubeProxyConfiguration" {
			return d, nil
		}
		if d.Get("kind").Text() != "ConfigMap" {
			continue
		}
		for _, key := range d.Get("data").Keys() {
			text := d.Get("data", key)
			inner, err := text.Inner()
			if err != nil && strings.Contains(text.Text(), "KubeProxyConfiguration") {
				return Value{}, err
			}
			for _, v := range inner {
				if v.Get("kind").Text() == "KubeProxyConfiguration" {
					return v, nil
				}
			}
		}
	}
	return Value{}, nil
}

func (s *proxySettings) configuration(v Value) (err error) {
	s.configurationSeen = true
	mode := v.Get("mode")
	if s.mode, s.modeAt = mode.Text(), mode.Place(); !slices.Contains(proxyModes[:], s.mode) {
		return mode.Wrong("is not a mode of kube-proxy on Linux; expected iptables, nftables or ipvs")
	}
	section := v.Get("iptables") // of ipvs too
	if s.mode == "nftables" {
		section = v.Get("nftables")
	}
	if section.Is() && !section.IsMap() {
		return section.Wrong("is not a mapping")
	}
	all := section.Get("masqueradeAll")
	if s.masqueradeAll, err = all.Bool(false); err != nil {
		return err
	}
	s.masqueradeAllAt = all.Place()
	bit := section.Get("masqueradeBit")
	if s.bit, err = bit.Int(s.bit, 0, 31); err != nil {
		return err
	}
	s.bitAt = bit.Place()
	if cidr := v.Get("clusterCIDR"); cidr.Text() != "" {
		if s.cluster, err = (Setting{Name: "clusterCIDR", Value: cidr.Text(), At: cidr.Place()}).Networks(); err != nil {
			return err
		}
	}
	s.detectLocal, s.detectLocalAt = v.Get("detectLocalMode").Text(), v.Get("detectLocalMode").Place()
	return nil
}

func (s *proxySettings) fromFlags(flags Settings) (err error) {
	if mode, ok := flags.Get("proxy-mode"); ok {
		if s.mode, s.modeAt = mode.Value, mode.At; !slices.Contains(proxyModes[:], s.mode) {
			return mode.Wrong("is not a mode of kube-proxy on Linux; expected iptables, nftables or ipvs")
		}
	}
	if s.masqueradeAll, s.masqueradeAllAt, err = flags.Bool("--", "masquerade-all", false); err != nil {
		return err
	}
	if bit, ok := flags.Get("iptables-masquerade-bit"); ok {
		n, ok := number(bit.Value)
		if !ok || n > 31 {
			return bit.Wrong("is not a bit; expected 0 to 31")
		}
		s.bit, s.bitAt = n, bit.At
	}
	if cidr, ok := flags.Get("cluster-cidr"); ok {
		if s.cluster, err = cidr.Networks(); err != nil {
			return err
		}
	}
	s.detectLocalAt = Place{Setting: "--detect-local-mode"}
	if mode, ok := flags.Get("detect-local-mode"); ok {
		s.detectLocal, s.detectLocalAt = mode.Value, mode.At
	}
	return nil
}
