package snapshot

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// limits of what is read, several times what the largest nodes have.
type limits struct {
	total, file, line int64
	entries, depth    int
	// bundle is how many files of a support tool's archive are looked at by name.
	bundle int
}

var usual = limits{total: 512 << 20, file: 256 << 20, line: 1 << 20, entries: 10_000, depth: 8, bundle: 500_000}

// file is one dump with its content, unpacked.
type file struct {
	// name for people: the path as given, and within an archive PATH:NAME.
	name    string
	content []byte
	// member of a directory or an archive, where not everything need be a dump.
	member bool
	// meta: a meta.json stands beside it, so that it is what its name says.
	meta bool
	// under: the first line is a command that was put above what the file holds.
	under bool
}

// base is the name that the layout of a snapshot knows.
func (f *file) base() string {
	return path.Base(filepath.ToSlash(f.name[strings.LastIndexByte(f.name, ':')+1:]))
}

// loader reads paths into files.
type loader struct {
	limits limits
	total  int64
	files  []file
	notes  []Note
}

// load reads a path: a directory, an archive, a file.
func (l *loader) load(name string, stdin io.Reader) error {
	if name == "-" {
		return l.stream("stdin", stdin)
	}
	stat, err := os.Stat(name)
	if err != nil {
		return pathError(name, err)
	}
	if stat.IsDir() {
		return l.directory(name)
	}
	f, err := os.Open(name)
	if err != nil {
		return pathError(name, err)
	}
	defer f.Close()
	return l.stream(name, f)
}

// pathError says what is wrong with a path, naming it once.
func pathError(name string, err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return fmt.Errorf("%s: %w", name, err)
}

// directory reads all files below a directory.
func (l *loader) directory(root string) error {
	before := len(l.files)
	if done, err := l.bundleDirectory(root); done || err != nil {
		return err
	}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return pathError(name, err)
		}
		if d.IsDir() {
			if below, _ := filepath.Rel(root, name); strings.Count(below, string(filepath.Separator)) >= l.limits.depth {
				return fmt.Errorf("%s: more than %d directories deep: give the directory of one node", name, l.limits.depth)
			}
			return nil
		}
		return l.member(name, before)
	})
	if err != nil {
		return err
	}
	return l.together(root, before)
}

// bundleDirectory reads what a support tool's folder has of a node; done where it is one.
func (l *loader) bundleDirectory(root string) (done bool, err error) {
	var names []string
	err = filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && len(names) < l.limits.bundle {
			below, _ := filepath.Rel(root, name)
			names = append(names, filepath.ToSlash(below))
		}
		return nil // what is wrong with it is said where it counts
	})
	if err != nil {
		return false, err
	}
	picks, err := picked(names)
	if err != nil || picks == nil {
		return false, wrap(root, err)
	}
	before := len(l.files)
	for _, below := range slices.Sorted(maps.Keys(picks)) {
		had := len(l.files)
		if err := l.member(filepath.Join(root, filepath.FromSlash(below)), before); err != nil {
			return false, err
		}
		for i := range l.files[had:] {
			l.files[had+i].put(picks[below])
		}
	}
	return true, nil
}

func wrap(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", name, err)
}

// bundleNames are the names in an archive, for [picked]; those that it can't have are left out.
func (l *loader) bundleNames(content []byte) (names []string) {
	for t := tar.NewReader(bytes.NewReader(content)); len(names) < l.limits.bundle; {
		header, err := t.Next()
		if err != nil {
			return names // said where the files are read
		}
		if header.Typeflag == tar.TypeReg {
			names = append(names, path.Clean(header.Name))
		}
	}
	return names
}

// member reads a file of a directory.
func (l *loader) member(name string, before int) error {
	if len(l.files)-before >= l.limits.entries {
		return fmt.Errorf("%s: more than %d files: give the directory of one node", filepath.Dir(name), l.limits.entries)
	}
	stat, err := os.Stat(name) // a link is followed
	if err != nil {
		l.note(name, "can't be opened: "+pathError(name, err).Error())
		return nil
	}
	if !stat.Mode().IsRegular() {
		l.note(name, "not a regular file")
		return nil
	}
	f, err := os.Open(name)
	if err != nil {
		return pathError(name, err)
	}
	defer f.Close()
	content, err := l.read(name, f)
	if err != nil {
		return err
	}
	if kind := archive(content); kind == "gzip" {
		if content, err = l.gunzip(name, content); err != nil {
			return err
		}
	}
	if archive(content) != "" {
		l.note(name, "an archive within a directory: give it by itself")
		return nil
	}
	l.files = append(l.files, file{name: name, content: content, member: true})
	return nil
}

