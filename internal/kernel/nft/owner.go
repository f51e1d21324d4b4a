package nft

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Process is who holds a netlink socket, as far as it can be found out.
type Process struct {
	// Port is the netlink port id of the socket; often, not always, the pid.
	Port uint32
	// PID is 0 where no process of this pid namespace holds the socket.
	PID  int
	Name string
}

func (p Process) String() string {
	if p.PID == 0 {
		return fmt.Sprintf("a process outside this pid namespace (netlink port %d)", p.Port)
	}
	return fmt.Sprintf("process %d (%s)", p.PID, p.Name)
}

// ownerOf finds the process behind a port id: /proc/net/netlink has the socket's
// inode, and /proc/PID/fd the processes that hold it.
func ownerOf(port uint32) Process {
	p := Process{Port: port}
	inode := socketInode("/proc/thread-self/net/netlink", port)
	if inode == "" {
		return p
	}
	want := "socket:[" + inode + "]"
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return p
	}
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err != nil || target != want {
			continue
		}
		dir := strings.SplitN(fd, "/", 4)[2]
		if _, err := fmt.Sscan(dir, &p.PID); err != nil {
			continue
		}
		name, err := os.ReadFile("/proc/" + dir + "/comm")
		if err == nil {
			p.Name = strings.TrimSpace(string(name))
		}
		return p
	}
	return p
}

// socketInode reads lines like
//
//	sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode
//	00000000a52e17f5 12  4242       00000000 0        0        0     2        0        31337
func socketInode(path string, port uint32) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	const netfilter = "12"
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) >= 10 && fields[1] == netfilter && fields[2] == fmt.Sprint(port) {
			return fields[9]
		}
	}
	return ""
}
