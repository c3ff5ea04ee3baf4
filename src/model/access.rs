//! Who may do what. Every front comes here through `app`, so the same rules bind all of them.

use super::{GuildId, ServerId};
use serde::{Deserialize, Serialize};

/// Who asked. Recorded with every job and in the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "actor")]
pub enum Actor {
    /// Somebody in Discord. `name` is for showing; only `id` counts.
    Discord { id: String, name: String },
    /// The holder of an API token, by the token's name.
    Token { name: String },
    /// A timed rule. It acts with the rights of the Discord user who made it, as they are when it is due.
    Schedule {
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user: Option<String>,
    },
    /// Spawnpoint itself: a lease that is over, nobody on, a crash.
    Watcher,
    /// Whoever runs the binary on the machine: the command line and the demo.
    Operator,
}

impl Actor {
    /// Plain text for a line in a message or a log. Fronts escape it.
    pub fn name(&self) -> &str {
        match self {
            Actor::Discord { name, .. } => name,
            Actor::Token { name } => name,
            Actor::Schedule { name, .. } => name,
            Actor::Watcher => "Spawnpoint",
            Actor::Operator => "the operator",
        }
    }

    /// Whether both are the same, whatever somebody in Discord calls themselves now.
    pub fn is_same(&self, other: &Actor) -> bool {
        match (self, other) {
            (Actor::Discord { id, .. }, Actor::Discord { id: other, .. }) => id == other,
            (own, other) => own == other,
        }
    }
}

/// What somebody brings along when they ask: who they are and what they hold in this guild at this moment.
/// Nothing here is stored; Discord sends it with each interaction.
#[derive(Clone, Debug, PartialEq)]
pub struct Caller {
    pub actor: Actor,
    pub guild: GuildId,
    /// Ids of the roles they hold in the guild.
    pub roles: Vec<String>,
    /// Names of these roles, for the default `players` role.
    pub role_names: Vec<String>,
    /// They administer the guild by Discord's own permissions, or run the binary.
    pub admin: bool,
}

impl Caller {
    pub fn operator(guild: GuildId) -> Caller {
        Caller { actor: Actor::Operator, guild, roles: vec![], role_names: vec![], admin: true }
    }
}

/// What may be granted. Each one includes those before it in [`Permission::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// See servers, their state and who is on.
    View,
    /// Start, stop, restart and extend; cancel and retry what runs; make backups.
    Play,
    /// Type into the console, read the log, change settings, create servers, restore, update and move, accept a world
    /// that became smaller.
    Operate,
    /// Everything: delete, kill, force, build snapshots, grant permissions, read the audit log.
    Admin,
}

impl Permission {
    pub const ALL: [Permission; 4] = [Permission::View, Permission::Play, Permission::Operate, Permission::Admin];

    pub fn word(self) -> &'static str {
        match self {
            Permission::View => "view",
            Permission::Play => "play",
            Permission::Operate => "operate",
            Permission::Admin => "admin",
        }
    }

    /// What it allows, for people.
    pub fn help(self) -> &'static str {
        match self {
            Permission::View => "see servers, their state and who is on",
            Permission::Play => "start, stop, restart, extend and back up",
            Permission::Operate => {
                "use the console, read logs, change settings, create, restore, update and move servers"
            }
            Permission::Admin => "everything, with deleting, killing, forcing, snapshots and permissions",
        }
    }

    pub fn parse(word: &str) -> Option<Permission> {
        Permission::ALL.into_iter().find(|permission| permission.word() == word)
    }
}

