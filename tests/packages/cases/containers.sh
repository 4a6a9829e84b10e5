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
    # With the modes that udev gives them; the first is there in every container (OCI runtime specification, "Default Devices").
    mount -t tmpfs -o mode=755 tmpfs "$box/dev"
    mknod -m 666 "$box/dev/null" c 1 3
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
    # What it says itself, where it does not come.
    (wait_for "the daemon of $name" 10 in_box "$name" gatereeve status) || {
      tail -n 10 "$work/$name.log" | sed 's/^/    /' >&2
      fail "no daemon of $name"
    }
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

# The recipes themselves: built by buildah and run by podman as their heads say, in a store of their own. No registry is asked:
# the stage that sets the capability begins with the Debian root of this suite.
pod() {
  podman --root "$work/store/graph" --runroot "$work/store/run" --tmpdir "$work/store/tmp" --storage-driver vfs \
    --runtime crun --cgroup-manager cgroupfs --events-backend none "$@"
}

build() { buildah --root "$work/store/graph" --runroot "$work/store/run" --storage-driver vfs "$@"; }

# Limits and cgroups are the machine's: podman would raise the former, and crun wants the latter of version 2 alone.
pod_run() { # network of, arguments of podman run
  pod run --ulimit nofile=16384:16384 --ulimit nproc=4096:4096 --cgroups disabled --network "ns:/proc/${first[$1]}/ns/net" \
    --read-only --cap-drop ALL "${@:2}"
}

stop_containers() {
  [[ -d $work/store ]] || return 0
  local name
  for name in $(pod ps --all --format '{{.Names}}' 2>/dev/null); do
    pod logs "$name" 2>&1 | tail -n 10 | sed "s/^/    $name: /" >"$work/store/$name.log" || true
  done
  (($1 == 0 || $1 == 77)) || cat "$work/store"/*.log >&2 || true
  pod rm --all --force --time 2 >/dev/null 2>&1 || true
  umount --recursive --lazy "$work/store/graph" 2>/dev/null || true
  umount --lazy /sys/fs/cgroup 2>/dev/null || true
  rm -rf "$work/store"
}

case_containers_are_built_and_run() {
  local tool lower name container from status flags
  from=$target/$(uname -m)-unknown-linux-musl/release/package/context
  [[ -x $from/gatereeve ]] || skip "$from is not there (packaging/build static)"
  for tool in buildah podman crun; do
    if lacks "$tool"; then skip "$tool is missing (apt-get install buildah podman crun)"; fi
  done
  if lacks ip || lacks jq || lacks ping; then skip 'ip, jq or ping is missing (apt-get install iproute2 jq iputils-ping)'; fi
  [[ -e /dev/net/tun ]] || skip '/dev/net/tun is not to be had'
  base plain
  mkdir -p "$work/store"
  # With the mode that udev gives it.
  mknod -m 666 "$work/store/tun" c 10 200
  mount -t cgroup2 cgroup2 /sys/fs/cgroup || skip 'cgroup2 is not to be had'
  tar -C "$lower" --exclude='./dev/*' -cf "$work/store/tools.tar" .
  container=$(build from scratch) || skip 'buildah makes no container here'
  must 'a base' build add --quiet "$container" "$work/store/tools.tar" /
  must 'a base' build commit --quiet "$container" localhost/tools
  rm "$work/store/tools.tar"
  must 'the image of the controller' build build --isolation chroot -f "$repo/packaging/oci/controller.Containerfile" \
    -t gatereeve-controller "$from"
  must 'the image of the client' build build --isolation chroot --build-arg TOOLS=localhost/tools \
    -f "$repo/packaging/oci/client.Containerfile" -t gatereeve "$from"
  for name in gatereeve gatereeve-controller; do
    container=$(build from "localhost/$name")
    same "$name: files" "$(find "$(build mount "$container")" -type f -printf '%P\n')" "usr/bin/$name"
    build rm "$container" >/dev/null
  done
  switch
  plug hub 10.77.2.1
  plug one 10.77.2.2
  plug two 10.77.2.3
  pod_run hub --rm -v network:/var/lib/gatereeve-controller gatereeve-controller \
    init --name example --advertise 10.77.2.1:8443 >"$work/output" 2>&1 || {
    cat "$work/output" >&2
    skip 'podman runs no container here'
  }
  flags=$(sed -n 's/^#.* --tmpfs \([^ ]*\).*/\1/p' "$repo/packaging/oci/controller.Containerfile")
  pod_run hub -d --name hub --security-opt no-new-privileges --tmpfs "$flags" -v network:/var/lib/gatereeve-controller \
    gatereeve-controller >/dev/null
  wait_for 'the controller' 10 pod exec hub gatereeve-controller status
  printf 'version = 1\n[[allow]]\nid = "all"\nfrom = ["alice@example.com"]\nto = ["alice@example.com"]\nports = ["icmp"]\n' \
    >"$work/policy.toml"
  must 'a policy' pod exec -i hub gatereeve-controller policy apply - <"$work/policy.toml"
  flags=$(sed -n 's/^#.* --tmpfs \([^ ]*\).*/\1/p' "$repo/packaging/oci/client.Containerfile")
  for name in one two; do
    pod_run "$name" -d --name "$name" --cap-add NET_ADMIN --device "$work/store/tun:/dev/net/tun" --tmpfs "$flags" \
      -v "$name:/var/lib/gatereeve" gatereeve >/dev/null
    wait_for "the daemon of $name" 10 pod exec "$name" gatereeve status
    pod exec hub gatereeve-controller invite create --user alice@example.com --json | jq -r .invite >"$work/invite"
    must "$name joins" pod exec -i "$name" gatereeve join - <"$work/invite"
  done
  local address
  address=$(pod exec two gatereeve status --json | jq -r '.. | .v4? // empty' | head -n 1)
  wait_for 'a ping between containers' 20 nsenter -t "${first[one]}" -n ping -c 1 -W 1 "$address"
  # The control: without the client there is no way.
  must 'a stop' pod stop --time 10 two
  same 'how it ended' "$(pod inspect two --format '{{.State.ExitCode}}')" 0
  must_not 'a ping to nobody' nsenter -t "${first[one]}" -n ping -c 1 -W 1 "$address"
  for name in hub one; do
    status=/proc/$(pod inspect "$name" --format '{{.State.Pid}}')/status
    same "$name: user" "$(awk '/^Uid/ {print $2, $3, $4, $5}' "$status")" "$user $user $user $user"
    same "$name: capabilities" "$(awk '/^CapEff/ {print $2}' "$status")" \
      "$([[ $name = hub ]] && echo 0000000000000000 || echo 0000000000001000)"
    same "$name: root" "$(awk '$5 == "/" {print substr($6, 1, 2)}' "${status%status}mountinfo")" ro
  done
}
