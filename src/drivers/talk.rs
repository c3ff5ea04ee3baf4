//! Talking to a game, once it is known where it listens: its console, what it tells its players, who is on. Which
//! protocol it speaks is the recipe's word; how its ports are reached is the backend's.

use crate::clients::console::{
    Console, ConsoleError, Reply, openttd::OpenTtdAdmin, quake3::Quake3Rcon, source::SourceRcon,
};
use crate::clients::query::{self, Answer};
use crate::engine::{ConsoleFault, Driver, Output, StepCx, StepError};
use crate::model::job::Gain;
use crate::model::recipe::{ConsoleProtocol, PlayersInLog, Query, QueryProtocol, Recipe};
use crate::model::server::{Players, Seen, Server};
use async_trait::async_trait;
use futures::{Stream, StreamExt};
use secrecy::SecretString;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

/// One look at a game may take so long; a game that does not answer by then has an unknown count.
pub const QUERY_LIMIT: Duration = Duration::from_secs(3);
/// A game that says in its log how many are on is believed if it said so within so many lines.
pub const COUNT_WITHIN_LINES: usize = 1000;
/// One console command, connecting included.
pub const COMMAND_LIMIT: Duration = Duration::from_secs(15);
/// A line that has the game save may take so much longer before its answer begins: a large world takes minutes.
pub const SAVING_LIMIT: Duration = Duration::from_secs(120);
/// The first word of a game that answers on its own output may take this long.
const FIRST_WORD: Duration = Duration::from_secs(3);
/// An answer on a game's own output is over so long after its first word: what comes then is the game's.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
/// Bytes of an answer that are kept.
const ANSWER_MAX_BYTES: usize = 1 << 20;
/// A game is told to save again so often, with a pause in between, when a backup is called off.
const RESUME_TRIES: u64 = 2;
const RESUME_PAUSE: Duration = Duration::from_secs(2);
/// A game that drops what it is told too often is told so often.
const SAY_TRIES: usize = 4;
/// Players get this long to say good-bye when somebody is on.
const GOODBYE: Duration = Duration::from_secs(5);

/// A backend, as far as it types into consoles.
#[async_trait]
pub trait Typist: Send + Sync {
    /// Types one line. With `patience` the answer may begin so much later than that of other lines, where the console
    /// can tell work from silence.
    async fn type_within(&self, server: &Server, line: &str, patience: Option<Duration>)
    -> Result<Reply, ConsoleFault>;

    /// What people read of the answer to one line.
    async fn type_line(&self, server: &Server, line: &str) -> Result<String, ConsoleFault> {
        self.type_within(server, line, None).await.map(text_of)
    }
}

/// Whether a game takes this line for one.
///
/// # Errors
/// It does not: what is too long of it would be a command of its own.
pub fn fits(recipe: &Recipe, line: &str) -> Result<(), ConsoleFault> {
    let limit = recipe.console.as_ref().and_then(|console| console.max_line_bytes);
    match limit.filter(|limit| line.len() > *limit) {
        None => Ok(()),
        Some(limit) => Err(ConsoleFault::Refused(format!(
            "it is {} bytes long, and this game reads {limit} at once and would take the rest for another command",
            line.len()
        ))),
    }
}

/// One line at a console that `reach` opens, with whatever has to be held for as long as it is open.
///
/// # Errors
/// What reaching or typing came to, or silence: [`COMMAND_LIMIT`] and the patience are over.
pub async fn type_at<'a, Held>(
    line: &str,
    patience: Option<Duration>,
    reach: impl Future<Output = Result<(Box<dyn Console + 'a>, Held), ConsoleFault>>,
) -> Result<Reply, ConsoleFault> {
    let limit = COMMAND_LIMIT + patience.unwrap_or_default();
    tokio::time::timeout(limit, async {
        let (mut console, _held) = reach.await?;
        if let Some(patience) = patience {
            console.be_patient(patience);
        }
        console.command(line).await.map_err(fault)
    })
    .await
    .map_err(|_| ConsoleFault::Silent(format!("no answer within {} s", limit.as_secs())))?
}

