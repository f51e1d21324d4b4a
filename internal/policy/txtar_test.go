package policy

import (
	"bytes"
	"fmt"
	"os"
	"strings"
)

// archive is a text with files in it, each after a line "-- NAME --".
type archive struct {
	comment string
	files   []archived
}

type archived struct {
	name string
	data []byte
}

func readArchive(path string) (*archive, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	a := &archive{}
	for line := range strings.Lines(string(content)) {
		name, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "-- ")
		if name, end := strings.CutSuffix(name, " --"); ok && end {
			a.files = append(a.files, archived{name: name})
		} else if n := len(a.files); n > 0 {
			a.files[n-1].data = append(a.files[n-1].data, line...)
		} else {
			a.comment += line
		}
	}
	return a, nil
}

func (a *archive) write(path string) error {
	var b bytes.Buffer
	b.WriteString(a.comment)
	for _, f := range a.files {
		fmt.Fprintf(&b, "-- %s --\n%s", f.name, f.data)
		if len(f.data) > 0 && !bytes.HasSuffix(f.data, []byte("\n")) {
			b.WriteByte('\n')
		}
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}
