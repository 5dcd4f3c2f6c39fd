#!/bin/bash
# Runs the commands that come in on the second serial port. Two requests, each one line:
#   hello TAG                      -> hello TAG
#   run TAG SECONDS BASE64-SCRIPT  -> begin TAG, the output in base64, end TAG STATUS
# The output goes through a file: a process left behind by a script must not keep the port.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
stty raw -echo
work=/run/console
mkdir -p "$work"
cd /root || exit 1
while IFS=' ' read -r verb tag seconds body; do
	case $verb in
	hello)
		printf 'hello %s\n' "$tag"
		;;
	run)
		printf %s "$body" | base64 -d > "$work/script"
		timeout -k 1 "$seconds" bash "$work/script" > "$work/output" 2>&1 < /dev/null
		status=$?
		printf 'begin %s\n' "$tag"
		head -c 1048576 "$work/output" | base64 -w 4096
		printf '\nend %s %s\n' "$tag" "$status"
		;;
	esac
done
