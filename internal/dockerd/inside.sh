# Process 1 of a docker daemon's mount and process namespaces, started in the
# network namespace with dockerd's arguments and its directory in $DIR. It runs
# dockerd until dockerd ends or standard input does; when it exits, the kernel
# kills what is left.
set -e
mount --make-rprivate /
mount -t proc proc /proc

# A sysfs that shows this network namespace's links, with the host's cgroups.
if [ -d /sys/fs/cgroup ]; then
	mount --rbind /sys/fs/cgroup "$DIR/cgroup"
	mount -t sysfs sysfs /sys
	mount --rbind "$DIR/cgroup" /sys/fs/cgroup
else
	mount -t sysfs sysfs /sys
fi

# An empty /run, as after booting: no containerd or firewalld of the host is
# found there, nor process ids that mean others by now. The lock of
# iptables-legacy stays the common one.
touch /run/xtables.lock
mount --bind /run/xtables.lock "$DIR/xtables.lock"
mount -t tmpfs run /run
touch /run/xtables.lock
mount --bind "$DIR/xtables.lock" /run/xtables.lock

exec 3<&0 </dev/null
dockerd "$@" 3<&- &
daemon=$!
{ cat <&3 >/dev/null; kill "$daemon"; } &
wait "$daemon"
