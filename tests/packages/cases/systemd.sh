# The shipped units under systemd as the first process of a machine, with the packages and nothing set by hand.
# shellcheck shell=bash disable=SC2154,SC2016,SC2317

client_unit=gatereeve.service
controller_unit=gatereeve-controller.service

apt_on() { on "$1" apt-get install -y --no-install-recommends --allow-downgrades "${@:2}"; } # machine, file…

inside() { echo "/packages/$(basename "$(deb "$1" "$2")")"; } # package, version

# A machine with these packages of this version. What they start is up.
with_packages() { # machine, address, package…
  local name=$1 package files=()
  fresh "$name" "${kind:-booted}"
  boot "$name" "$2"
  for package in "${@:3}"; do files+=("$(inside "$package" "$this")"); done
  must "$name: apt installs ${*:3}" apt_on "$name" "${files[@]}"
}

# A network on `hq`, with a policy that lets alice's devices ping each other.
with_network() { # address
  must 'a network' on hq gatereeve-controller init --name example --advertise "$1:8443"
  must 'the controller starts' on hq systemctl start gatereeve-controller
  cat >"$work/roots/hq/root/policy.toml" <<'END'
version = 1

[[allow]]
id = "pings"
from = ["alice@example.com"]
to = ["alice@example.com"]
ports = ["icmp"]
END
  must 'a policy' on hq gatereeve-controller policy apply /root/policy.toml
}

joins() { # machine
  on hq gatereeve-controller invite create --user alice@example.com --json | jq -r .invite >"$work/invite"
  must "$1 joins" on "$1" gatereeve join - <"$work/invite"
}

overlay_address() { on "$1" gatereeve status --json | jq -er '.. | .v4? // empty' | head -n 1; }

pings() { on "$1" ping -c 1 -W 1 "$2"; } # machine, address

# Three machines: the controller's, and two that ping each other. Sets `address`, that of the second.
three() {
  switch
  with_packages hq 10.78.0.1 gatereeve-controller
  with_packages one 10.78.0.2 gatereeve
  with_packages two 10.78.0.3 gatereeve
  with_network 10.78.0.1
  joins one
  joins two
  address=$(overlay_address two)
  wait_for 'the first ping' 20 pings one "$address"
}

# Everything of ours in the network of a machine, but what was there before.
rules_of() { nsenter -t "${first[$1]}" -n sh -c 'ip rule; ip -6 rule' | grep -E '^52[0-9]{2}:' || true; }
routes_of() { nsenter -t "${first[$1]}" -n sh -c 'ip route show table all; ip -6 route show table all' | grep -E 'table 52[0-9]{2}' || true; }
interfaces_of() { nsenter -t "${first[$1]}" -n ip -o link 2>/dev/null | awk -F': ' '{sub("@.*", "", $2); print $2}' | sort | tr '\n' ' '; }

started_by_us() {
  on "$1" systemctl list-units --all --plain --no-legend 'gatereeve*' | awk '{print $1, $3, $4}' | sort
}

