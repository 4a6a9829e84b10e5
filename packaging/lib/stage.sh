# Puts a package's files together below target/release/package/FORMAT/PROGRAM: bin, etc and usr.
# shellcheck shell=bash disable=SC2154

stage() { # format, program
  local format=$1 program=$2
  local stage=$target/release/package/$format/$program
  rm -rf "$stage"
  mkdir -p "$stage"/{bin,etc,usr/share}
  install -m 755 "$bin_dir/$program" "$stage/bin/$program"
  strip --strip-unneeded --remove-section=.comment --remove-section=.note "$stage/bin/$program"
  install -m 644 "$config_dir/$(folder_of "$program").toml" "$stage/etc/"
  stage_manual "$program" "$bin_dir/$program" "$stage/usr"
  stage_completions "$format" "$program" "$bin_dir/$program" "$stage/usr"
  stage_system "$program" "$stage/usr"
  if [[ $format = rpm ]]; then
    stage_notices "$program" "$stage/usr/share/licenses/$program"
  else
    stage_notices "$program" "$stage/usr/share/doc/$program"
    install -D -m 644 "packaging/deb/$program/lintian-overrides" "$stage/usr/share/lintian/overrides/$program"
  fi
  if [[ $program = gatereeve-controller ]]; then
    install -D -m 644 packaging/config/policy.toml "$stage/usr/share/doc/$program/examples/policy.toml"
  fi
}

stage_manual() { # program, binary, usr
  local pages=$3/share/man/man8
  GATEREEVE_CONTROLLER_CONFIG=packaging/config/controller.toml "$2" man --out "$pages" ||
    die "$2 writes no man pages: it is older than \`$1 man\`"
  find "$pages" -type f -exec gzip -9n {} +
}

stage_completions() { # format, program, binary, usr
  local zsh=vendor-completions shell file
  if [[ $1 = rpm ]]; then zsh=site-functions; fi
  for shell in bash zsh fish; do
    case $shell in
      bash) file=$4/share/bash-completion/completions/$2 ;;
      zsh) file=$4/share/zsh/$zsh/_$2 ;;
      fish) file=$4/share/fish/vendor_completions.d/$2.fish ;;
    esac
    mkdir -p "$(dirname "$file")"
    GATEREEVE_CONTROLLER_CONFIG=packaging/config/controller.toml "$3" completions "$shell" >"$file"
  done
}

# Whatever lies in these folders belongs to the controller if its name says so, and to the client otherwise.
stage_system() { # program, usr
  local program=$1 usr=$2 from to file name
  while read -r from to; do
    for file in packaging/"$from"/*; do
      [[ -f $file ]] || continue
      name=${file##*/}
      case $name in
        *gatereeve-controller*) [[ $program = gatereeve-controller ]] || continue ;;
        *) [[ $program = gatereeve ]] || continue ;;
      esac
      install -D -m 644 "$file" "$usr/$to/$name"
    done
  done <<'TABLE'
systemd lib/systemd/system
sysusers lib/sysusers.d
tmpfiles lib/tmpfiles.d
polkit share/polkit-1/rules.d
TABLE
  check_scripts "$program" "$usr"
}

# The maintainer scripts name the units that can be enabled: one that was forgotten would never run.
check_scripts() { # program, usr
  local unit script
  for unit in "$2"/lib/systemd/system/*; do
    grep -q '^\[Install\]' "$unit" || continue
    for script in packaging/deb/"$1"/{postinst,prerm,postrm} packaging/rpm/"$1"/{post,preun,postun}; do
      grep -qF "${unit##*/}" "$script" || die "$script does not name ${unit##*/}, which can be enabled"
    done
  done
  for unit in "$2"/lib/sysusers.d/*.conf "$2"/lib/tmpfiles.d/*.conf; do
    [[ ! -e $unit || ${unit##*/} = "$1.conf" ]] || die "${unit##*/}: the maintainer scripts read $1.conf alone"
  done
}
