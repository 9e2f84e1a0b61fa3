#!/bin/bash
# The same scenarios with the same settings against Lamplighter and Kamailio, one after the other on the same machine,
# then a table of medians and ratios, and pictures. Everything listens on 127.0.0.1 and ends with the script.
#
#   benches/compare.sh [FOLDER] [OPTIONS OF lamplighter bench]
#   benches/compare.sh docs/benchmarks --repeat 5     # writes docs/benchmarks.md anew
#
# FOLDER (target/compare) gets the results as JSON, the table (comparison.md) and the pictures. Further options go to
# every run, such as --repeat 5 --subscriptions 100000. Settings come from the environment:
#   SERVERS   who is measured, of: memory strict kamailio storm ("memory strict kamailio storm")
#   PORT      the first of two ports that are used (15060)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${1:-target/compare}; shift || true
servers=${SERVERS:-memory strict kamailio storm}
port=${PORT:-15060}
sip=127.0.0.1:$port http=127.0.0.1:$((port + 1))
target=$(cargo metadata --no-deps --format-version 1 | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
bin=$target/release/lamplighter

cargo build --release --locked --bin lamplighter
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Kamailio keeps what is finished for five seconds; what that costs is counted as well.
common=(--target "$sip" --settle 6)

ours() { # name, durability, options of `bench config`, options of `bench`
	local name=$1 durability=$2 config=$3; shift 3
	# shellcheck disable=SC2086
	"$bin" bench config "$work/$name.toml" --listen "$sip" --http "$http" --durability "$durability" \
		--data "$work/$name" $config
	"$bin" bench --label "Lamplighter, $name" --server-command "$bin serve --config $work/$name.toml" \
		--json "$out/$name.json" "${common[@]}" "$@"
	sed -i "s#$work/##g; s#$PWD/##g" "$out/$name.json" # no path of this machine
}

flow=(--scenario subscribe,refresh,steady,fan-out,unsubscribe)
files=() status=0
for server in $servers; do
	echo "== $server"
	case $server in
	memory) ours memory memory "" "${flow[@]}" "$@" || status=$? ;;
	strict) ours strict strict "" --scenario subscribe,refresh,unsubscribe,cold "$@" || status=$? ;;
	storm) ours storm strict --digest --scenario storm "$@" || status=$? ;;
	kamailio)
		PATH=$PATH:/usr/sbin command -v kamailio >/dev/null || { echo "Kamailio is not installed"; continue; }
		# What it does wrong is in the results, and no reason not to compare.
		"$bin" bench --label "Kamailio, memory" --server-command "benches/kamailio/start $sip" --json "$out/kamailio.json" \
			"${common[@]}" "${flow[@]}" "$@" 2> >(grep --line-buffered -v ' NOTICE\|INFO' >&2) || true
		;;
	*) echo "unknown server $server" >&2; exit 2 ;;
	esac
	[[ -e $out/$server.json ]] && files+=("$out/$server.json")
done
"$bin" bench compare "${files[@]}" --plot "$out" | tee "$out/comparison.md"
if [[ $(realpath "$out") == "$PWD/docs/benchmarks" ]]; then
	sed -i -e '/^<!-- results -->$/,/^<!-- end of results -->$/{//!d}' -e "/^<!-- results -->$/r $out/comparison.md" \
		docs/benchmarks.md
fi
exit $status
