package owner

// component is how one owner's rules are recognised.
type component struct {
	// owns a chain of that name: the component makes it.
	owns func(chain string) bool
	// says: nobody else writes such a comment. Also for chains whose name is a
	// setting.
	says func(comment string) bool
	// writes rules of that form into built-in chains, without a comment of its own.
	writes func(place) bool
	// describe a rule that one of the three has found; the owner is unknown where
	// it isn't in the component's form after all.
	describe func(place) Owner
}

// components, special names before those that would take them too: KUBE-ROUTER-…
// before KUBE-….
var components = [...]component{
	{owns: kubeRouterChain, says: kubeRouterComment, writes: kubeRouterRule, describe: place.kubeRouter},
	{owns: kubeletChain, describe: place.kubelet},
	{owns: hostPortChain, says: hostPortComment, describe: place.hostPorts},
	{owns: kubeProxyChain, describe: place.kubeProxy},
	{says: kubenetComment, describe: place.kubenet},
	{owns: dockerChain, writes: dockerRule, describe: place.docker},
	{owns: flannelChain, says: flannelComment, writes: flannelRule, describe: place.flannel},
	{owns: masqAgentChain, says: masqAgentComment, describe: place.masqAgent},
	{owns: gkeChain, says: gkeComment, describe: place.gke},
	{owns: kindnetChain, says: kindnetComment, describe: place.kindnet},
	{owns: awsChain, says: awsComment, describe: place.aws},
	{owns: portmapChain, says: portmapComment, describe: place.portmap},
	{owns: cniFirewallChain, says: cniFirewallComment, describe: place.cniFirewall},
	{owns: cniChain, says: cniComment, describe: place.cniBridge},
	{owns: calicoChain, says: calicoComment, writes: calicoRule, describe: place.calico},
	{owns: ciliumChain, says: ciliumComment, describe: place.cilium},
	{owns: antreaChain, says: antreaComment, describe: place.antrea},
	{owns: ovnKubernetesChain, writes: ovnKubernetesRule, describe: place.ovnKubernetes},
	{owns: kubeOVNChain, says: kubeOVNComment, writes: kubeOVNRule, describe: place.kubeOVN},
	{owns: weaveChain, says: weaveComment, writes: weaveRule, describe: place.weave},
	{owns: istioChain, writes: istioRule, describe: place.istio},
	{owns: podmanChain, says: podmanComment, describe: place.podman},
	{owns: netbirdChain, says: netbirdComment, describe: place.netbird},
	{owns: tailscaleChain, describe: place.tailscale},
	{owns: firewalldChain, writes: firewalldRule, describe: place.firewalld},
	{owns: ufwChain, describe: place.ufw},
	{owns: libvirtChain, writes: libvirtRule, describe: place.libvirt},
	{says: lxdComment, describe: place.lxd},
	{says: nodeLocalDNSComment, describe: place.nodeLocalDNS},
	{owns: azureNPMChain, describe: place.azureNPM},
	{writes: strongSwanRule, describe: place.strongSwan},
	{writes: serviceLBRule, describe: place.k3sServiceLB},
}
