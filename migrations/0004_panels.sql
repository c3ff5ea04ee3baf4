-- A panel that is to be posted has no message yet, and these characters for Discord, which make a second try within some
-- minutes find the first one.
ALTER TABLE panels ADD COLUMN once TEXT NOT NULL DEFAULT '';