/// Whom a grant is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "id")]
pub enum Grantee {
    User(String),
    Role(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub grantee: Grantee,
    pub permission: Permission,
    /// `None`: all servers of the guild.
    pub server: Option<ServerId>,
}

/// Defaults where nothing was granted: members look, the players role plays, the guild's administrators do everything.
pub fn permission(caller: &Caller, grants: &[Grant], server: Option<&ServerId>, players_role: &str) -> Permission {
    if caller.admin {
        return Permission::Admin;
    }
    let default = if caller.role_names.iter().any(|name| name.eq_ignore_ascii_case(players_role)) {
        Permission::Play
    } else {
        Permission::View
    };
    let covers = |grant: &&Grant| {
        let place = grant.server.is_none() || grant.server.as_ref() == server;
        let person = match (&grant.grantee, &caller.actor) {
            (Grantee::User(user), Actor::Discord { id, .. }) => user == id,
            (Grantee::User(user), Actor::Schedule { user: behind, .. }) => behind.as_ref() == Some(user),
            (Grantee::User(_), Actor::Token { .. } | Actor::Watcher | Actor::Operator) => false,
            (Grantee::Role(role), _) => caller.roles.contains(role),
        };
        place && person
    };
    grants.iter().filter(covers).map(|grant| grant.permission).max().map_or(default, |granted| granted.max(default))
}

pub fn allows(
    caller: &Caller,
    grants: &[Grant],
    server: Option<&ServerId>,
    players_role: &str,
    needed: Permission,
) -> bool {
    permission(caller, grants, server, players_role) >= needed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(id: &str, roles: &[(&str, &str)]) -> Caller {
        Caller {
            actor: Actor::Discord { id: id.into(), name: format!("name of {id}") },
            guild: GuildId("1".into()),
            roles: roles.iter().map(|(id, _)| id.to_string()).collect(),
            role_names: roles.iter().map(|(_, name)| name.to_string()).collect(),
            admin: false,
        }
    }

    #[test]
    fn who_may_do_what() {
        let world = ServerId("world".into());
        let other = ServerId("other".into());
        let grants = [
            Grant {
                grantee: Grantee::User("alice".into()),
                permission: Permission::Operate,
                server: Some(world.clone()),
            },
            Grant { grantee: Grantee::Role("7".into()), permission: Permission::Admin, server: None },
        ];
        let mut table = String::new();
        let people = [
            ("member", caller("bob", &[])),
            ("player", caller("bob", &[("3", "Players")])),
            ("alice", caller("alice", &[])),
            ("role 7", caller("carol", &[("7", "crew")])),
            ("role named 7", caller("dan", &[("8", "7")])),
            ("guild admin", Caller { admin: true, ..caller("eve", &[]) }),
        ];
        for (name, caller) in people {
            let at = |server: Option<&ServerId>| permission(&caller, &grants, server, "players").word();
            table +=
                &format!("{name:13} world:{:8} other:{:8} guild:{}\n", at(Some(&world)), at(Some(&other)), at(None));
        }
        insta::assert_snapshot!(table, @r"
        member        world:view     other:view     guild:view
        player        world:play     other:play     guild:play
        alice         world:operate  other:view     guild:view
        role 7        world:admin    other:admin    guild:admin
        role named 7  world:view     other:view     guild:view
        guild admin   world:admin    other:admin    guild:admin
        ");
    }

    #[test]
    fn a_name_that_looks_like_an_id_gives_no_rights() {
        let grants = [Grant { grantee: Grantee::User("alice".into()), permission: Permission::Admin, server: None }];
        let mut impostor = caller("mallory", &[]);
        impostor.actor = Actor::Discord { id: "mallory".into(), name: "alice".into() };
        assert!(!allows(&impostor, &grants, None, "players", Permission::Play));
        let token = Caller { actor: Actor::Token { name: "alice".into() }, ..impostor };
        assert!(!allows(&token, &grants, None, "players", Permission::Play));
        let schedule = |user: &str| Actor::Schedule { name: "alice".into(), user: Some(user.into()) };
        let theirs = Caller { actor: schedule("mallory"), ..token.clone() };
        assert!(!allows(&theirs, &grants, None, "players", Permission::Play));
        let hers = Caller { actor: schedule("alice"), ..token };
        assert!(allows(&hers, &grants, None, "players", Permission::Admin), "it acts for who made it");
    }
}
