# The packages themselves, from what stage.sh put together.
# shellcheck shell=bash disable=SC2154

debs() {
  need cargo-deb 'cargo install --locked cargo-deb'
  need dpkg-shlibdeps 'apt-get install dpkg-dev'
  local program
  for program in "${programs[@]}"; do deb "$program"; done
}

deb() { # program
  stage deb "$1"
  CARGO_TARGET_DIR=$target cargo deb --quiet --locked --no-build --no-strip -p "$(crate_of "$1")" \
    --deb-version "$version-1" -o "$out/" >/dev/null
  say "$(echo "$out/$1_$version-1"_*.deb)"
}

rpms() {
  need cargo-generate-rpm 'cargo install --locked cargo-generate-rpm'
  local program
  for program in "${programs[@]}"; do
    stage rpm "$program"
    cargo generate-rpm --target-dir "$target" -p "$(folder_of "$program")" \
      -s "version = \"$version\"" --source-date "$SOURCE_DATE_EPOCH" -o "$out/"
    say "$(echo "$out/$program-$version-1".*.rpm)"
  done
}

source_archive() {
  local name=gatereeve-$version
  git archive --format=tar --prefix="$name/" HEAD | gzip -9n >"$out/$name.tar.gz"
  say "$out/$name.tar.gz"
}

# Says what a static build lacks here; fails if it lacks nothing.
static_lacks() {
  local triple installed
  triple=$(uname -m)-unknown-linux-musl
  installed=$(rustup target list --installed 2>/dev/null || true)
  if ! grep -qx "$triple" <<<"$installed"; then
    echo "rustup target add $triple"
  elif ! command -v musl-gcc >/dev/null; then
    echo 'musl-gcc is missing: apt-get install musl-tools'
  else
    return 1
  fi
}

static() {
  local triple missing name
  triple=$(uname -m)-unknown-linux-musl
  if missing=$(static_lacks); then die "$missing"; fi
  export "CC_${triple//-/_}=musl-gcc"
  cargo_release_programs --target "$triple"
  name=gatereeve-$version-$triple
  local stage=$target/$triple/release/package program
  rm -rf "${stage:?}"
  # The container recipes begin with `context`: the programs, and the directories that volumes are laid over. Those lie in
  # others, for COPY keeps the mode of what is in a directory, and not of the directory.
  mkdir -p "$stage/$name" "$stage/context"
  for program in "${programs[@]}"; do install -d -m 700 "$stage/context/state/$program/$program"; done
  for program in "${programs[@]}"; do
    install -m 755 "$target/$triple/release/$program" "$stage/$name/"
    strip --strip-all "$stage/$name/$program"
    install -m 755 "$stage/$name/$program" "$stage/context/"
    stage_notices "$program" "$stage/$name/$program-notices"
  done
  install -m 644 LICENSE "$stage/$name/"
  tar -C "$stage" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner \
    -cf - "$name" | gzip -9n >"$out/$name.tar.gz"
  say "$out/$name.tar.gz"
}