// together checks that the files from a place on are one node's, and tells them
// whether they are a snapshot's.
func (l *loader) together(root string, from int) error {
	files := l.files[from:]
	if len(files) == 0 {
		return fmt.Errorf("%s: holds no files; expected a snapshot (`unmasq snapshot -o PATH` makes one) or dumps", root)
	}
	seen := map[string]string{}
	for _, f := range files {
		base := f.base()
		if !known[base].yes {
			continue
		}
		if other, twice := seen[base]; twice {
			return fmt.Errorf("%s: holds more than one snapshot (%s and %s): give one of them", root, other, f.name)
		}
		seen[base] = f.name
	}
	for i := range files {
		files[i].meta = seen[FileMeta] != "" && path.Dir(filepath.ToSlash(seen[FileMeta])) == path.Dir(filepath.ToSlash(files[i].name))
	}
	return nil
}

// stream reads a file by itself, unpacking it.
func (l *loader) stream(name string, r io.Reader) error {
	content, err := l.read(name, r)
	if err != nil {
		return err
	}
	if archive(content) == "gzip" {
		if content, err = l.gunzip(name, content); err != nil {
			return err
		}
	}
	switch kind := archive(content); kind {
	case "":
	case "tar":
		return l.tar(name, content)
	default:
		return fmt.Errorf("%s: packed by %s: unpack it first (.tar.gz and gzip are read as they are)", name, kind)
	}
	if len(bytes.TrimSpace(content)) == 0 {
		return fmt.Errorf("%s: the file is empty", name)
	}
	l.files = append(l.files, file{name: name, content: content})
	return nil
}

// archive tells by the first bytes how a file is packed, empty where it isn't.
func archive(content []byte) string {
	for _, k := range []struct {
		at         int
		magic, way string
	}{
		{0, "\x1f\x8b", "gzip"}, {257, "ustar", "tar"}, {0, "\xfd7zXZ\x00", "xz"},
		{0, "\x28\xb5\x2f\xfd", "zstd"}, {0, "PK\x03\x04", "zip"}, {0, "BZh", "bzip2"},
	} {
		if len(content) > k.at && bytes.HasPrefix(content[k.at:], []byte(k.magic)) {
			return k.way
		}
	}
	return ""
}

// read reads all of a stream, within the limits.
func (l *loader) read(name string, r io.Reader) ([]byte, error) {
	room := min(l.limits.file, l.limits.total-l.total)
	content, err := io.ReadAll(io.LimitReader(r, room+1))
	if err != nil {
		return nil, pathError(name, err)
	}
	if int64(len(content)) > room {
		if room < l.limits.file {
			return nil, fmt.Errorf("%s: with it, more than %s is to be read in all", name, size(l.limits.total))
		}
		return nil, fmt.Errorf("%s: larger than %s, which no dump of a node is", name, size(l.limits.file))
	}
	l.total += int64(len(content))
	return content, nil
}

func size(n int64) string {
	if n >= 1<<20 {
		return fmt.Sprintf("%d MB", n>>20)
	}
	return fmt.Sprintf("%d bytes", n)
}

func (l *loader) gunzip(name string, packed []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	content, err := l.read(name, z)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("%s: the gzip file is cut off", name)
	}
	return content, err
}

// tar reads an archive. What isn't a file in it is left out.
func (l *loader) tar(name string, content []byte) error {
	before, entries := len(l.files), 0
	picks, err := picked(l.bundleNames(content))
	if err != nil {
		return wrap(name, err)
	}
	t := tar.NewReader(bytes.NewReader(content))
	for {
		header, err := t.Next()
		if err == io.EOF && picks != nil {
			return nil
		}
		if err == io.EOF {
			return l.together(name, before)
		}
		if err != nil {
			return fmt.Errorf("%s: the archive is cut off or damaged after %d entries: %w", name, entries, err)
		}
		command, pick := picks[path.Clean(header.Name)]
		if picks != nil && (!pick || header.Typeflag != tar.TypeReg) {
			continue
		}
		if entries++; entries > l.limits.entries {
			return fmt.Errorf("%s: more than %d entries", name, l.limits.entries)
		}
		switch header.Typeflag {
		case tar.TypeReg:
		case tar.TypeDir, tar.TypeXGlobalHeader:
			continue
		default:
			l.note(name+":"+path.Clean(header.Name), "not a regular file: left out")
			continue
		}
		inner := path.Clean(header.Name)
		full := name + ":" + inner
		if path.IsAbs(inner) || inner == ".." || strings.HasPrefix(inner, "../") || slices.ContainsFunc(l.files[before:], func(f file) bool { return f.name == full }) {
			l.note(full, "a name that no archive of ours has: left out")
			continue
		}
		inside, err := l.read(full, t)
		if err != nil {
			if errors.Is(err, io.ErrUnexpectedEOF) {
				err = fmt.Errorf("%s: the archive is cut off", full)
			}
			return err
		}
		l.files = append(l.files, file{name: full, content: inside, member: true})
		l.files[len(l.files)-1].put(command)
	}
}

func (l *loader) note(name, why string) {
	l.notes = append(l.notes, Note{File: name, Why: why})
}
