# A small runner in the manner of the other suites: a case is a function whose name begins with `case_`; what the
# machine lacks is said and counted as skipped, and GATEREEVE_REQUIRE_PACKAGES=1 makes a skip a failure.
# shellcheck shell=bash disable=SC2154,SC2016,SC2317

# What a case ends with where the machine lacks something.
skip() {
  echo "$*" >"$work/skip"
  exit 77
}

fail() {
  echo "  $*" >&2
  exit 1
}

must() { # what it shows, then a command
  local what=$1
  shift
  "$@" >"$work/output" 2>&1 || {
    sed 's/^/    /' "$work/output" | tail -n 40 >&2
    fail "$what: \`$*\` failed"
  }
}

must_not() {
  local what=$1
  shift
  if "$@" >"$work/output" 2>&1; then
    sed 's/^/    /' "$work/output" | tail -n 40 >&2
    fail "$what: \`$*\` did not fail"
  fi
}

same() { # what, got, wanted
  if [[ $2 != "$3" ]]; then
    diff --label wanted --label got -U0 <(printf '%s\n' "$3") <(printf '%s\n' "$2") | head -n 40 | sed 's/^/    /' >&2
    fail "$1: not what was wanted"
  fi
}

note() { printf '    %s\n' "$*"; }

lacks() { ! command -v "$1" >/dev/null; }

main() {
  local chosen=() name filter
  while read -r name; do
    if (($# == 0)); then
      chosen+=("$name")
    else
      for filter in "$@"; do
        if [[ $name = *"$filter"* ]]; then chosen+=("$name") && break; fi
      done
    fi
  done < <(declare -F | sed -n 's/^declare -f case_//p')

  work=$(mktemp -d "${TMPDIR:-/var/tmp}/gatereeve-packages.XXXXXX")
  trap end_suite EXIT
  trap 'exit 130' INT TERM
  printf '\nrunning %d tests\n' "${#chosen[@]}"
  local passed=0 failed=0 skipped=0 status started
  for name in "${chosen[@]}"; do
    printf 'test packages::%s ...\n' "$name"
    started=$SECONDS
    rm -f "$work/skip"
    status=0
    # A shell of its own: it ends at the first thing that fails.
    (
      set -euo pipefail
      trap end_case EXIT
      "case_$name"
    ) || status=$?
    if ((status == 0)); then
      passed=$((passed + 1))
      printf 'test packages::%s ... ok (%d s)\n' "$name" $((SECONDS - started))
    elif ((status == 77)) && [[ -e $work/skip && ${GATEREEVE_REQUIRE_PACKAGES:-} != 1 ]]; then
      skipped=$((skipped + 1))
      printf 'test packages::%s ... SKIPPED: %s\n' "$name" "$(cat "$work/skip")"
    else
      failed=$((failed + 1))
      [[ ! -e $work/skip ]] || sed 's/^/  /' "$work/skip"
      printf 'test packages::%s ... FAILED (%d s)\n' "$name" $((SECONDS - started))
    fi
  done
  printf '\ntest result: %s. %d passed; %d failed; %d skipped\n' \
    "$([[ $failed = 0 ]] && echo ok || echo FAILED)" "$passed" "$failed" "$skipped"
  if ((skipped > 0)); then
    echo 'skipped tests have shown nothing; GATEREEVE_REQUIRE_PACKAGES=1 makes a skip a failure'
  fi
  ((failed == 0))
}

end_case() {
  local status=$?
  ((status == 0 || status == 77)) || show_journals
  stop_containers "$status"
  stop_machines
  remove_cgroups
  unmount_roots
}

end_suite() {
  unmount_roots
  remove_cgroups
  rm -rf "$work"
}
