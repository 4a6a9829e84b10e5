# What is in the packages, without installing them.
# shellcheck shell=bash disable=SC2154,SC2016,SC2317

this=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' "$repo/Cargo.toml")

listed() { dpkg-deb --fsys-tarfile "$1" | tar -tvf - --numeric-owner; }

# Unpacks both packages. Sets `client` and `controller`.
unpack() {
  have_packages
  client=$work/unpacked/client controller=$work/unpacked/controller
  rm -rf "$work/unpacked"
  mkdir -p "$client" "$controller"
  dpkg-deb --extract "$(deb gatereeve "$this")" "$client"
  dpkg-deb --extract "$(deb gatereeve-controller "$this")" "$controller"
}

case_contents_land_where_they_belong() {
  have_packages
  local name file list
  for name in gatereeve gatereeve-controller; do
    list=$(listed "$(deb "$name" "$this")")
    for file in "usr/bin/$name" "usr/lib/systemd/system/$name.service" "usr/share/man/man8/$name.8.gz" \
      "usr/share/bash-completion/completions/$name" "usr/share/zsh/vendor-completions/_$name" \
      "usr/share/fish/vendor_completions.d/$name.fish" "usr/share/doc/$name/copyright" \
      "usr/share/doc/$name/changelog.Debian.gz" "usr/share/doc/$name/third-party-notices.gz"; do
      grep -qE " (\./)?$file$" <<<"$list" || fail "$name has no $file"
    done
    # Root's, not writable for others, nothing set-user-ID, only the program executable.
    same "$name: owners" "$(awk '{print $2}' <<<"$list" | sort -u)" 0/0
    same "$name: modes" "$(awk '{print $1}' <<<"$list" | sort -u)" $'-rw-r--r--\n-rwxr-xr-x\ndrwxr-xr-x'
    same "$name: executables" "$(awk '$1 == "-rwxr-xr-x" {sub("^[.]/", "", $NF); print $NF}' <<<"$list")" "usr/bin/$name"
  done
  same 'conffiles of the client' "$(dpkg-deb --info "$(deb gatereeve "$this")" conffiles)" /etc/gatereeve/client.toml
  same 'conffiles of the controller' "$(dpkg-deb --info "$(deb gatereeve-controller "$this")" conffiles)" \
    /etc/gatereeve/controller.toml
  grep -qE ' (\./)?usr/share/polkit-1/rules.d/50-gatereeve.rules$' <<<"$(listed "$(deb gatereeve "$this")")" ||
    fail 'the client has no polkit rule'
  list=$(listed "$(deb gatereeve-controller "$this")")
  for file in usr/lib/sysusers.d/gatereeve-controller.conf usr/lib/tmpfiles.d/gatereeve-controller.conf \
    usr/share/doc/gatereeve-controller/examples/policy.toml; do
    grep -qE " (\./)?$file$" <<<"$list" || fail "the controller has no $file"
  done
}

case_contents_configuration_is_the_defaults() {
  unpack
  must 'the client.toml of the package' cmp "$client/etc/gatereeve/client.toml" "$repo/packaging/config/client.toml"
  must 'the controller.toml of the package' cmp "$controller/etc/gatereeve/controller.toml" "$repo/packaging/config/controller.toml"
}

# The pages exist for every command that `--help` shows, link to it, and render without a complaint.
case_contents_manual_is_complete() {
  unpack
  local name at page command text
  for name in gatereeve gatereeve-controller; do
    at=$client
    if [[ $name = gatereeve-controller ]]; then at=$controller; fi
    text=$(zcat "$at/usr/share/man/man8/$name.8.gz" | sed 's/\\//g')
    while read -r command; do
      page=$at/usr/share/man/man8/$name-$command.8.gz
      [[ -e $page ]] || fail "$name $command has no page"
      grep -qF "$name-$command(8)" <<<"$text" || fail "$name(8) does not lead to $name-$command(8)"
    done < <("$at/usr/bin/$name" --help | awk '/^Commands:/ {on = 1; next} /^$/ {on = 0} on && /^  [a-z]/ && $1 != "help" {print $1}')
    for page in "$at"/usr/share/man/man8/*.gz; do
      if ! lacks groff; then
        text=$(zcat "$page" | groff -K utf8 -man -Tutf8 -ww -rLL=90n 2>&1 >/dev/null | grep -v "can't break line\|cannot adjust line" || true)
        same "${page##*/}: what groff says" "$text" ''
      fi
    done
  done
  note "$(find "$work/unpacked" -name '*.8.gz' | wc -l) pages"
}

