# RPM packages: in an empty root without scripts, and in a Debian root, for want of another, with them.
# shellcheck shell=bash disable=SC2154,SC2016,SC2317

# A database where RPM systems have it; Debian's rpm has another default.
rpm_in() { rpm --root "$1" --dbpath /var/lib/rpm "${@:2}"; }

case_rpm_contents() {
  if lacks rpm; then skip 'rpm is missing (apt-get install rpm)'; fi
  have_packages
  local name file list
  for name in gatereeve gatereeve-controller; do
    file=$(rpm_file "$name" "$this")
    list=$(rpm -qpl "$file")
    for wanted in "/usr/bin/$name" "/usr/lib/systemd/system/$name.service" "/usr/share/man/man8/$name.8.gz" \
      "/usr/share/bash-completion/completions/$name" "/usr/share/zsh/site-functions/_$name" \
      "/usr/share/fish/vendor_completions.d/$name.fish" "/usr/share/licenses/$name/LICENSE"; do
      grep -qx "$wanted" <<<"$list" || fail "$name has no $wanted"
    done
    same "$name: settings" "$(rpm -qpc "$file")" "/etc/gatereeve/$([[ $name = gatereeve ]] && echo client || echo controller).toml"
    same "$name: licence" "$(rpm -qp --qf '%{LICENSE}' "$file")" Apache-2.0
    same "$name: owners" "$(rpm -qp --qf '[%{FILEUSERNAME}:%{FILEGROUPNAME}\n]' "$file" | sort -u)" root:root
    must "$name: digests" rpm -K --nosignature "$file"
  done
}

case_rpm_installs_into_an_empty_root_and_leaves_it_empty() {
  if lacks rpm; then skip 'rpm is missing (apt-get install rpm)'; fi
  [[ $EUID = 0 ]] || skip 'not root: packages are installed as root'
  have_packages
  local at=$work/empty files
  files=("$(rpm_file gatereeve "$this")" "$(rpm_file gatereeve-controller "$this")")
  mkdir -p "$at"
  must 'rpm installs' rpm_in "$at" -i --nodeps --noscripts --ignoreos "${files[@]}"
  must 'nothing differs from the package' rpm_in "$at" -V --nodeps gatereeve gatereeve-controller
  must 'the client runs' "$at/usr/bin/gatereeve" --version
  must 'rpm erases' rpm_in "$at" -e --nodeps --noscripts gatereeve gatereeve-controller
  same 'what is left' "$(cd "$at" && find . -path ./var/lib/rpm -prune -o -type f -print)" ''
}

case_rpm_scripts_run() {
  if lacks rpm; then skip 'rpm is missing (apt-get install rpm)'; fi
  fresh rpm
  # Folders that the base packages of an RPM system have.
  mkdir -p "$root"/usr/share/{licenses,fish/vendor_completions.d,zsh/site-functions}
  local files=("$(rpm_file gatereeve "$this")" "$(rpm_file gatereeve-controller "$this")") before
  before=$(snapshot)
  must 'rpm installs' rpm_in "$root" -i --nodeps --ignoreos "${files[@]}"
  must 'the user is there' in_root id gatereeve-controller
  same 'state directory' "$(in_root stat -c '%U %a' /var/lib/gatereeve-controller)" 'gatereeve-controller 700'
  echo '# mine' >>"$root/etc/gatereeve/client.toml"
  must 'rpm upgrades' rpm_in "$root" -U --nodeps --ignoreos "$(rpm_file gatereeve "$next")" "$(rpm_file gatereeve-controller "$next")"
  must 'what was written stays' grep -q '^# mine$' "$root/etc/gatereeve/client.toml"
  must 'the new settings came' grep -q "^# of $next\$" "$root/etc/gatereeve/controller.toml"
  must 'rpm downgrades' rpm_in "$root" -U --oldpackage --nodeps --ignoreos "${files[@]}"
  must 'what was written stays' grep -q '^# mine$' "$root/etc/gatereeve/client.toml"
  must 'rpm erases' rpm_in "$root" -e gatereeve gatereeve-controller
  # What the administrator wrote is kept under another name, as rpm does.
  must 'and keeps what was written' test -e "$root/etc/gatereeve/client.toml.rpmsave"
  find "$root/etc/gatereeve" \( -name '*.rpmsave' -o -name '*.rpmnew' -o -name '*.rpmorig' \) -delete
  rmdir "$root/etc/gatereeve"
  same 'the rest' "$(snapshot)" "$before"
}
