# What a node has for itself, set up by process 1 of its mount and process
# namespaces, which were started in its network namespace. $DIR is the node's
# directory, $CGROUP the name of its cgroup. The keeper's lines follow.
set -e
mount --make-rprivate /
# These copies would keep others' namespaces alive.
umount --lazy --recursive /run/netns
# Pods' volumes are mounted where containers that run see them.
mount --make-rshared /
mount -t proc proc /proc

# A sysfs that shows this network namespace's links, with the machine's cgroups.
mkdir -p "$DIR/cgroup"
mount --rbind /sys/fs/cgroup "$DIR/cgroup"
mount -t sysfs sysfs /sys
mount --rbind "$DIR/cgroup" /sys/fs/cgroup
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
	mkdir -p "/sys/fs/cgroup/$CGROUP"
	for c in $(cat /sys/fs/cgroup/cgroup.controllers); do
		echo "+$c" 2>/dev/null >"/sys/fs/cgroup/$CGROUP/cgroup.subtree_control" || true
	done
else
	for h in /sys/fs/cgroup/*/; do
		if [ -e "$h/cgroup.procs" ]; then mkdir -p "$h/$CGROUP"; fi
	done
fi

# /run is empty, as after booting; the lock of iptables stays the
# machine's, which all on this node take.
touch /run/xtables.lock "$DIR/xtables.lock"
mount --bind /run/xtables.lock "$DIR/xtables.lock"
mount -t tmpfs run /run
mkdir -p /run/netns /run/sys
touch /run/xtables.lock
mount --bind "$DIR/xtables.lock" /run/xtables.lock
mount --bind "$DIR/lib" /var/lib
mount --bind "$DIR/log" /var/log
mkdir -p /var/lib/containerd /var/lib/kubelet
mount -t tmpfs containerd /var/lib/containerd

# kubelet sets these for the whole machine: here it sets files.
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
	key=${setting%=*}
	file=/run/sys/$(echo "$key" | tr / _)
	echo "${setting#*=}" >"$file"
	mount --bind "$file" "/proc/sys/$key"
done
set +e
