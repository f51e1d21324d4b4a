#!/bin/sh
# Makes the real programs' output anew: loads rules4.txt and rules6.txt into a
# network namespace with each variant of iptables, and writes what it prints.
# Run it as root: unshare --net ./make.sh; then: go test .. -update
set -eu
cd "$(dirname "$0")"
ipset create nets hash:net
ipset create nets6 hash:net family inet6
ipset create ipport hash:ip,port
for program in iptables-legacy iptables-nft ip6tables-legacy ip6tables-nft; do
	case $program in ip6*) rules=rules6.txt ;; *) rules=rules4.txt ;; esac
	tables="raw mangle nat filter security"
	for table in $tables; do
		$program -t "$table" -N RICH
	done
	$program -N OTHER
	while IFS= read -r rule; do
		eval "$program $rule"
	done <"$rules"
	{
		echo "What $program $($program --version | cut -d' ' -f2) prints. Made by make.sh."
		echo "-- save --"
		$program-save
		echo "-- save -c --"
		$program-save -c
		echo "-- S --"
		for table in $tables; do
			echo "# $program -t $table -S"
			$program -t "$table" -S
		done
		for options in "-L" "-L -n" "-L -v --line-numbers" "-L -n -v"; do
			case $program$options in # enough of each
			*nft-L | *nft*numbers | ip6*legacy*-n*) continue ;;
			esac
			echo "-- $options --"
			for table in $tables; do
				$program -t "$table" $options
				echo
			done
		done
	} >"$program.new"
	# The rules of the other variant must not be seen beside this one's.
	for table in $tables; do
		$program -t "$table" -F
		$program -t "$table" -X
	done
	mv "$program.new" "$program.txtar"
done
