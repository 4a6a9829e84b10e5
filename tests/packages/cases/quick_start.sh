# Three machines with nothing but the packages: from the first command to the first ping that a policy allows.
# Every line that `did` runs is one command that a person types on that machine.
# shellcheck shell=bash disable=SC2154,SC2016,SC2317

declare -A typed=()

did() { # machine, command
  typed[$1]=$((${typed[$1]:-0} + 1))
  on "$@" >"$work/output" 2>&1 || {
    tail -n 20 "$work/output" >&2
    log_of "$1" gatereeve.service >&2
    fail "$1: \`${*:2}\` failed"
  }
}

now_ms() { echo $((${EPOCHREALTIME/./} / 1000)); }

case_quick_start_of_three_machines() {
  switch
  local name number=1
  for name in hq web laptop; do
    fresh "$name"
    machine "$name" "10.77.0.$number"
    number=$((number + 1))
  done
  cat >"$work/roots/hq/root/policy.toml" <<'END'
version = 1

[tags."tag:web"]

[[allow]]
id = "alice-to-web"
from = ["alice@example.com"]
to = ["tag:web"]
ports = ["icmp"]
END
  local controller client start ping invite address
  controller=/packages/$(basename "$(deb gatereeve-controller "$this")")
  client=/packages/$(basename "$(deb gatereeve "$this")")

  start=$(now_ms)
  did hq apt-get install -y --no-install-recommends "$controller"
  did hq gatereeve-controller init --name example --advertise 10.77.0.1:8443
  # `systemctl start gatereeve-controller`
  typed[hq]=$((typed[hq] + 1))
  start_unit hq gatereeve-controller.service
  wait_for 'the controller' 10 on hq gatereeve-controller status
  did hq gatereeve-controller policy apply /root/policy.toml
  for name in web laptop; do
    # Typed at the controller, for this machine. The invite goes from one terminal to another.
    typed[$name]=$((${typed[$name]:-0} + 1))
    if [[ $name = web ]]; then
      invite=$(on hq gatereeve-controller invite create --tag web --json | jq -r .invite)
    else
      invite=$(on hq gatereeve-controller invite create --user alice@example.com --json | jq -r .invite)
    fi
    did "$name" apt-get install -y --no-install-recommends "$client"
    # The package starts the daemon where systemd runs.
    start_unit "$name" gatereeve.service
    wait_for "the daemon on $name" 10 on "$name" gatereeve status
    echo "$invite" >"$work/invite"
    did "$name" gatereeve join - <"$work/invite"
  done
  # `ping` by the program, and by the system's own.
  typed[laptop]=$((typed[laptop] + 1))
  wait_for 'the first authorized ping' 20 on laptop gatereeve ping web -c 1
  ping=$(now_ms)
  address=$(on web gatereeve status --json | jq -r '.. | .v4? // empty' | head -n 1)
  [[ -n $address ]] || fail 'web has no overlay address'
  must "the system's ping" on laptop ping -c 3 -i 0.2 -W 2 "$address"
  # The control: what no rule names does not pass, on the same machines at the same time.
  must_not 'the way back has no rule' on web gatereeve ping laptop -c 1

  local took=$((ping - start)) most
  most=$(printf '%s\n' "${typed[@]}" | sort -n | tail -n 1)
  note "first command to first authorized ping: $((took / 1000)).$(printf %03d $((took % 1000))) s (goal: under 60)"
  note "commands: controller ${typed[hq]}, web ${typed[web]}, laptop ${typed[laptop]}; the invite of each is counted with it (goal: at most 4)"
  ((took < 60000)) || fail 'it took a minute or more'
  ((most <= 4)) || fail "a machine took $most commands"

  local resident
  for name in web laptop; do
    resident=$(on "$name" sh -c 'sed -n "s/^VmRSS:[^0-9]*//p" "/proc/$1/status"' - "$(pids_of "$name" gatereeve | head -n 1)")
    note "$name: the daemon has $resident in memory"
  done
  # What the client put into its host goes with the package.
  must 'a rule of ours is there' sh -c "nsenter -t ${first[laptop]} -n ip rule | grep -q 5247"
  end_program laptop gatereeve TERM
  must 'the package goes' on laptop apt-get purge -y gatereeve
  same 'rules left' "$(nsenter -t "${first[laptop]}" -n sh -c 'ip rule; ip -6 rule' | grep 52 || true)" ''
  same 'interfaces left' "$(nsenter -t "${first[laptop]}" -n ip -o link | awk -F': ' '{sub("@.*", "", $2); print $2}' | sort | tr '\n' ' ')" 'eth0 lo '
}

# A client that was killed leaves its rules on purpose; a removal takes them.
case_quick_start_crash_then_purge() {
  switch
  fresh lone
  machine lone 10.77.0.9
  install_on() { on lone apt-get install -y --no-install-recommends "$@"; }
  must 'installs' install_on "/packages/$(basename "$(deb gatereeve "$this")")" "/packages/$(basename "$(deb gatereeve-controller "$this")")"
  on lone gatereeve repair --help >/dev/null 2>&1 || skip 'this gatereeve has no `repair`, which the package calls'
  must 'a network' on lone gatereeve-controller init --name example --advertise 10.77.0.9:8443
  start_unit lone gatereeve-controller.service
  wait_for 'the controller' 10 on lone gatereeve-controller status
  on lone gatereeve-controller invite create --user alice@example.com --json | jq -r .invite >"$work/invite"
  start_unit lone gatereeve.service
  wait_for 'the daemon' 10 on lone gatereeve status
  must 'joins' on lone gatereeve join - <"$work/invite"
  end_program lone gatereeve KILL
  must 'the rules stay after a crash' sh -c "nsenter -t ${first[lone]} -n ip rule | grep -q 5247"
  must 'the package goes' on lone apt-get purge -y gatereeve
  same 'rules left' "$(nsenter -t "${first[lone]}" -n sh -c 'ip rule; ip -6 rule' | grep 52 || true)" ''
  same 'routes left' "$(nsenter -t "${first[lone]}" -n sh -c 'ip route show table all; ip -6 route show table all' | grep 5247 || true)" ''
}