/// Asks a game who is on; `None` when it does not answer, which is not zero.
pub async fn ask(query: &Query, address: SocketAddr) -> Option<Players> {
    let answer = match &query.protocol {
        QueryProtocol::A2s => query::a2s(address).await,
        QueryProtocol::Minecraft => query::minecraft(address).await,
        QueryProtocol::Quake3 => query::quake3(address).await,
        QueryProtocol::Openttd => query::openttd(address).await,
        QueryProtocol::Gamedig => query::gamedig(query.id.as_deref().unwrap_or_default(), address).await,
    };
    match answer {
        Ok(answer) => Some(players_of(answer)),
        Err(error) => {
            tracing::debug!("A query was not answered: {error}");
            None
        }
    }
}

/// What a game's last [`COUNT_WITHIN_LINES`] lines say of who is on.
pub fn count_in_log(players: &PlayersInLog, lines: &[String]) -> Players {
    let said = players.online(lines.iter().map(String::as_str));
    // A log that was read from its beginning and says nothing is a game that nobody joined. The beginning of a longer
    // one is unknown.
    let online = said.or((lines.len() < COUNT_WITHIN_LINES).then_some(0));
    Players { online, ..Players::default() }
}

/// A console that is reached over the network.
///
/// # Errors
/// [`ConsoleFault::None`] for standard input, which no address leads to.
pub async fn console_at(
    protocol: ConsoleProtocol,
    address: SocketAddr,
    password: &SecretString,
) -> Result<Box<dyn Console>, ConsoleFault> {
    Ok(match protocol {
        ConsoleProtocol::SourceRcon | ConsoleProtocol::MinecraftRcon => {
            Box::new(SourceRcon::connect(address, password).await.map_err(fault)?)
        }
        ConsoleProtocol::Quake3Rcon => Box::new(Quake3Rcon::connect(address, password).await.map_err(fault)?),
        ConsoleProtocol::OpenttdAdmin => Box::new(OpenTtdAdmin::connect(address, password).await.map_err(fault)?),
        ConsoleProtocol::Stdin => return Err(ConsoleFault::None),
    })
}

/// The answer of a game that answers on its own output, among whatever else it says there. It is over when the game has
/// been quiet for so long, or has ended, or goes on and on.
///
/// # Errors
/// That of the first line that could not be read.
pub async fn listen(
    quiet: Duration,
    mut lines: impl Stream<Item = Result<String, ConsoleError>> + Unpin,
) -> Result<Reply, ConsoleError> {
    let mut reply = Reply { text: String::new(), answered: false, truncated: false };
    let mut end = None;
    loop {
        let wait = if reply.answered { quiet } else { FIRST_WORD };
        let until = Instant::now() + wait;
        let until = end.map_or(until, |end: Instant| end.min(until));
        match tokio::time::timeout_at(until, lines.next()).await {
            Ok(Some(line)) => {
                let line = line?;
                if reply.text.len() + line.len() >= ANSWER_MAX_BYTES {
                    reply.truncated = true;
                    return Ok(reply);
                }
                reply.answered = true;
                end.get_or_insert_with(|| Instant::now() + ANSWER_LIMIT);
                reply.text += &line;
                reply.text.push('\n');
            }
            Ok(None) | Err(_) => return Ok(reply),
        }
    }
}

/// Says something to the players, where the recipe knows how.
///
/// # Errors
/// What the console said, or that it said nothing though it always does.
pub async fn say(typist: &dyn Typist, recipe: Option<&Recipe>, server: &Server, message: &str) -> anyhow::Result<()> {
    let Some((recipe, line)) = recipe.and_then(|recipe| Some((recipe, recipe.say(message)?))) else { return Ok(()) };
    let protocol = recipe.console.as_ref().map(|console| console.protocol);
    // A dedicated server prints whatever it tells its players; but of one address it hears ten words at once and then one
    // in a second, questions about its players among them, and drops the rest (ioquake3, code/server/sv_main.c:
    // SV_SendServerCommand and SVC_RateLimitAddress).
    let answers = protocol == Some(ConsoleProtocol::Quake3Rcon);
    for attempt in 1..=SAY_TRIES {
        if attempt > 1 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        if !typist.type_line(server, &line).await?.is_empty() || !answers {
            return Ok(());
        }
    }
    anyhow::bail!("the game did not answer")
}

