-- What a store of version 5 may hold.
INSERT INTO former_secrets (server, value, changed_at) VALUES ('a', 'marlin', 700);
