// Package policyfile reads the texts of policy documents from files, directories
// and standard input. What is in them is internal/policy's to say.
//
//	sources, err := policyfile.Read([]string{"/etc/unmasq", "-"}, os.Stdin)
//	loaded, err := policy.Load(sources, policy.Options{})
package policyfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/policy"
)

// Stdin is the path that stands for standard input.
const Stdin = "-"

// Read reads paths in their order. A directory stands for the files in it that
// end in .yaml, .yml or .json, sorted by name; those whose names start with a dot
// and directories in it are passed over, as in a mounted ConfigMap, whose files
// are symbolic links into a directory ..data. A directory without such a file, and
// a path given twice, are errors. All that is wrong is said at once.
func Read(paths []string, stdin io.Reader) ([]policy.Source, error) {
	var sources []policy.Source
	var errs []error
	paths, seen := slices.Clone(paths), map[string]bool{}
	twice := func(path string) bool {
		clean := filepath.Clean(path)
		if seen[clean] {
			errs = append(errs, fmt.Errorf("%s is given twice", path))
		}
		again := seen[clean]
		seen[clean] = true
		return again
	}
	paths = slices.DeleteFunc(paths, twice)
	for _, path := range paths {
		found, err := readPath(path, stdin)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, source := range found { // a file may be given beside its directory
			if source.Name == path || !twice(source.Name) {
				sources = append(sources, source)
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return sources, nil
}

func readPath(path string, stdin io.Reader) ([]policy.Source, error) {
	if path == Stdin {
		content, err := io.ReadAll(stdin)
		if err != nil {
			return nil, fmt.Errorf("read standard input: %w", err)
		}
		return []policy.Source{{Name: "stdin", Content: content}}, nil
	}
	stat, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	if stat.IsDir() {
		return readDirectory(path)
	}
	return readFiles(path)
}

// readDirectory reads what ConfigMaps and people put into a directory.
func readDirectory(path string) ([]policy.Source, error) {
	entries, err := os.ReadDir(path) // sorted by name
	if err != nil {
		return nil, fmt.Errorf("read policy directory: %w", err)
	}
	var files []string
	for _, e := range entries {
		name := filepath.Join(path, e.Name())
		if strings.HasPrefix(e.Name(), ".") || !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name)) {
			continue
		}
		// An entry's own type is that of the link; a broken link is an error when it is read.
		stat, err := os.Stat(name)
		if err == nil && stat.IsDir() {
			continue
		}
		if err == nil && !stat.Mode().IsRegular() { // reading a pipe could take for ever
			return nil, fmt.Errorf("read policy directory: %s is not a regular file", name)
		}
		files = append(files, name)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("read policy directory %s: no file in it ends in .yaml, .yml or .json", path)
	}
	return readFiles(files...)
}

func readFiles(names ...string) ([]policy.Source, error) {
	var sources []policy.Source
	var errs []error
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			errs = append(errs, fmt.Errorf("read policy: %w", err))
			continue
		}
		sources = append(sources, policy.Source{Name: name, Content: content})
	}
	return sources, errors.Join(errs...)
}
