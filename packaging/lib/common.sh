# What all parts of packaging/build share. It sets `repo` before, and `bin_dir` and `version` after.
# shellcheck shell=bash disable=SC2154,SC2034

target=${CARGO_TARGET_DIR:-$repo/target}
out=$target/packages
programs=(gatereeve gatereeve-controller)
# All times that packages hold: that of the last commit, unless the environment says another.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$repo" log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH LC_ALL=C.UTF-8 TZ=UTC

say() { printf '%s\n' "packaging: $*" >&2; }

die() {
  say "$*"
  exit 1
}

need() { # command, how to get it
  command -v "$1" >/dev/null || die "$1 is missing: $2"
}

workspace_version() {
  sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' "$repo/Cargo.toml"
}

# The Cargo package of a program.
crate_of() {
  case $1 in
    gatereeve) echo gatereeve-client ;;
    *) echo "$1" ;;
  esac
}

folder_of() {
  case $1 in
    gatereeve) echo client ;;
    *) echo controller ;;
  esac
}

# No path of the building machine gets into a program. Once: other flags would have cargo build everything anew.
export_flags() {
  [[ -z ${flags_exported:-} ]] || return 0
  flags_exported=1
  local cargo_home=${CARGO_HOME:-$HOME/.cargo} sysroot
  sysroot=$(rustc --print sysroot)
  # Where several match, the last one counts.
  local maps=("$repo=/usr/src/gatereeve" "$target=/usr/src/target" "$cargo_home=/usr/src/cargo" "$sysroot=/usr/src/rust") map
  RUSTFLAGS=${RUSTFLAGS:-}
  CFLAGS=${CFLAGS:-}
  for map in "${maps[@]}"; do
    RUSTFLAGS+=" --remap-path-prefix=$map"
    CFLAGS+=" -ffile-prefix-map=$map"
  done
  export RUSTFLAGS CFLAGS
}

# Runs `cargo build`, with the list of crates put into the program where cargo-auditable is there.
cargo_release() {
  export_flags
  if command -v cargo-auditable >/dev/null; then
    cargo auditable build --release --locked "$@"
  else
    say "cargo-auditable is not installed: the programs do not list their crates"
    cargo build --release --locked "$@"
  fi
}

# One after the other: what only the controller needs of a crate that both use is not in the client then.
# shellcheck disable=SC2119,SC2120 # the static build has arguments for it
cargo_release_programs() {
  cargo_release --bins -p gatereeve-client "$@"
  cargo_release --bins -p gatereeve-controller "$@"
}

build_programs() {
  if [[ -n $bin_dir ]]; then return; fi
  # shellcheck disable=SC2119
  cargo_release_programs
  bin_dir=$target/release
}

sums() {
  local list
  rm -f "$out/SHA256SUMS"
  list=$(cd "$out" && find . -maxdepth 1 -type f -printf '%f\n' | sort | xargs -r sha256sum)
  printf '%s\n' "$list" >"$out/SHA256SUMS"
  say "$out/SHA256SUMS"
}
