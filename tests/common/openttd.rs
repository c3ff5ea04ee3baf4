//! A friend's OpenTTD.

/// For `sh`: `play PROGRAM ADDRESS` plays until it is told to end with SIGTERM. What the game says is standard error.
///
/// Version 13 starts a thread that resolves the address, and then writes down that it does so. A thread that was quicker
/// is forgotten: such a game knows the address and never connects. It is started again.
pub const PLAY: &str = r#"
play() {
    said=$(mktemp) connects=''
    trap 'kill "$game"' TERM
    until [ -n "$connects" ]; do
        "$1" -n "$2" -v null:ticks=100000000 -s null -m null -d net=6 >"$said" 2>&1 &
        game=$!
        for _ in $(seq 100); do
            if grep -q 'Attempting to connect' "$said"; then connects=yes; break; fi
            kill -0 "$game" 2>/dev/null || break
            sleep 0.1
        done
        if [ -z "$connects" ]; then
            kill -KILL "$game" 2>/dev/null || true
            cat "$said" >&2
        fi
    done
    tail -n +1 -f "$said" >&2 &
    wait "$game" || true
    kill $!
}
"#;

/// For `docker run`: a game that draws nothing takes all of a processor that it can get, and others wait for it.
#[allow(dead_code, reason = "each test binary uses its own part")]
pub const LESS_CPU: &str = "--cpu-shares=256";
