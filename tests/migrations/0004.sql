-- What a store of version 4 may hold.
UPDATE panels SET once = 'a-1' WHERE server = 'a';
