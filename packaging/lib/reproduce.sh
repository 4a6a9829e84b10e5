# Builds one package twice from the same commit, in folders of different names and at different times, and
# compares the bytes.
# shellcheck shell=bash disable=SC2154

reproduce() { # program
  local program=$1 work deb
  local files=()
  work=$(mktemp -d "${TMPDIR:-/var/tmp}/gatereeve-reproduce.XXXXXX")
  # shellcheck disable=SC2064
  trap "rm -rf '$work'" EXIT
  local folder
  for folder in first a-second/folder-of-another-name; do
    mkdir -p "$work/$folder"
    git archive HEAD | tar -x -C "$work/$folder"
    # Another folder, another target directory, another time, another user's umask.
    (
      umask "$([[ $folder = first ]] && echo 022 || echo 077)"
      cd "$work/$folder"
      unset CARGO_TARGET_DIR RUSTFLAGS CFLAGS
      export SOURCE_DATE_EPOCH
      packaging/build one-deb "$program" --out "$work/$folder/out"
    ) || die "the build in $work/$folder failed"
    deb=$(ls "$work/$folder/out/$program"_*.deb)
    files+=("$deb")
    sha256sum "$deb" | sed "s,$work/,," >&2
    rm -rf "$work/$folder/target"
  done
  if cmp "${files[@]}"; then
    say "reproduced: $(basename "${files[0]}") is the same, byte for byte"
  else
    command -v diffoscope >/dev/null && diffoscope "${files[@]}"
    die "$(basename "${files[0]}") differs between two builds"
  fi
}
