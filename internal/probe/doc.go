// Package probe makes real connections and tells who was seen as whom: a peer that
// answers with the address and port that it sees, and callers, by TCP, UDP and ICMP
// echo. Sockets are opened in the network namespace of whoever opens them, and keep
// it; nothing of a host is changed.
//
//	peer, err := probe.Open(ctx, probe.PeerOptions{Answers: true, Name: "web"}) // at a free port
//	defer peer.Close()
//	caller := probe.NewCaller()
//	o, err := caller.Call(ctx, probe.TCP, netip.Addr{}, netip.AddrPortFrom(address, peer.Port()))
//	o.Told // 192.0.2.7:40000: the address that the peer saw
//
// It doesn't know what should be seen: packages lab and matrix do.
package probe
