# Names of devices through systemd-resolved, which the client's user may tell by the polkit rule of its package.
# shellcheck shell=bash disable=SC2154,SC2016,SC2317

names_of() { on "$1" gatereeve status --json | jq -r .names.state; }

names_are() { [[ $(names_of "$1") = "$2" ]]; } # machine, state

# As programs do, by the C library: through /etc/resolv.conf, whose server is resolved's.
finds() { [[ $(on "$1" getent ahostsv4 "$2" | awk '{print $1}' | sort -u) = "$3" ]]; } # machine, name, address

# What resolved has of the interface, and what the host's own file says.
told() { on "$1" resolvectl "$2" gatereeve0 2>/dev/null | sed 's/^[^:]*: *//'; } # machine, what

resolv_conf() { on "$1" sh -c 'readlink /etc/resolv.conf; cat /etc/resolv.conf'; }

case_systemd_resolves_names() {
  local address before links domains other uid
  switch
  with_packages hq 10.78.0.1 gatereeve-controller
  kind=resolving with_packages one 10.78.0.2 gatereeve
  kind=resolving with_packages two 10.78.0.3 gatereeve
  # Otherwise they know each other's short names without us.
  must 'no LLMNR on the LAN' on one resolvectl llmnr eth0 no
  before=$(resolv_conf one)
  links=$(on one resolvectl status | grep -c '^Link ')
  with_network 10.78.0.1
  joins one
  joins two
  address=$(overlay_address two)
  wait_for 'names on one' 10 names_are one in_use
  wait_for 'the name of two' 10 finds one two.example.internal "$address"
  must 'its own' finds one one.example.internal "$(overlay_address one)"
  must 'upper case' finds one TWO.Example.Internal "$address"
  same 'a reverse look-up' "$(on one getent hosts "$address" | awk '{print $2}')" two.example.internal
  must 'in both families' sh -c 'echo "$1" | grep -q "^fd"' - "$(on one getent ahostsv6 two.example.internal)"
  must 'ping by name' on one ping -c 1 -W 2 two.example.internal
  # A name that is not there is the control of those that are; and no name is completed unless asked for.
  must_not 'a name of nobody' on one getent hosts three.example.internal
  must_not 'a name without its domain' on one getent hosts two

  # For its own domains, and for nothing else.
  domains=$(told one domain)
  same 'the domain' "${domains%% *}" '~example.internal'
  same 'domains of addresses' "$(tr ' ' '\n' <<<"$domains" | grep -c arpa)" 65
  same 'a default route for names' "$(told one default-route)" no
  same 'LLMNR and mDNS' "$(told one llmnr) $(told one mdns)" 'no no'
  other=$(on one resolvectl query example.com 2>&1 || true)
  must_not 'other names are asked for there' grep -q gatereeve0 <<<"$other"
  same 'the host' "$(resolv_conf one)" "$before"

  # What resolved forgets is told again; it takes a moment, in which others' changes are let settle.
  must 'somebody has it forget' on one resolvectl revert gatereeve0
  same 'forgotten' "$(told one domain)" ''
  wait_for 'what it forgot' 15 finds one two.example.internal "$address"
  must 'a restart of resolved' on one systemctl restart systemd-resolved
  wait_for 'the name after it' 15 finds one two.example.internal "$address"

  # A name goes with the rule.
  printf 'version = 1\n' >"$work/roots/hq/root/nothing.toml"
  must 'nobody may ping anybody' on hq gatereeve-controller policy apply /root/nothing.toml
  gone() { ! on one getent hosts two.example.internal; }
  wait_for 'the end of the name' 15 gone
  must 'its own stays' finds one one.example.internal "$(overlay_address one)"
  must 'the policy as it was' on hq gatereeve-controller policy apply /root/policy.toml
  wait_for 'the name again' 15 finds one two.example.internal "$address"

  # However the daemon ends, nothing stays.
  on one systemctl kill --signal KILL --kill-who main "$client_unit"
  wait_for 'a restart of the client' 10 is one "$client_unit" NRestarts 1
  wait_for 'names after a crash' 15 finds one two.example.internal "$address"
  must 'a stop' on one systemctl stop gatereeve
  same 'links that resolved has' "$(on one resolvectl status | grep -c '^Link ')" "$links"
  must_not 'a name without a daemon' on one getent hosts two.example.internal
  same 'the host' "$(resolv_conf one)" "$before"

  # The controls of the rule: without it nothing is told, the daemon says so, and the device takes part all the same.
  must 'the rule is away' on one mv /usr/share/polkit-1/rules.d/50-gatereeve.rules /root/
  must 'polkit reads it' on one systemctl restart polkit
  must 'a start' on one systemctl start gatereeve
  wait_for 'that it is forbidden' 15 names_are one forbidden
  must 'the warning' grep -q 'warning: systemd-resolved does not ask for names in example.internal' <(on one gatereeve status)
  same 'what resolved knows' "$(told one domain)" ''
  wait_for 'a ping by address' 15 pings one "$address"
  must 'the rule is back' on one mv /root/50-gatereeve.rules /usr/share/polkit-1/rules.d/
  must 'polkit reads it' on one systemctl restart polkit
  must 'repair' on one gatereeve repair --apply
  wait_for 'names again' 15 finds one two.example.internal "$address"
  # Nobody else gets anything by it.
  uid=$(on one id -u nobody)
  must_not 'another user tells resolved' on one setpriv --reuid "$uid" --clear-groups busctl call org.freedesktop.resolve1 \
    /org/freedesktop/resolve1 org.freedesktop.resolve1.Manager SetLinkDNS 'ia(iay)' "$(on one cat /sys/class/net/gatereeve0/ifindex)" 0

  # Short names, and none at all.
  on one sed -i 's/^search = false/search = true/' /etc/gatereeve/client.toml
  must 'a restart' on one systemctl restart gatereeve
  wait_for 'the short name' 15 finds one two "$address"
  on one sed -i 's/^names = true/names = false/' /etc/gatereeve/client.toml
  must 'a restart' on one systemctl restart gatereeve
  wait_for 'that it is switched off' 10 names_are one off
  wait_for 'a ping by address' 15 pings one "$address"
  same 'what resolved knows' "$(told one domain)" ''
  same 'the host' "$(resolv_conf one)" "$before"
}
