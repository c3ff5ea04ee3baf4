-- What a store of version 3 may hold.
INSERT INTO schedules (guild, number, server, does, rule, zone, made_by, made_at, due_at, look_at, last)
VALUES ('1', 1, 'a', '{"does":"command","line":"save"}', 'fri,sat 19:30', 'Europe/Berlin',
    '{"actor":"discord","id":"9","name":"alice"}', 5, 900, 960,
    '{"due_at":300,"came":{"came":"skipped","why":{"skipped":"busy","why":"it''s on"}}}');