case_systemd_starts_what_it_should() {
  local before after lines
  switch
  fresh lone booted
  boot lone 10.78.0.9
  before=$(on lone systemctl list-units --all --plain --no-legend | awk '{print $1, $3}' | sort)
  must 'apt installs both' apt_on lone "$(inside gatereeve "$this")" "$(inside gatereeve-controller "$this")"
  same 'what the packages started' "$(started_by_us lone | grep -v ' inactive dead$')" \
    $'gatereeve-posture.socket active listening\ngatereeve.service active running'
  after=$(on lone systemctl list-units --all --plain --no-legend | awk '{print $1, $3}' | sort)
  same 'what else started' "$(comm -13 <(echo "$before") <(echo "$after") | grep -v gatereeve | grep ' active$' || true)" \
    $'network-online.target active'
  same 'rules before a network was joined' "$(rules_of lone)" ''
  same 'interfaces before a network was joined' "$(interfaces_of lone)" 'eth0 lo '
  same 'sockets' "$(nsenter -t "${first[lone]}" -n ss -Hlntu | awk '{print $1, $5}' | sort -u)" $'udp 0.0.0.0:51840\nudp [::]:51840'
  same 'the line of a device in no network' "$(property lone "$client_unit" StatusText)" 'not joined'
  # Before `init` there is nothing to serve, and that is no failure.
  must 'a start before init' on lone systemctl start gatereeve-controller
  must 'waits for init' is lone "$controller_unit" ConditionResult no
  must 'does not run' is lone "$controller_unit" ActiveState inactive
  must 'a network' on lone gatereeve-controller init --name example --advertise 10.78.0.9:8443
  must 'does not start by itself' is lone "$controller_unit" ActiveState inactive
  must 'the controller starts' on lone systemctl start gatereeve-controller
  # It was active when `systemctl start` returned, and answers.
  must 'is active' is lone "$controller_unit" ActiveState active
  must 'answers at once' on lone gatereeve-controller status
  lines=$(on lone systemctl status --no-pager "$controller_unit" "$client_unit" | sed -n 's/^ *Status: //p')
  note "systemctl status: $(tr '\n' ' ' <<<"$lines")"
  [[ $(wc -l <<<"$lines") = 2 ]] || fail 'systemctl status has no status line of each'
  same 'units that failed' "$(on lone systemctl --failed --plain --no-legend)" ''
  # What systemd itself has to say of the units: a key that it does not know, a value that it passes over.
  same 'remarks on the units' "$(journal lone _PID=1 | grep -E '/gatereeve[^ ]*\.(service|socket):[0-9]+:' || true)" ''

  # What the kernel says of every thread.
  local unit capabilities
  for unit in "$client_unit" "$controller_unit"; do
    # CAP_NET_ADMIN is bit 12.
    capabilities=$([[ $unit = "$client_unit" ]] && echo 0000000000001000 || echo 0000000000000000)
    local uid
    uid=$(on lone id -u "${unit%.service}")
    same "$unit: user" "$(threads lone "$unit" Uid)" "$uid $uid $uid $uid"
    for field in CapEff CapPrm CapBnd; do same "$unit: $field" "$(threads lone "$unit" "$field")" "$capabilities"; done
    # What it starts inherits nothing.
    same "$unit: CapAmb" "$(threads lone "$unit" CapAmb)" 0000000000000000
    local started=
    if [[ $unit = "$client_unit" ]]; then started=0000000000000000; fi
    same "$unit: CapPrm of what it has started" "$(children lone "$unit" CapPrm)" "$started"
    same "$unit: NoNewPrivs" "$(threads lone "$unit" NoNewPrivs)" 1
    same "$unit: Seccomp" "$(threads lone "$unit" Seccomp)" 2
    # Its own sandbox is inside of the unit's.
    must "$unit: confined by itself, too" grep -Eq 'confined sandbox=Landlock \(ABI [0-9]+\), [0-9]+ system calls$' <(journal lone -u "$unit")
    must_not "$unit: confined in part" grep -q 'sandbox is not complete' <(journal lone -u "$unit")
    same "$unit: its root" "$(on lone sh -c 'awk "\$5 == \"/\" {print \$6}" "/proc/$1/mountinfo" | grep -o "^r[ow]"' - "$(property lone "$unit" MainPID)")" ro
  done
}

# `active` comes from READY=1 and from nothing else: without a way to say it, a daemon that runs is not active.
case_systemd_waits_for_readiness() {
  switch
  with_packages lone 10.78.0.9 gatereeve gatereeve-controller
  must 'a network' on lone gatereeve-controller init --name example --advertise 10.78.0.9:8443
  local unit command
  for unit in "$client_unit" "$controller_unit"; do
    command=$(sed -n 's/^ExecStart=//p' "$work/roots/lone/usr/lib/systemd/system/$unit")
    must "$unit: stops" on lone systemctl stop "$unit"
    must "$unit: starts" on lone systemctl start "$unit"
    must "$unit: active" is lone "$unit" ActiveState active
    on lone mkdir -p "/run/systemd/system/$unit.d"
    printf '[Service]\nTimeoutStartSec=3\nRestart=no\nExecStart=\nExecStart=/usr/bin/env -u NOTIFY_SOCKET %s\n' "$command" \
      >"$work/mute.conf"
    on lone sh -c "cat >/run/systemd/system/$unit.d/mute.conf" <"$work/mute.conf"
    must 'reads it' on lone systemctl daemon-reload
    must "$unit: stops" on lone systemctl stop "$unit"
    on lone systemctl start --no-block "$unit"
    wait_for "$unit: the daemon runs" 10 on lone "${unit%.service}" status
    must "$unit: runs and has not said so" is lone "$unit" ActiveState activating
    wait_for "$unit: given up" 10 is lone "$unit" Result timeout
    on lone rm -r "/run/systemd/system/$unit.d"
    must 'reads it' on lone systemctl daemon-reload
    must "$unit: starts again" on lone systemctl start "$unit"
  done
}

