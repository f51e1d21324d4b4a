// Package capture reads a live node's state by running the programs that print
// it (iptables-save, nft, ipset, ip, conntrack and others) and reading /proc. It
// changes nothing: a program that would load tables or modules by being asked
// isn't asked. It is no part of the enforcing path.
//
//	files, err := capture.Take(ctx, capture.Options{})
//	err = snapshot.WriteDir("node-a", files)
package capture

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// Options of Take.
type Options struct {
	// Connections takes conntrack's entries too: many, and who talks to whom.
	Connections bool
	// Version of unmasq, for meta.json.
	Version string
	// Namespace to read; nil for the one that the process is in.
	Namespace *netns.NS
	// Progress is called with the name of each file before it is read; may be nil.
	Progress func(file string)
	// Run runs a program; nil for exec. Tests put a program's failures there.
	Run Runner
}

// Runner runs a program to its end and returns what it wrote. A program that
// isn't there is exec.ErrNotFound.
type Runner func(ctx context.Context, program string, args ...string) (stdout, stderr []byte, err error)

// timeout of one program; iptables-save of 100,000 rules takes a second.
const timeout = 30 * time.Second

// capture is one snapshot being taken.
type capture struct {
	Options
	files map[string][]byte
	meta  snapshot.Meta
}

// Take reads all that a snapshot holds, by the names of its files. What can't be
// read is in meta.json with the reason. An error means that nothing could be.
func Take(ctx context.Context, o Options) (map[string][]byte, error) {
	c := &capture{Options: o, files: map[string][]byte{}}
	if c.Run == nil {
		c.Run = c.exec
	}
	c.meta = snapshot.Meta{
		Version: 1, Unmasq: o.Version, Time: time.Now().UTC().Format(time.RFC3339),
		Programs: map[string]string{}, Missing: map[string]string{},
	}
	c.meta.Host, _ = os.Hostname()
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	c.meta.Kernel = strings.TrimSpace(string(release))
	c.tables(ctx)
	for _, d := range dumps {
		c.dump(ctx, d)
	}
	c.unlisted()
	c.devices(ctx)
	c.virtualServers(ctx)
	c.wireguard(ctx)
	c.bpf(ctx)
	c.sysctls()
	c.counters(ctx)
	if o.Connections {
		c.dump(ctx, connections)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(c.files) == 0 {
		return nil, fmt.Errorf("nothing could be read: %s", c.why())
	}
	c.versions(ctx)
	text, err := json.MarshalIndent(c.meta, "", "  ")
	if err != nil {
		return nil, err
	}
	c.files[snapshot.FileMeta] = append(text, '\n')
	return c.files, nil
}

// Live reads the node as it is now.
func Live(ctx context.Context, o Options) (*snapshot.Host, error) {
	files, err := Take(ctx, o)
	if err != nil {
		return nil, err
	}
	return snapshot.FromFiles(files)
}

// why is one of the reasons.
func (c *capture) why() string {
	for _, name := range [...]string{snapshot.FileLinks, snapshot.FileIPTables, snapshot.FileNFT} {
		if w := c.meta.Missing[name]; w != "" {
			return w
		}
	}
	return "no program was found"
}

// dump is a file that one program prints.
type dump struct {
	file, program string
	// args to try in this order: older programs don't know all options.
	args [][]string
}

var dumps = []dump{
	{snapshot.FileNFT, "nft", [][]string{{"-j", "list", "ruleset"}, {"-a", "list", "ruleset"}}},
	{snapshot.FileIPSet, "ipset", [][]string{{"save"}}},
	{snapshot.FileLinks, "ip", [][]string{{"-j", "-d", "link", "show"}, {"-d", "link", "show"}, {"link", "show"}}},
	{snapshot.FileAddresses, "ip", [][]string{{"-j", "-d", "address", "show"}, {"address", "show"}}},
	{snapshot.FileRoutes, "ip", [][]string{{"-4", "-j", "-d", "route", "show", "table", "all"}, {"-4", "route", "show", "table", "all"}}},
	{snapshot.FileRoutes6, "ip", [][]string{{"-6", "-j", "-d", "route", "show", "table", "all"}, {"-6", "route", "show", "table", "all"}}},
	{snapshot.FileRules, "ip", [][]string{{"-4", "-j", "rule", "show"}, {"-4", "rule", "show"}}},
	{snapshot.FileRules6, "ip", [][]string{{"-6", "-j", "rule", "show"}, {"-6", "rule", "show"}}},
	{snapshot.FileNeighbors, "ip", [][]string{{"-j", "neighbor", "show"}, {"neighbor", "show"}}},
	{snapshot.FileBridgeLinks, "bridge", [][]string{{"-j", "-d", "link", "show"}, {"-d", "link", "show"}}},
	{snapshot.FileBridgeFDB, "bridge", [][]string{{"-j", "fdb", "show"}, {"fdb", "show"}}},
	{snapshot.FileXFRM, "ip", [][]string{{"xfrm", "policy"}}}, // never state: it has keys
}

var connections = dump{snapshot.FileConntrack, "conntrack", [][]string{{"-L", "-o", "extended"}}}

// dump runs the program until one of its forms works. The first form's failure
// is the one that counts.
func (c *capture) dump(ctx context.Context, d dump) {
	c.progress(d.file)
	first := ""
	for _, args := range d.args {
		stdout, stderr, err := c.run(ctx, d.program, args...)
		if err == nil && slices.Contains(args, "-j") && !isJSON(stdout) {
			stdout, stderr, err = nil, nil, errNoJSON
		}
		if err == nil {
			c.files[d.file] = readable(stdout)
			if complaint := said(stderr); complaint != "" && d.file != snapshot.FileConntrack {
				c.meta.Missing[d.file] = complaint
			}
			return
		}
		if first == "" {
			first = reason(d.program, stdout, stderr, err)
		}
		if ctx.Err() != nil || !wrongForm(stderr, err) {
			break
		}
	}
	c.meta.Missing[d.file] = first
}

// errNoJSON: nft 1.0.6 prints a table's flags that it doesn't know, such as persist,
// from memory that it has freed.
var errNoJSON = errors.New("it printed no valid JSON")

// wrongForm says whether another form of the command may do: the program doesn't know
// this one's options, or breaks down over its output.
func wrongForm(stderr []byte, err error) bool {
	return errors.Is(err, errNoJSON) || strings.Contains(err.Error(), "signal: ") || strings.Contains(string(stderr), "ption") || strings.Contains(string(stderr), "JSON")
}

// isJSON also of nothing, which older programs print for an empty list.
func isJSON(printed []byte) bool {
	return len(bytes.TrimSpace(printed)) == 0 || json.Valid(printed)
}

// readable puts each element of a list that a program printed as JSON on a line
// of its own. Text stays as it is.
//
//	[{"ifname":"lo"},{"ifname":"eth0"}]
//	{"nftables": [{"table": {…}}, {"chain": {…}}]}
func readable(printed []byte) []byte {
	var list []json.RawMessage
	var nft struct {
		Objects []json.RawMessage `json:"nftables"`
	}
	before, after := "[", "]\n"
	switch trimmed := bytes.TrimSpace(printed); {
	case bytes.HasPrefix(trimmed, []byte("[")):
		if json.Unmarshal(printed, &list) != nil {
			return printed
		}
	case bytes.HasPrefix(trimmed, []byte("{")):
		if json.Unmarshal(printed, &nft) != nil || nft.Objects == nil {
			return printed
		}
		list, before, after = nft.Objects, `{"nftables": [`, "]}\n"
	default:
		return printed
	}
	var b bytes.Buffer
	b.Grow(len(printed) + len(list) + 16)
	b.WriteString(before)
	for i, element := range list {
		if i > 0 {
			b.WriteString(",")
		}
		b.WriteString("\n")
		b.Write(element)
	}
	if len(list) > 0 {
		b.WriteString("\n")
	}
	b.WriteString(after)
	return b.Bytes()
}

func (c *capture) progress(file string) {
	if c.Progress != nil {
		c.Progress(file)
	}
}

func (c *capture) run(ctx context.Context, program string, args ...string) (stdout, stderr []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	stdout, stderr, err = c.Run(ctx, program, args...)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("no end after %v", timeout)
	}
	return stdout, stderr, err
}

