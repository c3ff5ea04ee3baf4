#!/usr/bin/env bash
# The keeper: Spawnpoint's hands on a host. It runs one or more games there, each as a user of its own, and goes on
# keeping them when nobody is connected. Spawnpoint puts it at /opt/spawnpoint/keeper (root:root 0755) and calls it over
# SSH, as root. It needs Debian or Ubuntu and nothing that these do not always have: bash, coreutils, util-linux, perl.
#
# What it calls its own, for a server with the id ID ([a-z0-9-], at most 40 characters):
#
#   /srv/spawnpoint/ID/game      $GAME_DIR, of the user sp-<first eight of ID>
#   /srv/spawnpoint/ID/scripts   the recipe's scripts, of root
#   /srv/spawnpoint/ID/env       lines `export KEY='value'`, root only; every script gets it in its environment
#   /srv/spawnpoint/ID/settings  lines `key=value`:
#                                  grace_s (60)         how long a stop may take before the game is ended by force
#                                  signal (TERM)        what asks the game to end, where no script does
#                                  stop_script (0)      1: scripts/stop asks it
#                                  deadman_s (0)        without a beat for so long the game is stopped; 0: never
#                                  cpus, memory_mb, pids   limits; only where systemd runs the host
#                                  console (none)       stdin: `type` reaches the game
#                                  warn_wait_s (10)     how long players have after a warning
#                                  private_ports (none) `tcp:NUMBER udp:NUMBER …`: closed to the network while it runs
#   /srv/spawnpoint/ID/warn      target (`tcp PORT`, `udp PORT` or `stdin`) and NN.send: bytes that warn the players
#   /srv/spawnpoint/ID/state     log, log.1 (older lines of this run), log.previous (the run before), heartbeat,
#                                keeper.log (what the keeper itself complains about), and one small file for each fact
#   /run/spawnpoint/ID           locks and pipes; a reboot clears them, and a game does not come back by itself
#
# Verbs. Each may be called again after it was cut off anywhere, and two at once wait for each other:
#
#   setup ID                     makes the user and the folders, sets owners and modes
#   run-script ID NAME [as-root] runs scripts/NAME in game/, output as it comes, exit code passed on
#   start ID                     prints `started`, or `already`; `no-nft` before it where private ports stay open
#   stop ID                      prints `stopped`, `forced` or `was-off`, when the game has ended and its files are on disk
#   kill ID                      ends it at once; prints `killed` or `was-off`
#   status ID                    key=value lines, see status()
#   logs ID LINES                the last lines of this run, or of the last one
#   follow ID [all]              the log from now on, or all that is kept of this run and then on, until nobody reads
#   type ID                      a line of standard input for the game's console
#   ask ID                       the same, and then the log from that moment on, until nobody reads
#   beat ID                      Spawnpoint is there: puts off the dead-man switch
#   firewall tcp:22 udp:27015 …  these ports and no others; prints `set` or `no-nft`
#   unfirewall                   prints `unset` or `no-nft`
#   remove ID                    everything of a server that is not running; prints `removed`
#
# `serve` and `watch` are for the keeper itself: the process that stays beside a game, and its dead-man switch.
#
# A game runs while any process of its user lives, save those of run-script. Errors are a sentence on standard error and
# an exit code: 64 the call is wrong, 66 there is no such server here, 69 it cannot be done, 75 something else is at work.
set -euo pipefail
export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
umask 077

# A log file is put aside at this size. There are at most three, and a file may grow by LOG_STEP_BYTES more.
LOG_LIMIT_BYTES=$((16 * 1024 * 1024))
LOG_BLOCK_BYTES=32768
LOG_STEP_BLOCKS=256
# What the keeper says of itself is cut at this size.
OWN_LOG_LIMIT_BYTES=262144
# How long a start waits for another call, and for its own game to be up.
LOCK_WAIT_S=60
PROBE_WAIT_S=2
UP_WAIT_S=20
# How long a process may take to go after SIGKILL: longer only where the disk hangs.
KILL_WAIT_S=60
# How long a script waits for an earlier run of itself.
SCRIPT_WAIT_S=3600
# How long apt waits in a bootstrap for somebody else's installing to end.
APT_WAIT_S=300
# How long a script that nobody waits for any more may take to end by itself.
LEFTOVER_WAIT_S=5
# How long a game may still be there after its stop script, before a signal follows.
SETTLE_S=3
# How long all messages of a warning may take.
WARN_LIMIT_S=20
# How long a line may wait for a game that does not read.
TYPE_LIMIT_S=5
TYPE_LIMIT_CHARS=4000
# How often we look, in seconds: beside a game, and while one is ending.
LOOK_S=1
CLOSE_LOOK_S=0.1
# The same for whoever reads a log: tail looks so often where the file system does not tell it of writes (overlay).
FOLLOW_LOOK_S=0.5
MOST_LINES=100000
SIGINT=2

home=/srv/spawnpoint
units=/run/systemd/system
self=$(readlink -f "${BASH_SOURCE[0]}")

fail() {
    echo "keeper: $2" >&2
    exit "$1"
}

# --- Servers ---------------------------------------------------------------------------------------------------------

# Everything that follows from a server's id.
name_server() {
    [[ ${1:-} =~ ^[a-z0-9][a-z0-9-]{0,39}$ ]] || fail 64 "this is no server's id"
    id=$1
    dir=$home/$id
    state=$dir/state
    run=/run/spawnpoint/$id
    user=sp-${id:0:8}
    uid=$(id -u "$user" 2>/dev/null) || uid=
}

must_exist() {
    if [ ! -d "$state" ] || [ -z "$uid" ]; then
        fail 66 "there is no server $id on this host; setup has not been called"
    fi
    mkdir -p "$run/scripts"
}