case_systemd_restarts_what_hangs() {
  switch
  with_packages hq 10.78.0.1 gatereeve gatereeve-controller
  with_packages control 10.78.0.2 gatereeve gatereeve-controller
  local name unit start
  for name in hq control; do
    must 'a network' on "$name" gatereeve-controller init --name example --advertise 10.78.0.1:8443
    must 'the controller starts' on "$name" systemctl start gatereeve-controller
  done
  start=$SECONDS
  for unit in "$client_unit" "$controller_unit"; do on hq systemctl kill --signal STOP --kill-who main "$unit"; done
  sleep 0.2
  # The control of the check itself: they are stopped, and systemd does not know yet.
  for unit in "$client_unit" "$controller_unit"; do
    same "$unit: stopped" "$(threads hq "$unit" State)" 'T (stopped)'
    must "$unit: passes for active" is hq "$unit" ActiveState active
  done
  for unit in "$client_unit" "$controller_unit"; do
    wait_for "$unit: a restart" 50 is hq "$unit" NRestarts 1
    note "$unit: hung, and started again after $((SECONDS - start)) s"
    wait_for "$unit: back" 10 is hq "$unit" ActiveState active
    must "$unit: answers" on hq "${unit%.service}" status
    must "$unit: the journal says why" sh -c 'echo "$1" | grep -q "Watchdog timeout"' - "$(journal hq -u "$unit" _PID=1)"
    must "$unit: one that answers is left alone" is control "$unit" NRestarts 0
    must "$unit: one that answers is left alone" is control "$unit" ActiveState active
  done
}

# The journal has what they say, and a switch of what that is holds on the running service.
case_systemd_keeps_the_log() {
  local program unit socket process
  switch
  with_packages hq 10.78.0.1 gatereeve gatereeve-controller
  with_network 10.78.0.1
  # What a daemon has to say at `debug` ahq: somebody talks nonsense on its socket.
  cat >"$work/roots/hq/root/nonsense.pl" <<'END'
use IO::Socket::UNIX;
my $end = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die "no: $!\n";
print $end "nonsense\r\n\r\n";
shutdown($end, 1);
print while <$end>;
END
  nonsense() { on hq perl /root/nonsense.pl "$socket" >/dev/null; }
  lines() { journal hq -u "$unit" | grep -c ' DEBUG .*local connection' || true; }
  one_more() { (($(lines) == $1)); }
  for program in gatereeve gatereeve-controller; do
    unit=$program.service
    socket=$(on hq find "/run/$program" -name '*.sock')
    process=$(property hq "$unit" MainPID)
    must "$unit: INFO in the journal" grep -q ' INFO gatereeve' <(journal hq -u "$unit")
    nonsense
    same "$unit: as configured" "$(lines)" 0
    must "$unit: the switch" on hq "$program" log-level debug
    nonsense
    wait_for "$unit: a line of debugging" 5 one_more 1
    must "$unit: back" on hq "$program" log-level configured
    nonsense
    same "$unit: as configured again" "$(lines)" 1
    same "$unit: the same process all along" "$(property hq "$unit" MainPID)" "$process"
  done
}

