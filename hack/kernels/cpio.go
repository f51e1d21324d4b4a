package main

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
)

// archive is a cpio archive in the form that the kernel unpacks at its start
// (Documentation/driver-api/early-userspace/buffer-format.rst).
type archive struct {
	b     bytes.Buffer
	nodes uint32
	have  map[string]bool
}

// Types of nodes, as in stat's mode.
const (
	modeDir  = 0o040755
	modeFile = 0o100755
	modeLink = 0o120777
	modeChar = 0o020600
)

func newArchive() *archive { return &archive{have: map[string]bool{}} }

// node adds one, after the folders that it is in. A name that is there already stays.
func (a *archive) node(name string, mode uint32, major, minor int, data []byte) {
	name = path.Clean(name)[1:]
	if name == "" || a.have[name] {
		return
	}
	a.node("/"+path.Dir(name), modeDir, 0, 0, nil)
	a.have[name] = true
	a.header(name, mode, major, minor, len(data))
	a.b.Write(data)
	a.pad()
}

func (a *archive) header(name string, mode uint32, major, minor, size int) {
	a.nodes++
	fmt.Fprintf(&a.b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		a.nodes, mode, 0, 0, 1, 0, size, 0, 0, major, minor, len(name)+1, 0)
	a.b.WriteString(name + "\x00")
	a.pad()
}

func (a *archive) pad() {
	for a.b.Len()%4 != 0 {
		a.b.WriteByte(0)
	}
}

// file adds a copy of a file, of what a link leads to.
func (a *archive) file(name, from string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	a.node(name, modeFile, 0, 0, data)
	return nil
}

func (a *archive) link(name, to string) { a.node(name, modeLink, 0, 0, []byte(to)) }

func (a *archive) end() { a.header("TRAILER!!!", 0, 0, 0, 0) }

// writeImage writes what the kernel unpacks: what all kernels get, and this
// one's modules.
func writeImage(file string, common *archive, k kernel) error {
	order, err := moduleOrder(k)
	if err != nil {
		return err
	}
	own := newArchive()
	var list bytes.Buffer
	for _, m := range order {
		name := "/modules/" + filepath.Base(m)
		if err := own.file(name, m); err != nil {
			return err
		}
		fmt.Fprintln(&list, name)
	}
	own.node("/modules/order", modeFile, 0, 0, list.Bytes())
	own.end()
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, b := range [][]byte{common.b.Bytes(), own.b.Bytes()} {
		if _, err := f.Write(b); err != nil {
			return err
		}
	}
	return f.Sync()
}
