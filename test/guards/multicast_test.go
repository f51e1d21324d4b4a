package guards_test

import (
	"fmt"
	"net"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/rig"
)

// group is a multicast group that is routed, beyond the link-local ones.
var group = addr("239.9.9.9")

// From linux/mroute.h.
const (
	mrtInit, mrtAddVIF, mrtAddMFC = 200, 202, 204
	vifUseIfindex                 = 8
	maxVIFs                       = 32
)

// vifctl is struct vifctl: one of a multicast router's links.
type vifctl struct {
	vif       uint16
	flags     uint8
	threshold uint8
	rate      uint32
	ifindex   int32
	remote    [4]byte
}

// mfcctl is struct mfcctl: where packets of a source to a group go.
type mfcctl struct {
	origin, group [4]byte
	parent        uint16
	ttls          [maxVIFs]uint8
	_             [2]byte
	_             [4]uint32 // counters, and when it expires
}

// multicastRouter makes the node route the group from client to eth0, as long as
// the test runs.
func multicastRouter(t *testing.T, r *rig.Rig) {
	t.Helper()
	err := r.Node.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_IGMP)
		if err != nil {
			return fmt.Errorf("IGMP socket: %w", err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, mrtInit, 1); err != nil {
			return fmt.Errorf("become the multicast router: %w", err)
		}
		for i, name := range []string{rig.Bridge, rig.Eth0} {
			link, err := net.InterfaceByName(name)
			if err != nil {
				return err
			}
			vif := vifctl{vif: uint16(i), flags: vifUseIfindex, threshold: 1, ifindex: int32(link.Index)}
			if err := setsockopt(fd, mrtAddVIF, unsafe.Slice((*byte)(unsafe.Pointer(&vif)), unsafe.Sizeof(vif))); err != nil {
				return fmt.Errorf("multicast link %s: %w", name, err)
			}
		}
		route := mfcctl{origin: client.As4(), group: group.As4()}
		route.ttls[1] = 1
		if err := setsockopt(fd, mrtAddMFC, unsafe.Slice((*byte)(unsafe.Pointer(&route)), unsafe.Sizeof(route))); err != nil {
			return fmt.Errorf("multicast route: %w", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func setsockopt(fd, option int, value []byte) error {
	return unix.SetsockoptString(fd, unix.IPPROTO_IP, option, string(value))
}
