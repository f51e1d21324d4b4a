package results

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxSize of a file that is taken for a result; it has the network's
// configuration in it.
const maxSize = 1 << 20

// Dir is a directory of results, of which files that stayed the same are read
// once. It is for one goroutine.
type Dir struct {
	path  string
	files map[string]file
	// warned are the names of files that a warning was given of.
	warned map[string]bool
}

// file as it was last read.
type file struct {
	modified, size int64
	result         Result
	err            error
}

// Open names the directory; Read may find it absent and later there.
func Open(path string) *Dir {
	return &Dir{path: path, files: map[string]file{}, warned: map[string]bool{}}
}

// Found is what a directory holds.
type Found struct {
	// Results, the oldest first.
	Results []Result
	// Unread: some files make no sense as they are. They may be half-written, and
	// should be read again in a moment.
	Unread bool
	// Warnings, of each file once, and only where it made no sense twice.
	Warnings []string
}

// Read looks at all files. The error is of the directory; fs.ErrNotExist where
// there is none.
func (d *Dir) Read() (Found, error) {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		clear(d.files)
		return Found{}, err
	}
	var found Found
	now := make(map[string]file, len(entries))
	for _, e := range entries {
		before, known := d.files[e.Name()]
		f, err := d.read(e.Name(), before, known)
		if errors.Is(err, fs.ErrNotExist) {
			continue // between the listing and now
		}
		now[e.Name()] = f
		switch {
		case f.err == nil:
			found.Results = append(found.Results, f.result)
		case !errors.Is(f.err, ErrForeign) && (!known || before.err == nil):
			found.Unread = true
		case !d.warned[e.Name()]:
			d.warned[e.Name()] = true
			found.Warnings = append(found.Warnings, fmt.Sprintf("network result %s is left alone: %v", filepath.Join(d.path, e.Name()), f.err))
		}
	}
	d.files = now
	for name := range d.warned {
		if _, there := now[name]; !there {
			delete(d.warned, name)
		}
	}
	slices.SortFunc(found.Results, func(a, b Result) int {
		return cmp.Or(cmp.Compare(a.Added, b.Added), strings.Compare(a.Sandbox, b.Sandbox), strings.Compare(a.Network, b.Network))
	})
	return found, nil
}

// read a file, unless it is as before. What made no sense is read every time.
func (d *Dir) read(name string, before file, known bool) (file, error) {
	path := filepath.Join(d.path, name)
	info, err := os.Lstat(path)
	if err != nil {
		return file{err: err}, err
	}
	f := file{modified: info.ModTime().UnixNano(), size: info.Size()}
	if known && before.err == nil && before.modified == f.modified && before.size == f.size {
		return before, nil
	}
	content, err := readRegular(path, info)
	if err == nil {
		f.result, err = Parse(content)
		f.result.Added = f.modified
	}
	f.err = err
	return f, err
}

// readRegular reads a plain file of a sensible size. A pipe in its place would
// block its reader for ever, a link could lead anywhere.
func readRegular(path string, info fs.FileInfo) ([]byte, error) {
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	if info.Size() > maxSize {
		return nil, fmt.Errorf("larger than %d bytes", maxSize)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxSize))
}