setting() {
    local line
    REPLY=${2:-}
    [ -f "$dir/settings" ] || return 0
    while IFS= read -r line || [ -n "$line" ]; do
        [[ $line == "$1="* ]] && REPLY=${line#*=}
    done <"$dir/settings"
    return 0
}

whole_setting() {
    setting "$1" "$2"
    [[ $REPLY =~ ^[0-9]{1,7}$ ]] || fail 64 "the setting $1 is no whole number"
    REPLY=$((10#$REPLY))
}

# A fact is a file of one block that is written over in place, so that it can be kept when the disk is full.
fact() {
    local value=
    if [ -f "$state/$1" ]; then
        IFS=' ' read -r value <"$state/$1" || true
    fi
    REPLY=$value
}

keep_fact() {
    printf '%-60s\n' "$2" 1<>"$state/$1"
}

# One call at a time changes a server. The lock goes with the process, however that ends.
lock_server() {
    mkdir -p "$run/scripts"
    exec {server_lock}>"$run/lock"
    flock -w "$1" "$server_lock" || fail 75 "another call is still working on $id"
}

# Whether one of the keeper's own processes is there: each holds a lock as long as it lives. Looking takes the lock for a
# moment, which is why those processes wait for PROBE_WAIT_S before they take it for somebody else's.
is_held() {
    local probe
    exec {probe}>"$run/$1.lock"
    if flock -s -n "$probe"; then
        exec {probe}>&-
        return 1
    fi
    exec {probe}>&-
}

# Seconds since the machine came up, with decimals cut: the clock on the wall may be set at any time.
uptime_s() {
    read -r REPLY _ </proc/uptime
    REPLY=${REPLY%.*}
}

# Waits without starting a process. The pipe never has anything to read.
pause() {
    if [ -z "${never:-}" ]; then
        exec {never}<> <(:)
    fi
    read -r -t "$1" -u "$never" || true
}

# --- Processes -------------------------------------------------------------------------------------------------------

# The fields of /proc/PID/stat after the name: 0 state, 1 parent, 3 session, 19 start time. Fails for what has ended.
process() {
    local stat=
    { IFS= read -r -d '' stat <"/proc/$1/stat"; } 2>/dev/null || [ -n "$stat" ] || return 1
    read -ra fields <<<"${stat##*) }"
    [ "${#fields[@]}" -gt 19 ] && [ "${fields[0]}" != Z ] && [ "${fields[0]}" != X ]
}

# Whether it is still the process that began at that time, and not another with its number.
is_same() {
    process "$1" && [ "${fields[19]}" = "$2" ]
}

# Fills `found` with the living processes of the server's user: `all` of them, or those of the `game`.
processes() {
    local path pid script sessions=' '
    found=()
    [ -n "$uid" ] || return 0
    if [ "$1" = game ] && [ -d "$run/scripts" ]; then
        for path in "$run/scripts/"*; do
            { read -r pid script <"$path"; } 2>/dev/null || continue
            if is_same "$pid" "$script"; then sessions+="$pid "; fi
        done
    fi
    while IFS= read -r path; do
        pid=${path#/proc/}
        pid=${pid%/status}
        process "$pid" || continue
        [[ $sessions == *" ${fields[3]} "* ]] || found+=("$pid")
    done < <(grep -slE "^Uid:[[:space:]]+${uid}[[:space:]]" /proc/[0-9]*/status || true)
}

# A process that a script left behind before the game began, or after its end was written down, is not the game.
game_lives() {
    processes game
    [ "${#found[@]}" -gt 0 ] && [ -e "$run/up" ] || return 1
    fact ended_at
    [ -z "$REPLY" ]
}

# Where the game has ended but the process beside it has not written down how, it has not ended yet.
is_running() {
    game_lives || is_held serve
}

# Becomes a script of the recipe. The environment begins empty: it must not know who called, and `env` is read by a shell
# rather than put on a command line, where anybody on the host could see it.
# A shell starts what it puts into the background with SIGINT ignored, and a game may need that.
become() {
    local script=$1 as=$2 drop=() apt=()
    if [ "$as" = game ]; then
        drop=(setpriv --reuid "$user" --regid "$user" --init-groups --no-new-privs --)
    else
        apt=(APT_CONFIG="$run/apt.conf")
    fi
    # shellcheck disable=SC2016 # for the shell within
    exec setsid perl -e '$SIG{INT} = $SIG{QUIT} = $SIG{HUP} = $SIG{TERM} = $SIG{PIPE} = "DEFAULT"; exec @ARGV; die "$!\n"' \
        env -i LANG=C.UTF-8 "${apt[@]}" /bin/bash --noprofile --norc -c '
        set -eu
        umask 022
        dir=$1 as=$2
        shift 2
        cd "$dir/game"
        if [ -f "$dir/env" ]; then . "$dir/env"; fi
        export PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games HOME="$dir/game"
        export GAME_DIR="$dir/game" WORLD_DIR="$dir/game"
        if [ "$as" = root ]; then
            export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
            export DEBIAN_FRONTEND=noninteractive
        fi
        exec "$@"' keeper "$dir" "$as" "${drop[@]}" "$dir/scripts/$script"
}

# Fills `members` with the living processes of a session.
session() {
    local path pid
    members=()
    for path in /proc/[0-9]*; do
        pid=${path#/proc/}
        process "$pid" || continue
        if [ "${fields[3]}" = "$1" ]; then members+=("$pid"); fi
    done
}

# Ends a script's whole session: asks it once, and then by force.
end_session() {
    local signal until
    for signal in TERM KILL; do
        session "$1"
        [ "${#members[@]}" -eq 0 ] || kill "-$signal" "${members[@]}" 2>/dev/null || true
        uptime_s
        until=$((REPLY + LEFTOVER_WAIT_S))
        while [ "${#members[@]}" -gt 0 ] && [ "$REPLY" -lt "$until" ]; do
            pause "$CLOSE_LOOK_S"
            session "$1"
            uptime_s
        done
    done
    [ "${#members[@]}" -eq 0 ]
}

# Starts a script in a session of its own and writes down which, so that it is not taken for the game. Its number is
# REPLY; standard input is empty.
begin_script() {
    local name=$1 as=$2 pid
    (
        [ -z "${server_lock:-}" ] || exec {server_lock}>&-
        [ -z "${script_lock:-}" ] || exec {script_lock}>&-
        become "$name" "$as"
    ) </dev/null &
    pid=$!
    if process "$pid"; then
        echo "$pid ${fields[19]}" >"$run/scripts/$name"
    fi
    REPLY=$pid
}

check_script() {
    [[ ${1:-} =~ ^[a-z][a-z0-9-]{0,39}$ ]] || fail 64 "this is no script's name"
    if [ ! -f "$dir/scripts/$1" ] || [ ! -x "$dir/scripts/$1" ]; then
        fail 66 "there is no script $1 that can be run"
    fi
}

# A script whose keeper was killed: nobody will hear how it ends, so it makes room for the one that is asked for now.
end_leftover() {
    local pid began
    [ -f "$run/scripts/$1" ] || return 0
    if read -r pid began <"$run/scripts/$1" && is_same "$pid" "$began"; then
        echo "keeper: ending a $1 that nobody waits for any more" >&2
        end_session "$pid" || fail 69 "an earlier $1 cannot be ended"
    fi
    rm -f "$run/scripts/$1"
}

# An installing that was ended in the middle is finished first: apt refuses to go on from there.
finish_packages() {
    local journal
    for journal in /var/lib/dpkg/updates/[0-9]*; do
        [ -e "$journal" ] || continue
        DEBIAN_FRONTEND=noninteractive dpkg --configure -a </dev/null || true
        return 0
    done
}

run_script() {
    local name=$1 as=game pid code=0
    check_script "$name"
    case ${2:-} in
    '') ;;
    as-root) as=root ;;
    *) fail 64 "a script runs as the game's user, or as-root" ;;
    esac
    # A host's own updates, or another server's bootstrap, may be under way. `apt-get update` waits for nobody all the same.
    [ "$as" = game ] || echo "DPkg::Lock::Timeout \"$APT_WAIT_S\";" >"$run/apt.conf"
    exec {script_lock}>"$run/run-$name.lock"
    flock -w "$SCRIPT_WAIT_S" "$script_lock" || fail 75 "an earlier $name is still running"
    end_leftover "$name"
    [ "$as" = game ] || finish_packages
    begin_script "$name" "$as"
    pid=$REPLY
    trap 'end_session "$pid" || true; rm -f "$run/scripts/$name"; exit 143' TERM INT HUP
    wait "$pid" || code=$?
    rm -f "$run/scripts/$name"
    exit "$code"
}

# --- Setting up and taking away --------------------------------------------------------------------------------------

setup() {
    local script
    mkdir -p "$run/scripts"
    lock_server "$LOCK_WAIT_S"
    mkdir -p "$home"
    chmod 0755 "$home"
    if [ -z "$uid" ]; then
        useradd --system --user-group --no-create-home --home-dir "$dir/game" --shell /usr/sbin/nologin "$user"
        uid=$(id -u "$user")
    fi
    [ "$(getent passwd "$user" | cut -d : -f 6)" = "$dir/game" ] ||
        fail 69 "the user $user of this host belongs to something else"
    [ "$uid" -ne 0 ] || fail 69 "the user $user is root"
    mkdir -p "$dir/game" "$dir/scripts" "$dir/warn" "$state"
    chown root:root "$dir" "$dir/scripts" "$dir/warn" "$state"
    # The user must get through to its folder and see nothing else on the way.
    chmod 0711 "$dir"
    chmod 0755 "$dir/scripts"
    chmod 0700 "$dir/warn" "$state"
    for script in "$dir/scripts/"*; do
        if [ ! -f "$script" ] || [ -L "$script" ]; then continue; fi
        chown root:root "$script"
        chmod 0755 "$script"
    done
    if [ -f "$dir/env" ]; then
        chown root:root "$dir/env"
        chmod 0600 "$dir/env"
    fi
    # What was pushed belongs to whoever pushed it. A link's target is not ours to give away.
    chown -Rh "$user:$user" "$dir/game"
    chmod 0750 "$dir/game"
}

remove() {
    if [ ! -e "$dir" ] && [ -z "$uid" ]; then
        echo removed
        return
    fi
    lock_server "$LOCK_WAIT_S"
    processes all
    if [ "${#found[@]}" -gt 0 ] || is_held serve; then
        fail 75 "the game $id still runs; stop it first"
    fi
    if [ -e "$units/spawnpoint-$id.service" ]; then
        rm -f "$units/spawnpoint-$id.service"
        systemctl daemon-reload
    fi
    open_ports
    # The user goes last: as long as there is one, `remove` can be called again.
    rm -rf --one-file-system "$dir"
    if [ -n "$uid" ]; then
        userdel "$user"
    fi
    # The folder of the locks stays until the next boot: somebody may be waiting for one.
    rm -rf "$run/scripts" "$run/in" "$run/out" "$run/launch" "$run/up" "$run/apt.conf"
    echo removed
}

# --- Starting --------------------------------------------------------------------------------------------------------

has_systemd() {
    [ -d /run/systemd/system ] && command -v systemctl >/dev/null
}

# The unit is written where a reboot forgets it. Only the process beside the game is told to end: it knows how a game
# wants to be stopped, also when the host is shut down. If it dies, it comes back and finds the game as it was.
unit_text() {
    local grace cpus memory pids
    whole_setting grace_s 60
    grace=$REPLY
    whole_setting memory_mb 0
    memory=$REPLY
    whole_setting pids 2048
    pids=$REPLY
    setting cpus 0
    cpus=$REPLY
    [[ $cpus =~ ^([0-9]{1,4})(\.([0-9]{1,2})[0-9]*)?$ ]] || fail 64 "the setting cpus is no number"
    local hundredths=${BASH_REMATCH[3]:-0}
    [ "${#hundredths}" -eq 2 ] || hundredths+=0
    local quota=$((10#${BASH_REMATCH[1]} * 100 + 10#$hundredths))
    cat <<END
# Written by Spawnpoint at each start.
[Unit]
Description=Spawnpoint game $id
After=network.target
StartLimitIntervalSec=0

[Service]
Type=simple
ExecStart=$self serve $id
Restart=on-failure
RestartSec=1
KillMode=process
TimeoutStopSec=$((grace + KILL_WAIT_S + 30))
StandardInput=null
StandardOutput=null
StandardError=null
NoNewPrivileges=yes
OOMPolicy=continue
OOMScoreAdjust=-900
TasksMax=$pids
END
    [ "$memory" -eq 0 ] || echo "MemoryMax=${memory}M"
    [ "$quota" -eq 0 ] || echo "CPUQuota=${quota}%"
}

# Starts the process that stays beside the game. It must know nothing of the caller's locks and pipes.
begin_serving() {
    if has_systemd; then
        unit_text >"$units/spawnpoint-$id.service.new"
        mv -f "$units/spawnpoint-$id.service.new" "$units/spawnpoint-$id.service"
        chmod 0644 "$units/spawnpoint-$id.service"
        systemctl daemon-reload
        systemctl reset-failed "spawnpoint-$id.service" 2>/dev/null || true
        systemctl start "spawnpoint-$id.service"
        return
    fi
    begin_beside serve
}

begin_beside() {
    (
        local lock
        for lock in "${server_lock:-}" "${serve_lock:-}" "${watch_lock:-}" "${out:-}"; do
            [ -z "$lock" ] || exec {lock}>&-
        done
        exec setsid --fork "$self" "$1" "$id"
    ) </dev/null >/dev/null 2>&1
}

start() {
    check_script start
    lock_server "$LOCK_WAIT_S"
    if game_lives; then
        close_ports
        is_held serve || begin_serving
        echo already
        return
    fi
    uptime_s
    local until=$((REPLY + UP_WAIT_S)) fact
    # A start that was cut off may be under way, and what has just ended is still being written down.
    while is_held serve; do
        if game_lives; then
            echo already
            return
        fi
        uptime_s
        [ "$REPLY" -lt "$until" ] || fail 75 "the last run of $id is still ending"
        pause "$CLOSE_LOOK_S"
    done

    # What an install or a health check left behind must not be taken for the game.
    processes game
    if [ "${#found[@]}" -gt 0 ]; then
        force || fail 69 "something that ran before as the user $user cannot be ended"
    fi
    rm -f "$run/up" "$run/launch" "$run/in" "$run/out"
    # When the last run began stays until this one begins: a start that is cut off here must not make it one that never was.
    for fact in exit_code ended_at ended_by oom deadman; do
        keep_fact "$fact" '' || fail 69 "the host's disk is full, or cannot be written"
    done
    if [ -f "$state/log" ]; then
        mv -f "$state/log" "$state/log.previous"
    fi
    rm -f "$state/log.1"
    : >"$state/log"
    touch "$state/heartbeat"
    mkfifo "$run/in" "$run/out"
    # A game may open /dev/stdout again, for which the pipe has to be its own.
    chown "$user" "$run/in" "$run/out"
    : >"$run/launch"
    close_ports
    begin_serving
    until [ -e "$run/up" ]; do
        uptime_s
        [ "$REPLY" -lt "$until" ] || fail 69 "the process beside the game did not come up: $(tail -n 3 "$state/keeper.log" 2>/dev/null)"
        pause "$CLOSE_LOOK_S"
    done
    echo started
}

# --- Beside the game -------------------------------------------------------------------------------------------------

own_log() {
    if [ "$(stat -c %s "$state/keeper.log" 2>/dev/null || echo 0)" -gt "$OWN_LOG_LIMIT_BYTES" ]; then
        rm -f "$state/keeper.log"
    fi
    if { : >>"$state/keeper.log"; } 2>/dev/null; then exec 2>>"$state/keeper.log"; fi
}

# How often the kernel ended something for want of memory: in our own control group, else on the whole machine.
oom_kills() {
    local line path='' key value
    REPLY=0
    while IFS= read -r line; do
        case $line in
        0::*) path=/sys/fs/cgroup${line#0::}/memory.events ;;
        *:memory:*) path=/sys/fs/cgroup/memory${line#*:memory:}/memory.oom_control ;;
        esac
        # Within a container the path is the one outside of it.
        [ -z "$path" ] || [ -r "$path" ] || path=/sys/fs/cgroup/memory/memory.oom_control
        [ -z "$path" ] || [ ! -r "$path" ] || break
    done </proc/self/cgroup
    [ -n "$path" ] && [ -r "$path" ] || path=/proc/vmstat
    while read -r key value; do
        [ "$key" = oom_kill ] && REPLY=$value
    done <"$path"
    return 0
}

# Carries the game's output to its log. The game's own end of the pipe can be read as well, so that it is never told that
# nobody listens: without us it waits. When the disk is full, its words are lost and it goes on.
carry_output() {
    local tally target
    # Who holds the lock has it open, and nothing in it can be lost.
    exec <"$run/out"
    exec {carry_lock}>"$run/carry.lock"
    flock -w "$PROBE_WAIT_S" "$carry_lock" || exit 0
    [ -z "${out:-}" ] || exec {out}>&-
    while :; do
        target=$state/log
        { : >>"$target"; } 2>/dev/null || target=/dev/null
        tally=$({ dd bs="$LOG_BLOCK_BYTES" count="$LOG_STEP_BLOCKS" 2>&1 >>"$target"; } {carry_lock}>&-) ||
            pause "$CLOSE_LOOK_S"
        case $tally in "0+0 records in"*) break ;; esac
        if [ "$(stat -c %s "$state/log" 2>/dev/null || echo 0)" -ge "$LOG_LIMIT_BYTES" ]; then
            mv -f "$state/log" "$state/log.1" || true
        fi
    done
}

begin_carrying() {
    (
        exec {serve_lock}>&-
        carry_output
    ) >/dev/null &
    carrier=$!
}

# The process beside the game: starts it, carries its output, looks whether it lives, writes down how it ended.
serve() {
    local pid='' began='' code='' oom_before ending='' console carrier
    own_log
    exec {serve_lock}>"$run/serve.lock"
    flock -w "$PROBE_WAIT_S" "$serve_lock" || exit 0
    trap 'ending=1' TERM INT
    trap '' HUP
    oom_kills
    oom_before=$REPLY
    [ -p "$run/out" ] || mkfifo "$run/out"
    exec {out}<>"$run/out"
    carrier=

    # Gone before the game begins: if we are killed now, it was not started, and it is never started twice.
    : >"$run/up"
    if [ -e "$run/launch" ]; then
        rm -f "$run/launch"
        setting console none
        console=$REPLY
        (
            exec {serve_lock}>&-
            exec {out}>&-
            if [ "$console" = stdin ]; then exec <>"$run/in"; else exec </dev/null; fi
            exec 1<>"$run/out" 2>&1
            # We are the last to go when memory runs out; the game is not.
            echo 0 >/proc/self/oom_score_adj
            become start game
        ) &
        pid=$!
        if process "$pid"; then began=${fields[19]}; fi
        keep_fact started_at "$(date +%s)" || true
    fi

    while :; do
        if [ -n "$pid" ] && ! is_same "$pid" "$began"; then
            code=0
            wait "$pid" || code=$?
            pid=
            keep_fact exit_code "$code" || true
        fi
        if [ -z "$pid" ] && ! game_lives; then
            break
        fi
        if [ -z "$carrier" ] || ! process "$carrier"; then
            begin_carrying
        fi
        is_held watch || begin_beside watch
        if [ -n "$ending" ]; then
            ending=
            # The host is being shut down.
            (
                exec {serve_lock}>&- {out}>&-
                exec setsid "$self" stop "$id" shutdown
            ) </dev/null >/dev/null &
        fi
        pause "$LOOK_S"
    done

    # The last words, also of a game that was gone before anybody looked.
    if [ -z "$carrier" ]; then
        begin_carrying
        until is_held carry || ! process "$carrier"; do pause "$CLOSE_LOOK_S"; done
    fi
    exec {out}>&-
    exec {carry_lock}>"$run/carry.lock"
    flock -w "$LEFTOVER_WAIT_S" "$carry_lock" || kill "$carrier" 2>/dev/null || true
    oom_kills
    if [ "$REPLY" -gt "$oom_before" ]; then keep_fact oom 1 || true; fi
    fact ended_by
    [ -n "$REPLY" ] || keep_fact ended_by itself || true
    open_ports || true
    keep_fact ended_at "$(date +%s)" || true
}

# --- Stopping --------------------------------------------------------------------------------------------------------

# Whether a process has a handler of its own for the signal of this number.
catches() {
    local line mask=0
    while IFS= read -r line; do
        case $line in SigCgt:*) mask=${line##*[[:space:]]} ;; esac
    done <"/proc/$1/status" || return 1
    [ $((16#$mask >> ($2 - 1) & 1)) -eq 1 ]
} 2>/dev/null

# A shell that waits for a program passes nothing on to it, unless it was told to: then it has a handler. For SIGINT it
# always has one, and expects that its program got the signal as well, as it would from a keyboard.
passes_nothing_on() {
    local name=''
    { read -r name <"/proc/$1/comm"; } 2>/dev/null || return 1
    case $name in
    start | sh | bash | dash | ash | ksh | zsh) [ "$2" -eq "$SIGINT" ] || ! catches "$1" "$2" ;;
    *) return 1 ;;
    esac
}

# Fills `chiefs` with the processes that the signal of this number is for: those that were not started by another of the
# game, and what a shell among them has started.
chief_processes() {
    local pid parent grown=1
    local -A parents=() chosen=()
    processes game
    for pid in "${found[@]}"; do
        if process "$pid"; then parents[$pid]=${fields[1]}; fi
    done
    for pid in "${!parents[@]}"; do
        [ -n "${parents[${parents[$pid]}]:-}" ] || chosen[$pid]=1
    done
    while [ -n "$grown" ]; do
        grown=
        for pid in "${!parents[@]}"; do
            parent=${parents[$pid]}
            if [ -n "${chosen[$pid]:-}" ] || [ -z "${chosen[$parent]:-}" ]; then continue; fi
            if passes_nothing_on "$parent" "$1"; then
                chosen[$pid]=1
                grown=1
            fi
        done
    done
    chiefs=("${!chosen[@]}")
}

ask_to_end() {
    local signal
    setting signal TERM
    signal=${REPLY#SIG}
    if [[ ! $signal =~ ^[A-Z] ]] || ! kill -l "$signal" >/dev/null 2>&1; then signal=TERM; fi
    chief_processes "$(kill -l "$signal")"
    if [ "${#chiefs[@]}" -gt 0 ]; then
        kill "-$signal" "${chiefs[@]}" 2>/dev/null || true
    fi
}

# Ends every process of the user. What is being born meanwhile is met in the next round.
force() {
    uptime_s
    local until=$((REPLY + KILL_WAIT_S))
    while processes all && [ "${#found[@]}" -gt 0 ]; do
        kill -KILL "${found[@]}" 2>/dev/null || true
        uptime_s
        [ "$REPLY" -lt "$until" ] || return 1
        pause "$CLOSE_LOOK_S"
    done
}

# Until the process beside the game has written down the end. Without it there is nothing to wait for.
await_record() {
    uptime_s
    local until=$((REPLY + UP_WAIT_S))
    while is_held serve; do
        uptime_s
        [ "$REPLY" -lt "$until" ] || fail 69 "the game has ended, but the process beside it has not"
        pause "$CLOSE_LOOK_S"
    done
}

# Stops the game as its recipe says; `$1` is who wants it. Returns when nothing of it lives and its files are on disk.
stop_game() {
    local grace deadline settle='' pid began='' asked='' how=stopped
    whole_setting grace_s 60
    grace=$REPLY
    lock_server "$((grace + KILL_WAIT_S + LOCK_WAIT_S))"
    processes all
    if [ "${#found[@]}" -eq 0 ] && ! is_held serve; then
        sync -f "$dir/game"
        echo was-off
        return
    fi
    fact ended_by
    [ -n "$REPLY" ] || keep_fact ended_by "$1" || true
    uptime_s
    deadline=$((REPLY + grace))

    setting stop_script 0
    pid=
    if [ "$REPLY" = 1 ] && [ -x "$dir/scripts/stop" ] && game_lives; then
        end_leftover stop
        # What it says belongs to the log: the caller may be gone before the game is.
        begin_script stop game 1<>"$run/out" 2>&1
        pid=$REPLY
        if process "$pid"; then began=${fields[19]}; fi
    fi
    while :; do
        processes all
        if [ "${#found[@]}" -eq 0 ] && { [ -z "$pid" ] || ! is_same "$pid" "$began"; }; then
            break
        fi
        # Without a script, or a moment after one that did not do its work.
        uptime_s
        if [ -z "$asked" ] && { [ -z "$pid" ] || ! is_same "$pid" "$began"; }; then
            [ -n "$pid" ] || settle=$REPLY
            [ -n "$settle" ] || settle=$((REPLY + SETTLE_S))
            if [ "$REPLY" -ge "$settle" ]; then
                ask_to_end
                asked=1
            fi
        fi
        uptime_s
        if [ "$REPLY" -ge "$deadline" ]; then
            how=forced
            force || fail 69 "a process of the game does not end, not even by force"
            break
        fi
        pause "$CLOSE_LOOK_S"
    done
    rm -f "$run/scripts/stop"
    await_record
    sync -f "$dir/game"
    echo "$how"
}

# At once: it does not wait for a stop that is under way, which then finds the game gone.
kill_game() {
    local was=killed
    processes all
    if [ "${#found[@]}" -eq 0 ] && ! is_held serve; then
        was="was-off"
    else
        keep_fact ended_by kill || true
        force || fail 69 "a process of the game does not end, not even by force"
        # What a start that is under way brings up now must go as well.
        lock_server "$LOCK_WAIT_S"
        force || fail 69 "a process of the game does not end, not even by force"
        await_record
    fi
    sync -f "$dir/game"
    echo "$was"
}

# --- The dead-man switch ---------------------------------------------------------------------------------------------

# Tells the players, as well as bytes that were prepared earlier can. Whatever goes wrong here stops nothing.
warn() {
    local kind='' port='' file talk
    [ -f "$dir/warn/target" ] || return 0
    read -r kind port <"$dir/warn/target" || true
    case $kind in
    tcp | udp)
        [[ $port =~ ^[0-9]{1,5}$ ]] || fail 64 "the target of warnings has no port"
        exec {talk}<>"/dev/$kind/127.0.0.1/$port"
        ;;
    stdin)
        [ -p "$run/in" ] || fail 69 "the game has no console"
        exec {talk}<>"$run/in"
        ;;
    *) fail 64 "the target of warnings is unknown" ;;
    esac
    for file in "$dir/warn/"*.send; do
        [ -f "$file" ] || continue
        cat "$file" >&"$talk"
        # An answer, which nobody needs, or the time one takes. From the pipe we would take the game's own words.
        if [ "$kind" = stdin ]; then
            pause 0.3
        else
            LC_ALL=C read -r -t 1 -N 65536 -u "$talk" 2>/dev/null || true
        fi
    done
}

# Beats are noticed by a change, not by their age: the clock on the wall may jump, and a full disk keeps no words.
watch() {
    local limit seen='' beat heard waited
    own_log
    exec {watch_lock}>"$run/watch.lock"
    flock -w "$PROBE_WAIT_S" "$watch_lock" || exit 0
    trap '' HUP INT
    uptime_s
    heard=$REPLY
    whole_setting deadman_s 0
    limit=$REPLY
    if [ "$limit" -gt 0 ]; then keep_fact deadman armed || true; fi
    while is_running; do
        # The two guard each other. Where there is systemd, it does that for the other one.
        if ! is_held serve && ! has_systemd; then begin_beside serve; fi
        whole_setting deadman_s 0
        limit=$REPLY
        uptime_s
        beat=$(stat -c %.9Y "$state/heartbeat" 2>/dev/null || echo none)
        if [ "$beat" != "$seen" ]; then
            seen=$beat
            heard=$REPLY
        fi
        if [ "$limit" -gt 0 ] && [ $((REPLY - heard)) -ge "$limit" ] && game_lives; then
            timeout -k 1 "$WARN_LIMIT_S" "$self" warn "$id" {watch_lock}>&- </dev/null >/dev/null ||
                echo "the players could not be warned" >&2
            whole_setting warn_wait_s 10
            waited=$REPLY
            [ "$waited" -eq 0 ] || pause "$waited"
            # Spawnpoint may have come back in the meantime.
            if [ "$(stat -c %.9Y "$state/heartbeat" 2>/dev/null || echo none)" = "$seen" ]; then
                keep_fact deadman fired || true
                "$self" stop "$id" deadman {watch_lock}>&- </dev/null >/dev/null || echo "the dead-man switch could not stop the game" >&2
            fi
            uptime_s
            heard=$REPLY
        fi
        pause "$LOOK_S"
    done
}

# --- Looking and talking ---------------------------------------------------------------------------------------------

# state        running, stopped, or none: it was never started here
# pids         how many processes the game has
# started_at   seconds since 1970; also ended_at
# uptime       seconds that it has been running
# exit_code    of the start script; empty while it runs and where nobody could see its end
# ended_by     itself, stop, kill, deadman, or shutdown (of the host); empty while it runs
# oom          1: the kernel ended something of it for want of memory
# log_bytes    of this run, as far as they are kept
# deadman      armed, fired (it stopped this run), or off
status() {
    local now=none started='' key bytes=0 file
    if [ ! -d "$state" ]; then
        echo state=none
        return
    fi
    fact started_at
    started=$REPLY
    if is_running; then
        now=running
    elif [ -n "$started" ]; then
        now=stopped
    fi
    processes game
    echo "state=$now"
    echo "pids=${#found[@]}"
    for key in started_at exit_code ended_at ended_by; do
        fact "$key"
        # What is known of an end belongs to one, and that is not yet.
        if [ "$now" = running ] && { [ "$key" = ended_at ] || [ "$key" = ended_by ]; }; then REPLY=; fi
        echo "$key=$REPLY"
    done
    if [ "$now" = running ] && [[ $started =~ ^[0-9]+$ ]]; then
        local length=$(($(date +%s) - started))
        echo "uptime=$((length > 0 ? length : 0))"
    else
        echo uptime=0
    fi
    fact oom
    echo "oom=${REPLY:-0}"
    for file in "$state/log" "$state/log.1"; do
        [ -f "$file" ] && bytes=$((bytes + $(stat -c %s "$file")))
    done
    echo "log_bytes=$bytes"
    fact deadman
    if [ "$REPLY" = armed ] && { [ "$now" != running ] || ! is_held watch; }; then REPLY=; fi
    echo "deadman=${REPLY:-off}"
}

logs() {
    if [[ ! ${1:-} =~ ^[0-9]{1,6}$ ]] || [ $((10#$1)) -gt "$MOST_LINES" ]; then
        fail 64 "logs needs how many lines, at most $MOST_LINES"
    fi
    local files=() file
    for file in "$state/log.1" "$state/log"; do
        [ -f "$file" ] && files+=("$file")
    done
    [ "${#files[@]}" -gt 0 ] || return 0
    # `tail` closes its ear when it has enough; that is no error.
    cat "${files[@]}" | tail -n "$((10#$1))" || true
}

# Ends when nobody reads, which tail sees on a pipe, and when the connection is gone.
follow() {
    local from='-n 0' now
    if [ "${1:-}" = all ]; then
        from='-c +1'
        if [ -f "$state/log" ]; then
            # Held before the older lines are read: what is put aside in the meantime is read all the same.
            exec {now}<"$state/log"
            [ ! -f "$state/log.1" ] || cat "$state/log.1" 2>/dev/null || true
            [ "$state/log" -ef "/proc/self/fd/$now" ] || cat <&"$now" || true
            exec {now}<&-
        fi
    fi
    # shellcheck disable=SC2086 # an option and its value
    exec tail --pid="$PPID" -s "$FOLLOW_LOOK_S" $from -F "$state/log" 2>/dev/null
}

# What the game answers may come before any other process could begin to listen.
ask() {
    local size
    size=$(stat -c %s "$state/log" 2>/dev/null || echo 0)
    type_line
    exec tail --pid="$PPID" -s "$CLOSE_LOOK_S" -c +"$((size + 1))" -F "$state/log" 2>/dev/null
}

type_line() {
    local line=
    IFS= read -r line || [ -n "$line" ] || fail 64 "there is no line to type"
    [ "${#line}" -le "$TYPE_LIMIT_CHARS" ] || fail 64 "the line is longer than $TYPE_LIMIT_CHARS characters"
    setting console none
    if [ "$REPLY" != stdin ] || [ ! -p "$run/in" ]; then
        fail 69 "the game $id has no console on its input"
    fi
    game_lives || fail 69 "the game $id does not run"
    # The pipe is full when the game does not read.
    # shellcheck disable=SC2016 # for the shell within
    printf '%s\n' "$line" | timeout "$TYPE_LIMIT_S" /bin/bash -c 'cat 1<>"$1"' keeper "$run/in" ||
        fail 69 "the game $id does not read its console"
}

beat() {
    touch "$state/heartbeat"
}

# --- The firewall ----------------------------------------------------------------------------------------------------

has_nft() {
    command -v nft >/dev/null && nft list tables >/dev/null 2>&1
}

# Where people with a key come in, whatever list was given: the port of this connection, and those of a listening sshd.
ssh_ports() {
    local port
    read -r _ _ _ port <<<"${SSH_CONNECTION:-}" || true
    if [[ ${port:-} =~ ^[0-9]+$ ]]; then echo "$port"; fi
    if command -v ss >/dev/null; then
        ss -Hltnp 2>/dev/null | grep '"sshd"' | grep -oE ':[0-9]+ ' | tr -d ': ' || true
    fi
}

# Sorts `tcp:NUMBER` and `udp:NUMBER` into the caller's `tcp` and `udp`.
sort_ports() {
    local port number
    for port in "$@"; do
        [[ $port =~ ^(tcp|udp):([0-9]{1,5})$ ]] || fail 64 "a port is tcp:NUMBER or udp:NUMBER"
        number=$((10#${BASH_REMATCH[2]}))
        if [ "$number" -lt 1 ] || [ "$number" -gt 65535 ]; then fail 64 "ports go from 1 to 65535"; fi
        if [ "${BASH_REMATCH[1]}" = tcp ]; then tcp+=("$number"); else udp+=("$number"); fi
    done
}

# Closes a game's private ports to the network in a table of its own, which forbids nothing else; the machine itself, and
# so whoever comes by SSH, still reaches them. Other tables are their owner's: none of them can open what this one drops.
close_ports() {
    local ports=() tcp=() udp=() number
    setting private_ports ''
    read -ra ports <<<"$REPLY" || true
    [ "${#ports[@]}" -gt 0 ] || return 0
    sort_ports "${ports[@]}"
    if ! has_nft; then
        echo no-nft
        return
    fi
    {
        echo "table inet spawnpoint-$id"
        echo "delete table inet spawnpoint-$id"
        echo "table inet spawnpoint-$id {"
        echo '  chain input {'
        echo '    type filter hook input priority 0; policy accept;'
        for number in "${tcp[@]}"; do echo "    iifname != \"lo\" tcp dport $number drop"; done
        for number in "${udp[@]}"; do echo "    iifname != \"lo\" udp dport $number drop"; done
        echo '  }'
        echo '}'
    } | nft -f - || fail 69 "the game's private ports could not be closed"
}

open_ports() {
    if ! has_nft || ! nft list table inet "spawnpoint-$id" >/dev/null 2>&1; then return 0; fi
    nft delete table inet "spawnpoint-$id"
}

firewall() {
    local port tcp=() udp=()
    [ $# -gt 0 ] || fail 64 "firewall needs the ports that stay open"
    sort_ports "$@"
    if ! has_nft; then
        echo no-nft
        return
    fi
    while read -r port; do
        tcp+=("$port")
    done < <(ssh_ports)
    [ "${#tcp[@]}" -gt 0 ] || tcp+=(22)
    # One transaction: there is no moment without rules, and if one is refused the old ones stay.
    # 1 and 58 are ICMP and ICMPv6: a slim host has no list of their names.
    # An address that the host has on loan must be renewed: the two ports of DHCP.
    {
        echo 'table inet spawnpoint'
        echo 'delete table inet spawnpoint'
        echo 'table inet spawnpoint {'
        echo '  chain input {'
        echo '    type filter hook input priority 0; policy drop;'
        echo '    iifname "lo" accept'
        echo '    ct state established,related accept'
        echo '    meta l4proto { 1, 58 } accept'
        echo '    udp dport { 68, 546 } accept'
        printf '%s\n' "${tcp[@]}" | sort -nu | sed 's/.*/    tcp dport & accept/'
        if [ "${#udp[@]}" -gt 0 ]; then
            printf '%s\n' "${udp[@]}" | sort -nu | sed 's/.*/    udp dport & accept/'
        fi
        echo '  }'
        echo '}'
    } | nft -f - || fail 69 "the firewall's rules were refused; the ones before stay"
    echo set
}

unfirewall() {
    if ! has_nft; then
        echo no-nft
        return
    fi
    # Making it first makes taking it away safe to do twice.
    printf 'table inet spawnpoint\ndelete table inet spawnpoint\n' | nft -f - || fail 69 "the firewall's table cannot be removed"
    echo unset
}

# --- The door --------------------------------------------------------------------------------------------------------

main() {
    local verb=${1:-}
    [ "$(id -u)" -eq 0 ] || fail 64 "the keeper needs to be root"
    case $verb in
    firewall)
        shift
        firewall "$@"
        exit 0
        ;;
    unfirewall)
        unfirewall
        exit 0
        ;;
    setup | run-script | start | stop | kill | status | logs | follow | type | ask | beat | remove | serve | watch | warn | unit) ;;
    *) fail 64 "there is no verb like this; the top of $self lists them" ;;
    esac
    shift
    name_server "${1:-}"
    shift
    case $verb in
    setup | status | remove) mkdir -p "$run/scripts" ;;
    *) must_exist ;;
    esac
    case $verb in
    setup) setup ;;
    run-script) run_script "${1:-}" "${2:-}" ;;
    start) start ;;
    stop)
        case ${1:-stop} in
        stop | deadman | shutdown) stop_game "${1:-stop}" ;;
        *) fail 64 "nobody of this name stops a game" ;;
        esac
        ;;
    kill) kill_game ;;
    status) status ;;
    logs) logs "${1:-}" ;;
    follow) follow "${1:-}" ;;
    type) type_line ;;
    ask) ask ;;
    beat) beat ;;
    remove) remove ;;
    serve) serve ;;
    watch) watch ;;
    warn) warn ;;
    unit) unit_text ;;
    esac
    exit 0
}

# The last line, so that a keeper that is replaced while it runs was read to its end.
main "$@"
