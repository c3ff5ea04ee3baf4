//! The recipes that come with Spawnpoint, as data: they are read without a complaint, they understand the lines that
//! the games print, and they set the games' configuration files without harm. Their scripts: tests/recipe_scripts.rs.

use regex::Regex;
use spawnpoint::model::config_edit;
use spawnpoint::model::recipe::{Recipe, Surroundings};
use spawnpoint::recipes::{self, Recipes};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::OnceLock;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn recipe(game: &str) -> &'static Recipe {
    static RECIPES: OnceLock<Recipes> = OnceLock::new();
    let recipes = RECIPES.get_or_init(|| Recipes::load(&folder("game-scripts")).unwrap());
    recipes.get(game).unwrap_or_else(|| panic!("no recipe {game}"))
}

#[test]
fn every_recipe_is_read_without_a_complaint() {
    for name in ["game-scripts", "tests/recipes"] {
        assert_eq!(recipes::problems(&folder(name)), Vec::<String>::new());
        for recipe in Recipes::load(&folder(name)).unwrap().list() {
            assert!(recipe.join_port().is_some(), "{}: nobody could join", recipe.game);
        }
    }
}

/// What a recipe reads out of a line: the kind of line, who, and what was said.
fn understood(game: &str, line: &str) -> String {
    let recipe = recipe(game);
    let patterns = &recipe.patterns;
    let mut found = vec![];
    if recipe.ready.log_matches(line) {
        found.push("ready".to_owned());
    }
    for (kind, pattern) in [("join", &patterns.join), ("leave", &patterns.leave), ("chat", &patterns.chat)] {
        let Some(groups) = pattern.as_ref().and_then(|pattern| Regex::new(pattern).unwrap().captures(line)) else {
            continue;
        };
        let said = groups.name("message").map_or(String::new(), |message| format!(" says {}", message.as_str()));
        found.push(format!("{kind} {}{said}", &groups["player"]));
    }
    found.join(" + ")
}

#[track_caller]
fn check(game: &str, lines: &[(&str, &str)]) {
    let seen: Vec<(&str, String)> = lines.iter().map(|(line, _)| (*line, understood(game, line))).collect();
    let wanted: Vec<(&str, String)> = lines.iter().map(|(line, meaning)| (*line, (*meaning).to_owned())).collect();
    assert_eq!(seen, wanted);
}

