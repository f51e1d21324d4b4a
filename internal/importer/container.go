package importer

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/policy"
)

// Container is one of a pod's, with what it is started with.
type Container struct {
	Value
	words []word
	// Env in order; those without a plain value are left out, and named in Unread.
	Env    Settings
	Unread []Place
}

// Flags of the command line; those in valued may have their value in the next word.
func (c Container) Flags(valued ...string) Settings { return flagsOf(c.words, valued...) }

// containers of a DaemonSet, Deployment, Pod, or anything with a pod template, that run
// a program of one of these names: by the container's name, its image's or its command's.
// Those that only prepare the others are left out.
func containers(v Value, programs ...string) (all []Container, err error) {
	spec := v.Get("spec")
	if t := spec.Get("template", "spec"); t.Is() {
		spec = t
	}
	for _, v := range spec.Get("containers").Items() {
		if !runs(v, programs) {
			continue
		}
		c, err := container(v)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

func runs(c Value, programs []string) bool {
	image, _, _ := strings.Cut(path.Base(c.Get("image").Text()), "@")
	image, _, _ = strings.Cut(image, ":")
	names := []string{c.Get("name").Text(), image}
	for _, w := range c.Get("command").Items() {
		names = append(names, path.Base(w.Text()))
	}
	return slices.ContainsFunc(names, func(n string) bool { return slices.Contains(programs, n) })
}

func container(v Value) (c Container, err error) {
	for _, key := range []string{"command", "args", "env"} {
		if list := v.Get(key); list.Is() && !list.IsList() {
			return c, list.Wrong("is not a list")
		}
	}
	c.Value = v
	c.environment()
	for _, w := range append(v.Get("command").Items(), v.Get("args").Items()...) {
		at, text := w.Place(), c.expand(w.Text())
		if strings.ContainsAny(text, " \n") && strings.Contains(text, " -") { // a script for a shell
			c.words = append(c.words, wordsOf(File{at.File, []byte(text)}, at.Line, true)...)
		} else {
			c.words = append(c.words, word{text, at})
		}
	}
	return c, nil
}

func (c *Container) environment() {
	for _, from := range c.Get("envFrom").Items() {
		c.Unread = append(c.Unread, from.Place())
	}
	for _, e := range c.Get("env").Items() {
		at := e.Place()
		at.Setting = e.Get("name").Text()
		if value := e.Get("value"); value.Is() || !e.Get("valueFrom").Is() {
			at.Line = max(at.Line, value.Line())
			c.Env = append(c.Env, Setting{Name: at.Setting, Value: value.Text(), At: at})
		} else {
			c.Unread = append(c.Unread, at)
		}
	}
}

// expand puts variables' values in, as kubelet does with $(NAME); what isn't known stays.
func (c *Container) expand(text string) string {
	if !strings.Contains(text, "$(") {
		return text
	}
	for _, one := range c.Env {
		text = strings.ReplaceAll(text, "$("+one.Name+")", one.Value)
	}
	return text
}

// startWith collects what a program of one of these names is started with, its flags
// and its environment, from DaemonSets, command lines and unit files. Flags in valued
// may have their value in the next word.
func startWith(files []File, programs []string, valued ...string) (flags, env Settings, err error) {
	for _, f := range files {
		if words, starts := programLine(f, programs...); starts {
			flags = append(flags, flagsOf(words, valued...)...)
			continue
		}
		found, err := containersOf(f, programs)
		if err != nil {
			return nil, nil, err
		}
		for _, c := range found {
			flags, env = append(flags, c.Flags(valued...)...), append(env, c.Env...)
		}
	}
	return flags, env, nil
}

// containersOf are a file's containers that run a program, at least one.
func containersOf(f File, programs []string) (all []Container, err error) {
	documents, err := Documents(f)
	if err != nil {
		return nil, err
	}
	for _, d := range documents {
		found, err := containers(d, programs...)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	if len(all) == 0 {
		return nil, &policy.FieldError{File: f.Name, Line: 1, Message: fmt.Sprintf("nothing here starts %s; expected its DaemonSet, as `kubectl get -o yaml` prints it, or a command line", programs[0])}
	}
	return all, nil
}
