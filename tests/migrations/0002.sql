-- What a store of version 2 may hold.
INSERT INTO rentals (provider, host, server, actor, region, size, price, began_at, ended_at) VALUES
    ('hetzner', '4711', 'a', '{"actor":"operator"}', 'nbg1', 'cx23',
     '{"hourly":6000,"currency":"EUR","unit_ms":3600000}', 5, NULL);
