# What a program is made of: the crates that are linked into it, those that built it, and their licences.
# shellcheck shell=bash disable=SC2154

metadata() { # folder of the package
  cargo metadata --locked --format-version 1 --filter-platform "$(rustc -vV | sed -n 's/^host: //p')" \
    --manifest-path "$1/Cargo.toml"
}

# From `cargo metadata`: the packages that the package $name is made of; `is_linked` is false for those that
# only build scripts use.
# shellcheck disable=SC2016
crates_of='
  .resolve.nodes as $nodes
  | def closure($next): {seen: {}, todo: .} | until(.todo == [];
    .todo[0] as $id | if .seen[$id] then .todo |= .[1:]
      else .seen[$id] = true | .todo = .todo[1:] + ($next[$id] // []) end) | .seen;
  def edges($kinds): map({key: .id, value: [.deps[]
    | select(any(.dep_kinds[]; .kind as $k | $kinds | index([$k]))) | .pkg]}) | from_entries;
  (.packages[] | select(.name == $name) | .id) as $root
  | (.resolve.nodes | edges([null])) as $linked
  | (.resolve.nodes | edges([null, "build"])) as $any
  | ([$root] | closure($linked)) as $in
  | ([$root] | closure($any)) as $all
  | [.packages[] | select($all[.id]) | . + {is_linked: ($in[.id] // false), is_root: (.id == $root)}]
  | sort_by(.name, .version)
  | . as $crates
  | ($nodes | edges([null, "build"])) as $edges
  | map(. + {needs: ($edges[.id] // [])})
'

sboms() {
  need jq 'apt-get install jq'
  local program
  for program in "${programs[@]}"; do
    sbom "$program" >"$out/$program-$version.cdx.json"
    say "$out/$program-$version.cdx.json"
  done
}

sbom() { # program
  local sums serial
  # name version checksum, from Cargo.lock
  sums=$(awk -F'"' '/^name = /{n=$2} /^version = /{v=$2} /^checksum = /{print n "@" v "\t" $2}' Cargo.lock |
    jq -Rn '[inputs / "\t" | {key: .[0], value: .[1]}] | from_entries')
  serial=$({ echo "$1 $version"; cat Cargo.lock; } | sha256sum |
    sed -E 's/^(.{8})(.{4}).(.{3}).(.{3})(.{12}).*/\1-\2-5\3-8\4-\5/')
  metadata "$(folder_of "$1")" | jq --arg name "$(crate_of "$1")" --arg program "$1" --arg version "$version" \
    --arg serial "urn:uuid:$serial" --argjson sums "$sums" --argjson time "$SOURCE_DATE_EPOCH" "$crates_of"'
    | . as $crates
    # What is of this tree is not what a registry has under that name, as `ring`.
    | ($crates | map({key: .id, value: (if .source then "pkg:cargo/\(.name)@\(.version)"
          else "pkg:generic/gatereeve/\(.name)@\(.version)" end)}) | from_entries) as $purl
    | def component: {
          type: "library",
          "bom-ref": $purl[.id],
          name, version,
          scope: (if .is_linked then "required" else "excluded" end),
          purl: $purl[.id]
        }
        + (if .description then {description: (.description | gsub("\\s+"; " ") | sub("^ "; "") | sub(" $"; ""))} else {} end)
        + (if .license then {licenses: [{expression: (.license | gsub("\\s*/\\s*"; " OR "))}]} else {} end)
        + ($sums["\(.name)@\(.version)"] as $sum | if $sum then {hashes: [{alg: "SHA-256", content: $sum}]} else {} end)
        + (if .repository then {externalReferences: [{type: "vcs", url: .repository}]} else {} end);
    {
      bomFormat: "CycloneDX",
      specVersion: "1.5",
      serialNumber: $serial,
      version: 1,
      metadata: {
        timestamp: ($time | todate),
        component: ($crates[] | select(.is_root) | {
          type: "application", "bom-ref": $purl[.id], name: $program, version: $version,
          licenses: [{expression: .license}], purl: $purl[.id]})
      },
      components: [$crates[] | select(.is_root | not) | component],
      dependencies: [$crates[] | {ref: $purl[.id], dependsOn: ([.needs[] | $purl[.] | select(.)] | unique)}]
    }'
}

# One file with the licence texts of all crates that are linked into a program; a text that several share is
# given once.
stage_notices() { # program, directory
  need jq 'apt-get install jq'
  local crates name version license folder file sum
  crates=$(metadata "$(folder_of "$1")" | jq -r --arg name "$(crate_of "$1")" "$crates_of"'
    | .[] | select(.is_linked and .source != null) | [.name, .version, .license // "see its file", (.manifest_path | sub("/Cargo.toml$"; ""))] | @tsv')
  local -A text=() users=()
  local order=()
  while IFS=$'\t' read -r name version license folder; do
    local found=
    # A crate that ships no text of its licence has it in licences/.
    for file in "$folder"/{LICEN[CS]E,COPYING,COPYRIGHT,NOTICE}* "packaging/licences/$name"; do
      [[ -f $file ]] || continue
      found=yes
      sum=$(sha256sum <"$file")
      if [[ -z ${text[$sum]:-} ]]; then
        text[$sum]=$file
        order+=("$sum")
      fi
      users[$sum]+="  $name $version ($license)"$'\n'
    done
    if [[ -z $found ]]; then
      sum="none $license"
      if [[ -z ${users[$sum]:-} ]]; then order+=("$sum"); fi
      users[$sum]+="  $name $version ($license)"$'\n'
    fi
  done <<<"$crates"
  mkdir -p "$2"
  {
    echo "$1 is linked with these crates."
    for sum in "${order[@]}"; do
      printf '\n%s\n\n%s\n' "$(printf '=%.0s' {1..78})" "${users[$sum]}"
      if [[ -n ${text[$sum]:-} ]]; then cat "${text[$sum]}"; else echo "Under ${sum#none }; it comes without a text of its own."; fi
    done
  } | gzip -9n >"$2/third-party-notices.gz"
}
