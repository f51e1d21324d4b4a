package importer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"

	"github.com/unmasq/unmasq/api/v1alpha1"
)

// object is a document as it is written.
type object struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Spec struct {
		Order        int32                   `json:"order,omitempty"`
		NodeSelector *v1alpha1.LabelSelector `json:"nodeSelector,omitempty"`
		Facts        *Facts                  `json:"facts,omitempty"`
		Rules        []v1alpha1.Rule         `json:"rules,omitempty"`
	} `json:"spec"`
}

func (d *Document) object() object {
	o := object{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.Kind}
	o.Metadata.Name = d.Name
	o.Spec.Order, o.Spec.NodeSelector, o.Spec.Rules = d.Order, d.NodeSelector, d.Rules
	if !d.Facts.empty() {
		o.Spec.Facts = &d.Facts
	}
	return o
}

func (f *Facts) empty() bool {
	return len(f.PodCIDRs)+len(f.LocalPodCIDRs)+len(f.NodeAddresses)+len(f.Nodes)+len(f.ServiceCIDRs)+len(f.ServiceMark)+len(f.HostPortMark) == 0
}

// WriteYAML writes the documents with their comments. Those that are another way
// have a # before each line.
func (r *Result) WriteYAML(w io.Writer) error {
	for i, d := range r.Documents {
		var text bytes.Buffer
		if i > 0 {
			text.WriteString("---\n")
		}
		if err := d.write(&text); err != nil {
			return err
		}
		out := text.Bytes()
		if d.Off {
			out = commentedOut(out)
		}
		if _, err := w.Write(out); err != nil {
			return err
		}
	}
	return nil
}

func commentedOut(text []byte) []byte {
	var out []byte
	for line := range bytes.Lines(text) {
		out = append(append(out, "# "...), line...)
	}
	return out
}

// write is one document of YAML.
func (d *Document) write(w io.Writer) error {
	content, err := json.Marshal(d.object())
	if err != nil {
		return err
	}
	var node yaml.Node
	if err := yaml.Unmarshal(content, &node); err != nil {
		return err
	}
	root := node.Content[0]
	plain(root)
	a := &annotator{notes: d.notes, used: map[string]bool{}}
	for i := 0; i+1 < len(root.Content); i += 2 {
		switch root.Content[i].Value {
		case "spec":
			a.annotate(root.Content[i+1], "")
		case "metadata":
			root.Content[i+1].Style = yaml.FlowStyle
		}
	}
	for path := range d.notes {
		if !a.used[path] {
			return fmt.Errorf("a note about spec.%s, which document %s doesn't have: please report this", path, d.Name)
		}
	}
	if _, err := io.WriteString(w, commentLines(d.About)); err != nil {
		return err
	}
	encoder := yaml.NewEncoder(w)
	encoder.SetIndent(2)
	if err := encoder.Encode(root); err != nil {
		return err
	}
	return encoder.Close()
}

// plain takes JSON's style off, but for texts that older readers of YAML, kubectl's
// among them, take for true or false.
func plain(n *yaml.Node) {
	n.Style = 0
	switch strings.ToLower(n.Value) {
	case "y", "n", "yes", "no", "on", "off":
		n.Style = yaml.DoubleQuotedStyle
	}
	for _, c := range n.Content {
		plain(c)
	}
}

// annotator puts notes on a tree.
type annotator struct {
	notes map[string][]string
	used  map[string]bool
}

// annotate what stands at path; whatever has no note below it is written in one
// line where it fits.
func (a *annotator) annotate(n *yaml.Node, path string) {
	if path != "" && path != "facts" && !isRule(path) && !a.below(path) && fits(n) {
		n.Style = yaml.FlowStyle
		return
	}
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			at := strings.TrimPrefix(path+"."+key.Value, ".")
			above := key
			if value.Kind == yaml.ScalarNode {
				above = nil
			}
			a.note(above, value, at)
			a.annotate(value, at)
		}
	case yaml.SequenceNode:
		for i, item := range n.Content {
			at := fmt.Sprintf("%s[%d]", path, i)
			above := item
			if item.Kind == yaml.ScalarNode {
				above = nil
			}
			a.note(above, item, at)
			a.annotate(item, at)
		}
	}
}

// note prints notes above a node, or behind the value where above is nil.
func (a *annotator) note(above, value *yaml.Node, path string) {
	notes := a.notes[path]
	if len(notes) == 0 {
		return
	}
	a.used[path] = true
	if above == nil {
		value.LineComment = strings.TrimSpace(commentLines([]string{strings.Join(notes, "; ")}))
		return
	}
	above.HeadComment = strings.TrimSpace(commentLines(notes))
}

// below says whether anything below path has a note.
func (a *annotator) below(path string) bool {
	for noted := range a.notes {
		if rest, ok := strings.CutPrefix(noted, path); ok && rest != "" && (rest[0] == '.' || rest[0] == '[') {
			return true
		}
	}
	return false
}

// isRule says whether path is the rules or one of them.
func isRule(path string) bool {
	rest, ok := strings.CutPrefix(path, "rules")
	return ok && (rest == "" || strings.IndexByte(rest, ']') == len(rest)-1)
}

// mostInLine bounds what is written in one line, in bytes of JSON.
const mostInLine = 90

func fits(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode || length(n) <= mostInLine }

func length(n *yaml.Node) int {
	sum := len(n.Value) + 2
	for _, c := range n.Content {
		sum += length(c)
	}
	return sum
}

// commentLines are lines of a comment, whatever is in them: what an input says can't
// end a comment.
func commentLines(texts []string) string {
	var b strings.Builder
	for _, t := range texts {
		b.WriteString("# " + strings.Map(oneLine, t) + "\n")
	}
	return b.String()
}

func oneLine(r rune) rune {
	if r == unicode.ReplacementChar || !unicode.IsGraphic(r) || r == '\ufeff' {
		return ' '
	}
	return r
}

// jsonNote is a comment as a value.
type jsonNote struct {
	Document string `json:"document"`
	Path     string `json:"path"`
	Text     string `json:"text"`
}

type jsonWarning struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Setting string `json:"setting"`
	Why     string `json:"why"`
}

// WriteJSON writes all of the result as one value; documents that are another way
// stand in alternatives.
func (r *Result) WriteJSON(w io.Writer, kind string) error {
	out := struct {
		Version      int           `json:"version"`
		Kind         string        `json:"kind"`
		Documents    []object      `json:"documents"`
		Alternatives []object      `json:"alternatives"`
		Notes        []jsonNote    `json:"notes"`
		Warnings     []jsonWarning `json:"warnings"`
	}{1, kind, []object{}, []object{}, []jsonNote{}, []jsonWarning{}}
	for _, d := range r.Documents {
		if d.Off {
			out.Alternatives = append(out.Alternatives, d.object())
		} else {
			out.Documents = append(out.Documents, d.object())
		}
		for _, path := range sortedPaths(d.notes) {
			for _, text := range d.notes[path] {
				out.Notes = append(out.Notes, jsonNote{d.Name, "spec." + path, text})
			}
		}
	}
	for _, w := range r.Warnings {
		out.Warnings = append(out.Warnings, jsonWarning{w.File, w.Line, w.Setting, w.Why})
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(out)
}

func sortedPaths(notes map[string][]string) []string {
	var paths []string
	for p := range notes {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	return paths
}
