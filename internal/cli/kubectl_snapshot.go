package cli

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/spf13/cobra"

	"github.com/unmasq/unmasq/internal/kubectl"
	"github.com/unmasq/unmasq/internal/snapshot"
)

func newKubectlSnapshot(opts *kubectlOptions) *cobra.Command {
	there := newSnapshot()
	cmd := &cobra.Command{
		Use:   "snapshot [POD] | --node NAME -o PATH",
		Short: "Write down a node's rules, sets, routes and settings",
		Long: "Writes down all that decides where a node's packets go and as whom: that of a pod, or\nof --node. What the agent's image has no program for is listed as missing." +
			"\n\nPATH, on this machine, is a directory, an archive where it ends in .tar.gz or .tgz, or -\nfor an archive on standard output.",
		Example: "  kubectl unmasq snapshot --node n1 -o n1.tar.gz --redact",
		RunE: func(cmd *cobra.Command, args []string) error {
			return opts.snapshot(cmd, args, handOn(cmd, there, "output"))
		},
	}
	borrow(cmd, there)
	return cmd
}

func (o *kubectlOptions) snapshot(cmd *cobra.Command, args, flags []string) error {
	to, err := cmd.Flags().GetString("output")
	if err != nil {
		return err
	}
	if err := canWrite(to, cmd.OutOrStdout()); err != nil {
		return inputError{err}
	}
	if err := o.oneNode(args, ""); err != nil {
		return err
	}
	ctx, stop, client, err := o.client(cmd)
	defer stop()
	if err != nil {
		return err
	}
	agent, err := o.agent(ctx, client, args)
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	command := append([]string{"snapshot", "--output=-"}, flags...)
	if err := readThere(ctx, client, agent, command, kubectl.Streams{Stdout: &archive, Stderr: cmd.ErrOrStderr()}); err != nil {
		return err
	}
	files, err := filesOf(archive.Bytes())
	if err != nil {
		return fmt.Errorf("the archive of node %s didn't arrive whole: %w; try again", agent.Node, err)
	}
	if err := writeFiles(to, files, archive.Bytes(), cmd.OutOrStdout()); err != nil {
		return err
	}
	if to != "-" {
		_, err = fmt.Fprintf(cmd.ErrOrStderr(), "\nnext: unmasq explain --snapshot %s SRC DST\n", to)
	}
	return err
}

// canWrite is asked before a node is.
func canWrite(path string, out io.Writer) error {
	switch {
	case path == "":
		return errors.New("no output given: name a directory or an archive with -o, such as -o n1.tar.gz")
	case path == "-" && isTerminal(out):
		return errors.New("-o -: an archive isn't written to a terminal")
	case path == "-" || snapshot.IsArchive(path):
		return nil
	}
	return snapshot.CheckDir(path)
}

func writeFiles(path string, files map[string][]byte, archive []byte, out io.Writer) error {
	switch {
	case path == "-":
		_, err := out.Write(archive)
		return err
	case snapshot.IsArchive(path):
		return snapshot.WriteTarGz(path, files)
	}
	return snapshot.WriteDir(path, files)
}

// filesOf an archive that `unmasq snapshot -o -` wrote. Only the last part of a name
// counts: nothing is written outside of the snapshot.
func filesOf(archive []byte) (map[string][]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for t := tar.NewReader(z); ; {
		header, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if header.Typeflag != tar.TypeReg {
			return nil, fmt.Errorf("%s is no file", header.Name)
		}
		if files[path.Base(header.Name)], err = io.ReadAll(t); err != nil {
			return nil, err
		}
	}
	// The checksum is behind the last file.
	if _, err := io.Copy(io.Discard, z); err != nil {
		return nil, err
	}
	if _, whole := files[snapshot.FileMeta]; !whole {
		return nil, fmt.Errorf("it has no %s", snapshot.FileMeta)
	}
	return files, nil
}
