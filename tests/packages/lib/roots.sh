# Fresh Debian systems in folders: bases made by debootstrap and kept, and a layer over one of them for each use.
# shellcheck shell=bash disable=SC2154,SC2016,SC2317

suite=bookworm
# `plain` is what packages need to be installed, `booted` what a machine with systemd as its first process has, `resolving`
# one that has systemd-resolved, too.
# shellcheck disable=SC2054 # debootstrap's lists have commas
declare -A contents=(
  [plain]=systemd,init-system-helpers,iproute2,iputils-ping
  [booted]=systemd,systemd-sysv,dbus,init-system-helpers,iproute2,iputils-ping,netbase
  [resolving]=systemd,systemd-sysv,dbus,init-system-helpers,iproute2,iputils-ping,netbase
)
# What cannot be set up before the rest is.
declare -A later=([resolving]='systemd-resolved polkitd')

mirror() {
  apt-get indextargets --format '$(SITE) $(RELEASE)' 2>/dev/null | awk -v suite="$suite" '$2 == suite {print $1; exit}'
}

# Makes a base once. systemd is in each, for it is on the machines that packages are installed on.
base() { # kind
  [[ $EUID = 0 ]] || skip 'not root: packages are installed as root'
  if lacks debootstrap; then skip 'debootstrap is missing (apt-get install debootstrap)'; fi
  local at=$cache/$suite
  [[ $1 = plain ]] || at+=-$1
  lower=$at/root
  [[ -e $at/complete ]] && return
  local site
  site=$(mirror)
  rm -rf "$at"
  mkdir -p "$at"
  debootstrap --variant=minbase --include="${contents[$1]}" \
    "$suite" "$at/root" "${site:-http://deb.debian.org/debian}" >"$work/debootstrap.log" 2>&1 || {
    tail -n 5 "$work/debootstrap.log" >&2
    rm -rf "$at"
    skip 'debootstrap could not make a root: is a Debian mirror to be reached?'
  }
  if [[ -n ${later[$1]:-} ]]; then
    # shellcheck disable=SC2086 # a list is words
    chroot "$at/root" sh -c 'apt-get update && apt-get install -y --no-install-recommends "$@"' - ${later[$1]} \
      >"$work/debootstrap.log" 2>&1 || {
      tail -n 5 "$work/debootstrap.log" >&2
      rm -rf "$at"
      skip "apt could not install ${later[$1]}: is a Debian mirror to be reached?"
    }
  fi
  rm -rf "$at/root/var/cache/apt/archives"/*.deb "$at/root/var/lib/apt/lists"/*
  touch "$at/complete"
}

# A fresh root with the packages below /packages. Sets `root`.
fresh() { # name, kind of base
  local lower
  have_packages
  base "${2:-plain}"
  local layer=$work/layers/$1
  root=$work/roots/$1
  mkdir -p "$layer"/{upper,work} "$root"
  mount -t overlay overlay -o "lowerdir=$lower,upperdir=$layer/upper,workdir=$layer/work" "$root" ||
    skip 'overlay file systems are not to be had'
  mount -t proc proc "$root/proc"
  mount -t tmpfs -o mode=755 tmpfs "$root/run"
  mount -t tmpfs -o mode=755 tmpfs "$root/dev"
  local device
  for device in null zero full random urandom; do
    touch "$root/dev/$device" && mount --bind "/dev/$device" "$root/dev/$device"
  done
  ln -s /proc/self/fd "$root/dev/fd"
  mkdir "$root/dev/net" "$root/packages"
  if [[ -e /dev/net/tun ]]; then
    # With the mode that udev gives it.
    mknod -m 666 "$root/dev/net/tun" c 10 200
  fi
  mount --bind "$packages" "$root/packages"
}

unmount_roots() {
  local at
  for at in "$work"/roots/*; do
    if [[ -d $at ]]; then
      umount --recursive --lazy "$at" 2>/dev/null || true
      rm -rf "$work/layers/${at##*/}"
      rmdir "$at" 2>/dev/null || true
    fi
  done
}

in_root() { chroot "$root" "$@"; }

# Every file with its kind, mode, owner, target and size, but for what the package tools keep for themselves.
snapshot() {
  in_root find / -xdev \( -path /proc -o -path /run -o -path /dev -o -path /packages -o -path /tmp \
    -o -path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/lib/rpm -o -path /var/cache -o -path /var/log \) -prune -o \
    ! -path '/etc/passwd*' ! -path '/etc/group*' ! -path '/etc/shadow*' ! -path '/etc/gshadow*' ! -path '/etc/.pwd.lock' \
    ! -path /var/lib/systemd/deb-systemd-helper-enabled ! -path /var/lib/systemd/deb-systemd-helper-masked \
    ! -path /var/lib/systemd/deb-systemd-helper-enabled/multi-user.target.wants \
    \( -type f -printf '%y %m %u:%g %p %s\n' -o -printf '%y %m %u:%g %p %l\n' \) | sort
}

have_packages() {
  local pattern
  for pattern in 'gatereeve_*.next-1_*.deb' 'gatereeve-*.next-1.*.rpm' SHA256SUMS; do
    compgen -G "$packages/$pattern" >/dev/null || skip "$packages does not hold the packages (tests/packages/prepare)"
  done
}

# The one package file that fits.
package() { # pattern
  local found
  mapfile -t found < <(compgen -G "$packages/$1")
  ((${#found[@]} == 1)) || fail "$packages holds ${#found[@]} of $1"
  echo "${found[0]}"
}

deb() { package "$1_$2-1_*.deb"; } # name, version

rpm_file() { package "$1-$2-1.*.rpm"; }

# As a person would: with its dependencies, which the base has.
install_deb() { # file...
  local file names=()
  for file in "$@"; do names+=("/packages/${file##*/}"); done
  must "apt installs ${names[*]##*/}" in_root apt-get install -y --no-install-recommends --allow-downgrades \
    -o Dpkg::Options::=--force-confold "${names[@]}"
}