/// Told only when somebody may be listening. A game that cannot be told is stopped all the same.
///
/// # Errors
/// None but that of a job without a server.
pub async fn warn_players(driver: &dyn Driver, recipe: Option<&Recipe>, cx: &StepCx<'_>) -> Result<Gain, StepError> {
    let server = cx.server()?;
    if !recipe.is_some_and(Recipe::can_say) {
        return Ok(Gain::note("this game cannot tell its players"));
    }
    let Some(Seen::Running { players }) = driver.look(std::slice::from_ref(server)).await.into_iter().next() else {
        return Ok(Gain::note("it is not running"));
    };
    if players.online == Some(0) {
        return Ok(Gain::note("nobody is on"));
    }
    let what = match cx.job.action.word() {
        "restart" => "restarts",
        _ => "stops",
    };
    if let Err(error) = driver.tell(server, &format!("This server {what} in {} seconds.", GOODBYE.as_secs())).await {
        cx.out.line(format!("The players could not be told: {error:#}"));
        return Ok(Gain::note("they could not be told"));
    }
    tokio::time::sleep(GOODBYE).await;
    Ok(Gain::default())
}

/// Has the game write its world and hold still, for a backup while it runs.
///
/// # Errors
/// A line that the game did not take, to be tried again.
pub async fn quiesce(typist: &dyn Typist, recipe: &Recipe, cx: &StepCx<'_>) -> Result<Gain, StepError> {
    let Some(quiesce) = &recipe.quiesce else { return Ok(Gain::note("this game has no way to hold still")) };
    type_all(typist, recipe, cx.server()?, &cx.out, &quiesce.before).await
}

/// The end of [`quiesce`].
///
/// # Errors
/// As there.
pub async fn resume_saves(typist: &dyn Typist, recipe: &Recipe, cx: &StepCx<'_>) -> Result<Gain, StepError> {
    let Some(quiesce) = &recipe.quiesce else { return Ok(Gain::default()) };
    type_all(typist, recipe, cx.server()?, &cx.out, &quiesce.after).await
}

/// Takes back that a game holds still. One that does not answer is no reason to hold the job: nothing of it is left to do,
/// and while it is open nobody can stop the server, which saves its world.
///
/// # Errors
/// None but that of a job without a server.
pub async fn undo_quiesce(typist: &dyn Typist, recipe: &Recipe, cx: &StepCx<'_>) -> Result<Gain, StepError> {
    cx.server()?;
    let mut why = String::new();
    for attempt in 1..=RESUME_TRIES {
        if attempt > 1 {
            tokio::time::sleep(RESUME_PAUSE).await;
        }
        match resume_saves(typist, recipe, cx).await {
            Ok(gain) => return Ok(gain),
            Err(StepError::Retry(error) | StepError::Fatal(error)) => why = format!("{error:#}"),
        }
    }
    let note = format!("the game could not be told to save again, so it may not until it is stopped: {why}");
    cx.out.line(&note);
    Ok(Gain::note(note))
}

/// How long [`quiesce`] or [`resume_saves`] may take, in seconds, with room for one more try of the latter.
pub fn quiesce_limit_s(recipe: &Recipe) -> u64 {
    let lines = recipe.quiesce.as_ref().map_or(0, |quiesce| quiesce.before.len().max(quiesce.after.len()));
    (lines.max(1) as u64) * RESUME_TRIES * (SAVING_LIMIT + COMMAND_LIMIT).as_secs()
}

