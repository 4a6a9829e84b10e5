# What the container recipes promise, without a container tool: the static programs alone in empty roots that are
# read-only, as a user without a name, the controller without any capability and the client with CAP_NET_ADMIN.
# shellcheck shell=bash disable=SC2154,SC2016,SC2317,SC2004

user=65532

# An empty root with one program, a state directory and a run directory of the user. Sets `box`.
container() { # name, program, state directory, run directory
  local triple
  triple=$(uname -m)-unknown-linux-musl
  local from=$target/$triple/release/package/context/$2
  [[ -x $from ]] || skip "$from is not there (packaging/build static)"
  [[ $EUID = 0 ]] || skip 'not root: roots are changed by root'
  box=$work/roots/$1
  mkdir -p "$box/usr/bin" "$box/dev" "$box$3" "$box$4" "$box/proc"
  install -m 755 "$from" "$box/usr/bin/$2"
  if [[ $2 = gatereeve ]]; then
    if lacks setcap; then skip 'setcap is missing (apt-get install libcap2-bin)'; fi
    setcap cap_net_admin+ep "$box/usr/bin/$2"
    [[ -e /dev/net/tun ]] || skip '/dev/net/tun is not to be had'
  fi
  mount --bind "$box" "$box"
  mount -o remount,bind,ro "$box"
  local at
  for at in "$3" "$4"; do mount -t tmpfs -o "mode=700,uid=$user,gid=$user" tmpfs "$box$at"; done
  mount -t proc proc "$box/proc"
  if [[ $2 = gatereeve ]]; then
    # With the mode that udev gives it.
    mount -t tmpfs -o mode=755 tmpfs "$box/dev"
    mkdir "$box/dev/net"
    mknod -m 666 "$box/dev/net/tun" c 10 200
  fi
}

# A network namespace on the switch, kept by a process outside of the root.
plug() { # name, address
  local name=$1 outside=${first[switch]}
  hold -- sleep infinity
  first[$name]=$pid
  sleep 0.1
  ip link add "to-$name" netns "$outside" type veth peer name eth0 netns "$pid" || skip 'veth pairs are not to be had'
  nsenter -t "$outside" -n ip link set "to-$name" master switch up
  nsenter -t "$pid" -n sh -c "ip link set lo up; ip address add $2/24 dev eth0; ip link set eth0 up"
}

in_box() { # name, program and arguments
  nsenter -t "${first[$1]}" -n -- chroot --userspec="$user:$user" --groups= "$work/roots/$1" "/usr/bin/$2" "${@:3}"
}

# Runs a daemon there. It is this process that becomes it, and it ends with the case.
start_box() { # name, program and arguments
  nsenter -t "${first[$1]}" -n -- chroot --userspec="$user:$user" --groups= "$work/roots/$1" "/usr/bin/$2" "${@:3}" \
    >"$work/$1.log" 2>&1 &
  first[daemon-$1]=$!
  disown
}

case_containers_need_no_root() {
  if lacks ip || lacks jq || lacks ping; then skip 'ip, jq or ping is missing (apt-get install iproute2 jq iputils-ping)'; fi
  switch
  local name number=2
  container hub gatereeve-controller /var/lib/gatereeve-controller /run/gatereeve-controller
  plug hub 10.77.1.1
  must 'a network' in_box hub gatereeve-controller init --name example --advertise 10.77.1.1:8443
  start_box hub gatereeve-controller serve
  wait_for 'the controller' 10 in_box hub gatereeve-controller status
  printf 'version = 1\n[[allow]]\nid = "all"\nfrom = ["alice@example.com"]\nto = ["alice@example.com"]\nports = ["icmp"]\n' \
    >"$box/run/gatereeve-controller/policy.toml"
  must 'a policy' in_box hub gatereeve-controller policy apply /run/gatereeve-controller/policy.toml
  for name in one two; do
    container "$name" gatereeve /var/lib/gatereeve /run/gatereeve
    plug "$name" "10.77.1.$number"
    number=$((number + 1))
    start_box "$name" gatereeve daemon
    wait_for "the daemon of $name" 10 in_box "$name" gatereeve status
    in_box hub gatereeve-controller invite create --user alice@example.com --json | jq -r .invite >"$work/invite"
    in_box "$name" gatereeve join - <"$work/invite" >"$work/output" 2>&1 || {
      cat "$work/output" >&2
      tail -n 10 "$work/$name.log" | sed 's/^/    /' >&2
      fail "$name does not join"
    }
  done
  local address
  address=$(in_box two gatereeve status --json | jq -r '.. | .v4? // empty' | head -n 1)
  wait_for 'a ping between containers' 20 nsenter -t "${first[one]}" -n ping -c 1 -W 1 "$address"
  # Who they are, as the kernel sees it.
  local status
  for name in hub one two; do
    status=/proc/${first[daemon-$name]}/status
    note "$name: $(awk '/^Name/ {print $2}' "$status"), uid $(awk '/^Uid/ {print $2}' "$status"), $(awk '/^VmRSS/ {print $2, $3}' "$status")"
    same "$name: user" "$(awk '/^Uid/ {print $2, $3, $4, $5}' "$status")" "$user $user $user $user"
    # CAP_NET_ADMIN is bit 12.
    same "$name: capabilities" "$(awk '/^CapEff/ {print $2}' "$status")" \
      "$([[ $name = hub ]] && echo 0000000000000000 || echo 0000000000001000)"
  done
}
