-- Rows as they stand in the tables of migration 1, for the migrations after it. Never changed once released.
INSERT INTO meta (key, value) VALUES ('instance', 'abc');
INSERT INTO servers (id, guild, name, game, backend, settings, limits, wanted, owned, lease_until, memo,
    update_at_start, channel, created_at, created_by, deleted_at)
VALUES ('a', '1', 'world', 'openttd', 'docker', '{"MOTD":"it''s on"}', '{"idle_min":5}', 'on',
    '{"address":"127.0.0.1:7000","ports":{"game":7000}}', 900, '{"joined":true,"idle_warned":false}', 1, '77', 5,
    '{"actor":"discord","id":"9","name":"alice"}', NULL);
INSERT INTO secrets (server, key, value) VALUES ('a', 'PASSWORD', 'swordfish');
INSERT INTO ports (place, port, server) VALUES ('this machine', 7000, 'a');
INSERT INTO jobs (id, subject, subject_json, guild, game, action, action_json, cause, cause_json, actor, channel,
    plan, created_at)
VALUES (1, 'server:a', '{"subject":"server","id":"a"}', '1', 'openttd', 'start', '{"action":"start"}', 'crashed',
    '{"cause":"crashed","exit_code":1,"out_of_memory":false}', '{"actor":"watcher"}', '77',
    '["clone_drive","start_game"]', 10);
INSERT INTO events (job, seq, at, event) VALUES (1, 0, 11, '{"event":"started","step":"clone_drive"}');
INSERT INTO events (job, seq, at, event)
VALUES (1, 1, 12, '{"event":"finished","step":"clone_drive","gain":{"note":"done"}}');
INSERT INTO job_log (job, step, n, at, line) VALUES (1, 'clone_drive', 0, 11, 'a line');
INSERT INTO snapshots (id, game, version, image, install_key, files, bytes, created_at, sealed_at)
VALUES ('openttd-1', 'openttd', 1, 'image', 'key', 3, 4, 1, 2);
INSERT INTO grants (guild, kind, grantee, server, permission, granted_by)
VALUES ('1', 'role', '7', '', 'play', '{"actor":"operator"}');
INSERT INTO audit (id, at, guild, actor, action, server, detail, outcome)
VALUES (1, 10, '1', '{"actor":"token","name":"ci"}', 'start', 'world', '', 'done');
INSERT INTO notices (id, guild, channel, server, notice, created_at)
VALUES (1, '1', '77', 'a', '{"notice":"idle_stop","server":"world","in_ms":60000}', 10);
INSERT INTO panels (server, channel, message) VALUES ('a', '77', '88');
INSERT INTO job_messages (job, channel, message, hash) VALUES (1, '77', '89', 'h');
