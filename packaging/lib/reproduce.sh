# Builds the Debian packages of this commit in another folder, and compares the bytes: with those in the directory that
# --against names, or with those of a second folder.
# shellcheck shell=bash disable=SC2154

reproduce() {
  local work firsts=$against
  work=$(mktemp -d "${TMPDIR:-/var/tmp}/gatereeve-reproduce.XXXXXX")
  # shellcheck disable=SC2064
  trap "rm -rf '$work'" EXIT
  if [[ -z $firsts ]]; then
    build_in "$work/first" 022
    firsts=$work/first/out
  fi
  build_in "$work/second/a-folder-of-another-name" 077
  local program deb name differs=
  for program in "${programs[@]}"; do
    deb=$(echo "$work"/second/a-folder-of-another-name/out/"$program"_*.deb)
    name=${deb##*/}
    [[ -e $firsts/$name ]] || die "$firsts holds no $name to compare with"
    (cd "$firsts" && sha256sum "$name") >&2
    if cmp "$firsts/$name" "$deb"; then
      say "reproduced: $name is the same, byte for byte"
    else
      differs=yes
      if command -v diffoscope >/dev/null; then diffoscope "$firsts/$name" "$deb" || true; fi
    fi
  done
  [[ -z $differs ]] || die "not reproduced"
}

# With a target directory and a umask of its own, and nothing of this environment that shows in a build but the time.
build_in() { # folder, umask
  mkdir -p "$1"
  git archive HEAD | tar -x -C "$1"
  (
    umask "$2"
    cd "$1"
    unset CARGO_TARGET_DIR RUSTFLAGS CFLAGS
    packaging/build deb --out "$1/out"
  ) || die "the build in $1 failed"
  rm -rf "$1/target"
}
