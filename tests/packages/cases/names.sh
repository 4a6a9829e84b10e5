# Names of devices through systemd-resolved, which the client's user may tell by the polkit rule of its package.
# shellcheck shell=bash disable=SC2154,SC2016,SC2317

names_of() { on "$1" gatereeve status --json | jq -r .names.state; }

names_are() { [[ $(names_of "$1") = "$2" ]]; } # machine, state

# As programs do, by the C library: through /etc/resolv.conf, whose server is resolved's.
finds() { [[ $(on "$1" getent ahostsv4 "$2" | awk '{print $1}' | sort -u) = "$3" ]]; } # machine, name, address

# What resolved has of the interface, and what the host's own file says.
told() { on "$1" resolvectl "$2" gatereeve0 2>/dev/null | sed 's/^[^:]*: *//'; } # machine, what

resolv_conf() { on "$1" sh -c 'readlink /etc/resolv.conf; cat /etc/resolv.conf'; }

# Counts datagrams to port 53 by the interface that they leave by. The LAN has a server to ask, which does not answer.
count_questions() { # machine
  if lacks nft; then skip 'nft is missing (apt-get install nftables)'; fi
  on "$1" resolvectl dns eth0 10.78.0.1
  nsenter -t "${first[$1]}" -n nft 'add table inet questions; add chain inet questions out { type filter hook output priority 0; };
    add rule inet questions out oifname eth0 udp dport 53 counter; add rule inet questions out oifname gatereeve0 udp dport 53 counter'
}

questions() { # machine, interface
  nsenter -t "${first[$1]}" -n nft list table inet questions | sed -n "s/.*oifname \"$2\".*counter packets \([0-9]*\).*/\1/p"
}

case_systemd_resolves_names() {
  local address before links domains before_others name index
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

  # For its own domains, and for nothing else; nothing of ours is asked for elsewhere.
  domains=$(told one domain)
  same 'the domain' "${domains%% *}" '~example.internal'
  same 'domains of addresses' "$(tr ' ' '\n' <<<"$domains" | grep -c arpa)" 65
  same 'a default route for names' "$(told one default-route)" no
  same 'LLMNR and mDNS' "$(told one llmnr) $(told one mdns)" 'no no'
  count_questions one
  for name in two.example.internal two.EXAMPLE.internal nobody.example.internal; do on one getent hosts "$name" || true; done >/dev/null
  on one getent hosts "$address" >/dev/null
  same 'questions on the LAN' "$(questions one eth0)" 0
  (($(questions one gatereeve0) > 0)) || fail 'no question was counted at all'
  before_others=$(questions one gatereeve0)
  on one getent hosts www.example.com >/dev/null || true
  (($(questions one eth0) > 0)) || fail 'other names are asked for nowhere'
  same 'other names asked for at us' "$(questions one gatereeve0)" "$before_others"
  same 'the host' "$(resolv_conf one)" "$before"

  # A domain that the LAN could have handed out takes names away, which is said.
  must 'a domain of the LAN' on one resolvectl domain eth0 web.example.internal
  wait_for 'that it is seen' 15 names_are one contested
  must 'the warning' grep -q 'warning: names in example.internal are asked for elsewhere.*eth0 has the domain web.example.internal' <(on one gatereeve status)
  must 'it goes' on one resolvectl domain eth0 ''
  wait_for 'that it has gone' 15 names_are one in_use

  # What resolved was made to forget is told again.
  must 'somebody has it forget' on one resolvectl revert gatereeve0
  same 'forgotten' "$(told one domain)" ''
  must 'repair' on one gatereeve repair --apply
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
  # Nobody else gets anything by it; what another user is refused, the client's is not.
  index=$(on one cat /sys/class/net/gatereeve0/ifindex)
  forgets() { # user
    on one setpriv --reuid "$1" --regid nogroup --clear-groups busctl call org.freedesktop.resolve1 \
      /org/freedesktop/resolve1 org.freedesktop.resolve1.Manager SetLinkDNS 'ia(iay)' "$index" 0
  }
  must_not 'another user tells resolved' forgets nobody
  must 'and is told why' grep -qi 'authentication required\|access denied' <(forgets nobody 2>&1 || true)
  must "the client's user does" forgets gatereeve
  must 'repair' on one gatereeve repair --apply
  wait_for 'names again' 15 finds one two.example.internal "$address"

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