case_systemd_brings_the_network_back() {
  local address since
  three
  watch_for_leaks one
  # All along, in the background.
  on one ping -i 0.02 -W 1 "$address" >"$work/pings" 2>&1 &
  disown
  # A daemon that is killed.
  since=$(now_ms)
  on one systemctl kill --signal KILL --kill-who main "$client_unit"
  wait_for 'a restart of the client' 10 is one "$client_unit" NRestarts 1
  wait_for 'a ping after the crash of the client' 20 pings one "$address"
  note "client killed: ping back after $(($(now_ms) - since)) ms"
  # The control: the other end was not touched.
  must 'the other client went on' is two "$client_unit" NRestarts 0
  since=$(now_ms)
  on hq systemctl kill --signal KILL --kill-who main "$controller_unit"
  must 'tunnels do without the controller' pings one "$address"
  wait_for 'a restart of the controller' 10 is hq "$controller_unit" NRestarts 1
  wait_for 'the controller' 10 on hq gatereeve-controller status
  note "controller killed: back after $(($(now_ms) - since)) ms"
  connected() { [[ $(on hq systemctl show --value -p StatusText "$controller_unit") = *' 2 '* || $(on hq gatereeve-controller device list --json | jq '[.. | .online? // .connected? // empty | select(. == true)] | length') = 2 ]]; }
  wait_for 'both devices at the controller again' 30 connected

  # A stop is clean, quick, and fails closed.
  since=$(now_ms)
  must 'the client stops' on one systemctl stop gatereeve
  note "client stopped in $(($(now_ms) - since)) ms"
  (($(now_ms) - since < 5000)) || fail 'the client took 5 s or more to stop'
  must 'and cleanly' is one "$client_unit" Result success
  same 'its interface' "$(interfaces_of one)" 'eth0 lo '
  must 'its rules stay' sh -c '[ -n "$1" ]' - "$(rules_of one)"
  must 'and its unreachable routes' grep -q '^unreachable 100\.64\.' <<<"$(routes_of one)"
  must_not 'and nothing passes' pings one "$address"
  must_not 'nor is it sent elsewhere' on one ip route get "$address"
  same 'nftables' "$(nsenter -t "${first[one]}" -n nft list tables)" 'table inet probe'
  must 'status without a daemon says so' sh -c '[ "$1" = 6 ]' - "$(on one gatereeve status >/dev/null 2>&1 || echo $?)"
  same 'in clear so far' "$(leaks one)" 0
  since=$(now_ms)
  must 'the controller stops' on hq systemctl stop gatereeve-controller
  note "controller stopped in $(($(now_ms) - since)) ms"
  (($(now_ms) - since < 5000)) || fail 'the controller took 5 s or more to stop'
  must 'and cleanly' is hq "$controller_unit" Result success
  must 'a start' on hq systemctl start gatereeve-controller
  must 'a start' on one systemctl start gatereeve
  wait_for 'a ping after the stop' 20 pings one "$address"

  # The control of the watch: with nothing of ours there, it counts.
  must 'a stop' on one systemctl stop gatereeve
  must 'repair' on one gatereeve repair --remove
  pings one "$address" >/dev/null 2>&1 || true
  (($(leaks one) > 0)) || fail 'the watch for packets in clear sees none where there are some'

  # Machines that restart. One waits for what came in from outside.
  end_program one ping TERM
  shut_down hq
  shut_down one
  since=$(now_ms)
  boot hq 10.78.0.1
  must 'the controller started with its machine' is hq "$controller_unit" ActiveState active
  boot one 10.78.0.2
  must 'the client started with its machine' is one "$client_unit" ActiveState active
  note "booted after $(($(now_ms) - since)) ms"
  wait_for 'a ping after the boot' 20 pings one "$address"
  note "both machines restarted: ping after $(($(now_ms) - since)) ms"
}

# Datagrams for the overlay that leave this machine in clear. A default route makes sure that they would.
watch_for_leaks() { # machine
  if lacks nft; then skip 'nft is missing (apt-get install nftables)'; fi
  nsenter -t "${first[$1]}" -n sh -c 'ip route add default via 10.78.0.1
    nft "add table inet probe; add chain inet probe out { type filter hook output priority 0; };
    add rule inet probe out oifname eth0 ip daddr 100.64.0.0/10 counter"'
}

leaks() { nsenter -t "${first[$1]}" -n nft list table inet probe | sed -n 's/.*counter packets \([0-9]*\).*/\1/p'; }

installs_on() { # machine, version, package
  must "$1: apt installs $3 $2" apt_on "$1" "$(inside "$3" "$2")"
  same "$1: the version" "$(on "$1" dpkg-query -W -f '${Version}' "$3")" "$2-1"
}

