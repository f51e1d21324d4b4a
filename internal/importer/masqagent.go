package importer

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/api/v1alpha1"
	"github.com/unmasq/unmasq/internal/masqagent"
	"github.com/unmasq/unmasq/internal/policy"
)

// ipMasqAgent and azureIPMasqAgent read the files of the two ip-masq-agents, in
// ConfigMaps or as they are, and their DaemonSets' flags. What is in the files is
// internal/masqagent's to say.
func ipMasqAgent() Kind {
	return masqAgentKind("ip-masq-agent", masqagent.Kubernetes, "ConfigMap ip-masq-agent, or the file in it; its DaemonSet or command line too")
}

func azureIPMasqAgent() Kind {
	return masqAgentKind("azure-ip-masq-agent", masqagent.Azure, "ConfigMaps azure-ip-masq-agent-config and …-reconciled, or the files ip-masq… in them; its DaemonSet or command line too")
}

func masqAgentKind(name string, dialect masqagent.Dialect, reads string) Kind {
	return Kind{
		Name: name, Reads: reads,
		Knows: func(f File) bool {
			var in masqAgentInput
			return strings.TrimSpace(string(f.Data)) != "" && in.read(f) == nil && in.dialect() == dialect
		},
		Import: func(files []File, opts Options) (*Result, error) {
			var in masqAgentInput
			for _, f := range files {
				if err := in.read(f); err != nil {
					return nil, err
				}
			}
			return in.result(name, dialect, opts)
		},
	}
}

// masqAgentPrograms are names of containers, images and commands.
func masqAgentPrograms() []string {
	return []string{"ip-masq-agent", "ip-masq-agent-v2", "azure-ip-masq-agent", "ip-masq-agent-amd64", "ip-masq-agent-arm64"}
}

// masqAgentInput is what files are made of.
type masqAgentInput struct {
	// files of the agents, under the names that they have in a pod.
	files []masqagent.File
	names []string
	flags Settings
	// started: a command line was given.
	started bool
	program string
}

// masqAgentKeys are those of a file; one is enough to know it.
var masqAgentKeys = [...]string{"nonMasqueradeCIDRs", "masqLinkLocal", "masqLinkLocalIPv6", "resyncInterval", "cidrLimit"}

func isMasqAgentFile(v Value) bool {
	return slices.ContainsFunc(masqAgentKeys[:], func(key string) bool {
		return slices.ContainsFunc(v.Keys(), func(k string) bool { return strings.EqualFold(k, key) })
	})
}

// read takes a file of settings, ConfigMaps or a DaemonSet.
func (in *masqAgentInput) read(f File) error {
	if words, starts := programLine(f, masqAgentPrograms()...); starts {
		in.start(flagsOf(words, "masq-chain", "to-ports", "resync-interval"), "")
		return nil
	}
	documents, err := Documents(f)
	if err != nil {
		return err
	}
	known := len(documents) == 0 // an empty file means something
	if known || len(documents) == 1 && !documents[0].Get("kind").Is() && isMasqAgentFile(documents[0]) {
		in.files, in.names = append(in.files, masqagent.File(f)), append(in.names, path.Base(f.Name))
		return nil
	}
	for _, d := range documents {
		if d.Get("kind").Text() == "ConfigMap" {
			known = in.configMap(d) || known
		}
		found, err := containers(d, masqAgentPrograms()...)
		if err != nil {
			return err
		}
		for _, c := range found {
			image, _, _ := strings.Cut(path.Base(c.Get("image").Text()), ":")
			in.start(c.Flags("masq-chain", "to-ports", "resync-interval"), image)
			known = true
		}
	}
	if !known {
		return &policy.FieldError{File: f.Name, Line: 1, Message: "nothing here is an ip-masq-agent's; expected its ConfigMap, a file with nonMasqueradeCIDRs, or its DaemonSet"}
	}
	return nil
}

func (in *masqAgentInput) start(flags Settings, image string) {
	in.flags, in.started = append(in.flags, flags...), true
	if image != "" {
		in.program = image
	}
}

