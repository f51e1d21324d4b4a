package kube

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
)

// Image of one layer, FROM scratch, for nodes with a kubelet. It is imported, not
// pulled: a pod that runs it says imagePullPolicy: Never.
type Image struct {
	// Name with a tag: "unmasq.test/unmasq:1".
	Name string
	// Files of the machine that are in it, by their paths there ("/unmasq").
	Files map[string]string
	// Entrypoint and Command of its containers.
	Entrypoint, Command []string
}

// PodImage is on every node with a kubelet: test/kube/peer/pod.
const PodImage = "unmasq.test/pod:1"

// write the archive that `ctr images import` takes: an OCI image layout.
func (i Image) write(w io.Writer) error {
	layer, err := i.layer()
	if err != nil {
		return fmt.Errorf("image %s: %w", i.Name, err)
	}
	blobs := map[string][]byte{}
	put := func(kind string, content []byte) object {
		digest := fmt.Sprintf("%x", sha256.Sum256(content))
		blobs["blobs/sha256/"+digest] = content
		return object{"mediaType": "application/vnd.oci.image." + kind, "digest": "sha256:" + digest, "size": len(content)}
	}
	files := put("layer.v1.tar", layer)
	config := put("config.v1+json", encode(object{"architecture": runtime.GOARCH, "os": "linux",
		"config": object{"Entrypoint": i.Entrypoint, "Cmd": i.Command},
		"rootfs": object{"type": "layers", "diff_ids": []any{files["digest"]}}}))
	manifest := put("manifest.v1+json", encode(object{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": config, "layers": []object{files}}))
	manifest["annotations"] = object{"io.containerd.image.name": i.Name, "org.opencontainers.image.ref.name": i.Name}
	blobs["oci-layout"] = []byte(`{"imageLayoutVersion":"1.0.0"}`)
	blobs["index.json"] = encode(object{"schemaVersion": 2, "manifests": []object{manifest}})
	t := tar.NewWriter(w)
	for _, name := range slices.Sorted(maps.Keys(blobs)) {
		if err := addFile(t, name, 0o644, blobs[name]); err != nil {
			return err
		}
	}
	return t.Close()
}

// layer with the files, the folders that they are in, and /tmp.
func (i Image) layer() ([]byte, error) {
	folders := map[string]int64{"tmp": 0o1777, "etc": 0o755}
	for name := range i.Files {
		for dir := path.Dir(strings.TrimPrefix(name, "/")); dir != "."; dir = path.Dir(dir) {
			folders[dir] = 0o755
		}
	}
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	for _, dir := range slices.Sorted(maps.Keys(folders)) { // a parent's name sorts before its children's
		if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: folders[dir]}); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(i.Files)) {
		content, err := os.ReadFile(i.Files[name])
		if err != nil {
			return nil, err
		}
		if err := addFile(t, strings.TrimPrefix(name, "/"), 0o755, content); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), t.Close()
}

func addFile(t *tar.Writer, name string, mode int64, content []byte) error {
	if err := t.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(content))}); err != nil {
		return err
	}
	_, err := t.Write(content)
	return err
}

// encode what can always be encoded: maps of strings, numbers and lists.
func encode(o object) []byte {
	text, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	return text
}
