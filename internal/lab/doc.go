// Package lab builds whole scenarios in network namespaces and makes real
// connections in them: hosts, pods behind bridges, routers and outside peers,
// IPv4 and IPv6, with the NAT rules of docker, flannel, kube-router, the CNI bridge
// plugin and kube-proxy written by the real programs, tunnels and stateful filters.
// A peer says, or for what gets no
// reply records, the source address that it saw.
//
// A Scenario is data: a topology, foreign rules, who calls whom, and stages with
// the address that each call must be seen as. Run builds it, measures it without
// unmasq, starts the real agent in the hosts' namespaces, and measures again.
//
//	runner := lab.Runner{Dir: lab.DefaultDir, Binary: "/proc/self/exe", Out: os.Stdout}
//	result, err := runner.Run(ctx, scenario, scenario.Forms[0], foreign.NFT)
//
// It is not a test of single rules: internal/foreign and the packages of the
// kernel side have their own. It never touches the namespace that it is started in.
package lab