case_systemd_upgrades_and_removes() {
  local address before version since name was packets
  switch
  fresh one booted
  boot one 10.78.0.2
  before=$(root=$work/roots/one snapshot)
  with_packages hq 10.78.0.1 gatereeve-controller
  with_packages two 10.78.0.3 gatereeve
  installs_on one "$this" gatereeve
  with_network 10.78.0.1
  joins one
  joins two
  address=$(overlay_address two)
  wait_for 'the first ping' 20 pings one "$address"
  watch_for_leaks one
  # All along, in the background.
  on one ping -i 0.02 -W 1 "$address" >"$work/pings" 2>&1 &
  disown
  for version in "$next" "$this"; do
    was=$(property hq "$controller_unit" InvocationID)
    since=$(now_ms)
    installs_on hq "$version" gatereeve-controller
    wait_for 'the controller after its upgrade' 10 on hq gatereeve-controller status
    [[ $(property hq "$controller_unit" InvocationID) != "$was" ]] || fail 'the upgrade did not restart the controller'
    note "controller to $version: serves after $(($(now_ms) - since)) ms, dpkg and all"
    was=$(property one "$client_unit" InvocationID)
    since=$(now_ms)
    installs_on one "$version" gatereeve
    wait_for 'a ping after the upgrade' 20 pings one "$address"
    [[ $(property one "$client_unit" InvocationID) != "$was" ]] || fail 'the upgrade did not restart the client'
    note "client to $version: ping after $(($(now_ms) - since)) ms, dpkg and all"
    must 'no crash' is one "$client_unit" NRestarts 0
    same "$version: in clear meanwhile" "$(leaks one)" 0
  done
  # What was stopped stays stopped.
  must 'a stop' on two systemctl stop gatereeve
  installs_on two "$next" gatereeve
  must 'stays stopped over an upgrade' is two "$client_unit" ActiveState inactive
  must 'a start' on two systemctl start gatereeve
  wait_for 'a ping' 20 pings one "$address"

  must 'removes' on one apt-get remove -y gatereeve
  must_not 'the daemon runs on' on one sh -c 'cat /proc/[0-9]*/comm | grep -qx gatereeve'
  same 'a removal: rules' "$(rules_of one)" ''
  same 'a removal: routes' "$(routes_of one)" ''
  same 'a removal: interfaces' "$(interfaces_of one)" 'eth0 lo '
  must 'a removal keeps the device' test -e "$work/roots/one/var/lib/gatereeve/identity.key"
  same 'a removal: what is active' "$(started_by_us one | grep ' active ' || true)" ''
  # The control of the watch above: with nothing of ours there, it counts.
  pings one "$address" >/dev/null 2>&1 || true
  packets=$(leaks one)
  ((packets > 0)) || fail 'the watch for packets in clear sees none where there are some'
  installs_on one "$this" gatereeve
  must 'installed again, it runs' is one "$client_unit" ActiveState active
  wait_for 'and is the device that it was' 20 pings one "$address"

  must 'purges' on one apt-get purge -y gatereeve
  same 'a purge: rules' "$(rules_of one)" ''
  same 'a purge: routes' "$(routes_of one)" ''
  same 'a purge: units' "$(on one systemctl list-units --all --plain --no-legend 'gatereeve*'; on one systemctl list-unit-files --no-legend 'gatereeve*' || true)" ''
  same 'a purge: at run time' "$(on one find /run /tmp /var/tmp -name '*gatereeve*' ! -path '/run/systemd/*')" ''
  same 'a purge: files' "$(root=$work/roots/one snapshot)" "$before"
  must 'purges the controller' on hq apt-get purge -y gatereeve-controller
  same 'a purge: units' "$(on hq systemctl list-units --all --plain --no-legend 'gatereeve*'; on hq systemctl list-unit-files --no-legend 'gatereeve*' || true)" ''
  same 'a purge: at run time' "$(on hq find /run /tmp /var/tmp /var/lib -name '*gatereeve*' ! -path '/run/systemd/*' ! -path '/var/lib/dpkg/*')" ''
  for name in hq one two; do same "$name: units that failed" "$(on "$name" systemctl --failed --plain --no-legend)" ''; done
}

