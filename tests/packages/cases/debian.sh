# Debian packages in a fresh Debian.
# shellcheck shell=bash disable=SC2154,SC2016,SC2317

next=$this.next

both() { deb gatereeve "$1" && deb gatereeve-controller "$1"; }

# Installs both in this version.
install_both() {
  local files
  mapfile -t files < <(both "$1")
  install_deb "${files[@]}"
}

case_debian_installs() {
  fresh install
  install_both "$this"
  must 'the client runs' in_root gatereeve --version
  must 'the controller runs' in_root gatereeve-controller --version
  local name
  for name in gatereeve gatereeve-posture gatereeve-controller; do must 'the user is there' in_root id "$name"; done
  same 'state directory' "$(in_root stat -c '%U:%G %a' /var/lib/gatereeve-controller)" 'gatereeve-controller:gatereeve-controller 700'
  same 'settings' "$(in_root stat -c '%U:%G %a' /etc/gatereeve /etc/gatereeve/client.toml /etc/gatereeve/controller.toml)" \
    $'root:root 755\nroot:root 644\nroot:root 644'
  local unit
  while read -r unit; do
    same "$unit is enabled" "$(in_root systemctl is-enabled "${unit##*/}")" enabled
  done < <(grep -l '^\[Install\]' "$root"/usr/lib/systemd/system/gatereeve*)
  must 'dpkg finds nothing changed' in_root dpkg --verify gatereeve gatereeve-controller
  must 'and nothing half done' sh -c "[ -z \"\$(chroot '$root' dpkg --audit)\" ]"
}

# `init` is run by root, and the service by its own user.
case_debian_init_by_root_is_for_the_service() {
  fresh init
  install_both "$this"
  must 'root makes a network' in_root gatereeve-controller init --name example --advertise 192.0.2.1:8443
  same 'owners of the state' "$(in_root find /var/lib/gatereeve-controller -printf '%U\n' | sort -u)" \
    "$(in_root id -u gatereeve-controller)"
  same 'modes of the keys' "$(in_root stat -c %a /var/lib/gatereeve-controller/network.key /var/lib/gatereeve-controller/tls.key)" $'600\n600'
}

case_debian_settings_survive_an_upgrade() {
  fresh settings
  install_both "$this"
  echo '# mine' >>"$root/etc/gatereeve/client.toml"
  must 'root makes a network' in_root gatereeve-controller init --name example --advertise 192.0.2.1:8443
  local before
  before=$(in_root sha256sum /var/lib/gatereeve-controller/network.key)
  install_both "$next"
  same 'the version' "$(in_root dpkg-query -W -f '${Version}' gatereeve)" "$next-1"
  must 'what was written stays' grep -q '^# mine$' "$root/etc/gatereeve/client.toml"
  must 'the new settings came' grep -q "^# of $next\$" "$root/etc/gatereeve/controller.toml"
  same 'the network' "$(in_root sha256sum /var/lib/gatereeve-controller/network.key)" "$before"
  install_both "$this"
  same 'the version, downgraded' "$(in_root dpkg-query -W -f '${Version}' gatereeve)" "$this-1"
  must 'what was written stays' grep -q '^# mine$' "$root/etc/gatereeve/client.toml"
  same 'the network, downgraded' "$(in_root sha256sum /var/lib/gatereeve-controller/network.key)" "$before"
}

# What a stop of the unit is told is told to the real systemctl, which knows that nothing runs here.
case_debian_leaves_nothing_behind() {
  fresh leftovers
  local before installed
  before=$(snapshot)
  install_both "$this"
  installed=$(snapshot)
  install_both "$next"
  install_both "$this"
  same 'an upgrade and back' "$(snapshot)" "$installed"
  must 'reinstalls' in_root apt-get install -y --reinstall "/packages/$(basename "$(deb gatereeve "$this")")"
  same 'a reinstallation' "$(snapshot)" "$installed"

  must 'root makes a network' in_root gatereeve-controller init --name example --advertise 192.0.2.1:8443
  mkdir -p "$root/var/lib/gatereeve" "$root/etc/gatereeve/facts.d"
  echo key >"$root/var/lib/gatereeve/identity.key"
  must 'removes' in_root apt-get remove -y gatereeve gatereeve-controller
  must 'a removal keeps the network' test -e "$root/var/lib/gatereeve-controller/network.key"
  must 'a removal keeps the device' test -e "$root/var/lib/gatereeve/identity.key"
  must 'a removal keeps the settings' test -e "$root/etc/gatereeve/client.toml"
  must_not 'a removal takes the program' test -e "$root/usr/bin/gatereeve"
  install_both "$this"
  must 'installed again, the network is there' test -e "$root/var/lib/gatereeve-controller/network.key"

  must 'purges' in_root apt-get purge -y gatereeve gatereeve-controller
  same 'a purge' "$(snapshot)" "$before"
}

# A removal without the other package's settings, in each order.
case_debian_one_goes_the_other_stays() {
  fresh apart
  install_both "$this"
  must 'purges the client' in_root apt-get purge -y gatereeve
  must 'the controller keeps its settings' test -e "$root/etc/gatereeve/controller.toml"
  must_not 'the client takes its own along' test -e "$root/etc/gatereeve/client.toml"
  must 'dpkg finds nothing changed' in_root dpkg --verify gatereeve-controller
  must 'purges the controller' in_root apt-get purge -y gatereeve-controller
  must_not 'the folder goes last' test -e "$root/etc/gatereeve"
}
