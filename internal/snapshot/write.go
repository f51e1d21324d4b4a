package snapshot

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The files of a snapshot tell a node's whole addressing; they are the owner's.
const (
	fileMode = 0o600
	dirMode  = 0o700
)

// IsArchive says whether a path names an archive, not a directory.
func IsArchive(path string) bool {
	return strings.HasSuffix(path, ".tar.gz") || strings.HasSuffix(path, ".tgz")
}

// WriteDir writes the files of a snapshot into a directory, all of them or none.
// One that exists is replaced only where it is empty or holds nothing but a snapshot.
func WriteDir(path string, files map[string][]byte) (err error) {
	path = filepath.Clean(path)
	exists, err := replaceable(path)
	if err != nil {
		return err
	}
	temp, err := os.MkdirTemp(filepath.Dir(path), "."+filepath.Base(path)+".")
	if err != nil {
		return pathError(path, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	fresh := filepath.Join(temp, "new")
	if err := os.Mkdir(fresh, dirMode); err != nil {
		return pathError(path, err)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := os.WriteFile(filepath.Join(fresh, name), files[name], fileMode); err != nil {
			return pathError(filepath.Join(path, name), err)
		}
	}
	if exists {
		if err := os.Rename(path, filepath.Join(temp, "old")); err != nil {
			return pathError(path, err)
		}
	}
	if err := os.Rename(fresh, path); err != nil {
		return pathError(path, err)
	}
	return nil
}

// CheckDir says why a snapshot can't be written to a directory of that name: it
// holds something else. nil where it can.
func CheckDir(path string) error {
	_, err := replaceable(filepath.Clean(path))
	return err
}

// replaceable says whether the directory exists; an error where it holds
// something that a snapshot doesn't.
func replaceable(path string) (exists bool, err error) {
	entries, err := os.ReadDir(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, pathError(path, err)
	}
	for _, e := range entries {
		if !known[e.Name()].yes || !e.Type().IsRegular() {
			return false, fmt.Errorf("%s: exists and isn't a snapshot (it holds %s): name another directory", path, e.Name())
		}
	}
	return true, nil
}

// WriteTarGz writes an archive, all of it or nothing.
func WriteTarGz(path string, files map[string][]byte) (err error) {
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".")
	if err != nil {
		return pathError(path, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temp.Name()))
		}
	}()
	name := strings.TrimSuffix(strings.TrimSuffix(filepath.Base(path), ".tgz"), ".tar.gz")
	if err := Archive(temp, name, files); err != nil {
		return errors.Join(pathError(path, err), temp.Close())
	}
	if err := temp.Close(); err != nil {
		return pathError(path, err)
	}
	if err := os.Rename(temp.Name(), path); err != nil {
		return pathError(path, err)
	}
	return nil
}

// Archive writes the files as a .tar.gz, in a directory of that name. The same
// files give the same bytes.
func Archive(w io.Writer, name string, files map[string][]byte) error {
	z := gzip.NewWriter(w)
	t := tar.NewWriter(z)
	for _, f := range slices.Sorted(maps.Keys(files)) {
		header := &tar.Header{Name: name + "/" + f, Mode: fileMode, Size: int64(len(files[f])), Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}
		if err := t.WriteHeader(header); err != nil {
			return err
		}
		if _, err := t.Write(files[f]); err != nil {
			return err
		}
	}
	return errors.Join(t.Close(), z.Close())
}
