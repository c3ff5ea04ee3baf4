-- One text for SQLite and PostgreSQL: TEXT, BIGINT (moments in ms, 0/1 for no and yes), JSON as TEXT.
-- State is derived and stored nowhere: a server has a wish, a job has events.

CREATE TABLE meta (
    key TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL
);

CREATE TABLE servers (
    id TEXT PRIMARY KEY NOT NULL,
    guild TEXT NOT NULL,
    name TEXT NOT NULL,
    game TEXT NOT NULL,
    backend TEXT NOT NULL,
    settings TEXT NOT NULL,
    limits TEXT NOT NULL,
    wanted TEXT NOT NULL,
    owned TEXT NOT NULL,
    lease_until BIGINT,
    memo TEXT NOT NULL,
    update_at_start BIGINT NOT NULL,
    channel TEXT,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    deleted_at BIGINT
);
-- A name is free again once its server is deleted.
CREATE UNIQUE INDEX servers_name ON servers (guild, name) WHERE deleted_at IS NULL;

CREATE TABLE secrets (
    server TEXT NOT NULL REFERENCES servers (id),
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (server, key)
);

-- Who holds which number. `place` is the machine: two rented hosts may both use 27015. A number belongs to one
-- server whatever the protocol.
CREATE TABLE ports (
    place TEXT NOT NULL,
    port BIGINT NOT NULL,
    server TEXT NOT NULL REFERENCES servers (id),
    PRIMARY KEY (place, port)
);
CREATE INDEX ports_server ON ports (server);

CREATE TABLE jobs (
    id BIGINT PRIMARY KEY NOT NULL,
    subject TEXT NOT NULL,
    subject_json TEXT NOT NULL,
    guild TEXT NOT NULL,
    game TEXT NOT NULL,
    action TEXT NOT NULL,
    action_json TEXT NOT NULL,
    cause TEXT NOT NULL,
    cause_json TEXT NOT NULL,
    actor TEXT NOT NULL,
    channel TEXT,
    plan TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    claimed_by TEXT,
    claimed_until BIGINT,
    outcome TEXT,
    closed_at BIGINT,
    end_told BIGINT NOT NULL DEFAULT 0
);
-- One open job for each subject.
CREATE UNIQUE INDEX jobs_open ON jobs (subject) WHERE outcome IS NULL;
CREATE INDEX jobs_subject ON jobs (subject, id);
CREATE INDEX jobs_game ON jobs (game, action, id);
CREATE INDEX jobs_untold ON jobs (id) WHERE end_told = 0;

-- The primary key is the second fence between two engines.
CREATE TABLE events (
    job BIGINT NOT NULL REFERENCES jobs (id),
    seq BIGINT NOT NULL,
    at BIGINT NOT NULL,
    event TEXT NOT NULL,
    PRIMARY KEY (job, seq)
);

CREATE TABLE job_log (
    job BIGINT NOT NULL REFERENCES jobs (id),
    step TEXT NOT NULL,
    n BIGINT NOT NULL,
    at BIGINT NOT NULL,
    line TEXT NOT NULL,
    PRIMARY KEY (job, step, n)
);

CREATE TABLE snapshots (
    id TEXT PRIMARY KEY NOT NULL,
    game TEXT NOT NULL,
    version BIGINT NOT NULL,
    image TEXT NOT NULL,
    install_key TEXT NOT NULL,
    files BIGINT,
    bytes BIGINT,
    created_at BIGINT NOT NULL,
    sealed_at BIGINT
);

-- An empty `server` means all servers of the guild; NULL could not be part of the key.
CREATE TABLE grants (
    guild TEXT NOT NULL,
    kind TEXT NOT NULL,
    grantee TEXT NOT NULL,
    server TEXT NOT NULL,
    permission TEXT NOT NULL,
    granted_by TEXT NOT NULL,
    PRIMARY KEY (guild, kind, grantee, server)
);

CREATE TABLE audit (
    id BIGINT PRIMARY KEY NOT NULL,
    at BIGINT NOT NULL,
    guild TEXT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    server TEXT,
    detail TEXT NOT NULL,
    outcome TEXT NOT NULL
);
CREATE INDEX audit_guild ON audit (guild, id);

-- What people should hear, kept until a front has told it.
CREATE TABLE notices (
    id BIGINT PRIMARY KEY NOT NULL,
    guild TEXT NOT NULL,
    channel TEXT,
    server TEXT NOT NULL,
    notice TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    told_at BIGINT
);
CREATE INDEX notices_waiting ON notices (id) WHERE told_at IS NULL;

CREATE TABLE panels (
    server TEXT PRIMARY KEY NOT NULL REFERENCES servers (id),
    channel TEXT NOT NULL,
    message TEXT NOT NULL
);

CREATE TABLE job_messages (
    job BIGINT PRIMARY KEY NOT NULL REFERENCES jobs (id),
    channel TEXT NOT NULL,
    message TEXT NOT NULL,
    hash TEXT NOT NULL
);