async fn type_all(
    typist: &dyn Typist,
    recipe: &Recipe,
    server: &Server,
    out: &Output,
    lines: &[String],
) -> Result<Gain, StepError> {
    let always_answers = recipe.console.as_ref().is_some_and(|console| always_answers(console.protocol));
    for line in lines {
        match typist.type_within(server, line, Some(SAVING_LIMIT)).await {
            // It may still be saving, or have lost the line: a world that is read now may be half a world.
            Ok(Reply { answered: false, .. }) if always_answers => {
                return Err(StepError::retry(format!("`{line}`: the game did not answer, so it may not have saved.")));
            }
            Ok(reply) => text_of(reply).lines().for_each(|line| out.line(line)),
            Err(ConsoleFault::NotRunning) => return Ok(Gain::note("it is not running")),
            Err(fault) => return Err(StepError::retry(format!("`{line}`: {fault}"))),
        }
    }
    Ok(Gain::default())
}

/// Whether every command is answered when it was carried out, even if by an empty line. Of the others silence is normal.
fn always_answers(protocol: ConsoleProtocol) -> bool {
    match protocol {
        ConsoleProtocol::MinecraftRcon | ConsoleProtocol::OpenttdAdmin => true,
        ConsoleProtocol::SourceRcon | ConsoleProtocol::Quake3Rcon | ConsoleProtocol::Stdin => false,
    }
}

/// What people read of an answer.
fn text_of(reply: Reply) -> String {
    match reply {
        Reply { answered: false, .. } => String::new(),
        Reply { truncated: true, text, .. } => format!("{text}\n(the answer was longer and is cut here)"),
        Reply { text, .. } => text,
    }
}

fn players_of(answer: Answer) -> Players {
    Players {
        online: answer.players,
        max: answer.max_players,
        bots: answer.bots,
        names: answer.names,
        map: answer.map,
        version: answer.version,
        latency_ms: Some(answer.latency.as_millis() as u64),
        answers: true,
    }
}

