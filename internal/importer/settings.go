package importer

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/unmasq/unmasq/internal/lines"
	"github.com/unmasq/unmasq/internal/policy"
)

// Setting is a flag or a variable of the environment, where it is given.
type Setting struct {
	// Name without dashes.
	Name, Value string
	// Bare: a flag without a value.
	Bare bool
	At   Place
}

// Wrong is an error about the setting.
func (s Setting) Wrong(message string, args ...any) error {
	return &policy.FieldError{File: s.At.File, Line: s.At.Line, Path: s.At.Setting, Value: shown(s.Value), Message: fmt.Sprintf(message, args...)}
}

// Bool reads a boolean as strconv.ParseBool does, and every component's flags.
func (s Setting) Bool() (bool, error) {
	if s.Bare {
		return true, nil
	}
	b, err := strconv.ParseBool(s.Value)
	if err != nil {
		return false, s.Wrong("is neither true nor false")
	}
	return b, nil
}

// Networks reads a list of CIDRs with commas between them; host bits are cut off.
func (s Setting) Networks() (all []Network, err error) {
	for _, text := range strings.Split(s.Value, ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		p, err := netip.ParsePrefix(text)
		if err != nil || p.Addr().Is4In6() {
			return nil, s.Wrong("has %s in it, which is not a CIDR; expected CIDRs such as 10.244.0.0/16,fd00:10:244::/48", shown(text))
		}
		all = append(all, Network{p.Masked(), s.At})
	}
	return all, nil
}

// Settings are flags or variables; of two of one name the last holds.
type Settings []Setting

// Get finds a setting.
func (s Settings) Get(name string) (Setting, bool) {
	for _, one := range slices.Backward(s) {
		if one.Name == name {
			return one, true
		}
	}
	return Setting{}, false
}

// Bool of a setting with a default, and where it stands; prefix is what its users
// write before the name, "--" for flags.
func (s Settings) Bool(prefix, name string, otherwise bool) (bool, Place, error) {
	one, ok := s.Get(name)
	if !ok {
		return otherwise, Place{Setting: prefix + name}, nil
	}
	b, err := one.Bool()
	return b, one.At, err
}

// word of a command line.
type word struct {
	text string
	at   Place
}

// flagsOf reads a command line as the components do: one or two dashes, a value
// behind = or, for the flags in valued, in the next word.
func flagsOf(words []word, valued ...string) (all Settings) {
	for i := 0; i < len(words); i++ {
		w := words[i]
		name := strings.TrimPrefix(strings.TrimPrefix(w.text, "-"), "-")
		if name == w.text || name == "" || w.text == "--" {
			continue
		}
		name, value, has := strings.Cut(name, "=")
		s := Setting{Name: name, Value: value, Bare: !has, At: Place{w.at.File, w.at.Line, "--" + name}}
		if !has && slices.Contains(valued, name) && i+1 < len(words) {
			i++
			s.Value, s.Bare = words[i].text, false
		}
		all = append(all, s)
	}
	return all
}

// wordsOf splits a command line, a unit file or a script as a shell would, as far as
// flags need it: quotes, and a backslash at a line's end.
func wordsOf(f File, first int, inOneLine bool) (all []word) {
	for number, line := range lines.Of(string(f.Data), first) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		if inOneLine {
			number = first
		}
		for _, text := range shellWords(strings.TrimSuffix(line, `\`)) {
			all = append(all, word{text, Place{File: f.Name, Line: number}})
		}
	}
	return all
}

func shellWords(line string) (words []string) {
	var b strings.Builder
	quote, open := rune(0), false
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '"' || r == '\''):
			quote, open = r, true
		case quote == 0 && (r == ' ' || r == '\t'):
			if open || b.Len() > 0 {
				words = append(words, b.String())
				b.Reset()
			}
			open = false
		default:
			b.WriteRune(r)
		}
	}
	if open || b.Len() > 0 {
		words = append(words, b.String())
	}
	return words
}

// variables reads lines KEY=VALUE, as files of environments and of settings have
// them; lines of another form are left out.
func variables(f File) (all Settings) {
	for number, line := range lines.Of(string(f.Data), 1) {
		line = strings.TrimPrefix(line, "export ")
		key, value, ok := strings.Cut(line, "=")
		if !ok || key == "" || strings.ContainsAny(key, " \t-#:{\"") {
			continue
		}
		all = append(all, Setting{Name: key, Value: strings.Trim(value, `"'`), At: Place{f.Name, number, key}})
	}
	return all
}

// families of networks that are stated: both where none is.
func families(networks []Network) (v4, v6 bool) {
	for _, n := range networks {
		v4, v6 = v4 || n.Addr().Is4(), v6 || n.Addr().Is6()
	}
	return v4 || len(networks) == 0, v6 || len(networks) == 0
}

// runsProgram says whether a file has a container that runs a program of one of these
// names, or is a command line or unit file that starts it.
func runsProgram(f File, programs ...string) bool {
	for _, o := range objects(f) {
		if found, err := containers(o, programs...); err == nil && len(found) > 0 {
			return true
		}
	}
	_, starts := programLine(f, programs...)
	return starts
}

// programLine is the command line in a text, where it starts a program of one of
// these names.
func programLine(f File, programs ...string) (words []word, starts bool) {
	if len(objects(f)) > 0 {
		return nil, false
	}
	words = wordsOf(f, 1, false)
	return words, slices.ContainsFunc(words, func(w word) bool {
		return slices.Contains(programs, path.Base(strings.TrimPrefix(w.text, "ExecStart=")))
	})
}

// objects are the documents of a file that are mappings; none where it is no YAML.
func objects(f File) (all []Value) {
	documents, err := Documents(f)
	if err != nil {
		return nil
	}
	for _, d := range documents {
		if d.IsMap() {
			all = append(all, d)
		}
	}
	return all
}

// number is what a flag has, without a sign.
func number(text string) (int, bool) {
	n, err := strconv.ParseUint(text, 0, 31)
	return int(n), err == nil
}
