-- Timed rules. Who changes `due_at` from what they read has dealt with that time, and nobody else has.
CREATE TABLE schedules (
    guild TEXT NOT NULL,
    -- What people call it by; counted up in `meta`, never given twice.
    number BIGINT NOT NULL,
    server TEXT NOT NULL REFERENCES servers (id),
    does TEXT NOT NULL,
    rule TEXT NOT NULL,
    zone TEXT NOT NULL,
    made_by TEXT NOT NULL,
    made_at BIGINT NOT NULL,
    due_at BIGINT NOT NULL,
    look_at BIGINT NOT NULL,
    -- What became of it last, as JSON.
    last TEXT,
    PRIMARY KEY (guild, number)
);
CREATE INDEX schedules_look ON schedules (look_at);
CREATE INDEX schedules_server ON schedules (server);
