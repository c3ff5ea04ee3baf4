#!/bin/sh
# Process 1 of a game's container. Runs the start script with the container's input, hands SIGTERM on to it, and ends
# when nothing else runs any more: a start script may return and leave its game in the background.
# A shell gives a background process nothing to read, before it looks at `<&0`: the input has to be kept aside first.
exec 3<&0
# It also has it ignore SIGINT and SIGQUIT, which a script can never listen to again and a game may need. busybox has no
# way around that; Debian's env does.
set --
if env --default-signal=INT,QUIT true 2>/dev/null; then set -- env --default-signal=INT,QUIT; fi
"$@" /opt/spawnpoint/start <&3 3<&- &
start=$!
trap 'kill -TERM "$start" 2>/dev/null' TERM INT
code=0
while :; do
  wait "$start"
  code=$?
  # A signal ends the wait and not the script.
  kill -0 "$start" 2>/dev/null || break
done
others() {
  for stat in /proc/[0-9]*/stat; do
    pid=${stat#/proc/}
    pid=${pid%/stat}
    [ "$pid" = 1 ] && continue
    # What has ended and was not waited for is no process that runs.
    read -r line <"$stat" 2>/dev/null || continue
    case ${line##*) } in Z*) continue ;; esac
    return 0
  done
  return 1
}
if [ "$code" -eq 0 ]; then
  # From here on the signal is for whatever the start script left running.
  trap 'kill -TERM -1 2>/dev/null' TERM INT
  while others; do
    sleep 0.5 &
    pause=$!
    wait "$pause"
    kill -0 "$pause" 2>/dev/null && wait "$pause"
  done
fi
exit "$code"
