# Machines that boot: systemd is their first process, in namespaces of its own, with a cgroup tree of version 2. What makes
# a container of them is what it may not do to this machine's kernel: no modules, no clock, no settings but the network's.
# shellcheck shell=bash disable=SC2154,SC2016,SC2317,SC2004

# What systemd would start on a machine that has hardware, a console and a mirror.
masked=(console-getty.service dev-hugepages.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount
  apt-daily.timer apt-daily-upgrade.timer)

# The last steps before systemd, in its namespaces. The root is turned and not only changed: within a changed one nobody gets
# a user namespace, which a unit with PrivateUsers= is to have.
to_systemd='
  set -e
  mount -t proc proc "$1/proc"
  mount --bind "$1/proc/sys" "$1/proc/sys"
  mount -o remount,bind,ro "$1/proc/sys"
  mount --bind "$1/proc/sys/net" "$1/proc/sys/net"
  mount -o remount,bind,rw "$1/proc/sys/net"
  mount -t sysfs -o ro sysfs "$1/sys"
  mount -t cgroup2 cgroup2 "$1/sys/fs/cgroup"
  echo "$2" >/proc/sys/kernel/hostname
  ip link set lo up
  cd "$1"
  pivot_root . .
  umount --lazy .
  # As on a machine: services see mounts that come later, credentials among them.
  mount --make-rshared /
  exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 setpriv \
    --bounding-set -sys_module,-sys_time,-sys_rawio,-syslog,-bpf,-perfmon,-mac_admin,-mac_override,-audit_control,-audit_read \
    /lib/systemd/systemd'

# Boots the fresh root of this name, on the switch.
boot() { # name, address
  local name=$1 address=$2 outside=${first[switch]} hierarchy group unit
  local root=$work/roots/$name
  [[ -e $root/dev/net/tun ]] || skip '/dev/net/tun is not to be had'
  hierarchy=$(findmnt -n -l -t cgroup2 -o TARGET | head -n 1)
  [[ -n $hierarchy ]] || skip 'no cgroup2 is mounted'
  group=$hierarchy/${work##*/}.$name
  mkdir -p "$group" 2>/dev/null || skip 'cgroups are not to be made here'
  mount -t tmpfs -o mode=755 tmpfs "$root/run"
  mkdir -p "$root/run/systemd/system" "$root/dev/pts" "$root/dev/shm"
  # Read by systemd, and the name of the device that it becomes.
  echo "$name" >"$root/etc/hostname"
  for unit in "${masked[@]}"; do ln -s /dev/null "$root/run/systemd/system/$unit"; done
  mountpoint -q "$root/dev/pts" || mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
  ln -sf pts/ptmx "$root/dev/ptmx"
  [[ -e $root/dev/tty ]] || mknod -m 666 "$root/dev/tty" c 5 0
  [[ -e $root/dev/console ]] || mknod -m 600 "$root/dev/console" c 1 3
  # A cgroup namespace begins where its first process is.
  setpriv --pdeathsig KILL sh -c 'echo 0 >"$1/cgroup.procs" && shift && exec "$@"' - "$group" \
    unshare --net --uts --ipc --mount --pid --cgroup --fork --kill-child=KILL sh -c "$to_systemd" - "$root" "$name" 2>>"$work/unshare.log" &
  local parent=$! tries=0
  until pid=$(pgrep -P "$parent") && [[ $(cat "/proc/$pid/comm") = systemd ]]; do
    tries=$((tries + 1))
    ((tries < 200)) || {
      cat "$work/unshare.log" >&2
      skip 'systemd does not start in namespaces here'
    }
    sleep 0.05
  done
  first[$name]=$pid
  ip link add "to-$name" netns "$outside" type veth peer name eth0 netns "$pid" || skip 'veth pairs are not to be had'
  nsenter -t "$outside" -n ip link set "to-$name" master switch up
  nsenter -t "$pid" -n sh -c "echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad; ip address add $address/24 dev eth0; ip link set eth0 up"
  wait_for "the boot of $name" 60 has_booted "$name"
  same "$name: units that failed" "$(on "$name" systemctl --failed --plain --no-legend)" ''
}

has_booted() {
  local state
  state=$(on "$1" systemctl is-system-running 2>/dev/null || true)
  [[ $state = running || $state = degraded ]]
}

# Shuts a machine down. Its root stays, to be booted again.
shut_down() { # name
  # Sometimes it has gone before it answers.
  on "$1" systemctl poweroff --no-block 2>/dev/null || true
  wait_for "the end of $1" 60 has_gone "${first[$1]}"
  unset "first[$1]"
  # The other end of its cable goes with its namespace, a moment later.
  wait_for "the cable of $1" 10 sh -c "! nsenter -t ${first[switch]} -n ip link show to-$1"
  umount "$work/roots/$1/run"
}

has_gone() { [[ ! -e /proc/$1 || $(awk '/^State/ {print $2}' "/proc/$1/status") = Z ]]; }

# A cgroup can be removed once its processes are gone, and below it those of the units.
remove_cgroups() {
  local hierarchy group tries
  hierarchy=$(findmnt -n -l -t cgroup2 -o TARGET | head -n 1)
  for group in "$hierarchy/${work##*/}".*; do
    [[ -d $group ]] || continue
    for tries in {1..100}; do
      find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
      [[ -d $group ]] || break
      sleep 0.05
    done
  done
}

# After a failure: the last that each booted machine had to say.
show_journals() {
  local name
  for name in "${!first[@]}"; do
    [[ -e $work/roots/$name/run/systemd/system ]] || continue
    echo "  the journal of $name:" >&2
    journal "$name" -n 25 2>/dev/null | sed 's/^/    /' >&2 || true
  done
}

property() { on "$1" systemctl show --value -p "$3" "$2"; } # machine, unit, property

is() { [[ $(property "$1" "$2" "$3") = "$4" ]]; } # machine, unit, property, value

# Of every thread of a unit's main process, once each: what /proc says, in one line.
threads() { # machine, unit, field
  on "$1" sh -c 'sed -n "s/^$2:[[:space:]]*//p" /proc/"$1"/task/*/status | sort -u' - "$(property "$1" "$2" MainPID)" "$3" | tr '\t' ' '
}

# The same of every process that a unit's main process has started.
children() { # machine, unit, field
  on "$1" sh -c 'for child in $(cat /proc/"$1"/task/*/children); do sed -n "s/^$2:[[:space:]]*//p" "/proc/$child/status"; done | sort -u' - "$(property "$1" "$2" MainPID)" "$3" | tr '\t' ' '
}

journal() { on "$1" journalctl --no-pager -o cat "${@:2}"; } # machine, options