// configMap takes the keys that are mounted as files: "config" of Kubernetes' agent,
// ip-masq… of Azure's, in ConfigMaps that are called so or whose files look like it.
func (in *masqAgentInput) configMap(v Value) (known bool) {
	called := strings.Contains(v.Get("metadata", "name").Text(), masqagent.SingleFile)
	for _, key := range v.Get("data").Keys() {
		text, name := v.Get("data", key), key
		if key == "config" {
			name = masqagent.SingleFile
		}
		inner, err := text.Inner()
		looks := err == nil && len(inner) > 0 && isMasqAgentFile(inner[0])
		if strings.HasPrefix(name, masqagent.FilePrefix) && (called || looks) {
			in.files, in.names, known = append(in.files, outerLines(text)), append(in.names, name), true
		}
	}
	return known
}

// outerLines is a text within a file as a file of its own whose lines have the numbers
// of the file around it, where they are lines there too.
func outerLines(v Value) masqagent.File {
	text := v.Text()
	switch {
	case text == "":
		return masqagent.File{Name: v.file}
	case v.block():
		return masqagent.File{Name: v.file, Data: []byte(strings.Repeat("\n", v.Line()) + text)}
	}
	return masqagent.File{Name: fmt.Sprintf("%s:%d: %s", v.file, v.Line(), v.path), Data: []byte(text)}
}

func (in *masqAgentInput) dialect() masqagent.Dialect {
	e := masqagent.Evidence{Program: in.program, Files: in.names}
	for _, f := range in.flags {
		e.Flags = append(e.Flags, f.Name)
	}
	d, _, _ := e.Find()
	return d
}

func (in *masqAgentInput) result(name string, dialect masqagent.Dialect, opts Options) (*Result, error) {
	r := &Result{}
	settings := masqagent.Settings{Dialect: dialect, RandomFully: masqagent.RandomFullyByDefault(dialect), PodCIDRs: opts.PodCIDRs}
	if err := in.settings(r, &settings); err != nil {
		return nil, err
	}
	config, warnings, err := masqagent.Parse(in.files, settings)
	if err != nil {
		return nil, err
	}
	for _, w := range warnings {
		r.Warnings = append(r.Warnings, Warning{Place{File: w.File, Line: w.Line}, w.Text})
	}
	written := config.Document()
	d := NewDocument(opts, written.Name)
	d.Rules = written.Rules
	for _, p := range written.PodCIDRs {
		d.Facts.PodCIDRs = append(d.Facts.PodCIDRs, v1alpha1.CIDR(p.String()))
	}
	for _, n := range written.Notes {
		d.Note(n.Path, n.Text)
	}
	r.Documents = append(r.Documents, d)
	return r, nil
}

// settings are what the flags say.
func (in *masqAgentInput) settings(r *Result, s *masqagent.Settings) (err error) {
	if !in.started {
		file := ""
		if len(in.files) > 0 {
			file = in.files[0].Name
		}
		r.Warn(Place{File: file, Setting: "flags"}, "no DaemonSet or command line was given, so that the flags are taken for their defaults: nothing is done to IPv6")
	}
	for _, x := range []struct {
		name string
		to   *bool
	}{{"enable-ipv6", &s.EnableIPv6}, {"nomasq-all-reserved-ranges", &s.AllReserved}, {"random-fully", &s.RandomFully}} {
		if *x.to, _, err = in.flags.Bool("--", x.name, *x.to); err != nil {
			return err
		}
	}
	if one, ok := in.flags.Get("masq-chain"); ok {
		s.Chain = one.Value
	}
	one, ok := in.flags.Get("to-ports")
	if !ok {
		return nil
	}
	widest, rest, err := masqagent.ParsePorts(one.Value)
	if err != nil {
		return one.Wrong("has what is no range of ports: %v", err)
	}
	if len(rest) > 0 {
		r.Warn(one.At, "a rule has one range of source ports: the widest, %d-%d, is carried over", widest.First, widest.Last)
	}
	s.Ports = widest
	return nil
}
