package link

import (
	"encoding/binary"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// typeMask takes the flags off an attribute's type (linux/netlink.h, NLA_TYPE_MASK).
const typeMask = 0x3fff

// wireguardPort asks the wireguard module for a link's listen port; 0 where it
// can't be known: no CAP_NET_ADMIN, or the link is gone. The well-known ports
// (policy.WellKnownTunnelPorts) still cover the usual case then.
func wireguardPort(index int) uint16 {
	family, err := netlink.GenlFamilyGet(unix.WG_GENL_NAME)
	if err != nil {
		return 0
	}
	req := nl.NewNetlinkRequest(int(family.ID), unix.NLM_F_DUMP)
	req.AddData(&nl.Genlmsg{Command: unix.WG_CMD_GET_DEVICE, Version: unix.WG_GENL_VERSION})
	req.AddData(nl.NewRtAttr(unix.WGDEVICE_A_IFINDEX, nl.Uint32Attr(uint32(index))))
	msgs, err := req.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil {
		return 0
	}
	for _, m := range msgs {
		if port := listenPort(m); port != 0 {
			return port
		}
	}
	return 0
}

// listenPort finds WGDEVICE_A_LISTEN_PORT (u16, host order) in an answer to
// WG_CMD_GET_DEVICE: a generic netlink header of four bytes, then attributes.
func listenPort(msg []byte) uint16 {
	if len(msg) < nl.SizeofGenlmsg {
		return 0
	}
	attrs, err := nl.ParseRouteAttr(msg[nl.SizeofGenlmsg:])
	if err != nil {
		return 0
	}
	for _, a := range attrs {
		if a.Attr.Type&typeMask == unix.WGDEVICE_A_LISTEN_PORT && len(a.Value) >= 2 {
			return binary.NativeEndian.Uint16(a.Value)
		}
	}
	return 0
}
