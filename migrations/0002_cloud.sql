-- Where a server's host is rented: provider, region, size. JSON, empty for servers that have no say in it.
ALTER TABLE servers ADD COLUMN place TEXT NOT NULL DEFAULT '{}';

-- Every host that was ever rented, for the bill: written with the event that brought it, ended with the one that saw
-- it gone. The price is JSON with millionths of a unit of currency, NULL where the provider did not say.
CREATE TABLE rentals (
    provider TEXT NOT NULL,
    host TEXT NOT NULL,
    server TEXT NOT NULL REFERENCES servers (id),
    -- Who asked for the start.
    actor TEXT NOT NULL,
    region TEXT NOT NULL,
    size TEXT NOT NULL,
    price TEXT,
    began_at BIGINT NOT NULL,
    ended_at BIGINT,
    PRIMARY KEY (provider, host)
);
CREATE INDEX rentals_server ON rentals (server, began_at);
CREATE INDEX rentals_open ON rentals (server) WHERE ended_at IS NULL;
