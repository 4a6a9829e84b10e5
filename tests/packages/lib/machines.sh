# Machines: a root with a network, a host name and processes of its own, on a switch in a namespace without a name.
# They end with their first process, and that ends with this one.
# shellcheck shell=bash disable=SC2154,SC2016,SC2317

declare -A first=()

stop_machines() {
  local pid
  for pid in "${first[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done
  first=()
}

# Starts `sleep` as the first process of new namespaces, and sets `pid` to it as seen from here.
hold() { # extra arguments of unshare, then --, then the command
  setpriv --pdeathsig KILL unshare --net --fork --kill-child=KILL "$@" 2>>"$work/unshare.log" &
  local parent=$! tries=0
  until pid=$(pgrep -P "$parent"); do
    tries=$((tries + 1))
    ((tries < 200)) || fail 'a namespace did not come up'
    sleep 0.02
  done
}

switch() {
  if lacks ip; then skip 'ip is missing (apt-get install iproute2)'; fi
  if lacks jq; then skip 'jq is missing (apt-get install jq)'; fi
  hold -- sleep infinity
  first[switch]=$pid
  sleep 0.1
  nsenter -t "$pid" -n ip link add switch type bridge || skip 'bridges are not to be had'
  nsenter -t "$pid" -n ip link set switch up
}

machine() { # name, address; its root is the fresh one of this name
  local name=$1 address=$2 outside=${first[switch]} settings
  [[ -e $work/roots/$name/dev/net/tun ]] || skip '/dev/net/tun is not to be had'
  hold --uts --mount --pid --root="$work/roots/$name" -- /bin/sleep infinity
  first[$name]=$pid
  sleep 0.1
  on "$name" mount -t proc proc /proc
  on "$name" sh -c "echo $name >/proc/sys/kernel/hostname"
  ip link add "to-$name" netns "$outside" type veth peer name eth0 netns "$pid" || skip 'veth pairs are not to be had'
  nsenter -t "$outside" -n ip link set "to-$name" master switch up
  for settings in default all; do on "$name" sh -c "echo 0 >/proc/sys/net/ipv6/conf/$settings/accept_dad"; done
  on "$name" ip link set lo up
  on "$name" ip address add "$address/24" dev eth0
  on "$name" ip link set eth0 up
}

on() { # name, command
  nsenter --target "${first[$1]}" --net --uts --mount --pid --root --wd -- "${@:2}"
}

# The processes of a program there. The base has no pkill.
pids_of() { # machine, program
  on "$1" sh -c 'for at in /proc/[0-9]*; do
    if [ "$(cat "$at/comm" 2>/dev/null)" = "$1" ]; then echo "${at#/proc/}"; fi
  done' - "$2"
}

end_program() { # machine, program, signal
  local pids
  pids=$(pids_of "$1" "$2")
  [[ -n $pids ]] || fail "$2 does not run on $1"
  # The shell's own kill: the base has no other.
  on "$1" sh -c "kill -$3 $(echo "$pids" | tr '\n' ' ')"
  wait_for "the end of $2 on $1" 15 has_ended "$1" "$2"
}

has_ended() { [[ -z $(pids_of "$1" "$2") ]]; }

# What systemd would do: runs the unit's ExecStart as its user, with its capabilities and directories.
start_unit() { # machine, unit
  local unit=$work/roots/$1/usr/lib/systemd/system/$2 user bounding ambient command directory
  value() { sed -n "s/^$1=//p" "$unit" | tail -n 1; }
  user=$(value User)
  command=$(value ExecStart)
  [[ -n $command ]] || fail "$2 has no ExecStart"
  for directory in "/var/lib/$(value StateDirectory) $(value StateDirectoryMode)" \
    "/run/$(value RuntimeDirectory) $(value RuntimeDirectoryMode)"; do
    on "$1" install -d -m "${directory#* }" -o "${user:-root}" -g "${user:-root}" "${directory% *}"
  done
  bounding=-all
  for directory in $(value CapabilityBoundingSet); do bounding+=,+${directory,,}; done
  ambient=-all
  for directory in $(value AmbientCapabilities); do ambient+=,+${directory,,}; done
  local options=(--no-new-privs --bounding-set "${bounding//cap_/}" --inh-caps "${ambient//cap_/}")
  if [[ -n $user ]]; then options+=(--reuid "$user" --regid "$user" --init-groups); fi
  if [[ $ambient != -all ]]; then options+=(--ambient-caps "${ambient//cap_/}"); fi
  # shellcheck disable=SC2086 # a command line is words
  on "$1" setpriv "${options[@]}" sh -c "umask $(value UMask); exec $command" \
    >>"$work/roots/$1/var/log/${2%.service}.log" 2>&1 &
}

log_of() { # machine, unit
  tail -n 15 "$work/roots/$1/var/log/${2%.service}.log" 2>/dev/null | sed 's/^/    /'
}

wait_for() { # what, seconds, command
  local end=$((SECONDS + $2))
  until "${@:3}" >"$work/output" 2>&1; do
    ((SECONDS < end)) || {
      tail -n 10 "$work/output" >&2
      fail "$1 did not come within $2 s"
    }
    sleep 0.05
  done
}