# One connection is one collector, with rights of its own; without it the daemon sees less.
case_systemd_collects_posture_by_socket() {
  local status
  switch
  with_packages hq 10.78.0.1 gatereeve-controller
  with_packages one 10.78.0.2 gatereeve
  with_network 10.78.0.1
  printf '[posture.agent]\nprocess = ["/usr/bin/sleep"]\n[[allow]]\nid = "ssh"\nfrom = ["alice@example.com"]\nto = ["alice@example.com"]\nports = ["tcp:22"]\nposture = ["agent"]\n' \
    >>"$work/roots/hq/root/policy.toml"
  must 'a policy' on hq gatereeve-controller policy apply /root/policy.toml
  # A process of another user than the daemon's, whose executable only a collector with CAP_SYS_PTRACE sees.
  on one setpriv --reuid nobody --regid nogroup --clear-groups sleep infinity 2>/dev/null &
  disown
  joins one
  fact() { on one gatereeve posture --json | jq -c '.facts[] | select(.id == "process:/usr/bin/sleep") | .value'; }
  seen() { [[ $(fact) = '{"bool":true}' ]]; }
  wait_for 'the process' 15 seen
  (($(property one gatereeve-posture.socket NAccepted) > 0)) || fail 'nobody asked the collector'

  # Who asks, and what answers.
  cat >"$work/roots/one/root/ask.pl" <<'END'
use IO::Socket::UNIX;
my $end = IO::Socket::UNIX->new(Peer => "/run/gatereeve-posture/collect.sock") or die "no: $!\n";
sleep($ARGV[0]);
print $end "{\"watched\":[]}\n";
shutdown($end, 1);
print while <$end>;
END
  chmod 755 "$work/roots/one/root"
  asks() { on one setpriv --reuid "$1" --regid "$2" --clear-groups perl /root/ask.pl "$3"; }
  must 'the client is answered' grep -q '"id":"os_version"' <(asks gatereeve gatereeve 0)
  must_not 'another user asks' asks nobody nogroup 0
  asks gatereeve gatereeve 3 >/dev/null 2>&1 &
  disown
  process() {
    status=$(on one sh -c 'for at in /proc/[0-9]*; do
      ! tr "\0" " " 2>/dev/null <"$at/cmdline" | grep -q "^/usr/bin/gatereeve collect-posture " || cat "$at/status"
    done')
    [[ -n $status ]]
  }
  wait_for 'a collector' 3 process
  field() { awk -v field="$1:" '$1 == field {$1 = ""; print substr($0, 2); exit}' <<<"$status"; }
  local uid
  uid=$(on one id -u gatereeve-posture)
  same 'its user' "$(field Uid)" "$uid $uid $uid $uid"
  # CAP_DAC_READ_SEARCH is bit 2, CAP_SYS_PTRACE is bit 19.
  same 'its capabilities' "$(field CapEff) $(field CapBnd)" '0000000000080004 0000000000080004'
  same 'NoNewPrivs' "$(field NoNewPrivs)" 1
  same 'Seccomp' "$(field Seccomp)" 2
  # The control: without the socket the daemon collects by itself, as its user, and says that it cannot see.
  on one systemctl stop gatereeve-posture.socket
  on one systemctl mask --runtime gatereeve-posture.socket >/dev/null 2>&1
  must 'a restart' on one systemctl restart gatereeve
  blind() { [[ $(fact) = '{"unknown":'* ]]; }
  wait_for 'what the daemon cannot see' 15 blind
  note "without the collector: $(fact)"
  on one systemctl unmask --runtime gatereeve-posture.socket >/dev/null 2>&1
  must 'the socket' on one systemctl start gatereeve-posture.socket
  must 'a restart' on one systemctl restart gatereeve
  wait_for 'the process' 15 seen
}

drop_in() { # machine, unit, name; from standard input
  on "$1" mkdir -p "/etc/systemd/system/$2.d"
  on "$1" sh -c "cat >/etc/systemd/system/$2.d/$3.conf"
  on "$1" systemctl daemon-reload
}

# The drop-ins that the documents name.
case_systemd_takes_drop_ins() {
  switch
  with_packages lone 10.78.0.9 gatereeve gatereeve-controller
  must 'a network' on lone gatereeve-controller init --name example --advertise 10.78.0.9:8443
  on lone groupadd gatereeve-admins
  on lone useradd --groups gatereeve-admins bob
  on lone useradd eve
  on lone sed -i 's/^#admin_group/admin_group/' /etc/gatereeve/controller.toml
  # The control: without the drop-in the unit does not let it give the socket away.
  must_not 'an admin_group without the drop-in' on lone systemctl start gatereeve-controller
  sed -n 's/^# \[Service\] //p' "$repo/packaging/config/controller.toml" | sed 's/, \| and /\n/g; s/\.$//' >"$work/settings"
  must 'the drop-in is told in controller.toml' grep -q '^RuntimeDirectoryMode=0755$' "$work/settings"
  { echo '[Service]' && cat "$work/settings"; } | drop_in lone "$controller_unit" admins
  must 'a start' on lone systemctl restart gatereeve-controller
  must 'a member' on lone runuser -u bob -- gatereeve-controller status
  must_not 'anybody else' on lone runuser -u eve -- gatereeve-controller status

  echo $'[Service]\nEnvironment=GATEREEVE_LOG=debug' | drop_in lone "$client_unit" log
  must 'a restart' on lone systemctl restart gatereeve
  must 'the filter it starts with' grep -q 'debug' <(on lone gatereeve log-level)
  on lone sed -i 's/^#operator = .*/operator = "bob"/' /etc/gatereeve/client.toml
  must 'a restart' on lone systemctl restart gatereeve
  on lone gatereeve-controller invite create --user alice@example.com --json | jq -r .invite >"$work/invite"
  must_not 'anybody else' on lone runuser -u eve -- gatereeve join - <"$work/invite"
  must 'the operator' on lone runuser -u bob -- gatereeve join - <"$work/invite"
}

# Keys that systemd hands over, sealed with the machine's secret where there is no TPM.
case_systemd_hands_over_credentials() {
  local address fingerprint
  three
  seal() { # machine, folder, key, credential
    must "$4: sealed" on "$1" sh -c "mkdir -p /etc/credstore.encrypted && cd $2 && systemd-creds encrypt --name=$4 $3 /etc/credstore.encrypted/$4"
  }
  seal hq /var/lib/gatereeve-controller network.key gatereeve-controller.network-key
  seal hq /var/lib/gatereeve-controller tls.key gatereeve-controller.tls-key
  seal one /var/lib/gatereeve identity.key gatereeve.identity-key
  drop_in hq "$controller_unit" keys <<<$'[Service]\nLoadCredentialEncrypted=gatereeve-controller.network-key\nLoadCredentialEncrypted=gatereeve-controller.tls-key'
  drop_in one "$client_unit" key <<<$'[Service]\nLoadCredentialEncrypted=gatereeve.identity-key'
  must 'both the file and the credential' on hq systemctl restart gatereeve-controller
  must 'both the file and the credential' on one systemctl restart gatereeve
  fingerprint=$(on hq gatereeve-controller status --json | jq -r '.. | .fingerprint? // empty' | head -n 1)
  must 'the files go' on hq shred -u /var/lib/gatereeve-controller/network.key /var/lib/gatereeve-controller/tls.key
  must 'the files go' on one shred -u /var/lib/gatereeve/identity.key
  must 'the credential alone' on hq systemctl restart gatereeve-controller
  must 'the credential alone' on one systemctl restart gatereeve
  wait_for 'a ping' 30 pings one "$address"
  same 'the network' "$(on hq gatereeve-controller status --json | jq -r '.. | .fingerprint? // empty' | head -n 1)" "$fingerprint"
  same 'a key came back' "$(on one find /var/lib/gatereeve -name '*.key')" ''
  local with=(systemd-run --quiet --pipe --wait -p LoadCredentialEncrypted=gatereeve-controller.network-key
    -p LoadCredentialEncrypted=gatereeve-controller.tls-key)
  must 'a backup' on hq "${with[@]}" gatereeve-controller backup /root/backup.tar
  must 'audit verify' on hq "${with[@]}" gatereeve-controller audit verify
  must 'doctor' on hq "${with[@]}" gatereeve-controller doctor
  must 'upgrade rehearse' on hq "${with[@]}" gatereeve-controller upgrade rehearse
  # The control: without it there is no key.
  must_not 'audit verify without the credential' on hq gatereeve-controller audit verify
  on hq rm "/etc/systemd/system/$controller_unit.d/keys.conf"
  on hq systemctl daemon-reload
  must_not 'the service without the credential' on hq systemctl restart gatereeve-controller
}