case_contents_completions_are_scripts() {
  unpack
  local at name shells=()
  for name in gatereeve gatereeve-controller; do
    at=$client
    if [[ $name = gatereeve-controller ]]; then at=$controller; fi
    must 'bash reads it' bash -n "$at/usr/share/bash-completion/completions/$name"
    must 'bash completes with it' bash -c ". '$at/usr/share/bash-completion/completions/$name' && complete -p $name"
    if ! lacks zsh; then must 'zsh reads it' zsh -n "$at/usr/share/zsh/vendor-completions/_$name" && shells+=(zsh); fi
    if ! lacks fish; then must 'fish reads it' fish --no-execute "$at/usr/share/fish/vendor_completions.d/$name.fish" && shells+=(fish); fi
  done
  note "checked with bash ${shells[*]}"
}

case_contents_programs_are_hardened() {
  if lacks readelf; then skip 'readelf is missing (apt-get install binutils)'; fi
  unpack
  local program headers dynamic
  for program in "$client/usr/bin/gatereeve" "$controller/usr/bin/gatereeve-controller"; do
    headers=$(readelf -Wlh "$program") dynamic=$(readelf -Wd "$program")
    grep -q 'Type: *DYN' <<<"$headers" || fail "$program is no PIE"
    grep -q GNU_RELRO <<<"$headers" || fail "$program has no RELRO"
    grep -q 'BIND_NOW\|Flags:.*NOW' <<<"$dynamic" || fail "$program binds late"
    grep -q 'GNU_STACK.* RW ' <<<"$headers" || fail "$program has an executable stack"
    if grep -q 'R.*PATH' <<<"$dynamic"; then fail "$program has a run path"; fi
    same "$program: folders of the machine that built it" \
      "$(strings -n 8 "$program" | grep -oF -e "$repo/" -e "${CARGO_HOME:-$HOME/.cargo}/registry" | sort -u || true)" ''
  done
}

case_contents_lintian_says_nothing() {
  if lacks lintian; then skip 'lintian is missing (apt-get install lintian)'; fi
  have_packages
  local said
  said=$(lintian "$(deb gatereeve "$this")" \
    "$(deb gatereeve-controller "$this")" 2>&1 || true)
  same 'lintian' "$(grep -E '^[EW]:' <<<"$said" || true)" ''
}

case_contents_sums_and_sboms_are_right() {
  have_packages
  must 'the sums' sh -c "cd '$packages' && sha256sum --quiet -c SHA256SUMS"
  local name file
  for name in gatereeve gatereeve-controller; do
    file=$packages/$name-$this.cdx.json
    must "$file" jq -e '.bomFormat == "CycloneDX" and .specVersion == "1.5"
      and (.serialNumber | test("^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}$"))
      and (.components | length > 100)
      and all(.components[]; .purl and .version and .licenses)
      and all(.components[] | select(.hashes | not); .purl | startswith("pkg:generic/gatereeve/"))
      and ([.components[]["bom-ref"]] | length == (unique | length))
      and ([.dependencies[].ref] - [.components[]["bom-ref"], .metadata.component["bom-ref"]] == [])' "$file"
    # Every crate that comes from a registry is there with the sum that Cargo.lock has.
    must "$file: sums" jq -e --rawfile lock "$repo/Cargo.lock" 'all(.components[] | select(.hashes); .hashes[0].content as $sum | $lock | contains($sum))' "$file"
  done
}
