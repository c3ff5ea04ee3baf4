//! Who may do what, changed and looked up.

use super::{Answer, App, Did, Refusal};
use crate::model::access::{Caller, Grant, Grantee, Permission};
use crate::store::audit::AuditEntry;

/// Lines of the audit log that one answer holds at most.
pub const AUDIT_MAX: usize = 50;

impl App {
    pub async fn grant(
        &self,
        caller: &Caller,
        grantee: Grantee,
        permission: Permission,
        server: Option<&str>,
    ) -> Answer<String> {
        let detail = format!("{} to {}", permission.word(), shown(&grantee));
        let work = Box::pin(async {
            self.require(caller, None, Permission::Admin).await?;
            let server = match server {
                Some(name) => Some(self.server(caller, name, Permission::Admin).await?),
                None => None,
            };
            let id = server.as_ref().map(|server| server.id.clone());
            self.store().grant(&caller.guild, &Grant { grantee, permission, server: id }, &caller.actor).await?;
            let place = server.map_or("all servers here".to_owned(), |server| format!("`{}`", server.name));
            Ok(format!("Granted “{}” for {place}: {}.", permission.word(), permission.help()))
        });
        self.audited(caller, Did { action: "grant", server, detail }, work).await
    }

    pub async fn revoke(&self, caller: &Caller, grantee: Grantee, server: Option<&str>) -> Answer<String> {
        let detail = format!("from {}", shown(&grantee));
        let work = Box::pin(async {
            self.require(caller, None, Permission::Admin).await?;
            let server = match server {
                Some(name) => Some(self.server(caller, name, Permission::Admin).await?),
                None => None,
            };
            let id = server.as_ref().map(|server| &server.id);
            match self.store().revoke(&caller.guild, &grantee, id).await? {
                0 => Err(Refusal::NotFound("There is no such grant. `/admin audit` shows what was granted.".into())),
                1 => Ok("One grant was taken back.".to_owned()),
                many => Ok(format!("{many} grants were taken back.")),
            }
        });
        self.audited(caller, Did { action: "revoke", server, detail }, work).await
    }

    /// All grants of the guild, with the names of the servers they are for.
    pub async fn grants(&self, caller: &Caller) -> Answer<Vec<(Grant, Option<String>)>> {
        self.require(caller, None, Permission::Admin).await?;
        let servers = self.store().servers_of(&caller.guild).await?;
        let name = |grant: &Grant| {
            let server = servers.iter().find(|server| Some(&server.id) == grant.server.as_ref());
            server.map(|server| server.name.to_string())
        };
        let grants = self.store().grants(&caller.guild).await?;
        Ok(grants.into_iter().map(|grant| (grant.clone(), name(&grant))).collect())
    }

    /// The newest lines of the audit log, newest first.
    pub async fn audit(&self, caller: &Caller, server: Option<&str>, limit: usize) -> Answer<Vec<AuditEntry>> {
        self.require(caller, None, Permission::Admin).await?;
        Ok(self.store().audit(&caller.guild, server, limit.min(AUDIT_MAX)).await?)
    }
}

fn shown(grantee: &Grantee) -> String {
    match grantee {
        Grantee::User(id) => format!("user {id}"),
        Grantee::Role(id) => format!("role {id}"),
    }
}
