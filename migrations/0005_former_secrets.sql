-- What secrets were before they were changed. The running game has them until its next start, and may print them.
CREATE TABLE former_secrets (
    server TEXT NOT NULL REFERENCES servers (id),
    value TEXT NOT NULL,
    changed_at BIGINT NOT NULL
);
CREATE INDEX former_secrets_server ON former_secrets (server);