#[test]
fn minecraft_is_understood() {
    // The form of Paper's console is `[%d{HH:mm:ss} %level]: %msg`, from its log4j2.xml; docs.papermc.io quotes the line
    // `Done (X.XXXs)! For help, type "help"` in the reference of paper-global.yml. The other lines are Minecraft's own
    // translations (multiplayer.player.joined, .left, chat.type.text), as minecraft.wiki lists them.
    check(
        "minecraft",
        &[
            (r#"[12:34:56 INFO]: Done (21.503s)! For help, type "help""#, "ready"),
            (r#"[12:34:56 INFO]: Done preparing level "world" (3.102s)"#, ""),
            ("[12:34:57 INFO]: Notch joined the game", "join Notch"),
            ("[12:34:57 INFO]: .Bedrock_1 joined the game", "join .Bedrock_1"),
            ("[12:34:58 INFO]: Notch left the game", "leave Notch"),
            ("[12:34:58 INFO]: Notch lost connection: Disconnected", ""),
            ("[12:34:59 INFO]: <Notch> hello <b>you</b>", "chat Notch says hello <b>you</b>"),
            ("[12:34:59 INFO]: [Not Secure] <Notch> hello", "chat Notch says hello"),
            // What people say must not look like what the game says.
            (
                r#"[12:34:59 INFO]: <Notch> [12:34:59 INFO]: Done (1.0s)! For help, type "help""#,
                r#"chat Notch says [12:34:59 INFO]: Done (1.0s)! For help, type "help""#,
            ),
            ("[12:34:59 INFO]: <Notch> Herobrine joined the game", "chat Notch says Herobrine joined the game"),
            ("[12:34:59 INFO]: [Notch: Herobrine left the game]", ""),
        ],
    );
}

#[test]
fn colours_do_not_hide_that_a_game_is_ready() {
    let line = "\u{1b}[0;39m[12:34:56 INFO]: Done (21.503s)! For help, type \"help\"\u{1b}[m";
    assert!(recipe("minecraft").ready.log_matches(line));
}

#[test]
fn valheim_is_understood() {
    // Lines as public logs of such servers have them, for instance in the README and the tests of
    // lloesche/valheim-server-docker: `02/09/2021 10:42:24: Game server connected`, `Got character ZDOID from Thorbjorn`
    // (there with ` : id:number` cut off). `0:0` is a character that died.
    check(
        "valheim",
        &[
            ("02/09/2021 10:42:24: Game server connected", "ready"),
            ("02/09/2021 10:42:24: Game server connected failed", ""),
            ("02/09/2021 10:43:00: Got connection SteamID 76561197960287930", ""),
            ("02/09/2021 10:43:05: Got character ZDOID from Thorbjorn : 1234567890:1", "join Thorbjorn"),
            ("02/09/2021 10:43:05: Got character ZDOID from Two Words : -12345:37", "join Two Words"),
            ("02/09/2021 10:50:00: Got character ZDOID from Thorbjorn : 0:0", ""),
            ("02/09/2021 10:55:00: Closing socket 76561197960287930", ""),
        ],
    );
}

/// A server that is not listed answers no query, so an idle one would never stop.
#[test]
fn valheim_can_be_counted_unless_somebody_hides_it() {
    let valheim = recipe("valheim");
    assert!(valheim.query.is_some());
    assert_eq!(valheim.variables["PUBLIC"].default.as_deref(), Some("true"));
}

#[test]
fn terraria_is_understood() {
    // The lines that the AMP template for Terraria waits for (CubeCoders/AMPTemplates, terraria.kvp): `Listening on port
    // 7777`, `NAME has joined.`, `NAME has left.`, `<NAME> text`; the prompt `: ` is the server's own.
    check(
        "terraria",
        &[
            ("Listening on port 7777", "ready"),
            (": Server started", "ready"),
            ("Type 'help' for a list of commands.", ""),
            ("192.0.2.1:50000 is connecting...", ""),
            ("Alice has joined.", "join Alice"),
            (": Alice B. has joined.", "join Alice B."),
            (": Alice has left.", "leave Alice"),
            ("<Alice> hello", "chat Alice says hello"),
            (": <Alice> Bob has joined.", "chat Alice says Bob has joined."),
            ("<Alice> x has left.", "chat Alice says x has left."),
            ("<Server> Listening on port 7777", "chat Server says Listening on port 7777"),
        ],
    );
}

#[test]
fn factorio_is_understood() {
    // Two shapes of line, as public logs have them: the engine's own with seconds since its start, and what happens in
    // the game with a date and a tag in brackets, which wiki.factorio.com/Command_line_parameters calls the console log.
    check(
        "factorio",
        &[
            ("   0.577 Hosting game at IP ADDR:({0.0.0.0:34197})", ""),
            (
                "   0.578 Info ServerMultiplayerManager.cpp:808: updateTick(926) changing state from(CreatingGame) to(InGame)",
                "ready",
            ),
            ("2026-08-02 02:16:35 [JOIN] Alice joined the game", "join Alice"),
            ("2026-08-02 02:18:35 [LEAVE] Alice left the game", "leave Alice"),
            ("2026-08-02 02:16:40 [CHAT] Alice: hello: you", "chat Alice says hello: you"),
            ("2026-08-02 02:16:40 [CHAT] <server>: hello", "chat <server> says hello"),
            ("2026-08-02 02:16:40 [CHAT] Alice [nauvis]: hello", "chat Alice says hello"),
            (
                "2026-08-02 02:16:41 [CHAT] Alice: [JOIN] Bob joined the game",
                "chat Alice says [JOIN] Bob joined the game",
            ),
        ],
    );
}

#[test]
fn openttd_is_understood() {
    // Lines of OpenTTD 13.0 as it printed them; it puts a left-to-right mark before what happens in the game.
    check(
        "openttd",
        &[
            ("dbg: [net] Network revision name: 13.0", ""),
            ("dbg: [net] Map generated, starting game", ""),
            ("The map is open.", "ready"),
            ("\u{200e}*** Bot1 has joined the game (Client #2)", "join Bot1"),
            ("\u{200e}*** Bot1 has started a new company (#1)", ""),
            ("\u{200e}*** Bot1 has left the game (leaving)", "leave Bot1"),
            ("\u{200e}*** Game paused (number of players)", ""),
            ("\u{200e}[All] Server: hi: there", "chat Server says hi: there"),
            (
                "\u{200e}[All] Eve: *** Ada has joined the game (Client #2)",
                "chat Eve says *** Ada has joined the game (Client #2)",
            ),
        ],
    );
}

#[test]
fn openarena_is_understood() {
    // Lines of OpenArena 0.8.8 as it printed them. With every map all players enter the game again.
    check(
        "openarena",
        &[
            ("broadcast: print \"Assassin^7 connected\\n\"", "join Assassin"),
            ("broadcast: print \"Assassin^7 entered the game\\n\"", ""),
            ("broadcast: print \"Assassin^7 was kicked\\n\"", "leave Assassin"),
            ("broadcast: print \"^1Ann^2a^7 disconnected\\n\"", "leave ^1Ann^2a"),
            ("say: Ayumi: Is that all?", "chat Ayumi says Is that all?"),
            (
                "say: Eve: broadcast: print \"Ann^7 connected\\n\"",
                "chat Eve says broadcast: print \"Ann^7 connected\\n\"",
            ),
        ],
    );
}

#[test]
fn supertuxkart_is_understood() {
    // Lines of SuperTuxKart 1.4 as it printed them, colours and all.
    let line = |text: &str| format!("\u{1b}[0;;m\u{1b}[0mSat Nov 21 09:39:26 2026 [info   ] {text}");
    let joined = line("STKHost: 172.17.0.1:40742 has just connected. There are now 1 peers.");
    let left = line("STKHost: 172.17.0.1:40742 has just disconnected. There are now 0 peers.");
    check(
        "supertuxkart",
        &[
            (&line("main: Creating a LAN server 'demo'."), ""),
            (&line("STKHost: Listening has been started."), "ready"),
            (&joined, ""),
            (&line("ServerLobby: New player Bot with online id 0 from 172.17.0.1:40742 with AI."), "join Bot"),
            (&line("ServerLobby: Bot disconnected"), "leave Bot"),
        ],
    );
    let recipe = recipe("supertuxkart");
    let players = recipe.players.as_ref().unwrap();
    let online = |lines: &[&String]| players.online(lines.iter().map(|line| line.as_str()));
    let (listening, refused) =
        (line("STKHost: Listening has been started."), line("ServerLobby: Player refused: incorrect password"));
    assert_eq!(online(&[&listening]), None);
    assert_eq!(online(&[&listening, &joined]), Some(1));
    assert_eq!(online(&[&joined, &left, &listening]), Some(0));
    assert_eq!(online(&[&joined, &refused]), Some(0), "counted, and then not let in");
    assert_eq!(online(&[&refused, &joined, &listening]), Some(1));
}

#[test]
fn a_count_in_the_log_needs_its_group_and_no_query_beside_it() {
    let text = std::fs::read_to_string(folder("game-scripts/supertuxkart/recipe.toml")).unwrap();
    let faults = |text: &str| Recipe::parse(text, "recipe.toml").unwrap_err().join("\n");
    let without = faults(&text.replace("(?P<online>", "("));
    assert!(without.contains("[players] log must have a group (?<online>…)"), "{without}");
    let both = faults(&(text + "[query]\nprotocol = \"a2s\"\nport = \"game\"\n"));
    assert!(both.contains("[players] counts in the log what [query] asks the game"), "{both}");
}

/// The recipe's edits of one file, as they are made before a start, with these settings over the defaults.
fn edited(game: &str, file: &str, before: &str, settings: &[(&str, &str)]) -> String {
    let recipe = recipe(game);
    let settings: HashMap<String, String> =
        settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let ports: BTreeMap<String, u16> = recipe.ports.keys().cloned().zip(27001..).collect();
    let env = recipe.environment(&Surroundings {
        game_dir: "/game",
        server_name: "saturday",
        public_address: "play.example.org",
        ports: &ports,
        settings: &settings,
    });
    let edit = recipe.config.iter().find(|edit| edit.file == file).expect("the recipe edits that file");
    let after = config_edit::apply(edit, before, &env).unwrap();
    assert_eq!(config_edit::apply(edit, &after, &env).unwrap(), after, "twice is once");
    after
}

#[test]
fn server_properties_keep_what_the_recipe_does_not_set() {
    // The shape in which the game writes the file: two comments, then every key.
    let before = "#Minecraft server properties\n#Sat Nov 21 09:00:00 UTC 2026\nallow-flight=false\ndifficulty=easy\n\
        enable-query=true\nenable-rcon=false\nlevel-seed=\nmotd=A Minecraft Server\nquery.port=25565\nrcon.password=\n\
        rcon.port=25575\nresource-pack-prompt=\nserver-port=25565\nwhite-list=false\n";
    let settings =
        [("CONSOLE_PASSWORD", "s3cret=#!"), ("MOTD", "Käse \"und\"\nrcon.password=mine"), ("DIFFICULTY", "hard")];
    insta::assert_snapshot!(edited("minecraft", "server.properties", before, &settings), @r#"
    #Minecraft server properties
    #Sat Nov 21 09:00:00 UTC 2026
    allow-flight=false
    difficulty=hard
    enable-query=false
    enable-rcon=true
    level-seed=
    motd=Käse "und" rcon.password=mine
    query.port=25565
    rcon.password=s3cret=#!
    rcon.port=27002
    resource-pack-prompt=
    server-port=27001
    white-list=false
    broadcast-rcon-to-ops=false
    enforce-whitelist=false
    gamemode=survival
    hardcore=false
    level-name=world
    max-players=20
    view-distance=10
    "#);
}

/// What is no part of the world is gone with the next update. The file with the console's password stays out of backups.
#[test]
fn settings_of_minecraft_that_people_edit_by_hand_are_kept_with_the_world() {
    let kept = &recipe("minecraft").world.paths;
    for path in ["config", "bukkit.yml", "spigot.yml", "commands.yml", "permissions.yml"] {
        assert!(kept.iter().any(|one| one == path), "{path} is not in {kept:?}");
    }
    assert!(!kept.iter().any(|path| path == "server.properties"), "{kept:?}");
}

#[test]
fn serverconfig_of_terraria_is_made_where_there_is_none() {
    // Every key of the makers' own example is commented out, so an edit adds its own.
    let settings = [("PASSWORD", "p w#"), ("SEED", "for the worthy")];
    insta::assert_snapshot!(edited("terraria", "serverconfig.txt", "#port=7777\n#priority=1\n", &settings), @r"
    #port=7777
    #priority=1
    autocreate=2
    banlist=/game/banlist.txt
    difficulty=0
    language=en-US
    maxplayers=8
    motd=Welcome!
    password=p w#
    port=27001
    secure=1
    seed=for the worthy
    upnp=0
    world=/game/worlds/world.wld
    worldname=saturday
    worldpath=/game/worlds/
    ");
    assert!(edited("terraria", "serverconfig.txt", "", &[]).contains("\npassword=\n"));
}

#[test]
fn server_settings_of_factorio_keep_their_types() {
    // Comments are keys of their own, and one of them is a list: the shape of the makers' server-settings.example.json.
    let before = r#"{"name": "Name", "description": "D", "tags": ["game"], "_comment_visibility": ["a", "b"],
        "visibility": {"public": true, "lan": true, "steam": true}, "max_players": 0, "game_password": "",
        "require_user_verification": true, "autosave_interval": 10, "autosave_slots": 5, "auto_pause": true}"#;
    let settings = [("GAME_PASSWORD", "0042"), ("MAX_PLAYERS", "4"), ("DESCRIPTION", "\"}, \"visibility\": true")];
    let after = edited("factorio", "factorio/server-settings.json", before, &settings);
    let after: serde_json::Value = serde_json::from_str(&after).unwrap();
    assert_eq!(
        after,
        serde_json::json!({
            "name": "saturday", "description": "\"}, \"visibility\": true", "tags": ["game"],
            "_comment_visibility": ["a", "b"],
            "visibility": {"public": false, "lan": false, "steam": true}, "max_players": 4, "game_password": "0042",
            "require_user_verification": true, "autosave_interval": 10, "autosave_slots": 5, "auto_pause": true,
            "non_blocking_saving": false,
        })
    );
}

#[test]
fn what_is_told_to_players_is_one_line_and_no_command() {
    for (game, said) in
        [("minecraft", "say hi  stop"), ("terraria", "say hi  stop"), ("factorio", "Spawnpoint: hi  stop")]
    {
        assert_eq!(recipe(game).say("hi\r\nstop").as_deref(), Some(said));
    }
    assert_eq!(recipe("factorio").say("/quit").as_deref(), Some("Spawnpoint: /quit"));
    assert_eq!(recipe("valheim").say("hi"), None, "it has no console");
}

/// A whole recipe, for breaking.
const POND: &str = r#"format = 1
game = "pond"
name = "Pond"
description = "Ducks."
[ports.game]
number = 5000
protocol = "udp"
[ports.admin]
number = 5001
protocol = "tcp"
private = true
[variables.DUCKS]
type = "integer"
default = 12
min = 1
max = 200
help = "How many ducks there are."
[variables.NOTE]
type = "string"
help = "What stands on the sign."
[resources]
memory_mb = 512
cpus = 0.5
[container]
base = "debian:bookworm-slim"
[world]
paths = ["save"]
[ready]
log = ["^open"]
timeout_s = 60
[stop]
grace_s = 30
[console]
protocol = "source_rcon"
port = "admin"
say = "say {message}"
[query]
protocol = "a2s"
port = "game"
[[config]]
file = "pond.ini"
format = "ini"
[config.set]
"net.port" = "{PORT_GAME}"
"pond.ducks" = "{DUCKS}"
"pond.deep" = true
[patterns]
join = '^(?<player>\w+) dives in$'
[quiesce]
before = ["save"]
"#;

#[test]
fn a_broken_recipe_is_told_what_is_allowed_and_where() {
    let ready = "log = [\"^open\"]";
    // What is replaced, by what. Everything from one line to the next is one recipe's faults.
    let broken: &[(&str, &str)] = &[
        ("format = 1", "format = 2"),
        ("format = 1\n", ""),
        ("format = 1", "format = "),
        ("\"pond\"", "\"The Pond!\""),
        ("\"pond\"", "7"),
        ("name = \"Pond\"", "name = \"\""),
        ("name = \"Pond\"", "nmae = \"Pond\""),
        ("[ports.game]", "[ports.Game-1]"),
        ("number = 5000", "number = 80"),
        ("number = 5000", "number = 70000"),
        ("number = 5000", "number = \"5000\""),
        ("\"udp\"", "\"sctp\""),
        ("private = true", "privat = true"),
        ("private = true", "private = \"yes\""),
        ("private = true", "join = true\nprivate = true"),
        ("private = true", "offset_from = \"gaem\""),
        ("private = true", "private = true\noffset_from = \"admin\""),
        ("number = 5001", "number = 5000\noffset_from = \"game\""),
        ("[variables.DUCKS]", "[variables.ducks]"),
        ("[variables.DUCKS]", "[variables.PORT_GAME]"),
        ("[variables.NOTE]", "[variables.LD_PRELOAD]"),
        ("[variables.NOTE]", "[variables.BASH_ENV]"),
        ("[variables.NOTE]", "[variables.CONSOLE_PASSWORD]"),
        ("\"integer\"", "\"number\""),
        ("default = 12", "default = 0"),
        ("default = 12", "default = 1.5"),
        ("min = 1\n", "min = 300\n"),
        ("max = 200", "max_length = 3"),
        ("help = \"How many ducks there are.\"\n", ""),
        ("type = \"string\"", "type = \"choice\""),
        ("type = \"string\"", "type = \"string\"\npattern = \"(\""),
        ("type = \"string\"", "type = \"string\"\nsecret = true\ndefault = \"hush\"\npattern = \"[0-9]+\""),
        ("memory_mb = 512", "memory_mb = 1"),
        ("cpus = 0.5", "cpus = \"half\""),
        ("cpus = 0.5", "cpus = 1000"),
        ("[resources]\nmemory_mb = 512\ncpus = 0.5\n", ""),
        ("debian:bookworm-slim", "debian\\nRUN evil"),
        ("paths = [\"save\"]", "paths = [\"../../etc\"]"),
        ("paths = [\"save\"]", "paths = [\"save\", \"/etc\"]\nexclude = [\"\"]"),
        ("paths = [\"save\"]", "paths = \"save\""),
        (ready, ""),
        (ready, "log = []"),
        (ready, "log = [\"^open\", \"\", \"(\"]"),
        (ready, "query = true\nhealthcheck = true"),
        (ready, "port = \"game\""),
        (ready, "port = \"web\""),
        ("timeout_s = 60", "timeout_s = \"soon\""),
        ("timeout_s = 60", "timeout_s = 0"),
        ("grace_s = 30", "grace = 30"),
        ("\"source_rcon\"", "\"telnet\""),
        ("\"source_rcon\"", "\"stdin\""),
        ("port = \"admin\"\n", ""),
        ("port = \"admin\"", "port = \"rcon\""),
        ("private = true\n", ""),
        ("private = true\n", "join = true\n"),
        ("protocol = \"source_rcon\"\nport = \"admin\"", "protocol = \"minecraft_rcon\"\nport = \"game\""),
        ("protocol = \"source_rcon\"\nport = \"admin\"", "protocol = \"openttd_admin\"\nport = \"game\""),
        ("\"source_rcon\"", "\"quake3_rcon\""),
        ("{message}", "hello"),
        ("\"a2s\"", "\"gamedig\""),
        ("port = \"game\"", "port = \"query\""),
        ("pond.ini", "/etc/passwd"),
        ("\"ini\"", "\"cfg\""),
        ("{PORT_GAME}", "{PORT_GAEM}"),
        ("{DUCKS}", "{NOTE} {DUCKS}"),
        ("\"pond.deep\" = true", "\"pond.deep\" = 1.5"),
        ("(?<player>\\w+)", "\\w+"),
        ("(?<player>\\w+)", "(?<player>\\w+"),
        ("[console]\nprotocol = \"source_rcon\"\nport = \"admin\"\nsay = \"say {message}\"\n", ""),
        ("before = [\"save\"]", "before = \"save\""),
        ("[stop]", "[halt]"),
    ];
    Recipe::parse(POND, "pond/recipe.toml").expect("it is whole before it is broken");
    let mut told = String::new();
    for (from, to) in broken {
        assert_eq!(POND.matches(from).count(), 1, "{from} stands once in it");
        let faults = Recipe::parse(&POND.replace(from, to), "pond/recipe.toml").err();
        let faults = faults.unwrap_or_else(|| panic!("{to:?} for {from:?} should be refused"));
        told += &format!("{to:?} for {from:?}\n");
        for fault in faults {
            told += &format!("    {fault}\n");
        }
    }
    insta::assert_snapshot!(told);
}

#[test]
fn only_the_console_that_is_the_games_own_udp_port_may_be_reached_by_friends() {
    let rcon = POND.replace(
        "protocol = \"source_rcon\"\nport = \"admin\"",
        "protocol = \"quake3_rcon\"\nport = \"game\"\non_game_port = true",
    );
    let told = |text: &str| Recipe::parse(text, "pond/recipe.toml").err().unwrap_or_default().join("\n");
    assert_eq!(told(&rcon), "", "the query asks there");
    assert_eq!(told(&rcon.replace("[query]\nprotocol = \"a2s\"\nport = \"game\"\n", "")).lines().count(), 1);
    let joined = rcon.replace("\"udp\"", "\"udp\"\njoin = true");
    assert_eq!(told(&joined.replace("[query]\nprotocol = \"a2s\"\nport = \"game\"\n", "")), "", "friends join there");
    for protocol in ["tcp", "both"] {
        let fault = told(&rcon.replace("\"udp\"", &format!("\"{protocol}\"")));
        assert_eq!(
            fault,
            "pond/recipe.toml:35: [console] port names [ports.game], which must say protocol = \"udp\", as quake3_rcon speaks nothing else"
        );
    }
    assert_eq!(
        told(&rcon.replace("on_game_port = true\n", "")),
        "pond/recipe.toml:35: [console] port names [ports.game], where everybody who reaches the game can try passwords. Use protocol = \"stdin\" where the engine reads commands on its input, or say on_game_port = true where it has no other console"
    );
    let private = POND.replace("port = \"admin\"\n", "port = \"admin\"\non_game_port = true\n");
    assert_eq!(
        told(&private),
        "pond/recipe.toml:36: [console] on_game_port is for a port that friends reach; [ports.admin] is private"
    );
    let no_port = POND.replace("\"source_rcon\"\nport = \"admin\"\n", "\"stdin\"\non_game_port = true\n");
    assert_eq!(told(&no_port), "pond/recipe.toml:35: [console] on_game_port is for a console that listens on a port");
}

#[test]
fn all_faults_of_a_recipe_are_told_at_once() {
    let text = POND
        .replace("number = 5001", "number = 70000")
        .replace("private = true", "privat = true")
        .replace("timeout_s = 60", "timeout_s = \"soon\"")
        .replace("\"ini\"", "\"cfg\"")
        .replace("(?<player>\\w+)", "\\w+");
    insta::assert_snapshot!(Recipe::parse(&text, "pond/recipe.toml").unwrap_err().join("\n"), @r#"
    pond/recipe.toml:9: [ports.admin] number must be a whole number from 1024 to 65535, not 70000
    pond/recipe.toml:11: `privat` is no key of [ports.admin]; allowed are number, protocol, private, join, offset_from
    pond/recipe.toml:30: [ready] timeout_s must be a whole number of seconds from 1 to 86400, not "soon"
    pond/recipe.toml:35: [console] port names [ports.admin], which must say private = true; only with protocol = "quake3_rcon" may it be the port that friends join
    pond/recipe.toml:42: [[config]] format must be one of properties, ini, json, toml, lines, not "cfg"
    pond/recipe.toml:48: [patterns] join must have a group (?<player>…)
    "#);
    // A fault that stops the reading is told alone, and still with its line.
    insta::assert_snapshot!(Recipe::parse("format = 1\nname = \"a\nb\"", "pond/recipe.toml").unwrap_err().join("\n"), @"pond/recipe.toml:3: this is no TOML: key with no value, expected `=`");
}

#[test]
fn settings_that_do_not_fit_are_told_without_repeating_them() {
    let recipe = Recipe::parse(
        &POND.replace(
            "[resources]",
            "[variables.PASSWORD]\ntype = \"string\"\nsecret = true\nrequired = true\nmax_length = 8\npattern = '[^ ]+'\n\
             help = \"What friends type.\"\n[variables.KIND]\ntype = \"choice\"\nallowed = [\"mallard\", \"Stockente\"]\n\
             help = \"Which ducks.\"\n[variables.WILD]\ntype = \"boolean\"\nhelp = \"Whether they bite.\"\n[resources]",
        ),
        "pond/recipe.toml",
    )
    .unwrap();
    let told = |settings: &[(&str, &str)]| {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        recipe.check_settings(&settings).map_or_else(|faults| faults.join("\n"), |()| "fine".to_owned())
    };
    insta::assert_snapshot!(told(&[]), @"`PASSWORD` has to be set: What friends type.");
    insta::assert_snapshot!(
        told(&[("PASSWORD", "s3cret word"), ("DUCKS", "many"), ("KIND", "Mallard"), ("WILD", "yes")]),
        @"
        `DUCKS` is a whole number from 1 to 200
        `KIND` is one of `mallard`, `Stockente`
        `PASSWORD` is a text of at most 8 characters of the form `[^ ]+`
        `WILD` is true or false
        "
    );
    // Quotes and every alphabet are text; a line break would be a line of its own in a configuration file.
    assert_eq!(told(&[("PASSWORD", "ä'\"$(`🦆"), ("NOTE", "\"; rm -rf / #\\ 'x' $(id) `id` 🦆 ünïcödé")]), "fine");
    assert_eq!(told(&[("PASSWORD", "🦆🦆🦆🦆🦆🦆🦆🦆")]), "fine", "a limit is in characters");
    for breaking in ["a\nb", "a\rb", "a\0b"] {
        assert_eq!(told(&[("PASSWORD", "hush"), ("NOTE", breaking)]), "`NOTE` is one line of text");
        assert_eq!(told(&[("PASSWORD", "hush"), ("DUCKS", breaking)]), "`DUCKS` is one line of text");
    }
    for number in ["", " 5", "5 ", "+5", "0x5", "5.0", "99999999999999999999", "٥"] {
        let answer = told(&[("PASSWORD", "hush"), ("DUCKS", number)]);
        let fits = number.parse::<i64>().is_ok();
        assert_eq!(answer == "fine", fits, "{number:?}: {answer}");
    }
}

#[test]
fn a_secret_is_long_enough_to_be_masked_or_empty() {
    let with_default = |default: &str| {
        let variable = format!(
            "[variables.PASSWORD]\ntype = \"string\"\nsecret = true\ndefault = \"{default}\"\n\
             help = \"What friends type.\"\n[resources]"
        );
        Recipe::parse(&POND.replace("[resources]", &variable), "pond/recipe.toml")
    };
    let recipe = with_default("").unwrap();
    let told = |value: &str| {
        let settings = [("PASSWORD".to_owned(), value.to_owned())].into();
        recipe.check_settings(&settings).map_or_else(|faults| faults.join("\n"), |()| "fine".to_owned())
    };
    insta::assert_snapshot!(told("🦆🦆🦆"), @"`PASSWORD` is secret and too short to be hidden in what the game prints: choose one of 4 characters or more");
    assert_eq!(told("x"), told("tea"));
    for fits in ["", "🦆🦆🦆🦆", "thyme"] {
        assert_eq!(told(fits), "fine", "{fits:?}");
        let masked = spawnpoint::engine::mask(&format!("say {fits}"), &[fits.to_owned()]);
        assert!(fits.is_empty() || masked == "say ••••", "{masked}");
    }
    insta::assert_snapshot!(with_default("tea").unwrap_err().join("\n"), @"pond/recipe.toml:24: [variables.PASSWORD] default does not keep its own rules: `PASSWORD` is secret and too short to be hidden in what the game prints: choose one of 4 characters or more");
}
