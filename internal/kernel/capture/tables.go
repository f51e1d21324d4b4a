package capture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/unmasq/unmasq/internal/snapshot"
)

// variant of iptables for one family.
type variant struct {
	file, program string
	// loaded is where the kernel lists the tables of the legacy variant; empty
	// for the nft one.
	loaded string
	// plain is the program of old systems, which have one variant only.
	plain string
}

var variants = []variant{
	{snapshot.FileIPTables, "iptables-nft-save", "", "iptables-save"},
	{snapshot.FileIP6Tables, "ip6tables-nft-save", "", "ip6tables-save"},
	{snapshot.FileIPTablesLegacy, "iptables-legacy-save", "ip_tables_names", "iptables-save"},
	{snapshot.FileIP6TablesLegacy, "ip6tables-legacy-save", "ip6_tables_names", "ip6tables-save"},
}

// tables saves iptables of both variants and both families.
func (c *capture) tables(ctx context.Context) {
	for _, v := range variants {
		c.progress(v.file)
		c.save(ctx, v)
	}
}

// save runs one variant's program. The legacy one makes tables by being asked,
// so it isn't where the kernel has none.
func (c *capture) save(ctx context.Context, v variant) {
	names := ""
	if v.loaded != "" {
		var err error
		names, err = c.proc("/proc/thread-self/net/" + v.loaded)
		switch {
		case errors.Is(err, os.ErrPermission):
			c.meta.Missing[v.file] = fmt.Sprintf("permission denied: which legacy tables exist is read with CAP_NET_ADMIN (root, or sudo): %v", err)
			return
		case errors.Is(err, os.ErrNotExist), err == nil && strings.TrimSpace(names) == "":
			c.files[v.file] = []byte("# no table is loaded (" + v.loaded + " in /proc/net is empty)\n")
			return
		case err != nil:
			c.meta.Missing[v.file] = err.Error()
			return
		}
	}
	program, stdout, stderr, err := c.saver(ctx, v)
	if errors.Is(err, errNotFound) && v.loaded != "" {
		c.meta.Missing[v.file] = fmt.Sprintf("tables are loaded (%s), and %s isn't there to print them", strings.Join(strings.Fields(names), ", "), v.program)
		return
	}
	if err != nil {
		c.meta.Missing[v.file] = reason(program, stdout, stderr, err)
		return
	}
	if len(stdout) == 0 {
		stdout = []byte("# " + program + " printed nothing: there are no tables\n")
	}
	complaint := said(append(strays(stdout), stderr...))
	if complaint != "" {
		c.meta.Missing[v.file] = complaint
	}
	if complaint == "" || bytes.Contains(stdout, []byte("\nCOMMIT\n")) {
		c.files[v.file] = stdout
	}
}

// NoNFT begins the reason why nft.json is missing where there is no nft.
const NoNFT = "nft " + snapshot.NotInstalled

// unlisted says that nothing lists nftables' rules, which need no program of this
// host or image to be there: others' images have their own.
func (c *capture) unlisted() {
	if _, listed := c.files[snapshot.FileNFT]; listed || !c.hasNFTables() {
		return
	}
	if c.meta.Missing[snapshot.FileNFT] == NoNFT {
		c.meta.Missing[snapshot.FileNFT] = NoNFT + ": whether there are tables that aren't iptables' can't be told"
	}
	for _, v := range variants {
		if why := c.meta.Missing[v.file]; v.loaded == "" && strings.HasSuffix(why, snapshot.NotInstalled) {
			c.meta.Missing[v.file] = why + ", and nft lists nothing: which rules there are can't be told"
		}
	}
}

// hasNFTables: nftables is in the kernel, built in or loaded. Where that can't be
// told it may be.
func (c *capture) hasNFTables() bool {
	symbols, err := c.proc("/proc/kallsyms")
	return err != nil || symbols == "" || strings.Contains(symbols, " nft_do_chain\t") || strings.Contains(symbols, " nft_do_chain\n")
}

// strays are lines that no save has: some versions report an error on the
// standard output, and exit as if all were well.
func strays(save []byte) []byte {
	var out []byte
	for line := range bytes.Lines(save) {
		if text := bytes.TrimSpace(line); len(text) > 0 && !bytes.ContainsAny(text[:1], "#*:-[") && string(text) != "COMMIT" {
			out = append(out, line...)
		}
	}
	return out
}

// saver runs the variant's program, or the plain one where it is of that variant.
func (c *capture) saver(ctx context.Context, v variant) (program string, stdout, stderr []byte, err error) {
	stdout, stderr, err = c.run(ctx, v.program, "-c")
	if !errors.Is(err, errNotFound) {
		return v.program, stdout, stderr, err
	}
	version, _, failed := c.run(ctx, v.plain, "--version")
	if failed != nil {
		return v.program, nil, nil, err
	}
	nft := strings.Contains(string(version), "nf_tables")
	if nft != (v.loaded == "") {
		return v.program, nil, nil, err
	}
	stdout, stderr, err = c.run(ctx, v.plain, "-c")
	return v.plain, stdout, stderr, err
}