fn fault(error: ConsoleError) -> ConsoleFault {
    match error {
        ConsoleError::LineRefused(why) => ConsoleFault::Refused(why.to_owned()),
        ConsoleError::Unreachable(_)
        | ConsoleError::WrongPassword
        | ConsoleError::NoAnswer
        | ConsoleError::Protocol(_) => ConsoleFault::Silent(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::host::Place;
    use crate::model::server::{Backend, Limits, Owned, ServerName, Wanted};
    use crate::model::{GuildId, ServerId};
    use std::sync::Mutex;

    /// A game that hears nothing for so many lines, and writes down what was typed.
    struct Deaf {
        lines: usize,
        typed: Mutex<Vec<String>>,
    }

    #[async_trait]
    impl Typist for Deaf {
        async fn type_within(&self, _: &Server, line: &str, _: Option<Duration>) -> Result<Reply, ConsoleFault> {
            let mut typed = self.typed.lock().unwrap();
            typed.push(line.to_owned());
            Ok(Reply { text: "broadcast".into(), answered: typed.len() > self.lines, truncated: false })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_warning_is_said_until_it_was_heard_where_that_can_be_known() {
        let rcon = "protocol = \"quake3_rcon\"\nport = \"game\"\non_game_port = true\n";
        let openarena = include_str!("../../game-scripts/openarena/recipe.toml");
        let quake = recipe(&openarena.replace("protocol = \"stdin\"\nmax_line_bytes = 255\n", rcon));
        let factorio = recipe(include_str!("../../game-scripts/factorio/recipe.toml"));
        for (recipe, deaf_for, said, heard) in [
            (&quake, 0, 1, true),
            (&quake, 2, 3, true),
            (&quake, SAY_TRIES, SAY_TRIES, false),
            // Its silence says nothing, and nobody wants to read it four times.
            (&factorio, SAY_TRIES, 1, true),
        ] {
            let game = Deaf { lines: deaf_for, typed: Mutex::default() };
            let told = say(&game, Some(recipe), &server(), "It stops soon.").await;
            assert_eq!(told.is_ok(), heard, "{told:?}");
            assert_eq!(*game.typed.lock().unwrap(), vec![recipe.say("It stops soon.").unwrap(); said]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_ends_although_the_game_never_falls_silent() {
        let begun = Instant::now();
        let chatter = futures::stream::unfold(0, |said| async move {
            tokio::time::sleep(Duration::from_millis(200)).await;
            Some((Ok(format!("Item: {said}")), said + 1))
        });
        let reply = listen(Duration::from_millis(600), Box::pin(chatter)).await.unwrap();
        assert!(reply.answered && reply.text.starts_with("Item: 0\nItem: 1\n"), "{reply:?}");
        assert_eq!(begun.elapsed(), Duration::from_millis(200) + ANSWER_LIMIT);
    }

    #[test]
    fn a_line_that_a_game_would_take_for_two_is_refused() {
        let openarena = recipe(include_str!("../../game-scripts/openarena/recipe.toml"));
        assert!(fits(&openarena, &"é".repeat(127)).is_ok());
        let refused = fits(&openarena, &"é".repeat(128)).unwrap_err().to_string();
        assert_eq!(
            refused,
            "That line cannot be sent: it is 256 bytes long, and this game reads 255 at once and would take the rest for another command"
        );
        let factorio = recipe(include_str!("../../game-scripts/factorio/recipe.toml"));
        assert!(fits(&factorio, &"x".repeat(4000)).is_ok());
    }

    /// A console that says nothing to one line, and writes down what was typed.
    struct Silent {
        to: &'static str,
        typed: Mutex<Vec<String>>,
    }

    #[async_trait]
    impl Typist for Silent {
        async fn type_within(&self, _: &Server, line: &str, _: Option<Duration>) -> Result<Reply, ConsoleFault> {
            self.typed.lock().unwrap().push(line.to_owned());
            Ok(Reply { text: "done".into(), answered: line != self.to, truncated: false })
        }
    }

    fn recipe(text: &str) -> Recipe {
        Recipe::parse(text, "recipe.toml").unwrap()
    }

    fn server() -> Server {
        Server {
            id: ServerId("world".into()),
            guild: GuildId("g".into()),
            name: ServerName::parse("world").unwrap(),
            game: "any".into(),
            backend: Backend::Docker,
            settings: Default::default(),
            limits: Limits::default(),
            place: Place::default(),
            wanted: Wanted::On,
            owned: Owned::default(),
            lease_until: None,
            channel: None,
            update_at_start: false,
            created_at: 0,
            deleted_at: None,
        }
    }

    #[tokio::test]
    async fn a_game_that_does_not_say_that_it_saved_is_not_taken_to_have_saved() {
        let minecraft = recipe(include_str!("../../game-scripts/minecraft/recipe.toml"));
        let factorio = recipe(include_str!("../../game-scripts/factorio/recipe.toml"));
        let server = server();
        let (out, _lines) = Output::new(vec![]);
        for (recipe, silent_to, fault) in [
            (&minecraft, "", None),
            (
                &minecraft,
                "save-all flush",
                Some("`save-all flush`: the game did not answer, so it may not have saved."),
            ),
            // Its protocol has commands that are carried out without a word.
            (&factorio, "/server-save", None),
        ] {
            let console = Silent { to: silent_to, typed: Mutex::default() };
            let lines = &recipe.quiesce.as_ref().unwrap().before;
            let said = match type_all(&console, recipe, &server, &out, lines).await {
                Ok(_) => None,
                Err(StepError::Retry(error) | StepError::Fatal(error)) => Some(error.to_string()),
            };
            assert_eq!(said.as_deref(), fault);
            assert_eq!(*console.typed.lock().unwrap(), *lines);
        }
        assert!(quiesce_limit_s(&minecraft) > 2 * SAVING_LIMIT.as_secs(), "each line may take that long");
    }
}
