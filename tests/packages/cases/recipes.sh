# The files for other systems: syntax, and that they name what there is.
# shellcheck shell=bash disable=SC2154,SC2016,SC2317

recipes=$repo/packaging

case_recipes_pkgbuild() {
  must 'bash reads it' bash -n "$recipes/arch/PKGBUILD"
  # What makepkg reads before it builds, without running any function.
  must 'fields and functions' bash -c 'set -eu; . "$1"; [ "$pkgver" = "$2" ]; [ "${#source[@]}" = "${#sha256sums[@]}" ]
    for name in "${pkgname[@]}"; do declare -F "package_$name" >/dev/null; done; declare -F build check >/dev/null' \
    - "$recipes/arch/PKGBUILD" "$this"
  # Nothing is left out that our own packages have.
  local file folder
  for folder in config systemd sysusers tmpfiles polkit; do
    grep -qF "packaging/$folder/" "$recipes/arch/PKGBUILD" || fail "PKGBUILD installs nothing of packaging/$folder"
  done
  # Every file of the repository that it installs exists.
  while read -r file; do
    [[ -e $repo/$file ]] || fail "PKGBUILD installs $file, which is not there"
  done < <(grep -oE 'packaging/[a-z0-9/_.-]+[a-z]|LICENSE' "$recipes/arch/PKGBUILD" | grep -v 'packaging/build$' | sort -u)
}

case_recipes_homebrew() {
  if lacks ruby; then skip 'ruby is missing (apt-get install ruby)'; fi
  must 'ruby reads it' ruby -c "$recipes/homebrew/gatereeve.rb"
  must 'the version' grep -q "v$this.tar.gz\|gatereeve-$this.tar.gz" "$recipes/homebrew/gatereeve.rb"
}

case_recipes_shell_scripts_are_sound() {
  if lacks shellcheck; then skip 'shellcheck is missing (apt-get install shellcheck)'; fi
  local scripts=("$recipes/build" "$recipes"/lib/*.sh "$recipes"/deb/*/p* "$here/run" "$here/prepare" "$here"/lib/*.sh "$here"/cases/*.sh)
  must 'shellcheck' shellcheck -x "${scripts[@]}"
  must 'shellcheck of the rpm scripts' shellcheck -s sh "$recipes"/rpm/*/p*
}

case_recipes_containers() {
  local file
  for file in "$recipes"/oci/*.Containerfile; do
    # No tool is needed to see that every instruction is one, and what the promises are.
    same "${file##*/}: instructions" "$(sed -e 's/#.*//' -e '/^ *$/d' "$file" | awk '
      continued {continued = /\\$/; next} {print $1; continued = /\\$/}' |
      grep -vxE 'FROM|ARG|COPY|RUN|USER|ENV|VOLUME|EXPOSE|ENTRYPOINT|CMD|LABEL|WORKDIR|STOPSIGNAL|HEALTHCHECK' || true)" ''
    must "${file##*/} has no root" grep -qE '^USER [1-9][0-9]*:[1-9][0-9]*$' "$file"
    must "${file##*/} ends in an empty image" sh -c "grep '^FROM' '$file' | tail -n 1 | grep -qx 'FROM scratch'"
  done
}