// said is what a program wrote to its error output, but for the hint that legacy
// tables exist, which are read apart.
func said(stderr []byte) string {
	var lines []string
	for line := range strings.Lines(string(stderr)) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "# Warning: ip") {
			lines = append(lines, line)
		}
	}
	const most = 5
	return strings.Join(lines[:min(len(lines), most)], "; ")
}

// reason says in a sentence why a program's output is missing.
func reason(program string, stdout, stderr []byte, err error) string {
	if errors.Is(err, errNotFound) {
		return program + " " + snapshot.NotInstalled
	}
	text := said(stderr)
	if text == "" {
		text = said(bytes.TrimSpace(stdout[:min(len(stdout), 200)]))
	}
	if text == "" {
		text = err.Error()
	}
	for _, denied := range [...]string{"ermission denied", "not permitted", "must be root", "need to be root"} {
		if strings.Contains(text, denied) {
			return fmt.Sprintf("permission denied: %s needs CAP_NET_ADMIN (root, or sudo): %s", program, text)
		}
	}
	return program + " failed: " + text
}

// versions of the programs whose output was taken.
func (c *capture) versions(ctx context.Context) {
	for _, v := range [...]struct {
		program, option string
		files           []string
	}{
		{"iptables-nft-save", "--version", []string{snapshot.FileIPTables, snapshot.FileIP6Tables}},
		{"iptables-legacy-save", "--version", []string{snapshot.FileIPTablesLegacy, snapshot.FileIP6TablesLegacy}},
		{"nft", "--version", []string{snapshot.FileNFT}},
		{"ipset", "--version", []string{snapshot.FileIPSet}},
		{"ip", "-V", []string{snapshot.FileLinks}},
		{"ipvsadm", "--version", []string{snapshot.FileIPVS}},
		{"conntrack", "--version", []string{snapshot.FileConntrack}},
	} {
		for _, f := range v.files {
			if _, taken := c.files[f]; !taken || c.meta.Programs[v.program] != "" {
				continue
			}
			if out, _, err := c.run(ctx, v.program, v.option); err == nil {
				first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
				c.meta.Programs[v.program] = first
			}
		}
	}
}
